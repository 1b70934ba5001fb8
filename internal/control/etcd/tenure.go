package etcd

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// tenure keeps keys of this process in etcd, with a lease, for as long as the process wants:
// whatever happens to etcd or to the lease, they are written again.
type tenure struct {
	what string // for the log
	// claim writes the keys with a lease. errSuperseded ends the tenure.
	claim func(ctx context.Context, client *clientv3.Client, lease clientv3.LeaseID) error
	// holds tells whether the keys are still there with the lease.
	holds func(ctx context.Context, client *clientv3.Client, lease clientv3.LeaseID) (bool, error)
	// leave takes the keys back; nil = they go with the lease.
	leave func(ctx context.Context, client *clientv3.Client, lease clientv3.LeaseID) error
	again chan struct{} // capacity 1: claim anew, the keys have changed. nil = never

	lease clientv3.LeaseID // 0 = none; only the goroutine of keep uses it, once that runs
}

var (
	// errSuperseded: a newer life of the same address has taken over.
	errSuperseded = errors.New("superseded by a newer life at the same address")
	errLost       = errors.New("registration is gone")
)

// obtain gets a lease and claims.
func (c *Center) obtain(ctx context.Context, t *tenure) error {
	client, err := c.connected()
	if err != nil {
		return err
	}
	gctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	lease, err := client.Grant(gctx, c.cfg.seconds())
	if err != nil {
		return fmt.Errorf("grant a lease: %w", err)
	}
	if err := t.claim(ctx, client, lease.ID); err != nil {
		c.revoke(client, lease.ID)
		return err
	}
	t.lease = lease.ID
	return nil
}

// revoke ends a lease. If that fails it runs out by itself.
func (c *Center) revoke(client *clientv3.Client, lease clientv3.LeaseID) {
	ctx, cancel := context.WithTimeout(context.Background(), c.cfg.Timeout)
	defer cancel()
	_, _ = client.Revoke(ctx, lease)
}

// keep holds the tenure until ctx or the centre ends.
func (c *Center) keep(ctx context.Context, t *tenure) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.life, cancel)()
	defer c.release(t)
	told := "" // the last problem that was logged
	for ctx.Err() == nil {
		err := c.once(ctx, t)
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, errSuperseded):
			c.log.Warn("no longer registered", "what", t.what, "err", err)
			return
		case err == nil:
			if told != "" {
				c.log.Info("registered again", "what", t.what)
			}
			told = ""
			t.wait(ctx, c.cfg.Lease/3)
		case err.Error() != told:
			told = err.Error()
			c.log.Warn("not registered, trying again", "what", t.what, "err", err)
			fallthrough
		default:
			pause(ctx, c.retryAfter())
		}
	}
}

// retryAfter spreads the instances of a cluster that all come back at once.
func (c *Center) retryAfter() time.Duration {
	base := c.cfg.beatEvery() / 4
	return base/2 + rand.N(base)
}

// once renews the lease and looks after the keys, or begins anew.
func (c *Center) once(ctx context.Context, t *tenure) error {
	if t.lease != 0 {
		err := c.renew(ctx, t)
		if !errors.Is(err, errLost) {
			return err
		}
		c.log.Warn("registration was lost and is made anew", "what", t.what, "err", err)
		t.lease = 0
	}
	return c.obtain(ctx, t)
}

func (c *Center) renew(ctx context.Context, t *tenure) error {
	client, err := c.connected()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, min(c.cfg.Timeout, c.cfg.Lease/3))
	defer cancel()
	if _, err := client.KeepAliveOnce(ctx, t.lease); errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return fmt.Errorf("%w: the lease has run out", errLost)
	} else if err != nil {
		return fmt.Errorf("renew the lease: %w", err)
	}
	if t.claimedAnew() {
		return t.claim(ctx, client, t.lease)
	}
	holds, err := t.holds(ctx, client, t.lease)
	if err != nil {
		return err
	}
	if !holds { // somebody removed the keys
		c.revoke(client, t.lease)
		return fmt.Errorf("%w: somebody removed or replaced it", errLost)
	}
	return nil
}

func (t *tenure) claimedAnew() bool {
	select {
	case <-t.again:
		return true
	default:
		return false
	}
}

func (t *tenure) wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.again:
		select {
		case t.again <- struct{}{}: // for renew to find
		default:
		}
	case <-ctx.Done():
	}
}

// release takes the keys back at the end.
func (c *Center) release(t *tenure) {
	client, err := c.connected()
	if t.lease == 0 || err != nil || c.isAway() {
		return
	}
	if t.leave != nil {
		ctx, cancel := context.WithTimeout(context.Background(), c.cfg.Timeout)
		defer cancel()
		if err := t.leave(ctx, client, t.lease); err != nil {
			c.log.Warn("leaving the control centre: others learn of it when the lease runs out", "what", t.what, "err", err)
			return
		}
	}
	c.revoke(client, t.lease)
}
