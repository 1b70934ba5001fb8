package redis

import (
	"context"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/redis/rueidis"

	"hongyan/internal/presence"
)

// script is run by its hash, which Redis knows from the first time on.
type script struct{ text, sha string }

func newScript(text string) *script {
	sum := sha1.Sum([]byte(text)) // Redis' own name for it
	return &script{text, hex.EncodeToString(sum[:])}
}

// call of a script for one user.
type call struct {
	key  string
	args []string
}

func (s *script) bySHA(client rueidis.Client, c call) rueidis.Completed {
	return client.B().Evalsha().Sha1(s.sha).Numkeys(1).Key(c.key).Arg(c.args...).Build()
}

func (s *script) byText(client rueidis.Client, c call) rueidis.Completed {
	return client.B().Eval().Script(s.text).Numkeys(1).Key(c.key).Arg(c.args...).Build()
}

// run calls a script for each user, in one round trip to each server. An error: none was
// done. Otherwise each result says what became of it.
func (c *Cache) run(ctx context.Context, s *script, calls []call) ([]rueidis.RedisResult, error) {
	if err := ctx.Err(); err != nil || len(calls) == 0 {
		return nil, err
	}
	if !c.circuit.pass(time.Now()) {
		return nil, c.refuse()
	}
	began := time.Now()
	bounded, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	client, err := c.connect()
	var results []rueidis.RedisResult
	answered, done := 0, 0
	if err == nil {
		results = c.send(bounded, client, s, calls)
		answered, done, err = count(results)
	}
	switch {
	case errors.Is(err, presence.ErrClosed), errors.Is(err, rueidis.ErrClosing) && c.isClosed():
		return nil, presence.ErrClosed
	case answered == 0 && gaveUp(ctx) != nil:
		return nil, gaveUp(ctx) // Redis did nothing wrong
	case answered == 0:
		c.met.observe(s == c.write, "failed", len(calls), time.Since(began))
		if c.circuit.failed(time.Now()) {
			c.log.Warn("presence cache does not answer: who is online is not known for now", "addrs", c.cfg.Addrs, "err", err)
		}
		return nil, fmt.Errorf("presence cache: %w", err)
	}
	if c.circuit.worked() {
		c.log.Info("presence cache answers again", "addrs", c.cfg.Addrs)
	}
	switch took := time.Since(began); {
	case done == 0:
		c.met.observe(s == c.write, "failed", len(calls), took)
		return nil, fmt.Errorf("presence cache: %w", err)
	case done < len(calls):
		c.met.observe(s == c.write, "partial", len(calls), took)
	default:
		c.met.observe(s == c.write, "ok", len(calls), took)
	}
	return results, nil
}

// gaveUp is why the caller waits no longer. The client goes by the deadline itself and may
// return a moment before the context has noticed.
func gaveUp(ctx context.Context) error {
	if deadline, ok := ctx.Deadline(); ok && !time.Now().Before(deadline) {
		return context.DeadlineExceeded
	}
	return ctx.Err()
}

// count tells how many results came from a server, how many of them were no errors, and the
// last error.
func count(results []rueidis.RedisResult) (answered, done int, err error) {
	for _, r := range results {
		switch rerr := r.Error(); {
		case rerr == nil || rueidis.IsRedisNil(rerr):
			answered, done = answered+1, done+1
		case r.NonRedisError() == nil:
			answered, err = answered+1, rerr
		default:
			err = rerr
		}
	}
	return answered, done, err
}

// refuse is the answer while the circuit is open.
func (c *Cache) refuse() error {
	if c.isClosed() {
		return presence.ErrClosed
	}
	c.met.refused.Inc()
	return presence.ErrDown
}

// send makes the calls by hash, and those for which the server had forgotten the script again.
func (c *Cache) send(ctx context.Context, client rueidis.Client, s *script, calls []call) []rueidis.RedisResult {
	commands := make([]rueidis.Completed, len(calls))
	for i, one := range calls {
		commands[i] = s.bySHA(client, one)
	}
	results := client.DoMulti(ctx, commands...)
	var missing []int
	for i, r := range results {
		if rerr, ok := rueidis.IsRedisErr(r.Error()); ok && rerr.IsNoScript() {
			missing = append(missing, i)
		}
	}
	if len(missing) == 0 {
		return results
	}
	commands = make([]rueidis.Completed, len(missing))
	for n, i := range missing {
		commands[n] = s.byText(client, calls[i])
	}
	for n, r := range client.DoMulti(ctx, commands...) {
		results[missing[n]] = r
	}
	return results
}

// connect returns the client, which is made when Redis is first reached. It reconnects by
// itself from then on.
func (c *Cache) connect() (rueidis.Client, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
		return nil, presence.ErrClosed
	case c.client != nil:
		return c.client, nil
	}
	client, err := rueidis.NewClient(c.options)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	c.client = client
	return client, nil
}

func (c *Cache) isClosed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}
