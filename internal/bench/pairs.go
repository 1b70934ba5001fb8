package bench

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// Config of a run. Fields that a scenario does not use are ignored.
type Config struct {
	Server   *Server
	Target   *url.URL    // tcp://, ws:// or http:// (long poll); tls://, wss:// or https://
	TLS      *tls.Config // of the latter; nil = the authorities of the system
	Keys     Signer
	Tenant   string
	Duration time.Duration
	Warmup   time.Duration

	Pairs  int
	Window int     // unacked messages per pair; ignored when Rate is set
	Rate   float64 // messages per second over all pairs; 0 = closed loop
	Size   int     // bytes of content

	Conns int // idle

	// Progress gets a line a second; nil = none.
	Progress io.Writer
}

// quiet is how long after the last message the receivers may still get what they miss.
const quiet = 10 * time.Second

// pairsRun is one run of Pairs.
type pairsRun struct {
	cfg     Config
	dialer  dialer
	id      uint64 // makes client_msg_ids of this run its own
	begun   time.Time
	buffers sync.Pool

	sending                                                                 atomic.Bool
	from, to                                                                atomic.Int64 // since begun: see measured; 0 = not yet
	sent, acked, delivered, damaged, duplicates, reordered, errors, fetches atomic.Int64
	confirmed                                                               atomic.Int64 // received before, and read again after RESET

	// Histograms are spread over a few, for less contention.
	ackTimes, e2eTimes [8]*latencies

	senders   []*sender
	receivers []*receiver
}

// Pairs sends private messages from one user of each pair to the other.
func Pairs(ctx context.Context, cfg Config) (*Result, error) {
	r, err := openPairs(ctx, cfg)
	if err != nil {
		return nil, err
	}
	defer r.close()
	return r.measure(ctx)
}

// openPairs logs everybody in.
func openPairs(ctx context.Context, cfg Config) (*pairsRun, error) {
	if err := checkPairs(&cfg); err != nil {
		return nil, err
	}
	r := &pairsRun{cfg: cfg, id: rand.Uint64() >> 16, begun: time.Now()}
	r.buffers.New = func() any { b := make([]byte, 0, cfg.Size+256); return &b }
	for i := range r.ackTimes {
		r.ackTimes[i], r.e2eTimes[i] = newLatencies(), newLatencies()
	}
	var err error
	if r.dialer, err = newDialer(&cfg); err != nil {
		return nil, err
	}
	if err := r.connect(ctx); err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

func checkPairs(cfg *Config) error {
	switch {
	case cfg.Pairs < 1 || cfg.Pairs > 9000:
		return fmt.Errorf("--pairs %d: must be 1 to 9000 (two connections each, in one process)", cfg.Pairs)
	case cfg.Rate < 0 || cfg.Rate > 10_000_000:
		return fmt.Errorf("--rate %v: must be 0 (closed loop) or more", cfg.Rate)
	case cfg.Rate == 0 && (cfg.Window < 1 || cfg.Window > maxUnacked):
		return fmt.Errorf("--window %d: must be 1 to %d, as clients may have under way", cfg.Window, maxUnacked)
	case cfg.Size < payloadMin || cfg.Size > 64<<10:
		return fmt.Errorf("--size %d: must be %d to 65536", cfg.Size, payloadMin)
	case cfg.Duration <= 0 || cfg.Warmup < 0:
		return errors.New("--duration must be more than 0, --warmup not negative")
	}
	return nil
}

// connect logs in both users of every pair, some at a time.
func (r *pairsRun) connect(ctx context.Context) error {
	r.senders, r.receivers = make([]*sender, r.cfg.Pairs), make([]*receiver, r.cfg.Pairs)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(32)
	for i := range r.cfg.Pairs {
		group.Go(func() error { return r.connectPair(ctx, i) })
	}
	return group.Wait()
}

func (r *pairsRun) connectPair(ctx context.Context, i int) error {
	from, to := fmt.Sprintf("bench-%d-a", i), fmt.Sprintf("bench-%d-b", i)
	conv := "p:" + from + ":" + to
	sc, _, err := login(ctx, r.dialer, &r.cfg, from, 16<<10)
	if err != nil {
		return err
	}
	sc.messages = 1
	r.senders[i] = &sender{conn: sc, run: r, pair: uint32(i), conv: conv, window: r.cfg.Window, next: 1, base: 1}
	if r.cfg.Rate > 0 {
		r.senders[i].window = 0
	}
	rc, sync, err := login(ctx, r.dialer, &r.cfg, to, 32<<10)
	if err != nil {
		return err
	}
	rc.messages = 100
	rec := &receiver{conn: rc, run: r, pair: uint32(i), conv: conv, ahead: map[uint64]uint64{}}
	for _, c := range sync.Changes { // of earlier runs: not ours to check
		if c.Conv == conv {
			rec.first, rec.held, rec.lastSeq = c.LastSeq, c.LastSeq, c.LastSeq
		}
	}
	r.receivers[i] = rec
	return nil
}

func (r *pairsRun) close() {
	for _, s := range r.senders {
		if s != nil {
			_ = s.link.close()
		}
	}
	for _, c := range r.receivers {
		if c != nil {
			_ = c.link.close()
		}
	}
}

// counts is a snapshot.
type counts struct {
	at                     time.Time
	sent, acked, delivered int64
	cpu                    time.Duration
}

func (r *pairsRun) counts() (counts, error) {
	c := counts{at: time.Now(), sent: r.sent.Load(), acked: r.acked.Load(), delivered: r.delivered.Load()}
	if r.cfg.Server == nil || r.cfg.Server.PID == 0 {
		return c, nil
	}
	var err error
	c.cpu, err = r.cfg.Server.cpu()
	return c, err
}

func (r *pairsRun) measure(ctx context.Context) (*Result, error) {
	broken := make(chan error, 1) // the first connection that ended
	stop := r.start(broken)
	defer stop()
	interrupted, err := r.wait(ctx, r.cfg.Warmup, broken, "warm-up")
	if err != nil {
		return nil, err
	}
	from, err := r.counts()
	if err != nil {
		return nil, err
	}
	r.from.Store(int64(max(from.at.Sub(r.begun), 1)))
	if !interrupted {
		if interrupted, err = r.wait(ctx, r.cfg.Duration, broken, "measuring"); err != nil {
			return nil, err
		}
	}
	to, err := r.counts()
	if err != nil {
		return nil, err
	}
	r.to.Store(int64(to.at.Sub(r.begun)))
	r.sending.Store(false)
	if err := r.settle(broken); err != nil {
		return nil, err
	}
	return r.result(from, to, interrupted)
}

// measured tells whether the latency of a message counts: by the time it was to be sent at,
// so that a slow answer counts also when it comes after the end.
func (r *pairsRun) measured(at time.Duration) bool {
	from, to := time.Duration(r.from.Load()), time.Duration(r.to.Load())
	return from != 0 && at >= from && (to == 0 || at < to)
}

// start runs every connection; the returned function ends them and waits.
func (r *pairsRun) start(broken chan<- error) (stop func()) {
	fail := func(err error) {
		select {
		case broken <- err:
		default:
		}
	}
	var wg sync.WaitGroup
	r.begun = time.Now()
	for i := range r.senders {
		s, c := r.senders[i], r.receivers[i]
		wg.Go(func() { fail(fmt.Errorf("%s: %w", s.uid, s.serve(s.handle))) })
		wg.Go(func() { fail(fmt.Errorf("%s: %w", c.uid, c.serve(c.handle))) })
	}
	r.sending.Store(true)
	done := make(chan struct{})
	wg.Go(func() { r.tick(done, fail) })
	if r.cfg.Rate > 0 {
		wg.Go(func() { r.pace(done, fail) })
	} else {
		r.prime(fail)
	}
	return func() {
		close(done)
		r.close()
		wg.Wait()
	}
}

// prime sends the first window of every pair.
func (r *pairsRun) prime(fail func(error)) {
	for _, s := range r.senders {
		if err := s.tick(time.Now()); err != nil {
			fail(err)
			return
		}
	}
}

// tick does what is due by time, for every connection.
func (r *pairsRun) tick(done <-chan struct{}, fail func(error)) {
	t := time.NewTicker(20 * time.Millisecond)
	defer t.Stop()
	for {
		select {
		case <-done:
			return
		case now := <-t.C:
			for i := range r.senders {
				if err := errors.Join(r.senders[i].tick(now), r.receivers[i].tick(now)); err != nil {
					fail(err)
					return
				}
			}
		}
	}
}

// pace hands out messages at the rate, each with the time it should have been sent at.
func (r *pairsRun) pace(done <-chan struct{}, fail func(error)) {
	interval := time.Duration(float64(time.Second) / r.cfg.Rate)
	for n := int64(0); ; n++ {
		at := r.begun.Add(time.Duration(n) * interval)
		if wait := time.Until(at); wait > 0 {
			select {
			case <-done:
				return
			case <-time.After(wait):
			}
		}
		if !r.sending.Load() {
			return
		}
		s := r.senders[int(n)%len(r.senders)]
		s.mu.Lock()
		s.backlog = append(s.backlog, at)
		s.fill(time.Now())
		err := s.flush()
		s.mu.Unlock()
		if err != nil {
			fail(err)
			return
		}
	}
}

// wait lets time pass; true when ctx ended before.
func (r *pairsRun) wait(ctx context.Context, d time.Duration, broken <-chan error, what string) (interrupted bool, err error) {
	end := time.NewTimer(d)
	defer end.Stop()
	second := time.NewTicker(time.Second)
	defer second.Stop()
	last := r.acked.Load()
	for {
		select {
		case <-ctx.Done():
			return true, nil
		case err := <-broken:
			return false, fmt.Errorf("a connection ended: %w", err)
		case <-end.C:
			return false, nil
		case <-second.C:
			now := r.acked.Load()
			if r.cfg.Progress != nil {
				fmt.Fprintf(r.cfg.Progress, "\r%-9s %9d acked/s  %9d delivered  %d errors ", what, now-last, r.delivered.Load(), r.errors.Load())
			}
			last = now
		}
	}
}

// settle waits until everything sent is acked and everything acked is received, or until
// nothing has moved for the quiet time.
func (r *pairsRun) settle(broken <-chan error) error {
	moved := time.Now()
	progress := func() int64 { return r.acked.Load() + r.delivered.Load() + r.confirmed.Load() }
	before := progress()
	for time.Since(moved) < quiet {
		select {
		case err := <-broken:
			return fmt.Errorf("a connection ended: %w", err)
		case <-time.After(20 * time.Millisecond):
		}
		if now := progress(); now != before {
			before, moved = now, time.Now()
		}
		if r.settled() {
			break
		}
	}
	if r.cfg.Progress != nil {
		fmt.Fprintf(r.cfg.Progress, "\r%-78s\r", "")
	}
	return nil
}

func (r *pairsRun) settled() bool {
	for _, s := range r.senders {
		if !s.idle() {
			return false
		}
	}
	for _, c := range r.receivers {
		if !c.level() {
			return false
		}
	}
	return r.delivered.Load()-r.duplicates.Load() >= r.acked.Load()
}

// followed sums what connections did to follow their logs.
func (r *pairsRun) followed() (syncs, resets int64) {
	add := func(c *conn) {
		c.mu.Lock()
		defer c.mu.Unlock()
		syncs, resets = syncs+c.syncs, resets+c.resets
	}
	for i := range r.senders {
		add(r.senders[i].conn)
		add(r.receivers[i].conn)
	}
	return syncs, resets
}

// lost counts messages that were acked and never received, or that the server had no more
// after a RESET.
func (r *pairsRun) lost() (lost int64) {
	for i, s := range r.senders {
		s.mu.Lock()
		c := r.receivers[i]
		c.mu.Lock()
		for n := uint64(1); n < s.next; n++ {
			if s.acked.has(n) && !c.seen.has(n) {
				lost++
			}
		}
		c.mu.Unlock()
		s.mu.Unlock()
	}
	return lost
}

func (r *pairsRun) result(from, to counts, interrupted bool) (*Result, error) {
	seconds := to.at.Sub(from.at).Seconds()
	acks, ends := newLatencies(), newLatencies()
	for i := range r.ackTimes {
		r.ackTimes[i].addTo(acks)
		r.e2eTimes[i].addTo(ends)
	}
	syncs, resets := r.followed()
	acked, delivered := to.acked-from.acked, to.delivered-from.delivered
	out := &Result{
		Scenario: "pairs", Seconds: seconds, Interrupted: interrupted,
		Params: map[string]any{
			"pairs": r.cfg.Pairs, "window": r.cfg.Window, "rate": r.cfg.Rate, "size": r.cfg.Size,
			"transport": Transport(r.cfg.Target), "syncs": syncs, "fetches": r.fetches.Load(), "resets": resets,
		},
		Sent: ptr(to.sent - from.sent), Acked: &acked, Delivered: &delivered,
		AckP50: acks.ms(50), AckP99: acks.ms(99), AckMax: acks.ms(100),
		E2EP50: ends.ms(50), E2EP99: ends.ms(99), E2EMax: ends.ms(100),
		Lost: ptr(r.lost() + r.damaged.Load()), Duplicates: ptr(r.duplicates.Load()), Reordered: ptr(r.reordered.Load()),
		Errors: ptr(r.errors.Load()),
	}
	if seconds > 0 {
		out.AckedPerS, out.DeliveredPerS = ptr(float64(acked)/seconds), ptr(float64(delivered)/seconds)
	}
	if s := r.cfg.Server; s != nil {
		out.Durable = s.Durable
		if s.PID != 0 {
			rss, err := s.rss()
			if err != nil {
				return nil, err
			}
			out.ServerRSS = &rss
			if acked > 0 {
				out.ServerCPUPerMsg = ptr(float64((to.cpu - from.cpu).Microseconds()) / float64(acked))
			}
		}
	}
	return out, nil
}
