package das

import (
	"testing"

	"hongyan/das/store"
	"hongyan/das/store/memory"
	"hongyan/idl/tier"
)

// An item whose key cannot be read is answered and left out; when the batch of the others is
// fenced after that, it must not be planned, and answered, once more. Seen red while process
// repeated the items it was given: the item was settled twice, and the bound of appends in
// flight leaked a place each time.
func TestUnreadableItemIsAnsweredOnceThoughTheRestIsFenced(t *testing.T) {
	fences := 1
	opt := memory.Options{Exclusive: true, Strict: true, BeforeCommit: func(*store.Batch) error {
		if fences--; fences == 0 {
			return &store.FenceError{Convs: []store.Key{{Tenant: tenant, ID: "p:c:d"}}}
		}
		return nil
	}}
	s := &unreadable{Store: memory.New(opt), bad: "p:a:b"}
	inBed(t, s, func(t *testing.T, b *bed) {
		d := b.start(0)
		a := b.write(d, send("p:a:b", "a", "1", "x"), send("p:c:d", "c", "1", "x"))
		equal(t, "outcomes", a.codes(), "unavailable ok")
		equal(t, "appends in flight", d.appends.Load(), 0)
	})
}

// A device that comes from another copy of the database names a cursor beyond the head. It is
// told to reset; its cursor must not stand for deliveries that are still to come. Seen red
// while a login raised the cursor to whatever it named.
func TestCursorBeyondTheHeadIsNotTakenAtLogin(t *testing.T) {
	inBed(t, exclusive(), func(t *testing.T, b *bed) {
		d := b.start(0)
		cursor := func() uint64 {
			rsp, err := d.Progress(b.Context(), &tier.ProgressRequest{Tenant: tenant, Uids: []string{"u"}})
			if err != nil {
				t.Fatal(err)
			}
			return rsp.Users[0].Cursor
		}
		claim := func(at, counter uint64) {
			in := login("phone", counter, 1)
			in.Login.Epoch, in.Login.Cursor = 1, at
			b.write(d, in).ok(t)
		}
		b.write(d, send("p:a:u", "a", "1", "x")).ok(t)
		claim(1000, 1)
		equal(t, "beyond the head", cursor(), 0)
		claim(1, 2)
		equal(t, "at the head", cursor(), 1)
		b.write(d, send("p:a:u", "a", "2", "x")).ok(t)
		equal(t, "after one more", cursor(), 1)
	})
}
