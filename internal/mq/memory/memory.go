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
func Open(opt Options) (mq.Queue, error) { return engine.Open(newLog(opt.WithDefaults().MaxDead), opt) }

// log implements engine.Log.
type log struct {
	maxDead int

	mu     sync.Mutex
	topics map[string]*topic
}

type topic struct {
	entries []engine.Entry             // dense, ascending
	dead    map[string][]engine.Letter // by group, ascending n
}

func newLog(maxDead int) *log { return &log{maxDead: maxDead, topics: map[string]*topic{}} }

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

func (l *log) Bury(group string, letter engine.Letter) (forgotten int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.topicLocked(letter.Topic)
	at, _ := slices.BinarySearchFunc(t.dead[group], letter.N, byNumber)
	dead := slices.Insert(t.dead[group], at, letter)
	forgotten = max(0, len(dead)-l.maxDead)
	t.dead[group] = slices.Delete(dead, 0, forgotten)
	return forgotten, nil
}

func byNumber(l engine.Letter, n uint64) int { return cmp.Compare(l.N, n) }

func (l *log) Dead(name, group string, from uint64, limit int) ([]engine.Letter, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	dead := l.topicLocked(name).dead[group]
	at, _ := slices.BinarySearchFunc(dead, from, byNumber)
	return slices.Clone(dead[at:min(len(dead), at+limit)]), nil
}

func (l *log) Unbury(name, group string, n uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.topicLocked(name)
	t.dead[group] = slices.DeleteFunc(t.dead[group], func(l engine.Letter) bool { return l.N == n })
	return nil
}

func (l *log) Close() error { return nil }

func (l *log) topicLocked(name string) *topic {
	t, ok := l.topics[name]
	if !ok {
		t = &topic{dead: map[string][]engine.Letter{}}
		l.topics[name] = t
	}
	return t
}
