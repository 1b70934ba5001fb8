package batch

import (
	"context"
	"time"
)

// Timeout bounds calls that are made one after the other, as a Sender makes them. A context
// and a timer for each of them is four allocations and some microseconds (BenchmarkContextOfACall),
// several times on the way of a lone message, so calls that begin close together share one.
type Timeout struct {
	most   time.Duration
	parent context.Context
	ctx    context.Context
	cancel context.CancelFunc
	until  time.Time // calls that begin before may use ctx
}

// slack is by how much of itself a timeout may be late.
const slack = 4

// NewTimeout bounds calls to d, and a quarter of it at most.
func NewTimeout(d time.Duration) *Timeout { return &Timeout{most: d} }

// Context of a call that begins now: it ends with parent, or when the call has taken too
// long. The call before must be over. It is not to be kept: nobody ends it after the call.
func (t *Timeout) Context(parent context.Context) context.Context {
	now := time.Now()
	if t.ctx != nil && t.parent == parent && now.Before(t.until) && t.ctx.Err() == nil {
		return t.ctx
	}
	if t.cancel != nil {
		t.cancel()
	}
	t.parent, t.until = parent, now.Add(t.most/slack)
	t.ctx, t.cancel = context.WithDeadline(parent, t.until.Add(t.most))
	return t.ctx
}
