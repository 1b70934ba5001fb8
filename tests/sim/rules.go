package sim

import (
	"context"

	"hongyan/das/store"
	"hongyan/idl/tier"
)

// rules are hooks by which a test takes a rule out and sees the oracle find it. The zero
// value takes out nothing.
type rules struct {
	unfenced bool           // the store checks no user's head (R01)
	shape    func(*profile) // changes what the seed drew
	onQueue  func(topic string) (lost bool)
	atEnd    func(*world) // when all is level, before the audit
	onCommit func(st store.Store, ctx context.Context, b *store.Batch) error
	onView   func(store.View) store.View
	onLogic  func(tier.Logic) tier.Logic
	onDas    func(tier.Das) tier.Das
}

func (r *rules) commit(st store.Store, ctx context.Context, b *store.Batch) error {
	if r.onCommit != nil {
		return r.onCommit(st, ctx, b)
	}
	return st.Commit(ctx, b)
}

func (r *rules) view(v store.View) store.View {
	if r.onView != nil {
		return r.onView(v)
	}
	return v
}

func (r *rules) logic(l tier.Logic) tier.Logic {
	if r.onLogic != nil {
		return r.onLogic(l)
	}
	return l
}

func (r *rules) das(d tier.Das) tier.Das {
	if r.onDas != nil {
		return r.onDas(d)
	}
	return d
}

func (r *rules) loses(topic string) bool { return r.onQueue != nil && r.onQueue(topic) }
