package servers

import (
	"errors"
	"sync"
	"testing"
)

// Pairs are sets of one source and its replica each, semi-synchronous, that the tests of a
// package hand on to each other: making one takes longer than most of them. Its zero value is
// ready to use; Close it at the end of TestMain.
type Pairs struct {
	mu    sync.Mutex
	spare map[string]*Set // by engine
}

// StartPair starts one pair of an engine, mysql or mariadb, until the test ends.
func StartPair(t testing.TB, engine string) *Set {
	t.Helper()
	s := newSet(t, onePair)
	t.Cleanup(func() { s.end(t) })
	s.up(engine)
	return s
}

// onePair is for servers.sh, which makes two otherwise.
const onePair = "SERVERS_SHARDS=1"

// Take gives a test a pair of an engine, mysql or mariadb, until it ends. The test leaves it
// as it was, or calls Spend. A test that fails spends it anyway.
func (p *Pairs) Take(t testing.TB, engine string) *Set {
	t.Helper()
	p.mu.Lock()
	s := p.spare[engine]
	delete(p.spare, engine)
	p.mu.Unlock()
	fresh := s == nil
	if fresh {
		s = newSet(t, onePair)
	}
	s.t = t
	t.Cleanup(func() { p.giveBack(t, engine, s) })
	if fresh {
		s.up(engine)
	}
	return s
}

// Spend tells that nobody can use the set after this test.
func (s *Set) Spend() { s.spent = true }

func (p *Pairs) giveBack(t testing.TB, engine string, s *Set) {
	if s.spent || t.Failed() || t.Skipped() {
		s.end(t)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.spare == nil {
		p.spare = map[string]*Set{}
	}
	p.spare[engine] = s
}

// Close ends the pairs that nobody has.
func (p *Pairs) Close() (err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.spare {
		err = errors.Join(err, s.killAll())
	}
	p.spare = nil
	return err
}
