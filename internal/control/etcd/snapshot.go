package etcd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"
	"unicode/utf8"

	"hongyan/internal/control"
)

// snapshot is the file that a process starts from while etcd is away. Records are kept as
// they were found: what cannot be read in them is ignored as it is in etcd.
type snapshot struct {
	Members  section                      `json:"members"`
	Values   section                      `json:"values"`
	Services map[string]map[string]stored `json:"services,omitempty"` // by service; their position does not matter
}

type section struct {
	At      position          `json:"at"`
	Entries map[string]stored `json:"entries"`
	Held    map[string]stored `json:"held,omitempty"` // values that etcd has lost
}

// stored is one record: Text, or Data if it is no text.
type stored struct {
	Text     string `json:"text,omitempty"`
	Data     []byte `json:"data,omitempty"`
	Revision int64  `json:"revision"`
}

func store(entries map[string]entry) map[string]stored {
	out := make(map[string]stored, len(entries))
	for key, e := range entries {
		s := stored{Revision: e.revision}
		if utf8.Valid(e.data) {
			s.Text = string(e.data)
		} else {
			s.Data = e.data
		}
		out[key] = s
	}
	return out
}

// restore shows what was stored, until there is a list.
func (m *mirror) restore(entries map[string]stored) { load(m.entries, entries) }

func load(entries map[string]entry, from map[string]stored) {
	for key, s := range from {
		e := entry{data: s.Data, revision: s.Revision}
		if s.Text != "" {
			e.data = []byte(s.Text)
		}
		entries[key] = e
	}
}

func decodeSnapshot(data []byte) (snapshot, error) {
	var s snapshot
	if err := json.Unmarshal(data, &s); err != nil {
		return s, err
	}
	if s.Members.Entries == nil || s.Values.Entries == nil {
		return s, errors.New("members or values are missing")
	}
	return s, nil
}

// loadSnapshot puts what the file holds in place. An error means that there is none.
func (c *Center) loadSnapshot() error {
	if c.cfg.Snapshot == "" {
		return errors.New("no snapshot file is configured")
	}
	data, err := os.ReadFile(c.cfg.Snapshot)
	if err != nil {
		return fmt.Errorf("read snapshot: %w", err)
	}
	s, err := decodeSnapshot(data)
	if err != nil {
		err = fmt.Errorf("snapshot %s: %w", c.cfg.Snapshot, err)
		c.log.Warn("snapshot cannot be used", "err", err)
		return err
	}
	c.useSnapshot(s)
	return nil
}

func (c *Center) useSnapshot(s snapshot) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.members.restore(s.Members.Entries)
	c.members.seen = s.Members.At
	c.values.restore(s.Values.Entries)
	load(c.values.held, s.Values.Held)
	c.values.seen = s.Values.At
	c.saved = s.Services
	c.changedLocked(c.members)
	c.changedLocked(c.values)
}

// snapshotEvery gathers changes before the file is written.
const snapshotEvery = 200 * time.Millisecond

// saveSnapshots writes the file after changes, until ctx ends, and then once more.
func (c *Center) saveSnapshots(ctx context.Context) {
	if c.cfg.Snapshot == "" {
		return
	}
	var written []byte
	told := ""
	for {
		data, change := c.encodeSnapshot()
		if data != nil && !bytes.Equal(data, written) {
			err := control.WriteFile(c.cfg.Snapshot, data)
			switch {
			case err == nil:
				written, told = data, ""
			case err.Error() != told:
				told = err.Error()
				c.log.Error("snapshot not written: a start while etcd is away would miss changes", "file", c.cfg.Snapshot, "err", err)
			}
		}
		if ctx.Err() != nil {
			return
		}
		select {
		case <-change:
			pause(ctx, snapshotEvery)
		case <-ctx.Done():
		}
	}
}

// encodeSnapshot returns nil before etcd was listed in this life.
func (c *Center) encodeSnapshot() ([]byte, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.members.listed || !c.values.listed {
		return nil, c.change
	}
	s := snapshot{
		Members:  section{At: c.members.seen, Entries: store(c.members.all())},
		Values:   section{c.values.seen, store(c.values.entries), store(c.values.held)},
		Services: map[string]map[string]stored{},
	}
	for name, entries := range c.saved {
		s.Services[name] = entries
	}
	for name, m := range c.services {
		s.Services[name] = store(m.all())
	}
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return nil, c.change // of plain records: it cannot be
	}
	return append(data, '\n'), c.change
}
