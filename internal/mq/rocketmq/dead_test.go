package rocketmq

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"hongyan/internal/mq"
)

func TestErrorsOfDeadLettersFitIntoAProperty(t *testing.T) {
	for in, want := range map[string]string{
		"two\nlines\x01and\x02more":    "two lines and more",
		"caf\xe9":                      "caf?",
		strings.Repeat("é", 600):       strings.Repeat("é", 512),
		"a" + strings.Repeat("é", 600): "a" + strings.Repeat("é", 511),
	} {
		if got := oneLine(in, maxError); got != want || !utf8.ValidString(got) {
			t.Errorf("%q: got %q", in, got)
		}
	}
}

// Where operators make the topics, the first dead letter of a group is the broker's, which makes
// the topic for it. Seen red: with no other way than to bury it ourselves it was lost.
func TestFirstDeadLetterWithoutItsTopicIsTheBrokers(t *testing.T) {
	cfg := config(t, server(t))
	maker := open(t, cfg)
	if err := maker.Publish(t.Context(), mq.Message{Topic: "t", Key: "k", Payload: []byte("0")}); err != nil {
		t.Fatal(err)
	}
	if err := maker.topics.ensureGroup(t.Context(), cfg.groupName("t", "g")); err != nil {
		t.Fatal(err)
	}
	if err := maker.Close(); err != nil {
		t.Fatal(err)
	}
	cfg.CreateTopics = false
	q := open(t, cfg)
	defer q.Close()
	if err := q.Subscribe(t.Context(), "t", "g", func(_ context.Context, m mq.Message) error {
		return fmt.Errorf("cannot read %s: %w", m.Payload, mq.ErrReject)
	}); err != nil {
		t.Fatal(err)
	}
	await := func(n int) []mq.DeadLetter {
		t.Helper()
		for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(100 * time.Millisecond) {
			dead, err := q.Dead(t.Context(), "t", "g", 10)
			if err != nil && !errors.Is(err, errMissing) {
				t.Fatal(err)
			}
			if len(dead) >= n {
				return dead
			}
			if time.Now().After(deadline) {
				t.Fatalf("dead letters %+v, want %d", dead, n)
			}
		}
	}
	await(1)
	if err := q.Publish(t.Context(), mq.Message{Topic: "t", Key: "k", Payload: []byte("1")}); err != nil {
		t.Fatal(err)
	}
	dead := await(2)
	if string(dead[0].Payload) != "0" || dead[0].Attempt != 1 || !strings.HasPrefix(dead[1].Error, "cannot read 1") || dead[1].Attempt != 1 {
		t.Errorf("dead letters %+v", dead)
	}
}
