package local

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"go.yaml.in/yaml/v3"

	"hongyan/internal/control"
)

// FileConfig says where a File reads its members from.
type FileConfig struct {
	// Path of a YAML or JSON file; DecodeFile tells its form.
	Path string `koanf:"path"`
	// Snapshot is where the last good content is kept; empty = nowhere. A process whose
	// file is missing or bad when it starts goes on from there.
	Snapshot string `koanf:"snapshot"`
	// Interval between two looks at the file.
	Interval time.Duration `koanf:"interval"`
}

// DefaultFileConfig looks every second.
func DefaultFileConfig() FileConfig { return FileConfig{Interval: time.Second} }

// Validate tells what is wrong.
func (c FileConfig) Validate() error {
	if c.Path == "" {
		return errors.New("control file: path is empty")
	}
	if c.Interval <= 0 {
		return fmt.Errorf("control file: interval %s is not above 0", c.Interval)
	}
	return nil
}

// maxFile bounds what is read: a members file is a page of text.
const maxFile = 1 << 20

// File is a Center whose listed members come from a file that is read again while Run
// runs. Content that cannot be used is refused, reported once, and the last good one kept.
type File struct {
	*Center
	cfg FileConfig
	log *slog.Logger

	mu   sync.Mutex
	seen []byte // content of the last look, good or bad
	bad  error  // why that content is not in use
}

// Open reads the file, or else the snapshot. An error means that neither can be used.
func Open(cfg FileConfig, log *slog.Logger) (*File, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	center, err := New(nil)
	if err != nil {
		return nil, err
	}
	f := &File{Center: center, cfg: cfg, log: log}
	err = f.Reload()
	if err == nil {
		return f, nil
	}
	if cfg.Snapshot == "" {
		return nil, err
	}
	members, serr := control.LoadSnapshot(cfg.Snapshot)
	if serr == nil {
		serr = f.List(members)
	}
	if serr != nil {
		return nil, errors.Join(err, serr)
	}
	log.Warn("control file cannot be used, going on from the snapshot", "file", cfg.Path, "snapshot", cfg.Snapshot, "err", err)
	return f, nil
}

// Run looks at the file every interval, until ctx ends.
func (f *File) Run(ctx context.Context) error {
	return poll(ctx, f.cfg.Interval, f.Err, f.Reload, func(err error) {
		f.log.Error("control file refused, the last good content stays", "file", f.cfg.Path, "err", err)
	})
}

// Err tells why the file as it is now is not in use; nil = it is.
func (f *File) Err() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.bad
}

// Reload reads the file now and returns Err.
func (f *File) Reload() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	data, err := readFile(f.cfg.Path)
	if err != nil {
		f.seen, f.bad = nil, err
		return err
	}
	if f.seen != nil && bytes.Equal(data, f.seen) {
		return f.bad
	}
	f.seen, f.bad = data, f.use(data)
	return f.bad
}

func (f *File) use(data []byte) error {
	members, err := DecodeFile(data)
	if err != nil {
		return fmt.Errorf("control file %s: %w", f.cfg.Path, err)
	}
	if err := f.List(members); err != nil {
		return fmt.Errorf("control file %s: %w", f.cfg.Path, err)
	}
	if f.cfg.Snapshot == "" {
		return nil
	}
	if err := control.SaveSnapshot(f.cfg.Snapshot, members); err != nil {
		// The members are in use all the same: only the next start would miss them.
		f.log.Error("control snapshot not written", "err", err)
	}
	return nil
}

func readFile(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("control file: %w", err)
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("control file: %w", err)
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("control file %s: larger than %d bytes", path, maxFile)
	}
	return data, nil
}

// DecodeFile parses a members file: for each tier either the addresses in slot order, or
// slots and instances in full.
//
//	das: ["127.0.0.1:9101"]
//	logic:
//	  slots: 3                # may count slots that are not filled yet
//	  instances:
//	    - {slot: 0, addr: "127.0.0.1:9001"}
//	    - {slot: 2, addr: "127.0.0.1:9003"}
func DecodeFile(data []byte) (map[string]control.Members, error) {
	var tiers map[string]tierEntry
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	if err := dec.Decode(&tiers); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, errors.New("the file is empty")
		}
		return nil, err
	}
	members := make(map[string]control.Members, len(tiers))
	for name, t := range tiers {
		m, err := control.Normalize(name, control.Members(t))
		if err != nil {
			return nil, err
		}
		members[name] = m
	}
	return members, nil
}

type tierEntry control.Members

// UnmarshalYAML takes both forms of a tier.
func (t *tierEntry) UnmarshalYAML(node *yaml.Node) error {
	if node.Kind == yaml.SequenceNode {
		var addrs []string
		if err := node.Decode(&addrs); err != nil {
			return err
		}
		for slot, addr := range addrs {
			t.Instances = append(t.Instances, control.Instance{Slot: slot, Addr: addr})
		}
		return nil
	}
	return t.decodeFull(node)
}

// decodeFull checks the keys itself: a custom decoder is not told of KnownFields.
func (t *tierEntry) decodeFull(node *yaml.Node) error {
	type instance struct {
		Slot *int
		Addr string
	}
	var full struct {
		Slots     int
		Instances []instance
	}
	text, err := yaml.Marshal(node)
	if err != nil {
		return err
	}
	dec := yaml.NewDecoder(bytes.NewReader(text))
	dec.KnownFields(true)
	if err := dec.Decode(&full); err != nil {
		return fmt.Errorf("line %d: %w", node.Line, err)
	}
	t.Slots = full.Slots
	for _, in := range full.Instances {
		if in.Slot == nil {
			return fmt.Errorf("line %d: instance %q: slot is missing", node.Line, in.Addr)
		}
		t.Instances = append(t.Instances, control.Instance{Slot: *in.Slot, Addr: in.Addr})
	}
	return nil
}
