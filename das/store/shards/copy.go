package shards

import (
	"context"
	"fmt"
	"reflect"

	"hongyan/das/store"
	"hongyan/idl/im"
)

// copy brings the target level with the source: it compares the heads of every log and copies
// what is behind them, and whatever of the users differs. What changes meanwhile is found by
// the next pass; the last one runs while the bucket is closed.
func (m *move) copy(ctx context.Context) error {
	c := &copier{move: m, ctx: ctx}
	if err := c.convs(); err != nil {
		return fmt.Errorf("copy conversations: %w", err)
	}
	if err := c.users(); err != nil {
		return fmt.Errorf("copy users: %w", err)
	}
	return c.flush()
}

type copier struct {
	*move
	ctx     context.Context
	waiting store.BucketRows
	count   int // rows waiting
}

// added counts a row that was put to the others and writes them when they are many.
func (c *copier) added() error {
	if c.count++; c.count < c.page() {
		return nil
	}
	return c.flush()
}

func (c *copier) flush() error {
	if c.count == 0 {
		return nil
	}
	err := c.again(c.ctx, func() error {
		return c.To.Load(c.ctx, store.BucketFence{ID: c.bucket, Epoch: c.epoch}, &c.waiting)
	})
	if err != nil {
		return fmt.Errorf("load: %w", err)
	}
	c.rows += c.count
	c.waiting, c.count = store.BucketRows{}, 0
	return nil
}

// reading calls a read of the source in a snapshot of its own: one of the whole copy would be
// held for too long.
func reading[T any](c *copier, read func(store.View) (T, error)) (T, error) {
	v, err := c.From.View(c.ctx)
	if err != nil {
		var none T
		return none, err
	}
	defer v.Close()
	return read(v)
}

// paired walks two lists in pages, in the order of their keys, and calls fn with each row of the
// source and its like at the target, if there is one.
func paired[T any](c *copier, list func(store.Movable, store.Key) ([]T, error), key func(*T) store.Key, fn func(here, there *T) error) error {
	for after := (store.Key{}); ; {
		here, err := list(c.From, after)
		if err != nil || len(here) == 0 {
			return err
		}
		there, err := list(c.To, after)
		if err != nil {
			return err
		}
		found := make(map[store.Key]*T, len(there))
		for i := range there {
			found[key(&there[i])] = &there[i]
		}
		for i := range here {
			if err := fn(&here[i], found[key(&here[i])]); err != nil {
				return err
			}
		}
		after = key(&here[len(here)-1])
	}
}

func (c *copier) convs() error {
	return paired(c, func(db store.Movable, after store.Key) ([]store.ConvCopy, error) {
		return db.BucketConvs(c.ctx, c.bucket, after, c.page())
	}, func(r *store.ConvCopy) store.Key { return r.Key }, func(here, there *store.ConvCopy) error {
		known := uint64(0)
		if there != nil {
			known = there.Head.Seq
		}
		switch {
		case known == here.Head.Seq:
			return nil
		case known > here.Head.Seq:
			return fmt.Errorf("%w: %q has %d entries here, %d there", ErrDiffers, here.Key.ID, here.Head.Seq, known)
		}
		return c.conv(here, known)
	})
}

// conv copies the entries behind known, what was rewritten by them, and at last the head: a log
// at the target never lacks anything below its head.
func (c *copier) conv(here *store.ConvCopy, known uint64) error {
	for from := known + 1; from <= here.Head.Seq; {
		page, err := reading(c, func(v store.View) ([]*store.Message, error) {
			return v.Range(here.Key, from, here.Head.Seq, c.page())
		})
		if err != nil {
			return err
		}
		if len(page) == 0 || page[0].Seq != from {
			return fmt.Errorf("entry %q/%d is missing", here.Key.ID, from)
		}
		for _, e := range page {
			if err := c.message(e); err != nil {
				return err
			}
		}
		from = page[len(page)-1].Seq + 1
	}
	if err := c.rewritten(here, known); err != nil {
		return err
	}
	c.waiting.Convs = append(c.waiting.Convs, *here)
	return c.added()
}

func (c *copier) message(m *store.Message) error {
	c.waiting.Messages = append(c.waiting.Messages, m)
	return c.added()
}

// rewritten copies again what entries behind known have rewritten: their targets, and of each
// the edits in between, whose bodies went with a later edit or a recall (R25).
func (c *copier) rewritten(here *store.ConvCopy, known uint64) error {
	for after := known; ; {
		page, err := reading(c, func(v store.View) ([]*store.Message, error) {
			return v.Modified(here.Key, after, c.page())
		})
		if err != nil || len(page) == 0 {
			return err
		}
		for _, target := range page {
			after = max(after, target.ModSeq)
			if target.Seq > here.Head.Seq {
				continue // a later pass takes it whole
			}
			if err := c.edits(here, target); err != nil {
				return err
			}
			if err := c.message(target); err != nil {
				return err
			}
		}
	}
}

// edits copies the edits of an entry up to its last change.
func (c *copier) edits(here *store.ConvCopy, target *store.Message) error {
	to := min(target.ModSeq, here.Head.Seq)
	for from := target.Seq + 1; from <= to; {
		page, err := reading(c, func(v store.View) ([]*store.Message, error) {
			return v.Range(here.Key, from, to, c.page())
		})
		if err != nil || len(page) == 0 {
			return err
		}
		for _, e := range page {
			if e.TargetSeq == target.Seq && e.Kind == im.Kind_EVENT_EDIT {
				if err := c.message(e); err != nil {
					return err
				}
			}
		}
		from = page[len(page)-1].Seq + 1
	}
	return nil
}

func (c *copier) users() error {
	return paired(c, func(db store.Movable, after store.Key) ([]store.UserCopy, error) {
		return db.BucketUsers(c.ctx, c.bucket, after, c.page())
	}, func(r *store.UserCopy) store.Key { return r.Key }, func(here, there *store.UserCopy) error {
		if there == nil {
			there = &store.UserCopy{Key: here.Key}
		}
		if sameUser(here, there) {
			return nil
		}
		return c.user(here, there)
	})
}

func sameUser(a, b *store.UserCopy) bool {
	return a.Head == b.Head && a.Pushes == b.Pushes && len(a.Devices) == len(b.Devices) && len(a.Sessions) == len(b.Sessions) &&
		(len(a.Devices) == 0 || reflect.DeepEqual(a.Devices, b.Devices)) &&
		(len(a.Sessions) == 0 || reflect.DeepEqual(a.Sessions, b.Sessions))
}

// user copies the rows that have changed since the version of the target, and then the rest
// with the head.
func (c *copier) user(here, there *store.UserCopy) error {
	for after := there.Head.Version; after < here.Head.Version; {
		page, err := reading(c, func(v store.View) ([]store.Member, error) {
			return v.Changes(here.Key, after, c.page())
		})
		if err != nil {
			return err
		}
		if len(page) == 0 {
			break // what was between has moved behind: the next pass has it
		}
		for _, row := range page {
			c.waiting.Members = append(c.waiting.Members, store.MemberRow{User: here.Key, Member: row})
			if err := c.added(); err != nil {
				return err
			}
		}
		after = page[len(page)-1].Version
	}
	if here.Pushes != there.Pushes {
		if err := c.pushes(here.Key); err != nil {
			return err
		}
	}
	c.waiting.Users = append(c.waiting.Users, *here)
	return c.added()
}

func (c *copier) pushes(user store.Key) error {
	list, err := reading(c, func(v store.View) ([]store.Push, error) { return v.Pushes(user, 0) })
	if err != nil {
		return err
	}
	for _, p := range list {
		c.waiting.Pushes = append(c.waiting.Pushes, store.PushRow{User: user, Push: p})
		if err := c.added(); err != nil {
			return err
		}
	}
	return nil
}
