package redis_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"hongyan/internal/presence"
	"hongyan/internal/presence/presencetest"
	"hongyan/internal/presence/redis"
	"hongyan/tests/servers"
)

// later makes the keys of a prefix older by ARGV[1] ms, as if the server's clock had moved.
const later = `
local left = redis.call('PTTL', KEYS[1]) - ARGV[1]
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
	local v = all[i + 1]
	if #v > 0 then
		local expiry = string.format('%013.0f', tonumber(string.sub(v, 22, 34)) - ARGV[1])
		redis.call('HSET', KEYS[1], all[i], string.sub(v, 1, 21) .. expiry .. string.sub(v, 35))
	end
end
if left > 0 then redis.call('PEXPIRE', KEYS[1], string.format('%.0f', left)) else redis.call('DEL', KEYS[1]) end`

func TestSuite(t *testing.T) {
	addr := servers.Shared(t, "HONGYAN_TEST_REDIS")
	suite(t, admin(t, addr), nil, config(addr))
}

// suite runs the suite on what cfg names. servers are all of a cluster, for KEYS is not for
// the whole of one.
func suite(t *testing.T, client rueidis.Client, servers []rueidis.Client, cfg redis.Config) {
	if servers == nil {
		servers = []rueidis.Client{client}
	}
	var prefix string
	each := func(t testing.TB, f func(key string)) {
		for _, s := range servers {
			for _, key := range keys(t, s, prefix) {
				f(key)
			}
		}
	}
	n := 0
	presencetest.Run(t, presencetest.Backend{
		Open: func(t *testing.T, ttl, remember time.Duration) presence.Cache {
			own := cfg
			n++
			own.TTL, own.Remember, own.Prefix, own.Timeout = ttl, remember, fmt.Sprint(cfg.Prefix, n, ":"), 5*time.Second
			prefix = own.Prefix
			t.Cleanup(func() { each(t, func(key string) { do(t, client, "UNLINK", key) }) })
			return open(t, own)
		},
		Flush: func(t *testing.T, _ presence.Cache) { each(t, func(key string) { do(t, client, "DEL", key) }) },
		Sleep: func(d time.Duration) {
			each(t, func(key string) { do(t, client, "EVAL", later, "1", key, fmt.Sprint(d.Milliseconds())) })
		},
	}, nil)
}

var alice = presence.User{Tenant: "t", UID: "alice"}

func phone(epoch uint64) presence.Route {
	return presence.Route{Device: "phone", Class: "mobile", Platform: "ios", Gateway: "10.0.0.1:7000", Boot: "g1",
		Conn: epoch, SessionEpoch: epoch, IP: "192.0.2.1", LoginMS: 1_700_000_000_000}
}

// MF-05: all connections of a user by his uid, one of them by uid and field, also by hand:
// HGETALL and HGET of one key.
func TestMF05OneHashAUserOneFieldADevice(t *testing.T) {
	addr := servers.Shared(t, "HONGYAN_TEST_REDIS")
	cfg := config(addr)
	c, client := open(t, cfg), admin(t, addr)
	defer clean(t, client, cfg.Prefix)
	pad := phone(2)
	pad.Device = "pad"
	if err := c.Put(t.Context(), alice, phone(1), pad); err != nil {
		t.Fatal(err)
	}
	all := keys(t, client, cfg.Prefix)
	if len(all) != 1 || all[0] != cfg.Prefix+"1:t/alice" {
		t.Fatalf("keys are %v", all)
	}
	value, err := do(t, client, "HGET", all[0], "pad").ToString()
	if err != nil {
		t.Fatal(err)
	}
	var got presence.Route
	if err := json.Unmarshal([]byte(value[strings.IndexByte(value, '{'):]), &got); err != nil || got != pad {
		t.Errorf("the field holds %s: %v", value, err)
	}
	if ttl, err := do(t, client, "PTTL", all[0]).AsInt64(); err != nil || ttl < 23*3600*1000 {
		t.Errorf("the hash expires in %d ms: %v", ttl, err)
	}
}

// Session epochs are 64 bits wide, Lua's numbers 53. Seen to fail with tonumber(epoch).
func TestEpochsBeyondLuasNumbers(t *testing.T) {
	addr := servers.Shared(t, "HONGYAN_TEST_REDIS")
	cfg := config(addr)
	c := open(t, cfg)
	defer clean(t, admin(t, addr), cfg.Prefix)
	const high = 1<<63 + 1
	for _, epoch := range []uint64{high, high - 1} {
		if err := c.Put(t.Context(), alice, phone(epoch)); err != nil {
			t.Fatal(err)
		}
	}
	got, err := c.Get(t.Context(), []presence.User{alice})
	if err != nil || len(got[0].Routes) != 1 || got[0].Routes[0].SessionEpoch != high {
		t.Errorf("%+v, %v", got, err)
	}
}

// What is not a route of ours neither hides a user nor stops a write.
func TestForeignFieldsAreNoRoutes(t *testing.T) {
	addr := servers.Shared(t, "HONGYAN_TEST_REDIS")
	cfg := config(addr)
	c, client := open(t, cfg), admin(t, addr)
	defer clean(t, client, cfg.Prefix)
	key := cfg.Prefix + "1:t/alice"
	do(t, client, "HSET", key, "x", "what is this", "y", strings.Repeat("9", 20)+" 9999999999999 {no json")
	if got, err := c.Get(t.Context(), []presence.User{alice}); err != nil || !got[0].Known || len(got[0].Routes) != 0 {
		t.Errorf("%+v, %v", got, err)
	}
	if err := c.Put(t.Context(), alice, phone(1)); err != nil {
		t.Fatal(err)
	}
	if got, err := c.Get(t.Context(), []presence.User{alice}); err != nil || len(got[0].Routes) != 1 {
		t.Errorf("%+v, %v", got, err)
	}
	do(t, client, "DEL", key)
	do(t, client, "SET", key, "not a hash")
	if _, err := c.Get(t.Context(), []presence.User{alice}); err == nil {
		t.Error("a key of another type was taken for an answer")
	}
	if err := c.Put(t.Context(), alice, phone(1)); err == nil {
		t.Error("a write that was refused looks made")
	}
	if err := c.Put(t.Context(), alice, presence.Route{}); err == nil {
		t.Error("a route without a device was put")
	}
}

// A restarted Redis knows neither scripts nor users: not known, then right again with the next
// renewal (P6, R21).
func TestP6RestartedRedisIsFilledAgain(t *testing.T) {
	s := servers.StartRedis(t)
	cfg := config(s.Addr)
	cfg.Pause = 50 * time.Millisecond
	c := open(t, cfg)
	put := func() error { return c.Put(t.Context(), alice, phone(1)) }
	if err := put(); err != nil {
		t.Fatal(err)
	}
	s.Kill()
	if _, err := c.Get(t.Context(), []presence.User{alice}); err == nil {
		t.Fatal("a dead Redis answered")
	}
	s.Start()
	eventually(t, "it is asked again", func() bool {
		got, err := c.Get(t.Context(), []presence.User{alice})
		if err == nil && (got[0].Known || len(got[0].Routes) > 0) {
			t.Fatalf("an empty Redis knows %+v", got[0])
		}
		return err == nil
	})
	if err := put(); err != nil { // by hash: the server has no script
		t.Fatal(err)
	}
	if got, err := c.Get(t.Context(), []presence.User{alice}); err != nil || len(got[0].Routes) != 1 {
		t.Fatalf("%+v, %v", got, err)
	}
	client := one(t, s.Addr)
	do(t, client, "FLUSHALL")
	if got, err := c.Get(t.Context(), []presence.User{alice}); err != nil || got[0].Known {
		t.Fatalf("a flushed Redis: %+v, %v", got, err)
	}
	do(t, client, "SCRIPT", "FLUSH")
	many := make([]presence.Change, 600)
	for i := range many {
		many[i] = presence.Change{User: presence.User{UID: fmt.Sprint(i % 300)}, Routes: []presence.Route{phone(uint64(i))}}
	}
	if err := c.Apply(t.Context(), many); err != nil {
		t.Fatal(err)
	}
	got, err := c.Get(t.Context(), []presence.User{{UID: "299"}})
	if err != nil || len(got[0].Routes) != 1 || got[0].Routes[0].SessionEpoch != 599 {
		t.Fatalf("%+v, %v", got, err)
	}
}

// A Redis that hangs costs one timeout; then calls fail at once, until one finds it alive.
func TestP6HangingRedisDoesNotSlowItsCallers(t *testing.T) {
	s := servers.StartRedis(t)
	cfg := config(s.Addr)
	cfg.Timeout, cfg.Pause = 200*time.Millisecond, 300*time.Millisecond
	c := open(t, cfg)
	s.Signal(stop)
	var wg sync.WaitGroup
	began := time.Now()
	for range 8 {
		wg.Go(func() {
			for range 1000 {
				if _, err := c.Get(t.Context(), []presence.User{alice}); err == nil {
					t.Error("a hanging Redis answered")
				}
			}
		})
	}
	wg.Wait()
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("8 x 1000 calls of a hanging Redis took %v", took)
	}
	if err := c.Put(t.Context(), alice, phone(1)); !errors.Is(err, presence.ErrDown) {
		t.Errorf("the error is %v", err)
	}
	s.Signal(cont)
	eventually(t, "it is used again", func() bool { return c.Put(t.Context(), alice, phone(1)) == nil })
}

// A process starts without Redis, and finds it later.
func TestP6OpensWithoutRedis(t *testing.T) {
	s := servers.StartRedis(t)
	s.Kill()
	cfg := config(s.Addr)
	cfg.Pause = 20 * time.Millisecond
	c := open(t, cfg)
	if err := c.Put(t.Context(), alice, phone(1)); err == nil {
		t.Fatal("a dead Redis took a write")
	}
	s.Start()
	eventually(t, "it is found", func() bool { return c.Put(t.Context(), alice, phone(1)) == nil })
}

// A caller that gives up says nothing about Redis.
func TestCallersDeadlineOpensNoCircuit(t *testing.T) {
	s := servers.StartRedis(t)
	cfg := config(s.Addr)
	cfg.Timeout = 5 * time.Second // of the cache's own: never what ends the call here
	c := open(t, cfg)
	s.Signal(stop)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Get(ctx, []presence.User{alice}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the error is %v", err)
	}
	s.Signal(cont)
	eventually(t, "it is asked at once", func() bool {
		_, err := c.Get(t.Context(), []presence.User{alice})
		if errors.Is(err, presence.ErrDown) {
			t.Fatal(err)
		}
		return err == nil
	})
}

func TestUserPasswordAndDatabase(t *testing.T) {
	s := servers.StartRedis(t, "--requirepass", "secret")
	client, err := rueidis.NewClient(rueidis.ClientOption{
		InitAddress: []string{s.Addr}, Password: "secret", SelectDB: 3, ForceSingleClient: true, DisableCache: true})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	do(t, client, "ACL", "SETUSER", "hongyan", "on", ">pass", "~hongyan:*", "+@hash", "+@scripting", "+@connection", "+pexpire", "+time")
	cfg := config(s.Addr)
	cfg.User, cfg.Password, cfg.DB = "hongyan", "pass", 3
	if err := open(t, cfg).Put(t.Context(), alice, phone(1)); err != nil {
		t.Fatal(err)
	}
	if all := keys(t, client, cfg.Prefix); len(all) != 1 {
		t.Errorf("database 3 has %v", all)
	}
	cfg.Password = "wrong"
	if err := open(t, cfg).Put(t.Context(), alice, phone(1)); err == nil {
		t.Error("a wrong password was taken")
	}
}
