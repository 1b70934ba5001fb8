package redis

import (
	"encoding/json"
	"fmt"
	"strconv"

	"hongyan/internal/presence"
)

// key of a user's hash. The length of the tenant keeps ("a", "b/c") from ("a/b", "c"). Each
// script has one key, so no hash tag is needed in a cluster.
func (c *Cache) key(u presence.User) string {
	return c.cfg.Prefix + strconv.Itoa(len(u.Tenant)) + ":" + u.Tenant + "/" + u.UID
}

// epochDigits make epochs of 64 bits compare as text: Lua's numbers have 53.
func epochDigits(epoch uint64) string { return fmt.Sprintf("%020d", epoch) }

// change is the call of write.lua for one change.
func (c *Cache) change(ch presence.Change) (call, error) {
	args := make([]string, 0, 2+3*max(1, len(ch.Routes)))
	args = append(args, milliseconds(c.cfg.TTL), milliseconds(c.cfg.Remember))
	if len(ch.Routes) == 0 {
		args = append(args, ch.Device, epochDigits(ch.SessionEpoch), "")
	}
	for i := range ch.Routes {
		r := &ch.Routes[i]
		if r.Device == "" {
			return call{}, fmt.Errorf("presence of %s: a route without a device", ch.User.UID)
		}
		text, err := json.Marshal(r)
		if err != nil {
			return call{}, fmt.Errorf("presence of %s: %w", ch.User.UID, err)
		}
		args = append(args, r.Device, epochDigits(r.SessionEpoch), string(text))
	}
	return call{c.key(ch.User), args}, nil
}

// decodeRoutes reads what read.lua returned. What is not ours to read is left out: nobody can
// be reached by it.
func decodeRoutes(texts []string) []presence.Route {
	routes := make([]presence.Route, 0, len(texts))
	for _, text := range texts {
		var r presence.Route
		if json.Unmarshal([]byte(text), &r) == nil && r.Device != "" {
			routes = append(routes, r)
		}
	}
	return routes
}
