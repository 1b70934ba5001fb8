package sim

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"hongyan/das/store"
	"hongyan/idl/tier"
)

// The oracle must notice when a rule is missing. Each case takes one out by a wrapper; the
// oracle must break within some seeds, mostly the first few, with the promise or rule it names.
// Those that only a patch can take out are in the table of doc.go.
func TestMissingRuleIsNoticed(t *testing.T) {
	const within = 200
	oneProcessor(t)
	twoStage := func(p *profile) {
		p.shape = shape{"two-stage", 2, 3, 3, false, nil}
	}
	for _, c := range []struct {
		name  string
		rules rules
		says  string
	}{
		{
			"R01 user heads are not fenced",
			rules{unfenced: true, shape: twoStage}, "",
		}, {
			"R05 R06 nothing is found by Scan",
			rules{onDas: func(d tier.Das) tier.Das { return noScan{d} }}, "row",
		}, {
			"R07 a range covers rows that are not finished",
			rules{onDas: func(d tier.Das) tier.Das { return greedyRanges{d} }, shape: func(p *profile) {
				twoStage(p)
				p.chaos.every, p.chaos.crash = 2*time.Second, 10 // only who dies misses its rows
			}}, "",
		}, {
			"R09 the queue loses every wake",
			rules{onQueue: func(topic string) bool { return topic == "offline" }}, "delivery row",
		}, {
			"the queue loses notices",
			rules{onQueue: func(topic string) bool { return topic == "system" }}, "notice",
		}, {
			"R13 the predecessor is not looked for",
			rules{onDas: func(d tier.Das) tier.Das { return noAfter{d} }}, "O:",
		}, {
			"R21 P30 renewals find nobody behind",
			rules{onLogic: func(l tier.Logic) tier.Logic { return noBehind{l} }}, "L:",
		}, {
			"R23 reads come from a replica that lags",
			rules{onView: lagging()}, "",
		}, {
			"R24 own messages count as unread",
			rules{onDas: func(d tier.Das) tier.Das { return countsOwn{d} }, shape: twoStage}, "R24",
		}, {
			"an entry is acknowledged and not stored",
			rules{onCommit: forgetful()}, "",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			for seed := uint64(1); seed <= within; seed++ {
				res := run(t, seed, c.rules, slog.New(slog.DiscardHandler))
				for _, v := range res.violations {
					if strings.Contains(v, c.says) {
						t.Logf("seed %d: %s", seed, v)
						return
					}
				}
			}
			t.Errorf("not noticed within %d seeds", within)
		})
	}
}

type noScan struct{ tier.Das }

func (noScan) Scan(context.Context, *tier.ScanRequest) (*tier.ScanReply, error) {
	return &tier.ScanReply{}, nil
}

// submitting changes what is submitted.
func submitting(b *tier.SubmitBatch, change func(*tier.Submit)) *tier.SubmitBatch {
	for _, it := range b.Items {
		change(it)
	}
	return b
}

type greedyRanges struct{ tier.Das }

func (d greedyRanges) Submit(ctx context.Context, b *tier.SubmitBatch) (*tier.SubmitReply, error) {
	return d.Das.Submit(ctx, submitting(b, func(it *tier.Submit) {
		if it.Done != nil {
			it.Done.To += 10
		}
	}))
}

type noAfter struct{ tier.Das }

func (d noAfter) Submit(ctx context.Context, b *tier.SubmitBatch) (*tier.SubmitReply, error) {
	return d.Das.Submit(ctx, submitting(b, func(it *tier.Submit) {
		if it.Append != nil {
			it.Append.After = ""
		}
	}))
}

type countsOwn struct{ tier.Das }

func (d countsOwn) Submit(ctx context.Context, b *tier.SubmitBatch) (*tier.SubmitReply, error) {
	return d.Das.Submit(ctx, submitting(b, func(it *tier.Submit) {
		if it.Fanout != nil && it.Fanout.LastSeq > 0 {
			it.Fanout.LastOrd++
		}
	}))
}

type noBehind struct{ tier.Logic }

func (l noBehind) Renew(ctx context.Context, b *tier.RenewBatch) (*tier.RenewReply, error) {
	r, err := l.Logic.Renew(ctx, b)
	if r != nil {
		r.Behind = nil
	}
	return r, err
}

// lagging shows some reads what stood a few snapshots ago.
func lagging() func(store.View) store.View {
	n := 0
	return func(v store.View) store.View {
		if n++; n%4 == 0 {
			return staleView{v}
		}
		return v
	}
}

// staleView does not see the newest change of a user.
type staleView struct{ store.View }

func (v staleView) User(k store.Key) (store.UserHead, error) {
	h, err := v.View.User(k)
	if h.Version > 0 {
		h.Version--
	}
	return h, err
}

func (v staleView) Changes(k store.Key, after uint64, limit int) ([]store.Member, error) {
	list, err := v.View.Changes(k, after, limit)
	if n := len(list); n > 0 {
		list = list[:n-1]
	}
	return list, err
}

// forgetful answers a commit as done that it has not done.
func forgetful() func(store.Store, context.Context, *store.Batch) error {
	n := 0
	return func(st store.Store, ctx context.Context, b *store.Batch) error {
		if n++; len(b.Messages) > 0 && n%50 == 0 {
			return nil
		}
		return st.Commit(ctx, b)
	}
}
