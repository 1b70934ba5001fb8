package remote

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"hongyan/idl/code"
	"hongyan/idl/tier"
	"hongyan/internal/mq"
)

// heard collects the payloads of broadcasts.
type heard struct {
	mu  sync.Mutex
	got []string
}

func (h *heard) handle(_ context.Context, m mq.Message) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.got = append(h.got, string(m.Payload))
	if string(m.Payload) == "panic" {
		panic("no")
	}
	return errors.New("not tried again")
}

func (h *heard) take() []string {
	synctest.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	got := h.got
	h.got = nil
	slices.Sort(got)
	return got
}

func (s *site) Follow(ctx context.Context, req *tier.FollowRequest) (*tier.FollowReply, error) {
	s.mu.Lock()
	down := s.down
	s.mu.Unlock()
	if down != nil {
		return nil, down
	}
	return s.host.Follow(ctx, req)
}

func tell(t *testing.T, p *Publisher, payloads ...string) {
	t.Helper()
	for _, payload := range payloads {
		m := mq.Message{Topic: mq.TopicOnline, Key: payload, Payload: []byte(payload)}
		if err := p.Publish(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
}

// Every listener hears every broadcast of every host once, whichever host it was published
// at, from when he listens on.
func TestJT13BroadcastsOfEveryHostAreHeard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, _ := sites(t, 2)
		tell(t, p, "before")
		var a, b heard
		ctx, leave := context.WithCancel(t.Context())
		for _, l := range []struct {
			ctx context.Context
			*heard
		}{{ctx, &a}, {t.Context(), &b}} {
			if err := p.SubscribeAll(l.ctx, mq.TopicOnline, l.handle); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		tell(t, p, "1", "2", "3", "4", "panic", "5")
		want := []string{"1", "2", "3", "4", "5", "panic"}
		if got := a.take(); !slices.Equal(got, want) {
			t.Errorf("a heard %v", got)
		}
		if got := b.take(); !slices.Equal(got, want) {
			t.Errorf("b heard %v", got)
		}
		time.Sleep(time.Hour) // many empty rounds
		leave()
		tell(t, p, "6", "7", "8")
		if got := a.take(); len(got) > 0 {
			t.Errorf("who left heard %v", got)
		}
		if got := b.take(); !slices.Equal(got, []string{"6", "7", "8"}) {
			t.Errorf("b heard %v", got)
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		if err := p.SubscribeAll(t.Context(), mq.TopicOnline, b.handle); !errors.Is(err, mq.ErrClosed) {
			t.Errorf("after close: %v", err)
		}
	})
}

// A host that was away tells what it still holds; one that has begun anew tells from then on.
func TestAHostThatWasAwayIsFollowedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, hosts := sites(t, 1)
		var h heard
		if err := p.SubscribeAll(t.Context(), mq.TopicOnline, h.handle); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		tell(t, p, "1")
		h.take()
		hosts[0].set(code.Errorf(code.Unavailable, "refused"), false)
		time.Sleep(20 * time.Second) // the call under way is answered, the next fails
		for i := range 3 {
			if err := hosts[0].queue.Publish(t.Context(), mq.Message{Topic: mq.TopicOnline, Payload: fmt.Append(nil, "away", i)}); err != nil {
				t.Fatal(err)
			}
		}
		if got := h.take(); len(got) > 0 {
			t.Errorf("heard %v of a host that cannot be reached", got)
		}
		hosts[0].set(nil, false)
		time.Sleep(2 * time.Second)
		if got := h.take(); len(got) != 3 {
			t.Errorf("heard %v", got)
		}
		hosts[0].mu.Lock()
		hosts[0].host = NewHost(hosts[0].queue) // a new life of the process
		hosts[0].mu.Unlock()
		time.Sleep(20 * time.Second)
		tell(t, p, "anew")
		if got := h.take(); !slices.Equal(got, []string{"anew"}) {
			t.Errorf("heard %v", got)
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
}

// A follower who is too far behind is told how much he missed.
func TestWhoIsFarBehindMissesTheOldest(t *testing.T) {
	tp := &tape{next: 1, more: make(chan struct{})}
	for i := range 3000 {
		tp.add(&tier.QueueMessage{Payload: fmt.Append(nil, i+1)})
	}
	for from, want := range map[uint64]struct {
		missed, first uint64
		items         int
	}{1: {3000 - tapeLen, 3000 - tapeLen + 1, followMax}, 2990: {0, 2990, 11}, 3001: {0, 0, 0}, 9999: {0, 0, 0}} {
		reply := &tier.FollowReply{}
		tp.read(reply, true, from)
		if reply.Missed != want.missed || len(reply.Items) != want.items {
			t.Errorf("from %d: missed %d, %d items", from, reply.Missed, len(reply.Items))
		}
		if want.items > 0 && string(reply.Items[0].Payload) != fmt.Sprint(want.first) {
			t.Errorf("from %d: begins with %s", from, reply.Items[0].Payload)
		}
	}
}

// Operators list and retry over RPC; nothing else is served to them.
func TestLettersOverRPC(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, hosts := sites(t, 1)
		bad := true
		var again []string
		if err := hosts[0].queue.Subscribe(t.Context(), mq.TopicSystem, "g", func(_ context.Context, m mq.Message) error {
			if bad {
				return fmt.Errorf("no: %w", mq.ErrReject)
			}
			again = append(again, string(m.Payload))
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		for i := range 3 {
			if err := hosts[0].queue.Publish(t.Context(), mq.Message{Topic: mq.TopicSystem, Key: "k", Payload: fmt.Append(nil, i)}); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		op := Operator{hosts[0].host}
		letters := Letters{op}
		dead, err := letters.Dead(t.Context(), mq.TopicSystem, "g", 2)
		if err != nil || len(dead) != 2 || string(dead[0].Payload) != "0" || dead[0].Key != "k" || dead[0].Attempt != 1 || dead[0].Error == "" || !dead[0].At.Equal(time.Now()) {
			t.Fatalf("%+v, %v", dead, err)
		}
		bad = false
		if n, err := letters.Retry(t.Context(), mq.TopicSystem, "g", dead[0].ID, dead[1].ID, "999"); n != 2 || err != nil {
			t.Errorf("retried %d, %v", n, err)
		}
		synctest.Wait()
		if !slices.Equal(again, []string{"0", "1"}) {
			t.Errorf("handled %v", again)
		}
		if _, err := op.Publish(t.Context(), &tier.PublishBatch{}); code.Of(err) != code.Denied {
			t.Errorf("publish: %v", err)
		}
		if _, err := op.Follow(t.Context(), &tier.FollowRequest{}); code.Of(err) != code.Denied {
			t.Errorf("follow: %v", err)
		}
		if _, err := letters.Dead(t.Context(), "a/b", "g", 1); code.Of(err) != code.BadRequest {
			t.Errorf("bad topic: %v", err)
		}
	})
}
