package store

import (
	"fmt"
	"strings"
)

// ValidID tells whether s may be part of a key: at most MaxID bytes, none of them zero.
func ValidID(s string) bool {
	return len(s) <= MaxID && strings.IndexByte(s, 0) < 0
}

// Valid tells whether both parts of the key may be stored. The tenant may be empty.
func (k Key) Valid() bool {
	return k.ID != "" && ValidID(k.ID) && ValidID(k.Tenant)
}

func invalid(format string, a ...any) error {
	return fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, a...))
}

// Validate checks the rules of Batch that can be seen without the database. It returns
// an error that wraps ErrInvalid and names the first rule broken.
func (b *Batch) Validate() error {
	if err := b.validateConvs(); err != nil {
		return err
	}
	if err := b.validateUsers(); err != nil {
		return err
	}
	return b.ValidateRest()
}

// ValidateRest is Validate but for conversations, users, messages and member rows: a store
// that meets those on its way checks them there.
func (b *Batch) ValidateRest() error {
	if err := b.validateOutbox(); err != nil {
		return err
	}
	return b.validateRows()
}

func (b *Batch) validateConvs() error {
	type span struct{ last, to uint64 }
	moves := make(map[Key]*span, len(b.Convs))
	for _, m := range b.Convs {
		switch {
		case !m.Key.Valid():
			return invalid("conversation id %q", m.Key)
		case moves[m.Key] != nil:
			return invalid("two moves of conversation %q", m.Key)
		case m.To.Seq <= m.From:
			return invalid("conversation %q moves from %d to %d", m.Key, m.From, m.To.Seq)
		}
		moves[m.Key] = &span{m.From, m.To.Seq}
	}
	for _, m := range b.Messages {
		s := moves[m.Conv]
		if s == nil || m.Seq != s.last+1 {
			return invalid("entry %q/%d is not the next of a move", m.Conv, m.Seq)
		}
		if !ValidID(m.Sender) || !ValidID(m.ClientMsgID) {
			return invalid("sender or client_msg_id of entry %q/%d", m.Conv, m.Seq)
		}
		s.last++
	}
	for k, s := range moves {
		if s.last != s.to {
			return invalid("conversation %q moves to %d, its entries end at %d", k, s.to, s.last)
		}
	}
	for _, m := range b.Rewrites {
		if moves[m.Conv] == nil {
			return invalid("rewrite of %q/%d without a move", m.Conv, m.Seq)
		}
	}
	return nil
}

func (b *Batch) validateUsers() error {
	type row struct{ user, part any }
	seen := make(map[row]bool, 2*len(b.Members))
	moves := make(map[Key]UserMove, len(b.Users))
	highest := make(map[Key]uint64, len(b.Users))
	for _, m := range b.Users {
		if _, twice := moves[m.Key]; twice || !m.Key.Valid() || m.To < m.From {
			return invalid("move of user %q from %d to %d", m.Key, m.From, m.To)
		}
		moves[m.Key], highest[m.Key] = m, m.From
	}
	for _, r := range b.Members {
		m, ok := moves[r.User]
		if !ok || r.Version <= m.From || r.Version > m.To {
			return invalid("row (%q, %q) has version %d outside of its user's move", r.User, r.Conv, r.Version)
		}
		if r.Conv == "" || !ValidID(r.Conv) || seen[row{r.User, r.Conv}] || seen[row{r.User, r.Version}] {
			return invalid("row (%q, %q): conversation or version %d stands twice", r.User, r.Conv, r.Version)
		}
		seen[row{r.User, r.Conv}], seen[row{r.User, r.Version}] = true, true
		highest[r.User] = max(highest[r.User], r.Version)
	}
	for k, m := range moves {
		if highest[k] != m.To {
			return invalid("user %q moves to %d, his rows end at %d", k, m.To, highest[k])
		}
	}
	return nil
}

func (b *Batch) validateOutbox() error {
	fanOut, deliver := make(map[RowKey]bool, len(b.FanOut)), make(map[RowKey]bool, len(b.Deliver))
	for i := range b.FanOut {
		k := b.FanOut[i].RowKey
		if fanOut[k] || k.Owner == "" || !ValidID(k.Owner) {
			return invalid("fan-out row %v", k)
		}
		fanOut[k] = true
	}
	for i := range b.Deliver {
		k := b.Deliver[i].RowKey
		if deliver[k] || k.Owner == "" || !ValidID(k.Owner) {
			return invalid("delivery row %v", k)
		}
		deliver[k] = true
	}
	for _, done := range [...][]RowRange{b.FanOutDone, b.DeliverDone} {
		for _, r := range done {
			if r.Owner == "" || !ValidID(r.Owner) || r.From > r.To {
				return invalid("finished range %v", r)
			}
		}
	}
	return nil
}

func (b *Batch) validateRows() error {
	for _, f := range b.Buckets {
		if f.ID >= Buckets {
			return invalid("bucket %d", f.ID)
		}
	}
	type slot struct {
		user  Key
		class string
		slot  uint32
	}
	slots := make(map[slot]bool, len(b.Sessions))
	for _, m := range b.Sessions {
		k := slot{m.User, m.To.Class, m.To.Slot}
		if slots[k] || !m.User.Valid() || !ValidID(m.To.Class) {
			return invalid("session %v", k)
		}
		slots[k] = true
	}
	for _, r := range b.Cursors {
		if !r.User.Valid() || !ValidID(r.ID) {
			return invalid("device %q of user %q", r.ID, r.User)
		}
	}
	for _, w := range b.Woken {
		if !w.User.Valid() {
			return invalid("woken mark of user %q", w.User)
		}
	}
	for _, p := range b.Pushes {
		if !p.User.Valid() || !ValidID(p.Device) || !ValidID(p.Conv) {
			return invalid("push to user %q", p.User)
		}
	}
	return nil
}
