package rocketmq

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/apache/rocketmq-client-go/v2/primitive"

	"hongyan/idl/code"
	"hongyan/internal/batch"
	"hongyan/internal/mq"
)

type senderKey struct {
	topic string
	slot  int
}

// sender sends the messages of one slot of a topic, one batch at a time, so that those of a
// key stay in order.
type sender struct {
	q *Queue
	senderKey
	batch *batch.Sender[*parcel]
}

// parcel is what one Publish has for a sender.
type parcel struct {
	ctx  context.Context
	msgs []mq.Message
	done chan error // capacity 1: the sender never waits for the caller
}

const (
	// maxParcels bounds the parcels that one run of a sender takes.
	maxParcels = 256
	// maxBatch and maxBatchBytes bound one send; a broker takes 4 MiB.
	maxBatch      = 256
	maxBatchBytes = 1 << 20
)

// Publish implements mq.Queue.
func (q *Queue) Publish(ctx context.Context, msgs ...mq.Message) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	for i, m := range msgs {
		if err := mq.Check(m); err != nil {
			return fmt.Errorf("publish: message %d: %w", i, err)
		}
	}
	if err := q.enter(); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	defer q.publishing.Done()
	ctx, cancel := context.WithTimeout(ctx, q.cfg.SendTimeout)
	defer cancel()
	parcels := q.split(ctx, msgs)
	for key, p := range parcels {
		q.sender(key).batch.Add(p)
	}
	var errs []error
	for _, p := range parcels {
		select {
		case err := <-p.done:
			errs = append(errs, err)
		case <-ctx.Done():
			return code.Errorf(code.UnknownOutcome, "publish: not stored within %s: %w", q.cfg.SendTimeout, ctx.Err())
		}
	}
	return errors.Join(errs...)
}

// split parts messages by sender and keeps their order.
func (q *Queue) split(ctx context.Context, msgs []mq.Message) map[senderKey]*parcel {
	parcels := map[senderKey]*parcel{}
	for _, m := range msgs {
		key := senderKey{m.Topic, q.slotOf(m.Key)}
		p, ok := parcels[key]
		if !ok {
			p = &parcel{ctx: ctx, done: make(chan error, 1)}
			parcels[key] = p
		}
		p.msgs = append(p.msgs, m)
	}
	return parcels
}

func (q *Queue) slotOf(key string) int {
	if key == "" {
		return int(q.slot.Add(1) % uint32(q.cfg.Slots))
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(key)) // never fails
	return int(h.Sum32() % uint32(q.cfg.Slots))
}

func (q *Queue) sender(key senderKey) *sender {
	q.mu.Lock()
	defer q.mu.Unlock()
	s, ok := q.senders[key]
	if !ok {
		s = &sender{q: q, senderKey: key}
		s.batch = batch.New(maxParcels, 0, s.send)
		q.senders[key] = s
		q.sending.Go(func() { s.batch.Run(q.ctx) })
	}
	return s
}

// send stores what waits. After a failure the rest is refused at once: it would fail too, and
// its callers repeat it.
func (s *sender) send(ctx context.Context, waiting []*parcel) {
	waiting = slices.DeleteFunc(slices.Clone(waiting), func(p *parcel) bool { return p.ctx.Err() != nil }) // nobody waits any more
	var failed error
	for len(waiting) > 0 {
		n, size, count := 0, 0, 0
		for n < len(waiting) && (n == 0 || count+len(waiting[n].msgs) <= maxBatch && size+weight(waiting[n].msgs) <= maxBatchBytes) {
			size, count = size+weight(waiting[n].msgs), count+len(waiting[n].msgs)
			n++
		}
		if failed == nil {
			failed = s.sendAll(ctx, waiting[:n], count)
		}
		for _, p := range waiting[:n] {
			p.done <- failed
		}
		waiting = waiting[n:]
	}
}

func weight(msgs []mq.Message) (bytes int) {
	for _, m := range msgs {
		bytes += len(m.Payload) + len(m.Key) + 64
	}
	return bytes
}

// sendAll stores the messages of parcels, in one send unless a single parcel is too large.
func (s *sender) sendAll(ctx context.Context, parcels []*parcel, count int) error {
	ctx, cancel := context.WithTimeout(ctx, s.q.cfg.SendTimeout)
	defer cancel()
	name := s.q.cfg.topicName(s.topic)
	err := s.q.topics.ensure(ctx, name)
	var msgs []*primitive.Message
	size := 0
	flush := func() {
		if err == nil && len(msgs) > 0 {
			err = s.q.sendTo(ctx, s.slot, msgs)
		}
		msgs, size = nil, 0
	}
	for _, p := range parcels {
		for _, m := range p.msgs {
			if len(msgs) == maxBatch || size+len(m.Payload) > maxBatchBytes {
				flush()
			}
			size += len(m.Payload) + len(m.Key) + 64
			msgs = append(msgs, message(name, m.Key, m.Payload))
		}
	}
	flush()
	if err != nil {
		s.q.metrics.failed.WithLabelValues(s.topic).Add(float64(count))
		return fmt.Errorf("publish to %s: %w", name, retryable(err))
	}
	s.q.metrics.Published.WithLabelValues(s.topic).Add(float64(count))
	return nil
}

// sendTo stores messages of one topic in the queue of a slot. Where its broker cannot be
// reached, another one's will do: placement is a hint.
func (q *Queue) sendTo(ctx context.Context, slot int, msgs []*primitive.Message) error {
	want := &primitive.MessageQueue{QueueId: slot}
	for {
		for _, m := range msgs {
			m.Queue = want
		}
		res, err := q.producer.SendSync(ctx, msgs...)
		if err == nil && res.Status != primitive.SendOK {
			return code.Errorf(code.UnknownOutcome, "stored, but not as safely as the broker is told to: status %d", res.Status)
		}
		if err == nil {
			return nil
		}
		var refused *net.OpError
		if want.BrokerName != "" || !errors.As(err, &refused) || refused.Op != "dial" {
			return err
		}
		want = &primitive.MessageQueue{QueueId: slot, BrokerName: otherBroker}
	}
}

// otherBroker, as the broker of a wanted queue, asks for one of another broker than the
// first choice's.
const otherBroker = "\x00other"

// selector chooses the queue of a slot: the message's Queue carries the wish.
type selector struct{}

// Select implements producer.QueueSelector. The order of the queues must not depend on the
// name server's answer, so that a slot keeps its queue.
func (selector) Select(m *primitive.Message, queues []*primitive.MessageQueue, _ string) *primitive.MessageQueue {
	if m.Queue == nil {
		return queues[0]
	}
	sorted := slices.Clone(queues)
	slices.SortFunc(sorted, func(a, b *primitive.MessageQueue) int {
		return cmp.Or(cmp.Compare(a.BrokerName, b.BrokerName), cmp.Compare(a.QueueId, b.QueueId))
	})
	first := sorted[m.Queue.QueueId%len(sorted)]
	if m.Queue.BrokerName != otherBroker {
		return first
	}
	others := slices.DeleteFunc(sorted, func(q *primitive.MessageQueue) bool { return q.BrokerName == first.BrokerName })
	if len(others) == 0 {
		return first
	}
	return others[m.Queue.QueueId%len(others)]
}

// retryable gives an error of the client a code; unknown where the messages may be stored.
func retryable(err error) error {
	if e, ok := errors.AsType[*code.Error](err); ok {
		return e
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" || errors.Is(err, errMissing) || strings.Contains(err.Error(), "route info not found") {
		return code.Errorf(code.Unavailable, "%w", err)
	}
	return code.Errorf(code.UnknownOutcome, "%w", err)
}

// Properties of ours.
const (
	propEscaped = "HONGYAN_ESCAPED" // "1": the key is query-escaped
	propEmpty   = "HONGYAN_EMPTY"   // "1": the payload is empty, which a broker refuses
	propRetried = "HONGYAN_RETRIED" // in dead letters: this one was retried

	// Of a dead letter that its consumer has buried.
	propError    = "HONGYAN_ERROR"    // of the last attempt, on one line
	propAttempts = "HONGYAN_ATTEMPTS" // how many there were
)

// message makes RocketMQ's message of a payload. The key is its sharding key, and its search
// key where it can be one. Control bytes part properties on the wire.
func message(topic, key string, payload []byte) *primitive.Message {
	m := primitive.NewMessage(topic, payload)
	if len(payload) == 0 {
		m.Body = []byte{0}
		m.WithProperty(propEmpty, "1")
	}
	if strings.ContainsFunc(key, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		m.WithProperty(propEscaped, "1")
		key = url.QueryEscape(key)
	}
	if key != "" {
		m.WithShardingKey(key)
		if !strings.Contains(key, primitive.PropertyKeySeparator) {
			m.WithKeys([]string{key})
		}
	}
	return m
}

// keyOf is the key of a message, of ours or of a business system that sets KEYS only.
func keyOf(m *primitive.MessageExt) string {
	key := cmp.Or(m.GetShardingKey(), strings.TrimSpace(m.GetKeys()))
	if m.GetProperty(propEscaped) == "1" {
		if plain, err := url.QueryUnescape(key); err == nil {
			return plain
		}
	}
	return key
}

// payloadOf is the payload of a message.
func payloadOf(m *primitive.MessageExt) []byte {
	if m.GetProperty(propEmpty) == "1" {
		return nil
	}
	return m.Body
}

// brief waits a moment, unless ctx ends.
func brief(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
