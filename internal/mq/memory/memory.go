// Package memory is the queue of one process that forgets: for tests and simulations.
package memory

import (
	"cmp"
	"slices"
	"sync"

	"hongyan/internal/mq"
	"hongyan/internal/mq/internal/engine"
)

// Options; the zero value will do.
type Options = engine.Options

// Open returns an empty queue.
func Open(opt Options) (mq.Queue, error) { return engine.Open(newLog(), opt) }

// log implements engine.Log.
type log struct {
	mu     sync.Mutex
	topics map[string]*topic
}

type topic struct {
	entries []engine.Entry      // dense, ascending
	dead    map[string][]letter // by group, ascending n
}

type letter struct {
	n uint64
	mq.Message
}

func newLog() *log { return &log{topics: map[string]*topic{}} }

func (l *log) Topics() (map[string]engine.Topic, error) { return nil, nil }

func (l *log) Append(entries []engine.Entry) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range entries {
		t := l.topicLocked(e.Topic)
		t.entries = append(t.entries, e)
	}
	return nil
}

func (l *log) Read(name string, from uint64, limit int) ([]engine.Entry, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.topicLocked(name)
	if len(t.entries) == 0 {
		return nil, nil
	}
	first := t.entries[0].N
	begin := min(max(from, first)-first, uint64(len(t.entries)))
	end := min(begin+uint64(limit), uint64(len(t.entries)))
	return slices.Clone(t.entries[begin:end]), nil
}

// Save drops what no group needs; the engine itself remembers where groups stand.
func (l *log) Save(name, _ string, _ engine.State, keep uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.topicLocked(name)
	n := 0
	for n < len(t.entries) && t.entries[n].N < keep {
		n++
	}
	if n > 0 {
		t.entries = slices.Clone(t.entries[n:]) // lets go of the payloads
	}
	return nil
}

func (l *log) Bury(group string, e engine.Entry, attempts int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.topicLocked(e.Topic)
	dead := t.dead[group]
	at, _ := slices.BinarySearchFunc(dead, e.N, func(l letter, n uint64) int { return cmp.Compare(l.n, n) })
	t.dead[group] = slices.Insert(dead, at, letter{e.N, mq.Message{Topic: e.Topic, Key: e.Key, Payload: e.Payload, Attempt: attempts}})
	return nil
}

func (l *log) Dead(name, group string, limit int) ([]mq.Message, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var dead []mq.Message
	for _, letter := range l.topicLocked(name).dead[group] {
		if len(dead) == limit {
			break
		}
		dead = append(dead, letter.Message)
	}
	return dead, nil
}

func (l *log) Close() error { return nil }

func (l *log) topicLocked(name string) *topic {
	t, ok := l.topics[name]
	if !ok {
		t = &topic{dead: map[string][]letter{}}
		l.topics[name] = t
	}
	return t
}
