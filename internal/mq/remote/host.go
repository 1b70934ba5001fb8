package remote

import (
	"context"
	"crypto/rand"
	"errors"
	"strings"
	"sync"
	"time"

	"hongyan/idl/code"
	"hongyan/idl/tier"
	"hongyan/internal/mq"
)

// Host implements tier.Queue in the process that has the queue.
type Host struct {
	queue mq.Queue
	boot  string // names the positions of Follow

	mu    sync.Mutex
	tapes map[string]*tape // of broadcast topics that somebody has followed
}

// NewHost serves a queue to other processes. It ends with the queue.
func NewHost(queue mq.Queue) *Host {
	return &Host{queue: queue, boot: rand.Text(), tapes: map[string]*tape{}}
}

// Publish implements tier.Queue. Messages that can never be stored are BadRequest.
func (h *Host) Publish(ctx context.Context, req *tier.PublishBatch) (*tier.Accepted, error) {
	msgs := make([]mq.Message, len(req.Items))
	for i, it := range req.Items {
		msgs[i] = mq.Message{Topic: strings.Clone(it.Topic), Key: strings.Clone(it.Key), Payload: it.Payload}
		if err := mq.Check(msgs[i]); err != nil {
			return nil, code.Errorf(code.BadRequest, "item %d: %w", i, err)
		}
	}
	if err := h.queue.Publish(ctx, msgs...); err != nil {
		return nil, stopping(err)
	}
	return &tier.Accepted{}, nil
}

// stopping makes an error that another host might not have retryable.
func stopping(err error) error {
	if errors.Is(err, mq.ErrClosed) {
		return code.Errorf(code.Unavailable, "the queue is stopping")
	}
	return err
}

// DeadLetters implements tier.Queue.
func (h *Host) DeadLetters(ctx context.Context, req *tier.DeadLettersRequest) (*tier.DeadLettersReply, error) {
	if err := mq.CheckGroup(ctx, req.Topic, req.Group); err != nil {
		return nil, code.Errorf(code.BadRequest, "%w", err)
	}
	dead, err := h.queue.Dead(ctx, req.Topic, req.Group, int(min(req.Limit, maxLetters)))
	if err != nil {
		return nil, stopping(err)
	}
	reply := &tier.DeadLettersReply{}
	for _, d := range dead {
		l := &tier.QueueLetter{
			Id: d.ID, Attempts: uint32(d.Attempt), Error: d.Error,
			Message: &tier.QueueMessage{Topic: d.Topic, Key: d.Key, Payload: d.Payload},
		}
		if !d.At.IsZero() {
			l.AtMs = d.At.UnixMilli()
		}
		reply.Letters = append(reply.Letters, l)
	}
	return reply, nil
}

// maxLetters of one DeadLetters.
const maxLetters = 10_000

// RetryDeadLetters implements tier.Queue.
func (h *Host) RetryDeadLetters(ctx context.Context, req *tier.RetryDeadLettersRequest) (*tier.RetryDeadLettersReply, error) {
	if err := mq.CheckGroup(ctx, req.Topic, req.Group); err != nil {
		return nil, code.Errorf(code.BadRequest, "%w", err)
	}
	n, err := h.queue.Retry(ctx, req.Topic, req.Group, req.Ids...)
	if err != nil {
		return nil, stopping(err)
	}
	return &tier.RetryDeadLettersReply{Retried: uint32(n)}, nil
}

// Operator serves what operators need of a queue, and nothing else. Kitex takes a pointer.
type Operator struct{ *Host }

// Publish implements tier.Queue: it is refused.
func (Operator) Publish(context.Context, *tier.PublishBatch) (*tier.Accepted, error) {
	return nil, code.Errorf(code.Denied, "this address takes no messages")
}

// Follow implements tier.Queue: it is refused.
func (Operator) Follow(context.Context, *tier.FollowRequest) (*tier.FollowReply, error) {
	return nil, code.Errorf(code.Denied, "this address tells no broadcasts")
}

// tape holds the newest broadcasts of a topic for those who follow it.
type tape struct {
	mu    sync.Mutex
	items [tapeLen]*tier.QueueMessage // number n is at n % tapeLen
	next  uint64                      // number of the next one
	more  chan struct{}               // closed at the next one
}

const (
	// tapeLen is how many broadcasts a follower may be behind; of more he misses the oldest.
	tapeLen = 1024
	// followMax bounds one reply.
	followMax = 64
	// waitMax bounds how long a follower is held.
	waitMax = 20 * time.Second
)

// Follow implements tier.Queue.
func (h *Host) Follow(ctx context.Context, req *tier.FollowRequest) (*tier.FollowReply, error) {
	if !mq.Broadcast(req.Topic) {
		return nil, code.Errorf(code.BadRequest, "topic %.64q is no broadcast", req.Topic)
	}
	t, err := h.tape(req.Topic)
	if err != nil {
		return nil, stopping(err)
	}
	reply := &tier.FollowReply{Boot: h.boot}
	more := t.read(reply, req.Boot == h.boot, req.Next)
	if len(reply.Items) > 0 || req.Boot != h.boot {
		return reply, nil
	}
	wait := time.NewTimer(min(time.Duration(req.WaitMs)*time.Millisecond, waitMax))
	defer wait.Stop()
	select {
	case <-more:
		t.read(reply, true, reply.Next)
	case <-wait.C:
	case <-ctx.Done():
	}
	return reply, nil
}

// tape starts to record a topic when it is first followed, until the queue ends.
func (h *Host) tape(topic string) (*tape, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if t, ok := h.tapes[topic]; ok {
		return t, nil
	}
	t := &tape{next: 1, more: make(chan struct{})}
	err := h.queue.SubscribeAll(context.Background(), topic, func(_ context.Context, m mq.Message) error {
		t.add(&tier.QueueMessage{Topic: m.Topic, Key: m.Key, Payload: m.Payload})
		return nil
	})
	if err != nil {
		return nil, err
	}
	h.tapes[topic] = t
	return t, nil
}

func (t *tape) add(m *tier.QueueMessage) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.items[t.next%tapeLen] = m
	t.next++
	close(t.more)
	t.more = make(chan struct{})
}

// read fills the reply from a position on; not known: with the position of now. It returns
// what is closed when there is more.
func (t *tape) read(reply *tier.FollowReply, known bool, from uint64) <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !known || from > t.next {
		from = t.next
	}
	if t.next > tapeLen && from < t.next-tapeLen {
		reply.Missed = t.next - tapeLen - from
		from = t.next - tapeLen
	}
	for ; from < t.next && len(reply.Items) < followMax; from++ {
		reply.Items = append(reply.Items, t.items[from%tapeLen])
	}
	reply.Next = from
	return t.more
}
