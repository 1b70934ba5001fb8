package e2e

import (
	"context"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"hongyan/internal/route"
	"hongyan/tests/e2e/cluster"
	"hongyan/tests/e2e/load"
	"hongyan/tests/servers"
)

// redisCommand runs one command on a Redis.
func redisCommand(addr string, args ...string) error {
	c, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{addr}, ForceSingleClient: true, DisableCache: true})
	if err != nil {
		return err
	}
	defer c.Close()
	return c.Do(context.Background(), c.B().Arbitrary(args...).Build()).Error()
}

// TestP6Presence: Redis is flushed, then down, under load: nothing is lost, nobody with an open
// connection is taken for offline (R21), and presence is right within a period of renewals.
func TestP6Presence(t *testing.T) {
	const period = 2 * time.Second
	for _, name := range []string{"ENTRY_GATE_RENEW_EVERY", "HTTPENTRY_GATE_RENEW_EVERY", "LOGIC_RENEW_PERIOD"} {
		t.Setenv("HONGYAN_"+name, period.String())
	}
	redis := servers.StartRedis(t)
	t.Setenv("HONGYAN_PRESENCE_ADDRS", redis.Addr)
	s := cluster.Gateways(t, "")
	l := load.Start(t, s, 4)
	// The asker's home has to ask the cache about who lives elsewhere.
	asker := newDevice(t, s, "asker", "d", "tcp")
	var elsewhere []string
	for _, uid := range l.Users() {
		if route.Hash(cluster.Tenant, uid)%cluster.Logics != route.Hash(cluster.Tenant, "asker")%cluster.Logics {
			elsewhere = append(elsewhere, uid)
		}
	}
	if len(elsewhere) == 0 {
		t.Fatal("all users live with the asker")
	}
	present := func(what string, within time.Duration) {
		t.Helper()
		cluster.Eventually(t, within, what+": "+strings.Join(elsewhere, ", ")+" are online", func() bool {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			found, err := asker.Presence(ctx, elsewhere...)
			online := 0
			for _, p := range found {
				if p.Online {
					online++
				}
			}
			return err == nil && online == len(elsewhere)
		})
	}
	l.Progresses(50)
	present("at first", 2*period)
	for range 5 { // again and again within one period
		if err := redisCommand(redis.Addr, "FLUSHALL"); err != nil {
			t.Fatal(err)
		}
		l.Progresses(20)
	}
	present("after FLUSHALL", 3*period)
	if n := sum(t, s, "hongyan_logic_wakes_total"); n != 0 {
		t.Errorf("%v wakes of users who are connected", n)
	}

	redis.Kill()
	l.Progresses(100)
	redis.Start()
	present("after a restart", 4*period)

	if err := redisCommand(redis.Addr, "FLUSHALL"); err != nil { // and a home dies with what only it knew
		t.Fatal(err)
	}
	s.Procs["logic-1"].Kill()
	l.Progresses(50)
	s.Procs["logic-1"].Restart()
	l.Progresses(50)
	present("after a home died", 6*period)
	l.Finish()
}

// sum adds a counter without labels up over the logics.
func sum(t testing.TB, s *cluster.System, name string) (total float64) {
	t.Helper()
	for _, addr := range s.Admin {
		rsp, err := http.Get("http://" + addr + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(rsp.Body)
		rsp.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(body)) {
			if value, ok := strings.CutPrefix(line, name+" "); ok {
				n, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
				if err != nil {
					t.Fatal(err)
				}
				total += n
			}
		}
	}
	return total
}
