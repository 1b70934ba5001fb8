package das

import "testing"

func TestAppendOneCommit(t *testing.T) {
	inBed(t, exclusive(), func(t *testing.T, b *bed) {
		d := b.start(0)
		a := b.write(d, send("p:a:b", "a", "m1", "hello")).ok(t)
		equal(t, "seq", a.items[0].Append.Seq, 1)
		equal(t, "version of the sender", a.items[0].Version, 1)
		equal(t, "changes", len(a.changes), 2)
		equal(t, "unread of b", a.row("b").Unread, 1)
		equal(t, "unread of a", a.row("a").Unread, 0)
		equal(t, "log", texts(b.history(d, "b", "p:a:b")), "1=hello")
		s := b.sync(d, "b", 0)
		equal(t, "sync head", s.Head, 1)
		equal(t, "sync messages", texts(s.Changes[0].Messages), "1=hello")
	})
}
