package rocketmq

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/apache/rocketmq-client-go/v2/primitive"

	"hongyan/internal/mq"
	"hongyan/internal/mq/rocketmq/remoting"
)

// maxScan bounds how many dead letters are read to list some.
const maxScan = 100_000

// Dead implements mq.Queue. RocketMQ keeps dead letters in a topic of their own, for as long
// as its files; what was retried is marked by a later message of that topic.
func (q *Queue) Dead(ctx context.Context, topic, group string, limit int) ([]mq.DeadLetter, error) {
	if err := mq.CheckGroup(ctx, topic, group); err != nil {
		return nil, fmt.Errorf("dead letters: %w", err)
	}
	if err := q.enter(); err != nil {
		return nil, fmt.Errorf("dead letters: %w", err)
	}
	defer q.publishing.Done()
	letters, err := q.dead(ctx, topic, group)
	if err != nil {
		return nil, fmt.Errorf("dead letters of %s for %s: %w", topic, group, err)
	}
	return letters[:min(max(limit, 0), len(letters))], nil
}

// dead reads the dead letters that were not retried, the oldest first.
func (q *Queue) dead(ctx context.Context, topic, group string) ([]mq.DeadLetter, error) {
	ctx, cancel := context.WithTimeout(ctx, q.cfg.StartTimeout)
	defer cancel()
	name := q.cfg.groupName(topic, group)
	queues, err := q.topics.queues(ctx, deadPrefix+name)
	if errors.Is(err, errMissing) {
		return nil, nil // none ever died
	}
	if err != nil {
		return nil, err
	}
	var letters []mq.DeadLetter
	retried := map[string]bool{}
	for _, from := range queues {
		err := q.topics.read(ctx, from, deadPrefix+name, name, func(m *primitive.MessageExt) {
			if id := m.GetProperty(propRetried); id != "" {
				retried[id] = true
				return
			}
			letters = append(letters, mq.DeadLetter{
				ID:      fmt.Sprintf("%s:%d:%d", from.broker, from.id, m.QueueOffset),
				Message: mq.Message{Topic: topic, Key: keyOf(m), Payload: payloadOf(m), Attempt: attemptsOf(m)},
				At:      time.UnixMilli(m.StoreTimestamp),
				Error:   m.GetProperty(propError),
			})
		})
		if err != nil {
			return nil, err
		}
	}
	letters = slices.DeleteFunc(letters, func(l mq.DeadLetter) bool { return retried[l.ID] })
	slices.SortStableFunc(letters, func(a, b mq.DeadLetter) int { return a.At.Compare(b.At) })
	return letters, nil
}

// maxError bounds the text of an error in a dead letter, in bytes: all properties of a message
// share 32 KiB.
const maxError = 1024

// bury puts a message among the dead letters of its group with what it died of. A broker that
// is told to do it can keep no more than the message. Wherever this cannot be done, because the
// topic is not there yet or may not be written, it is the broker's. A crash between this and
// the word that the message is handled makes two letters of it.
func (g *group) bury(m *primitive.MessageExt, key string, attempts int, cause error) error {
	if !g.busy() {
		return mq.ErrClosed
	}
	defer g.handlers.Done()
	letter := message(deadPrefix+g.q.cfg.groupName(g.topic, g.name), key, payloadOf(m))
	letter.WithProperty(propError, oneLine(cause.Error(), maxError))
	letter.WithProperty(propAttempts, strconv.Itoa(attempts))
	letter.WithProperty(primitive.PropertyOriginMessageId, m.MsgId)
	return g.q.sendOne(g.q.ctx, letter)
}

// busy keeps the consumer from being stopped until handlers.Done. False: it is stopping.
func (g *group) busy() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-g.stopping:
		return false
	default:
		g.handlers.Add(1)
		return true
	}
}

// oneLine is a text without the control bytes that part properties on the wire, cut to size.
func oneLine(text string, size int) string {
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
	if len(text) > size {
		text = strings.ToValidUTF8(text[:size], "")
	}
	return text
}

// attemptsOf a dead letter, buried by a consumer or by the broker.
func attemptsOf(m *primitive.MessageExt) int {
	if n, err := strconv.Atoi(m.GetProperty(propAttempts)); err == nil {
		return n
	}
	return int(m.ReconsumeTimes)
}

// read calls fn with every message that a queue holds, without consuming any.
func (t *topics) read(ctx context.Context, from queueOf, topic, group string, fn func(*primitive.MessageExt)) error {
	queue := map[string]string{"topic": topic, "queueId": strconv.Itoa(from.id)}
	first, err := t.offset(ctx, from.addr, remoting.GetMinOffset, queue)
	if err != nil {
		return err
	}
	end, err := t.offset(ctx, from.addr, remoting.GetMaxOffset, queue)
	if err != nil {
		return err
	}
	for at := max(first, end-maxScan); at < end; {
		a, err := t.call(ctx, from.addr, remoting.PullMessage, map[string]string{
			"consumerGroup": group, "topic": topic, "queueId": queue["queueId"], "queueOffset": strconv.FormatInt(at, 10),
			"maxMsgNums": "32", "sysFlag": "4", "commitOffset": "0", "suspendTimeoutMillis": "0", // 4: the subscription is in the request
			"subscription": "*", "subVersion": "0", "expressionType": "TAG",
		}, nil, remoting.PullNotFound, remoting.PullRetry, remoting.PullMoved)
		if err != nil {
			return err
		}
		next, err := strconv.ParseInt(a.Fields["nextBeginOffset"], 10, 64)
		if err != nil || next <= at {
			return nil // the broker has no more for now
		}
		at = next
		if a.Code == remoting.OK {
			for _, m := range primitive.DecodeMessage(a.Body) {
				fn(m)
			}
		}
	}
	return nil
}

func (t *topics) offset(ctx context.Context, addr string, command int, queue map[string]string) (int64, error) {
	a, err := t.call(ctx, addr, command, queue, nil)
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(a.Fields["offset"], 10, 64)
}

// Retry implements mq.Queue: the letter goes to the group's topic of retries, as if it had
// failed for the first time, and is marked. A crash between the two leaves it on the list.
func (q *Queue) Retry(ctx context.Context, topic, group string, ids ...string) (int, error) {
	if err := mq.CheckGroup(ctx, topic, group); err != nil {
		return 0, fmt.Errorf("retry: %w", err)
	}
	if err := q.enter(); err != nil {
		return 0, fmt.Errorf("retry: %w", err)
	}
	defer q.publishing.Done()
	letters, err := q.dead(ctx, topic, group)
	if err != nil {
		return 0, fmt.Errorf("retry: %w", err)
	}
	name := q.cfg.groupName(topic, group)
	retried := 0
	for _, l := range letters {
		if !slices.Contains(ids, l.ID) {
			continue
		}
		again := message(retryPrefix+name, l.Key, l.Payload)
		again.WithProperty(primitive.PropertyRetryTopic, q.cfg.topicName(topic))
		mark := primitive.NewMessage(deadPrefix+name, []byte(l.ID))
		mark.WithProperty(propRetried, l.ID)
		for _, m := range []*primitive.Message{again, mark} {
			if err := q.sendOne(ctx, m); err != nil {
				return retried, fmt.Errorf("retry %s: %w", l.ID, retryable(err))
			}
		}
		retried++
	}
	return retried, nil
}

func (q *Queue) sendOne(ctx context.Context, m *primitive.Message) error {
	ctx, cancel := context.WithTimeout(ctx, q.cfg.SendTimeout)
	defer cancel()
	return q.sendTo(ctx, 0, []*primitive.Message{m})
}
