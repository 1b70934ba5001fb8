package sim

import (
	"context"
	"math/rand/v2"
	"sync"

	"github.com/cespare/xxhash/v2"

	"hongyan/internal/control"
)

// process is one life of one simulated process at an address.
type process struct {
	control.Instance
	handler any
	ctx     context.Context // ends when the process dies
	kill    context.CancelFunc

	mu      sync.Mutex
	running chan struct{} // closed while the process runs; an open one while it is paused
	links   map[*link]bool
}

func newProcess(ctx context.Context, in control.Instance) *process {
	p := &process{Instance: in, running: make(chan struct{}), links: map[*link]bool{}}
	p.ctx, p.kill = context.WithCancel(ctx)
	close(p.running)
	return p
}

// gate is closed while the process runs.
func (p *process) gate() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.running
}

// awake returns when the process runs; an error when ctx has ended, or the process.
func (p *process) awake(ctx context.Context) error {
	for {
		if p.ctx.Err() != nil {
			return errReset
		}
		gate := p.gate()
		select {
		case <-gate:
			if gate == p.gate() {
				return nil
			}
			continue
		default:
		}
		select {
		case <-gate:
		case <-ctx.Done():
			return ctx.Err()
		case <-p.ctx.Done():
			return errReset
		}
	}
}

func (p *process) paused() bool {
	select {
	case <-p.gate():
		return false
	default:
		return true
	}
}

// pause stops what the process sends, serves and stores, until resume. Its timers run on:
// what they start hangs.
func (p *process) pause() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.running:
		p.running = make(chan struct{})
	default:
	}
}

func (p *process) resume() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.running:
	default:
		close(p.running)
	}
	for l := range p.links {
		l.device.poke()
	}
}

// attach notes a connection that ends with the process. False: it has ended.
func (p *process) attach(l *link) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ctx.Err() != nil {
		return false
	}
	p.links[l] = true
	return true
}

func (p *process) detach(l *link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.links, l)
}

// newRand is a source of its own for each thing the seed decides.
func newRand(seed uint64, names ...string) *rand.Rand {
	var d xxhash.Digest
	d.Reset()
	for _, n := range names {
		_, _ = d.WriteString(n)
		_, _ = d.Write([]byte{0})
	}
	return rand.New(rand.NewPCG(seed, d.Sum64()))
}

// takeLinks empties the list of connections.
func (p *process) takeLinks() []*link {
	p.mu.Lock()
	defer p.mu.Unlock()
	var links []*link
	for l := range p.links {
		links = append(links, l)
	}
	clear(p.links)
	return links
}
