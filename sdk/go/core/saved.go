package core

import (
	"fmt"
	"maps"
	"slices"
	"sync"

	"hongyan/idl/code"
	"hongyan/idl/im"
)

// Saved is everything a device keeps across restarts.
type Saved struct {
	UID     string             // whose device it is, "" before the first login
	Counter uint64             // connection counter: raised before each AUTH (R27)
	Cursor  Cursor             //
	Convs   map[string]*Conv   //
	Outbox  map[string]*Queued // by client_msg_id
}

// Cursor is the position in the user's log.
type Cursor struct {
	Epoch   uint64 `json:"epoch"`
	Version uint64 `json:"version"` // highest version applied
	// Base is the head at the first SYNC of this epoch. Conversations that are first met
	// at or below it begin with their newest messages; their older ones are fetched by
	// History only.
	Base uint64 `json:"base"`
}

// Conv is what a device holds of one conversation.
type Conv struct {
	ID    string `json:"id"`
	Floor uint64 `json:"floor,omitempty"` // entries up to here are not kept and never a gap
	Last  uint64 `json:"last"`            // highest seq known to exist
	// Held are the seq above Floor that the application has, or that do not exist for it.
	// Whatever is missing up to Last is a gap, to be fetched.
	Held Ranges `json:"held,omitempty"`
	// Mods: all modifications up to this seq of the log are known.
	Mods     uint64 `json:"mods,omitempty"`
	Read     uint64 `json:"read,omitempty"`
	PeerRead uint64 `json:"peer,omitempty"`
	// Verify is set by RESET until what is held was confirmed and compared with the
	// server's copy: "unconfirmed", then "uncompared", then empty.
	Verify string `json:"verify,omitempty"`
	// Refs are the identities of the newest KeepRefs held entries, and the modifications of
	// entries that are still missing. In a Change: what is new or changed; it is merged.
	Refs map[uint64]Ref `json:"refs,omitempty"`
}

// Ref is the identity of an entry; without ClientMsgID, of one that is missing.
type Ref struct {
	ClientMsgID string `json:"c,omitempty"`
	Mod         uint64 `json:"m,omitempty"` // mod_seq
	// Lost: its body is that of a modification which the server does not have any more.
	Lost bool `json:"x,omitempty"`
}

// KeepRefs is of how many newest entries of a conversation the identity is kept.
const KeepRefs = 128

// Queued is one entry of the outbox: a message, recall or edit on its way.
type Queued struct {
	Outgoing
	N         uint64    `json:"n"`       // order of sending
	Attempt   uint32    `json:"attempt"` // writes so far
	CreatedMS int64     `json:"created"` // Unix milliseconds; the deadline counts from here
	Failed    code.Code `json:"failed,omitempty"`
}

// Outgoing is what a user sends.
type Outgoing struct {
	ClientMsgID string  `json:"id"`
	Cmd         im.Cmd  `json:"cmd,omitempty"` // SEND (also 0), RECALL, EDIT
	Conv        string  `json:"conv,omitempty"`
	To          string  `json:"to,omitempty"` // the peer's uid, instead of Conv
	Kind        im.Kind `json:"kind,omitempty"`
	Text        string  `json:"text,omitempty"`
	Data        []byte  `json:"data,omitempty"`
	Target      uint64  `json:"target,omitempty"`    // RECALL, EDIT: seq of the entry
	Displayed   uint64  `json:"displayed,omitempty"` // highest seq shown to the user: an implicit READ
	Silent      bool    `json:"silent,omitempty"`    // no offline push
}

// Change is what a store applies in one atomic write. Zero fields change nothing.
type Change struct {
	UID     string    `json:"uid,omitempty"`
	Counter uint64    `json:"counter,omitempty"`
	Cursor  *Cursor   `json:"cursor,omitempty"`
	Convs   []*Conv   `json:"convs,omitempty"`  // whole, but Refs, which are merged
	Put     []*Queued `json:"put,omitempty"`    // by client_msg_id
	Drop    []string  `json:"drop,omitempty"`   // client_msg_ids; after Put
	Forget  []string  `json:"forget,omitempty"` // conversations; before Convs
}

// Store keeps a device's Saved. Save is called by several goroutines.
type Store interface {
	// Load returns what is kept, nil maps included; the caller owns it.
	Load() (*Saved, error)
	// Save applies the change whole, durably, or not at all.
	Save(*Change) error
}

// Apply changes s by c. It keeps what c points to.
func (s *Saved) Apply(c *Change) {
	if s.Convs == nil {
		s.Convs = map[string]*Conv{}
	}
	if s.Outbox == nil {
		s.Outbox = map[string]*Queued{}
	}
	if c.UID != "" {
		s.UID = c.UID
	}
	s.Counter = max(s.Counter, c.Counter)
	if c.Cursor != nil {
		s.Cursor = *c.Cursor
	}
	for _, id := range c.Forget {
		delete(s.Convs, id)
	}
	for _, v := range c.Convs {
		s.Convs[v.ID] = v.over(s.Convs[v.ID])
	}
	for _, q := range c.Put {
		s.Outbox[q.ClientMsgID] = q
	}
	for _, id := range c.Drop {
		delete(s.Outbox, id)
	}
}

// Merge makes c the change that applying c and then d is. It takes over d, and may change
// the conversations of both.
func (c *Change) Merge(d *Change) {
	if d.UID != "" {
		c.UID = d.UID
	}
	c.Counter = max(c.Counter, d.Counter)
	if d.Cursor != nil {
		c.Cursor = d.Cursor
	}
	for _, id := range d.Forget {
		c.Convs = slices.DeleteFunc(c.Convs, func(v *Conv) bool { return v.ID == id })
		c.Forget = append(c.Forget, id)
	}
	for _, v := range d.Convs {
		i := slices.IndexFunc(c.Convs, func(o *Conv) bool { return o.ID == v.ID })
		if i < 0 {
			c.Convs = append(c.Convs, v)
			continue
		}
		c.Convs[i] = v.over(c.Convs[i])
	}
	for _, q := range d.Put {
		c.Drop = slices.DeleteFunc(c.Drop, func(id string) bool { return id == q.ClientMsgID })
		c.Put = append(c.Put, q)
	}
	c.Drop = append(c.Drop, d.Drop...)
}

// over is v with the refs of old that it still holds.
func (v *Conv) over(old *Conv) *Conv {
	n := *v
	n.Refs = map[uint64]Ref{}
	if old != nil {
		maps.Copy(n.Refs, old.Refs)
	}
	maps.Copy(n.Refs, v.Refs)
	n.trimRefs()
	return &n
}

// trimRefs drops the refs of what does not exist and, twice as many kept as needed, the oldest.
func (v *Conv) trimRefs() {
	maps.DeleteFunc(v.Refs, func(seq uint64, r Ref) bool {
		missing := seq > v.Floor && seq <= v.Last && r.Mod > 0 && r.Mod <= v.Last
		return !v.Held.Has(seq) && !missing
	})
	if len(v.Refs) <= 2*KeepRefs {
		return
	}
	seqs := slices.Sorted(maps.Keys(v.Refs))
	for _, seq := range seqs[:len(seqs)-KeepRefs] {
		delete(v.Refs, seq)
	}
}

// clone is a deep copy.
func (v *Conv) clone() *Conv {
	n := *v
	n.Held = slices.Clone(v.Held)
	n.Refs = maps.Clone(v.Refs)
	return &n
}

// Clone is a deep copy, but for the bodies of the outbox.
func (s *Saved) Clone() *Saved {
	n := *s
	n.Convs = make(map[string]*Conv, len(s.Convs))
	for id, v := range s.Convs {
		n.Convs[id] = v.clone()
	}
	n.Outbox = make(map[string]*Queued, len(s.Outbox))
	for id, q := range s.Outbox {
		c := *q
		n.Outbox[id] = &c
	}
	return &n
}

// Validate finds what no core would have written: a damaged store.
func (s *Saved) Validate() error {
	for id, v := range s.Convs {
		if v == nil || v.ID != id {
			return fmt.Errorf("conversation %q is kept under another name", id)
		}
		for i, r := range v.Held {
			if r.From > r.To || i > 0 && v.Held[i-1].To >= r.From {
				return fmt.Errorf("conversation %q: ranges %v are not ascending", id, v.Held)
			}
		}
	}
	for id, q := range s.Outbox {
		if q == nil || q.ClientMsgID != id {
			return fmt.Errorf("outbox entry %q is kept under another id", id)
		}
	}
	return nil
}

// Memory is a Store that lives as long as the process. The zero value is empty.
type Memory struct {
	mu    sync.Mutex
	saved Saved
}

// Load returns a copy of what is kept.
func (m *Memory) Load() (*Saved, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.saved.Clone(), nil
}

// Save applies a change.
func (m *Memory) Save(c *Change) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.saved.Apply(c)
	return nil
}
