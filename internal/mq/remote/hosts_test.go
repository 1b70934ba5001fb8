package remote

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"hongyan/idl/code"
	"hongyan/idl/tier"
	"hongyan/internal/control"
	"hongyan/internal/control/local"
	"hongyan/internal/mq"
	"hongyan/internal/mq/memory"
	"hongyan/internal/route"
)

// site is one process that hosts a queue: it can be unreachable, or lose its answers.
type site struct {
	tier.Queue
	host  *Host
	queue mq.Queue

	mu    sync.Mutex
	down  error // what every call is answered with
	lost  bool  // the call is done, its answer is lost
	calls int
	got   []string // what its consumers handled: key/payload
}

func (s *site) Publish(ctx context.Context, req *tier.PublishBatch) (*tier.Accepted, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	if s.down != nil {
		return nil, s.down
	}
	rsp, err := s.host.Publish(ctx, req)
	if s.lost {
		return nil, code.Errorf(code.UnknownOutcome, "connection reset")
	}
	return rsp, err
}

func (s *site) set(down error, lost bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down, s.lost = down, lost
}

// take returns what was handled since the last time.
func (s *site) take() []string {
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	got := s.got
	s.got = nil
	return got
}

// sites are n hosts of queues in memory, with a publisher to them.
func sites(t *testing.T, n int) (*Publisher, []*site) {
	t.Helper()
	var all []*site
	var list []control.Instance
	for i := range n {
		queue, err := memory.Open(memory.Options{})
		if err != nil {
			t.Fatal(err)
		}
		s := &site{host: NewHost(queue), queue: queue}
		if err := queue.Subscribe(t.Context(), mq.TopicOffline, "g", func(_ context.Context, m mq.Message) error {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.got = append(s.got, m.Key+"/"+string(m.Payload))
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		all, list = append(all, s), append(list, control.Instance{Addr: fmt.Sprint(i), Slot: i})
	}
	center, err := local.New(map[string]control.Members{"extlogic": {Slots: n, Instances: list}})
	if err != nil {
		t.Fatal(err)
	}
	dial := func(addr string) (tier.Queue, error) {
		var i int
		_, err := fmt.Sscan(addr, &i)
		return all[i], err
	}
	pool := route.NewPool(center, "extlogic", dial, route.PoolOptions{})
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = pool.Run(ctx) })
	synctest.Wait()
	t.Cleanup(func() {
		stop()
		running.Wait()
		_ = center.Close()
		for _, s := range all {
			_ = s.queue.Close()
		}
	})
	return NewPublisher(pool), all
}

// messages are count entries of each key, in order.
func messages(count int, keys ...string) (list []mq.Message) {
	for i := range count {
		for _, k := range keys {
			list = append(list, mq.Message{Topic: mq.TopicOffline, Key: k, Payload: fmt.Append(nil, i)})
		}
	}
	return list
}

// keysOf parts what a site got by key, in the order in which it was handled.
func keysOf(got []string) map[string][]string {
	out := map[string][]string{}
	for _, g := range got {
		key, payload, _ := strings.Cut(g, "/")
		out[key] = append(out[key], payload)
	}
	return out
}

var keys = []string{"u0", "u1", "u2", "u3", "u4", "u5", "u6", "u7", "u8", "u9"}

func TestKeysStayWithTheirHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, hosts := sites(t, 2)
		at := map[string]int{}
		for round := range 2 {
			if err := p.Publish(t.Context(), messages(3, keys...)...); err != nil {
				t.Fatal(err)
			}
			for i, h := range hosts {
				if h.calls != round+1 {
					t.Errorf("host %d was called %d times for %d publishes", i, h.calls, round+1)
				}
				for key, payloads := range keysOf(h.take()) {
					if before, ok := at[key]; ok && before != i {
						t.Errorf("%s was at host %d, then at %d", key, before, i)
					}
					at[key] = i
					if !slices.Equal(payloads, []string{"0", "1", "2"}) {
						t.Errorf("%s at host %d: %v", key, i, payloads)
					}
				}
			}
		}
		if len(at) != len(keys) {
			t.Errorf("%d of %d keys arrived", len(at), len(keys))
		}
		if used := slices.Compact(slices.Sorted(maps.Values(at))); len(used) != 2 {
			t.Errorf("all keys went to host %v", used)
		}
	})
}

// A host that is down costs one failed call. What was for the others is stored all the
// same, the caller's repetition reaches a survivor, and the keys come home when it is back.
// Seen red: without Failed in Publish the repetition fails as well.
func TestOneHostIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, hosts := sites(t, 2)
		if err := p.Publish(t.Context(), messages(1, keys...)...); err != nil {
			t.Fatal(err)
		}
		home := slices.Sorted(maps.Keys(keysOf(hosts[1].take())))
		hosts[0].take()

		hosts[1].set(code.Errorf(code.Unavailable, "connection refused"), false)
		err := p.Publish(t.Context(), messages(1, keys...)...)
		if code.Of(err) != code.Unavailable || !strings.Contains(err.Error(), "publish at 1:") {
			t.Fatalf("one host down: %v", err)
		}
		if got := keysOf(hosts[0].take()); len(got) != len(keys)-len(home) {
			t.Errorf("the host that is up got %v", got)
		}
		calls := hosts[1].calls
		if err := p.Publish(t.Context(), messages(1, home...)...); err != nil {
			t.Errorf("repeated: %v", err)
		}
		if got := slices.Sorted(maps.Keys(keysOf(hosts[0].take()))); !slices.Equal(got, home) {
			t.Errorf("the survivor got %v, want %v", got, home)
		}
		if hosts[1].calls != calls {
			t.Error("a host known to be down was called")
		}

		hosts[1].set(nil, false)
		time.Sleep(time.Second)
		if err := p.Publish(t.Context(), messages(1, home...)...); err != nil {
			t.Errorf("back: %v", err)
		}
		if got := slices.Sorted(maps.Keys(keysOf(hosts[1].take()))); !slices.Equal(got, home) {
			t.Errorf("the host that is back got %v, want %v", got, home)
		}
	})
}

func TestEveryHostIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, hosts := sites(t, 2)
		for _, h := range hosts {
			h.set(code.Errorf(code.Unavailable, "connection refused"), false)
		}
		err := p.Publish(t.Context(), messages(1, keys...)...)
		for _, part := range []string{"publish at 0:", "publish at 1:"} {
			if !strings.Contains(fmt.Sprint(err), part) {
				t.Errorf("the error does not name %q: %v", part, err)
			}
		}
		if err := p.Publish(t.Context(), messages(1, "u0")...); code.Of(err) != code.Unavailable {
			t.Errorf("nobody is there: %v", err)
		}
	})
}

// A host whose answer is lost may have stored the message: the error says so, and the
// repetition may store it twice, which is harmless.
func TestLostAnswerIsAnUnknownOutcome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, hosts := sites(t, 1)
		hosts[0].set(nil, true)
		if err := p.Publish(t.Context(), messages(1, "u0")...); code.Of(err) != code.UnknownOutcome {
			t.Errorf("answer lost: %v", err)
		}
		hosts[0].set(nil, false)
		time.Sleep(time.Second)
		if err := p.Publish(t.Context(), messages(1, "u0")...); err != nil {
			t.Errorf("repeated: %v", err)
		}
		if got := hosts[0].take(); !slices.Equal(got, []string{"u0/0", "u0/0"}) {
			t.Errorf("handled %v", got)
		}
	})
}

// A refusal is no outage: the host stays in use.
func TestRefusalKeepsTheHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, hosts := sites(t, 2)
		for _, h := range hosts {
			h.set(code.Errorf(code.Overloaded, "the queue is full"), false)
		}
		if err := p.Publish(t.Context(), messages(1, "u0")...); code.Of(err) != code.Overloaded {
			t.Errorf("refused: %v", err)
		}
		for _, h := range hosts {
			h.set(nil, false)
		}
		if err := p.Publish(t.Context(), messages(1, "u0")...); err != nil {
			t.Errorf("a moment later: %v", err)
		}
	})
}

func TestBadMessagesReachNoHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, hosts := sites(t, 2)
		good := messages(1, "u0")[0]
		cases := map[string]mq.Message{
			"no topic":         {Key: "u0"},
			"bad topic":        {Topic: "a/b", Key: "u0"},
			"key too long":     {Topic: mq.TopicOffline, Key: strings.Repeat("k", mq.MaxKey+1)},
			"payload too long": {Topic: mq.TopicOffline, Key: "u0", Payload: make([]byte, mq.MaxPayload+1)},
		}
		for name, bad := range cases {
			if err := p.Publish(t.Context(), good, bad); err == nil || !strings.Contains(err.Error(), "message 1") {
				t.Errorf("%s: %v", name, err)
			}
			item := &tier.QueueMessage{Topic: bad.Topic, Key: bad.Key, Payload: bad.Payload}
			if _, err := hosts[0].host.Publish(t.Context(), &tier.PublishBatch{Items: []*tier.QueueMessage{item}}); code.Of(err) != code.BadRequest {
				t.Errorf("%s at the host: %v", name, err)
			}
		}
		if err := p.Publish(t.Context()); err != nil {
			t.Errorf("no messages: %v", err)
		}
		if calls := hosts[0].calls + hosts[1].calls; calls != 0 {
			t.Errorf("%d calls", calls)
		}
	})
}

func TestPublisherOnlyPublishes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, hosts := sites(t, 1)
		if _, err := p.Dead(t.Context(), mq.TopicOffline, "g", 1); !errors.Is(err, ErrPublishOnly) {
			t.Errorf("dead letters: %v", err)
		}
		if err := p.Subscribe(t.Context(), mq.TopicOffline, "g", nil); !errors.Is(err, ErrPublishOnly) {
			t.Errorf("subscribe: %v", err)
		}
		if err := p.Close(); err != nil { // the pool and the hosts are not its own
			t.Errorf("close: %v", err)
		}
		if err := hosts[0].queue.Publish(t.Context(), messages(1, "u0")...); err != nil {
			t.Errorf("the host's own queue: %v", err)
		}
	})
}
