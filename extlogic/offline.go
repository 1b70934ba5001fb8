package extlogic

import (
	"context"
	"errors"
	"fmt"
	"time"

	"hongyan/idl/event"
	"hongyan/idl/im"
	"hongyan/idl/tier"
	"hongyan/internal/conv"
	"hongyan/internal/mq"
)

// offline handles one event: some version of a user's log was not acked in time, or nobody
// is connected. Whatever it finds, in the end woken_version is at least that version: it is
// what ends the delivery row of a user without any device (R09). Handling an event again
// does nothing.
func (e *ExtLogic) offline(ctx context.Context, m mq.Message) error {
	var ev event.Offline
	if err := ev.Unmarshal(m.Payload); err != nil {
		return fmt.Errorf("offline event: %w: %w", err, mq.ErrReject)
	}
	if ev.Tenant == "" || conv.ValidUID(ev.Uid) != nil {
		return fmt.Errorf("offline event: tenant %.64q or uid %.64q is not one: %w", ev.Tenant, ev.Uid, mq.ErrReject)
	}
	outcome, err := e.wake(ctx, &ev, m.Attempt >= mq.MaxAttempts)
	if err != nil {
		outcome = "again"
	}
	e.metrics.offline.WithLabelValues(outcome).Inc()
	return err
}

// wake looks once more, pushes what is behind, and raises woken_version. last: a vendor
// that fails is not waited for any longer.
func (e *ExtLogic) wake(ctx context.Context, ev *event.Offline, last bool) (outcome string, err error) {
	u := user{ev.Tenant, ev.Uid}
	p, err := e.progress(ctx, u)
	if err != nil {
		return "", err
	}
	if ev.Epoch == p.Epoch {
		switch {
		case ev.Version > p.Head:
			return "", fmt.Errorf("the store shows %s at version %d, the event tells of %d", ev.Uid, p.Head, ev.Version)
		case p.Woken >= ev.Version:
			return "known", nil
		case p.Cursor >= ev.Version:
			return "acked", e.settle(ctx, u, nil, p.Epoch, ev.Version)
		}
	}
	// Beyond both, all rows are looked at, not this event's alone: woken_version speaks for
	// everything up to it. So the events that follow find their work done.
	rows, upTo, reset, err := e.changes(ctx, u, p.Epoch, max(p.Woken, p.Cursor))
	if err != nil {
		return "", err
	}
	if reset {
		return "", fmt.Errorf("the log of %s began anew meanwhile", ev.Uid)
	}
	records, err := e.push(ctx, u, p.Devices, rows, last)
	if err != nil {
		return "", errors.Join(err, e.write(ctx, u, records...))
	}
	outcome = "silent"
	if len(records) > 0 {
		outcome = "pushed"
	}
	return outcome, e.settle(ctx, u, records, p.Epoch, upTo)
}

// settle records pushes and raises woken_version, in one commit.
func (e *ExtLogic) settle(ctx context.Context, u user, records []*tier.Submit, epoch, version uint64) error {
	woken := &tier.Submit{Woken: &tier.Woken{Uid: u.uid, Epoch: epoch, Version: version}}
	return e.write(ctx, u, append(records, woken)...)
}

// push tells the devices of what is new in the rows, and returns a record of each push that
// was accepted, on error too. What a device was told before is not told again: that is
// how an event can be repeated after a vendor failed for some.
func (e *ExtLogic) push(ctx context.Context, u user, devices []*tier.Device, rows []*im.Conversation, last bool) (records []*tier.Submit, err error) {
	notes := e.compose(u, rows)
	if len(notes) == 0 || len(devices) == 0 {
		return nil, nil
	}
	told, err := e.pushed(ctx, u)
	if err != nil {
		return nil, err
	}
	badge, err := e.badge(ctx, u)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, d := range devices {
		for _, n := range notes {
			if told[target{d.Device, n.Conv}] >= n.Seq {
				continue
			}
			n.Device, n.Platform, n.Token, n.Badge, n.At = d.Device, d.Platform, d.PushToken, badge, time.Now()
			accepted, err := e.pushOne(ctx, n, last)
			if accepted {
				records = append(records, &tier.Submit{Record: recordOf(n)})
			}
			errs = append(errs, err)
		}
	}
	return records, errors.Join(errs...)
}

// pushOne hands one notification to the vendor of its platform.
func (e *ExtLogic) pushOne(ctx context.Context, n Notification, last bool) (accepted bool, err error) {
	v, ok := e.vendors[n.Platform]
	if !ok {
		if v, ok = e.vendors[""]; !ok {
			return false, nil // nobody pushes to this platform
		}
	}
	ctx, cancel := context.WithTimeout(ctx, e.cfg.PushTimeout)
	defer cancel()
	result, err := v.Push(ctx, n)
	switch {
	case err != nil && last:
		e.log.Error("offline push given up", "vendor", v.Name(), "tenant", n.Tenant, "uid", n.UID, "device", n.Device, "conv", n.Conv, "seq", n.Seq, "err", err)
		e.count(v, "given_up")
		return false, nil
	case err != nil:
		e.count(v, "failed")
		return false, fmt.Errorf("push by %s to %s of %s: %w", v.Name(), n.Device, n.UID, err)
	case result == BadToken:
		e.log.Info("push token is not valid", "vendor", v.Name(), "tenant", n.Tenant, "uid", n.UID, "device", n.Device)
		e.count(v, "bad_token")
		return false, nil
	}
	e.count(v, "accepted")
	return true, nil
}

func (e *ExtLogic) count(v Vendor, result string) {
	e.metrics.pushes.WithLabelValues(v.Name(), result).Inc()
}

func recordOf(n Notification) *tier.PushRecord {
	return &tier.PushRecord{
		Uid: n.UID, Device: n.Device, Platform: n.Platform, Conv: n.Conv, Seq: n.Seq,
		Title: n.Title, Body: n.Body, AtMs: n.At.UnixMilli(), Collapse: n.Collapse, Badge: n.Badge,
	}
}
