package etcd

import (
	"context"
	"fmt"
	"slices"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"hongyan/internal/control"
)

// Value implements control.Values, from memory.
func (c *Center) Value(ctx context.Context, key string) (control.Value, error) {
	if err := control.ValidKey(key); err != nil {
		return control.Value{}, err
	}
	if err := c.check(ctx); err != nil {
		return control.Value{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.values.all()[key]; ok && control.ValidValue(key, e.data) == nil {
		return e.value(key), nil
	}
	return control.Value{Key: key}, nil
}

// value never has nil data: that would mean it is not set.
func (e entry) value(key string) control.Value {
	data := e.data
	if data == nil {
		data = []byte{}
	}
	return control.Value{Key: key, Data: data, Revision: e.revision}
}

// PutValue implements control.Values. It needs etcd.
func (c *Center) PutValue(ctx context.Context, key string, data []byte, revision int64) (control.Value, error) {
	if err := control.ValidValue(key, data); err != nil {
		return control.Value{}, err
	}
	if err := c.check(ctx); err != nil {
		return control.Value{}, err
	}
	client, err := c.connected()
	if err != nil {
		return control.Value{}, err
	}
	whole := c.values.prefix + key
	write := clientv3.OpPut(whole, string(data))
	if data == nil {
		write = clientv3.OpDelete(whole)
	}
	var unchanged []clientv3.Cmp
	if revision >= 0 {
		unchanged = append(unchanged, clientv3.Compare(clientv3.ModRevision(whole), "=", revision))
	}
	tctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	resp, err := client.Txn(tctx).If(unchanged...).Then(write).Commit()
	if err != nil {
		return control.Value{}, fmt.Errorf("put %s: %w", key, err)
	}
	c.awaitRevision(ctx, c.values, resp.Header.Revision)
	if !resp.Succeeded {
		return control.Value{}, fmt.Errorf("put %s at revision %d: %w", key, revision, control.ErrConflict)
	}
	if data == nil {
		return control.Value{Key: key}, nil
	}
	return control.Value{Key: key, Data: data, Revision: resp.Header.Revision}, nil
}

// WatchValues implements control.Values.
func (c *Center) WatchValues(ctx context.Context, prefix string, fn func([]control.Value)) error {
	var shown []control.Value
	first := true
	return c.show(ctx, func() func() {
		now := c.valuesUnderLocked(prefix)
		if !first && slices.EqualFunc(now, shown, sameValue) {
			return nil
		}
		first, shown = false, now
		return func() { fn(now) }
	})
}

func sameValue(a, b control.Value) bool { return a.Key == b.Key && a.Revision == b.Revision }

func (c *Center) valuesUnderLocked(prefix string) []control.Value {
	var set []control.Value
	for key, e := range c.values.all() {
		if strings.HasPrefix(key, prefix) && control.ValidValue(key, e.data) == nil {
			set = append(set, e.value(key))
		}
	}
	slices.SortFunc(set, func(a, b control.Value) int { return strings.Compare(a.Key, b.Key) })
	return set
}

// checkValuesLocked tells of keys that somebody wrote who does not keep to the rules.
func (c *Center) checkValuesLocked() {
	bad := map[string]bool{}
	for key, e := range c.values.entries {
		if err := control.ValidValue(key, e.data); err != nil {
			bad[key] = true
			c.badLocked(c.values, key, e, err)
		}
	}
	c.sweepLocked(c.values, bad)
}
