package das

import (
	"errors"
	"fmt"

	"hongyan/das/store"
	"hongyan/idl/code"
	"hongyan/idl/im"
	"hongyan/idl/tier"
	"hongyan/internal/conv"
)

// rule checks what the log itself forbids, under the fence, and returns what else the
// entry changes in its transaction, nil for nothing. A denial comes from what the store
// holds now, not from memory (R16).
func (p *plan) rule(c *conversation, e *entry, a *tier.Append) (apply func(*convTx), err error) {
	switch e.stored.Kind {
	case im.Kind_EVENT_BLOCK, im.Kind_EVENT_UNBLOCK:
		return p.ruleBlock(c, e, a)
	case im.Kind_EVENT_RECALL:
		return p.ruleModify(c, e, a)
	case im.Kind_EVENT_EDIT:
		if err := p.notBlocked(c, e.side); err != nil {
			return nil, err
		}
		return p.ruleModify(c, e, a)
	default:
		return nil, p.notBlocked(c, e.side)
	}
}

func (c *conversation) currentFlags() store.ConvFlags {
	if c.tx != nil {
		return c.tx.flags
	}
	return c.flags
}

// notBlocked checks that the other side takes messages from this one.
func (p *plan) notBlocked(c *conversation, side int) error {
	if c.id.Kind != conv.KindPrivate || c.currentFlags()&blocks(1-side) == 0 {
		return nil
	}
	if err := p.confirmConv(c); err != nil {
		return err
	}
	return code.Errorf(code.Blocked, "the other side does not take messages from this user")
}

// ruleBlock: a change of flags is an entry of the log, so it moves the head and whoever
// believes the old flags fails the fence (R28).
func (p *plan) ruleBlock(c *conversation, e *entry, a *tier.Append) (func(*convTx), error) {
	if c.id.Kind != conv.KindPrivate {
		return nil, code.Errorf(code.BadRequest, "only a private conversation can be blocked")
	}
	if a.Peer != "" && a.Peer != c.name(1-e.side) {
		return nil, code.Errorf(code.BadRequest, "peer %.80q is not the other member", a.Peer)
	}
	flag, on := blocks(e.side), e.stored.Kind == im.Kind_EVENT_BLOCK
	return func(t *convTx) {
		if on {
			t.flags |= flag
		} else {
			t.flags &^= flag
		}
	}, nil
}

// ruleModify: a recall or edit rewrites its target in the same transaction, after author,
// target and "not recalled" are checked under the fence (R25).
func (p *plan) ruleModify(c *conversation, e *entry, a *tier.Append) (func(*convTx), error) {
	target, err := p.newest(c, a.TargetSeq)
	if err != nil {
		return nil, err
	}
	if target == nil || !countable(target.Kind) {
		return nil, p.denied(c, code.NotFound, "no message %d in this conversation", a.TargetSeq)
	}
	if target.Sender != e.stored.Sender {
		return nil, p.denied(c, code.Denied, "message %d is another's", a.TargetSeq)
	}
	if target.Recalled {
		return nil, p.denied(c, code.Recalled, "message %d was recalled", a.TargetSeq)
	}
	superseded, err := p.supersededEdit(c, target)
	if err != nil {
		return nil, err
	}
	return func(t *convTx) {
		rewrite := t.rewrite(target)
		rewrite.ModSeq = e.stored.Seq
		if e.stored.Kind == im.Kind_EVENT_RECALL {
			rewrite.Recalled, rewrite.Text, rewrite.Data = true, "", nil
		} else {
			rewrite.Text, rewrite.Data = e.stored.Text, e.stored.Data
		}
		if superseded != nil {
			old := t.rewrite(superseded)
			old.Text, old.Data = "", nil
		}
	}, nil
}

// denied is an answer that writes nothing: it comes from the store's present state.
func (p *plan) denied(c *conversation, what code.Code, format string, a ...any) error {
	if err := p.confirmConv(c); err != nil {
		return err
	}
	return code.Errorf(what, format, a...)
}

// supersededEdit is the last edit of the target, whose body must not outlive it: history
// never shows what was recalled. nil when there was none.
func (p *plan) supersededEdit(c *conversation, target *store.Message) (*store.Message, error) {
	if target.ModSeq == 0 {
		return nil, nil
	}
	return p.newest(c, target.ModSeq)
}

// newest is an entry as the batch so far leaves it, nil if there is none.
func (p *plan) newest(c *conversation, seq uint64) (*store.Message, error) {
	if c.tx != nil {
		for _, m := range c.tx.rewrites {
			if m.Seq == seq {
				return m, nil
			}
		}
		if seq > c.head.seq && seq <= c.tx.seq {
			return &c.tx.entries[seq-c.head.seq-1].stored, nil
		}
	}
	if seq == 0 || seq > c.head.seq {
		return nil, nil
	}
	v, err := p.snapshot()
	if err != nil {
		return nil, err
	}
	m, err := v.Message(c.key, seq)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read entry %q/%d: %w", c.key.ID, seq, err)
	}
	return m, nil
}

// rewrite returns the batch's own copy of an entry, to be changed.
func (t *convTx) rewrite(m *store.Message) *store.Message {
	for _, r := range t.rewrites {
		if r.Seq == m.Seq {
			return r
		}
	}
	r := *m
	t.rewrites = append(t.rewrites, &r)
	return &r
}
