// Package embedded is the durable queue of one process: a Pebble database of its own. A
// publish costs one flush, shared by all that wait for one; where groups stand is written
// along, so a crash repeats the last moments and loses nothing.
package embedded

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"syscall"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"hongyan/internal/mq"
	"hongyan/internal/mq/internal/engine"
)

// Options; the zero value will do.
type Options = engine.Options

var (
	// ErrLocked: another process, or another queue of this one, uses the directory.
	ErrLocked = errors.New("in use by another process")
	// ErrBroken: the disk failed. What was published since is not stored, nothing is
	// delivered any more, and the process should end.
	ErrBroken = errors.New("queue is broken")
)

// Open opens or creates the queue in dir.
func Open(dir string, opt Options) (mq.Queue, error) { return openFS(dir, vfs.Default, opt) }

func openFS(dir string, fs vfs.FS, opt Options) (mq.Queue, error) {
	l, err := openLog(dir, fs, opt)
	if err != nil {
		return nil, err
	}
	return engine.Open(l, opt)
}

// log implements engine.Log.
type log struct {
	db      *pebble.DB
	slog    *slog.Logger
	maxDead int

	burying sync.Mutex     // one at a time: groups share the counts
	dead    map[string]int // how many dead letters a prefix holds, once counted

	mu     sync.Mutex
	broken error // why; nil = works
}

func openLog(dir string, fs vfs.FS, opt Options) (*log, error) {
	opt = opt.WithDefaults()
	l := &log{slog: opt.Log, maxDead: opt.MaxDead, dead: map[string]int{}}
	cache := pebble.NewCache(8 << 20)
	defer cache.Unref()
	db, err := pebble.Open(dir, &pebble.Options{
		FS:                 fs,
		Cache:              cache,
		Logger:             pebbleLog{l},
		FormatMajorVersion: pebble.FormatNewest,
		MemTableSize:       8 << 20,
		MaxOpenFiles:       256,
	})
	if errors.Is(err, syscall.EAGAIN) || err != nil && strings.Contains(err.Error(), "lock held by current process") {
		return nil, fmt.Errorf("queue directory %s is %w", dir, ErrLocked)
	}
	if err != nil {
		return nil, fmt.Errorf("open queue %s: %w", dir, err)
	}
	l.db = db
	if err := l.checkFormat(); err != nil {
		return nil, errors.Join(fmt.Errorf("open queue %s: %w", dir, err), db.Close())
	}
	return l, nil
}

func (l *log) checkFormat() error {
	val, closer, err := l.db.Get([]byte{tableFormat})
	if errors.Is(err, pebble.ErrNotFound) {
		return l.db.Set([]byte{tableFormat}, []byte{format}, pebble.Sync)
	}
	if err != nil {
		return err
	}
	defer closer.Close()
	if len(val) != 1 || val[0] > format {
		return fmt.Errorf("format %d, this program knows up to %d", val, format)
	}
	if val[0] < format {
		return l.db.Set([]byte{tableFormat}, []byte{format}, pebble.Sync)
	}
	return nil
}

// Topics implements engine.Log.
func (l *log) Topics() (map[string]engine.Topic, error) {
	topics := map[string]engine.Topic{}
	err := l.each([]byte{tableTopic}, []byte{tableTopic + 1}, 0, func(key, val []byte) error {
		r := reader{b: val}
		next := r.uvarint()
		if r.bad || len(r.b) > 0 {
			return fmt.Errorf("topic %q: %w", key, errCorrupt)
		}
		name := string(key[1:])
		topics[name] = engine.Topic{First: next, Next: next, Groups: map[string]engine.State{}}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for name, t := range topics {
		first, err := l.Read(name, 0, 1)
		if err != nil {
			return nil, err
		}
		if len(first) > 0 {
			t.First = first[0].N
			topics[name] = t
		}
	}
	return topics, l.each([]byte{tableState}, []byte{tableState + 1}, 0, func(key, val []byte) error {
		name, group, err := splitState(key)
		if err != nil {
			return err
		}
		state, err := decodeState(val)
		if err != nil {
			return fmt.Errorf("group %s of topic %s: %w", group, name, err)
		}
		t, ok := topics[name]
		if !ok { // subscribed, and nothing published yet
			t = engine.Topic{First: 1, Next: 1, Groups: map[string]engine.State{}}
			topics[name] = t
		}
		t.Groups[group] = state
		return nil
	})
}

// Append implements engine.Log.
func (l *log) Append(entries []engine.Entry) error {
	b := l.db.NewBatch()
	defer b.Close()
	next := map[string]uint64{}
	var val []byte
	for _, e := range entries {
		val = appendEntry(val[:0], e)
		if err := b.Set(logKey(e.Topic, e.N), val, nil); err != nil {
			return err
		}
		next[e.Topic] = e.N + 1
	}
	for name, n := range next {
		if err := b.Set(topicKey(name), binary.AppendUvarint(nil, n), nil); err != nil {
			return err
		}
	}
	return l.commit(b, pebble.Sync)
}

// Read implements engine.Log.
func (l *log) Read(topic string, from uint64, limit int) ([]engine.Entry, error) {
	prefix := logPrefix(topic)
	var entries []engine.Entry
	err := l.each(logKey(topic, from), after(prefix), limit, func(k, val []byte) error {
		n, err := number(k, prefix)
		if err != nil {
			return err
		}
		e, err := decodeEntry(val)
		if err != nil {
			return fmt.Errorf("%s/%d: %w", topic, n, err)
		}
		e.Topic, e.N = topic, n
		entries = append(entries, e)
		return nil
	})
	return entries, err
}

// Save implements engine.Log. It is not flushed: the next publish carries it along, and
// what a crash takes away only repeats.
func (l *log) Save(topic, group string, s engine.State, keep uint64) error {
	b := l.db.NewBatch()
	defer b.Close()
	if err := b.Set(stateKey(topic, group), appendState(nil, s), nil); err != nil {
		return err
	}
	if keep > 0 {
		if err := b.DeleteRange(logPrefix(topic), logKey(topic, keep), nil); err != nil {
			return err
		}
	}
	return l.commit(b, pebble.NoSync)
}

// Bury implements engine.Log.
func (l *log) Bury(group string, letter engine.Letter) (forgotten int, err error) {
	l.burying.Lock()
	defer l.burying.Unlock()
	prefix := deadPrefix(letter.Topic, group)
	held, err := l.countDead(prefix)
	if err != nil {
		return 0, err
	}
	b := l.db.NewBatch()
	defer b.Close()
	if err := b.Set(deadKey(letter.Topic, group, letter.N), appendLetter(nil, letter), nil); err != nil {
		return 0, err
	}
	if forgotten = max(0, held+1-l.maxDead); forgotten > 0 {
		err := l.each(prefix, after(prefix), forgotten, func(key, _ []byte) error { return b.Delete(key, nil) })
		if err != nil {
			return 0, err
		}
	}
	if err := l.commit(b, pebble.NoSync); err != nil {
		return 0, err
	}
	l.dead[string(prefix)] = held + 1 - forgotten
	return forgotten, nil
}

// countDead tells how many dead letters a prefix holds: counted once, then known. A letter
// that is buried again after a crash counts twice; the next start counts anew.
func (l *log) countDead(prefix []byte) (int, error) {
	held, known := l.dead[string(prefix)]
	if known {
		return held, nil
	}
	err := l.each(prefix, after(prefix), 0, func(_, _ []byte) error { held++; return nil })
	return held, err
}

// Dead implements engine.Log.
func (l *log) Dead(topic, group string, from uint64, limit int) ([]engine.Letter, error) {
	prefix := deadPrefix(topic, group)
	var dead []engine.Letter
	err := l.each(deadKey(topic, group, from), after(prefix), limit, func(key, val []byte) error {
		n, err := number(key, prefix)
		if err != nil {
			return err
		}
		letter, err := decodeLetter(val)
		letter.Topic, letter.N = topic, n
		dead = append(dead, letter)
		return err
	})
	return dead, err
}

// Unbury implements engine.Log.
func (l *log) Unbury(topic, group string, n uint64) error {
	l.burying.Lock()
	defer l.burying.Unlock()
	b := l.db.NewBatch()
	defer b.Close()
	if err := b.Delete(deadKey(topic, group, n), nil); err != nil {
		return err
	}
	delete(l.dead, string(deadPrefix(topic, group))) // counted anew when it matters
	return l.commit(b, pebble.NoSync)
}

// Close implements engine.Log.
func (l *log) Close() error {
	if err := l.check(); err != nil {
		return err // Pebble may hold locks that nobody will release
	}
	return l.db.Close()
}

// commit writes a batch. Pebble reports a failed write through its logger only.
func (l *log) commit(b *pebble.Batch, how *pebble.WriteOptions) error {
	if err := l.check(); err != nil {
		return err
	}
	if err := b.Commit(how); err != nil {
		return err
	}
	return l.check()
}

// each calls fn with at most limit rows from a key up to another, ascending; 0 = all. fn
// must not keep the slices.
func (l *log) each(from, to []byte, limit int, fn func(key, val []byte) error) error {
	if err := l.check(); err != nil {
		return err
	}
	it, err := l.db.NewIter(&pebble.IterOptions{LowerBound: from, UpperBound: to})
	if err != nil {
		return err
	}
	defer it.Close()
	seen := 0
	for ok := it.First(); ok && (limit == 0 || seen < limit); ok = it.Next() {
		if err := fn(it.Key(), it.Value()); err != nil {
			return err
		}
		seen++
	}
	return it.Error()
}

// check tells why the queue is broken.
func (l *log) check() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.broken
}

func (l *log) fail(reason string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.broken == nil {
		l.broken = fmt.Errorf("%w: %s", ErrBroken, reason)
		l.slog.Error("the queue is broken, the process should end", "err", reason)
	}
}

// pebbleLog takes what Pebble has to say to slog, and its last words to fail.
type pebbleLog struct{ l *log }

func (p pebbleLog) Infof(format string, args ...any) {
	p.l.slog.Debug("pebble", "said", fmt.Sprintf(format, args...))
}

func (p pebbleLog) Errorf(format string, args ...any) {
	p.l.slog.Error("pebble", "said", fmt.Sprintf(format, args...))
}

func (p pebbleLog) Fatalf(format string, args ...any) { p.l.fail(fmt.Sprintf(format, args...)) }
