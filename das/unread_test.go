package das

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"hongyan/idl/im"
	"hongyan/idl/tier"
)

// twin counts unread messages the dumb way: by looking at every one.
type twin struct {
	senders []string // of each entry; "" for an event
	read    map[string]uint64
}

func (w *twin) unread(uid string) (n uint64) {
	for i, sender := range w.senders {
		if sender != "" && sender != uid && uint64(i+1) > w.read[uid] {
			n++
		}
	}
	return n
}

// Random sends, displayed positions, reads and recalls of two people, in both forms: what is
// derived from two ordinals is what counting finds. Seen red: with LastOrd = ord (own
// messages counted), with a send that reads all before it, with events counted.
func TestR24UnreadIsWhatCountingFinds(t *testing.T) {
	for seed := range uint64(60) {
		t.Run(fmt.Sprint("one-commit ", seed), func(t *testing.T) { unreadRun(t, seed, true) })
		t.Run(fmt.Sprint("two-stage ", seed), func(t *testing.T) { unreadRun(t, seed, false) })
	}
}

func unreadRun(t *testing.T, seed uint64, oneCommit bool) {
	s := shared()
	if oneCommit {
		s = exclusive()
	}
	inBed(t, s, unreadSteps(seed, oneCommit))
}

func unreadSteps(seed uint64, oneCommit bool) func(t *testing.T, b *bed) {
	return func(t *testing.T, b *bed) {
		b.cfg.Cache.Conversations = 1 + int(seed%2)
		d := b.start(0)
		rng := rand.New(rand.NewPCG(seed, 1))
		w := &twin{read: make(map[string]uint64)}
		for step := range 80 {
			uid := []string{"a", "b"}[rng.IntN(2)]
			head := uint64(len(w.senders))
			var a answers
			switch rng.IntN(10) {
			case 0, 1, 2, 3, 4, 5:
				m := send("p:a:b", uid, fmt.Sprint(step), "x")
				m.Append.DisplayedSeq = rng.Uint64N(head + 2)
				if rng.IntN(5) == 0 && head > 0 {
					m.Append.Kind, m.Append.TargetSeq = im.Kind_EVENT_RECALL, 1+rng.Uint64N(head)
				}
				if a = b.write(d, m); a.items[0].Code != 0 {
					continue
				}
				if m.Append.Kind == im.Kind_EVENT_RECALL {
					w.senders = append(w.senders, "")
				} else {
					w.senders = append(w.senders, uid)
				}
				if oneCommit { // else displayed_seq is Logic's to mark
					w.read[uid] = max(w.read[uid], min(m.Append.DisplayedSeq, head))
				}
			case 6:
				b.write(d, send("p:a:z", "z", fmt.Sprint(step), "x")).ok(t) // evicts
			default:
				if head == 0 {
					continue
				}
				seq := 1 + rng.Uint64N(head+3)
				a = b.write(d, read(uid, "p:a:b", seq)).ok(t)
				w.read[uid] = max(w.read[uid], min(seq, head))
			}
			b.drive(d, a)
			for _, uid := range []string{"a", "b"} {
				if len(w.senders) > 0 {
					equal(t, fmt.Sprintf("step %d, unread of %s", step, uid), b.unread(d, uid), w.unread(uid))
				}
			}
		}
	}
}

// drive is what Logic does with orders: a fan-out for each member.
func (b *bed) drive(d *Das, a answers) {
	b.Helper()
	for _, s := range a.items {
		for _, m := range s.GetAppend().GetOrder().GetMembers() {
			b.write(d, &tier.Submit{Fanout: m}).ok(b)
		}
	}
}

func (b *bed) unread(d *Das, uid string) uint64 {
	b.Helper()
	rsp, err := d.Unread(b.Context(), &tier.UnreadRequest{Tenant: tenant, Uid: uid, Conv: "p:a:b"})
	if err != nil {
		b.Fatal(err)
	}
	return rsp.Total
}

// READ is clamped to the log's head, not to what was fanned out, and what it read ahead of
// the fan-out stays read. Seen red: without the clamp.
func TestR24ReadMayRunAheadOfTheFanOut(t *testing.T) {
	inBed(t, shared(), func(t *testing.T, b *bed) {
		d := b.start(0)
		a := b.write(d, send("p:a:b", "a", "m1", "x"), send("p:a:b", "a", "m2", "x"), send("p:a:b", "a", "m3", "x")).ok(t)
		r := b.write(d, read("b", "p:a:b", 2)).ok(t)
		equal(t, "read", r.items[0].Row.ReadSeq, 2)
		equal(t, "never below 0", r.items[0].Row.Unread, 0)
		b.drive(d, a)
		equal(t, "then", b.unread(d, "b"), 1)
		equal(t, "never back", b.write(d, read("b", "p:a:b", 1)).ok(t).items[0].Row.ReadSeq, 2)
		equal(t, "clamped", b.write(d, read("b", "p:a:b", 99)).ok(t).items[0].Row.ReadSeq, 3)
		equal(t, "an empty log", b.write(d, read("b", "p:b:c", 1)).codes(), "not_found")
		equal(t, "another's", b.write(d, read("c", "p:a:b", 1)).codes(), "not_found")
		equal(t, "no log at all", b.write(d, read("b", "nonsense", 1)).codes(), "bad_request")

		pt, err := d.ReadPoint(t.Context(), &tier.ReadPointRequest{Tenant: tenant, Uid: "b", Conv: "p:a:b", Seq: 2})
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "point", *pt, tier.ReadPointReply{Seq: 2, Ord: 2, HeadSeq: 3, HeadOrd: 3, Epoch: 1})
		mark := read("a", "p:a:b", 3)
		mark.Read.Point = &tier.ReadPointReply{Seq: 3, Ord: 3, Own: 3, HeadSeq: 3, HeadOrd: 3, HeadOwn: 3}
		equal(t, "with a point", b.write(d, mark).ok(t).items[0].Row.ReadSeq, 3)
	})
}
