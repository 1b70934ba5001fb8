package local

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"go.yaml.in/yaml/v3"

	"hongyan/internal/control"
)

// Values are live settings in memory, or in a file that is read again when somebody edits
// it, and written by PutValue.
type Values struct {
	cfg ValuesConfig // Path empty: memory only
	log *slog.Logger

	mu       sync.Mutex
	values   map[string]control.Value
	revision int64         // of the last write of any key
	change   chan struct{} // closed and replaced at every change
	closed   bool
	seen     []byte // content of the file at the last look, good or bad
	bad      error  // why that content is not in use
}

// ValuesConfig says where values are kept.
type ValuesConfig struct {
	// Path of a YAML file: key -> text. It need not be there.
	Path string `koanf:"path"`
	// Interval between two looks at the file.
	Interval time.Duration `koanf:"interval"`
}

// NewValues keeps values in memory.
func NewValues() *Values {
	return &Values{
		log:    slog.New(slog.DiscardHandler),
		values: map[string]control.Value{}, change: make(chan struct{}),
	}
}

// OpenValues keeps values in a file. One that cannot be used is an error here; later it is
// reported once, and what was last read stays.
func OpenValues(cfg ValuesConfig, log *slog.Logger) (*Values, error) {
	if cfg.Path == "" {
		return nil, errors.New("control file: path is empty")
	}
	if cfg.Interval <= 0 {
		return nil, fmt.Errorf("control file: interval %s is not above 0", cfg.Interval)
	}
	v := NewValues()
	v.cfg = cfg
	if log != nil {
		v.log = log
	}
	return v, v.reload()
}

// Run looks at the file every interval, until ctx ends. Without a file it only waits.
func (v *Values) Run(ctx context.Context) error {
	if v.cfg.Path == "" {
		<-ctx.Done()
		return nil
	}
	tick := time.NewTicker(v.cfg.Interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			before := v.Err()
			if err := v.reload(); err != nil && (before == nil || before.Error() != err.Error()) {
				v.log.Error("values file refused, the last good content stays", "file", v.cfg.Path, "err", err)
			}
		}
	}
}

func (v *Values) reload() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.reloadLocked()
}

// Err tells why the file as it is now is not in use; nil = it is.
func (v *Values) Err() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.bad
}

// Value implements control.Values.
func (v *Values) Value(ctx context.Context, key string) (control.Value, error) {
	if err := control.ValidKey(key); err != nil {
		return control.Value{}, err
	}
	if err := ctx.Err(); err != nil {
		return control.Value{}, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed {
		return control.Value{}, control.ErrClosed
	}
	return v.getLocked(key), nil
}

func (v *Values) getLocked(key string) control.Value {
	if have, ok := v.values[key]; ok {
		return have
	}
	return control.Value{Key: key}
}

// PutValue implements control.Values.
func (v *Values) PutValue(ctx context.Context, key string, data []byte, revision int64) (control.Value, error) {
	if err := control.ValidValue(key, data); err != nil {
		return control.Value{}, err
	}
	if err := ctx.Err(); err != nil {
		return control.Value{}, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed {
		return control.Value{}, control.ErrClosed
	}
	if err := v.reloadLocked(); err != nil { // what an editor has just saved must not be lost
		return control.Value{}, err
	}
	have := v.getLocked(key)
	if revision >= 0 && have.Revision != revision {
		return have, fmt.Errorf("put %s at revision %d, it is at %d: %w", key, revision, have.Revision, control.ErrConflict)
	}
	next := map[string][]byte{}
	for k, value := range v.values {
		next[k] = value.Data
	}
	next[key] = bytes.Clone(data)
	if data == nil {
		delete(next, key)
	}
	if err := v.saveLocked(next); err != nil {
		return control.Value{}, err
	}
	v.takeLocked(next, key)
	return v.getLocked(key), nil
}

// WatchValues implements control.Values.
func (v *Values) WatchValues(ctx context.Context, prefix string, fn func([]control.Value)) error {
	look := func() ([]control.Value, <-chan struct{}, error) { return v.under(prefix) }
	return follow(ctx, look, func(a, b []control.Value) bool { return slices.EqualFunc(a, b, sameValue) }, fn)
}

func sameValue(a, b control.Value) bool { return a.Key == b.Key && a.Revision == b.Revision }

// Close ends all watches. The file stays.
func (v *Values) Close() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.closed {
		v.closed = true
		close(v.change)
	}
	return nil
}

func (v *Values) under(prefix string) ([]control.Value, <-chan struct{}, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed {
		return nil, nil, control.ErrClosed
	}
	var set []control.Value
	for key, value := range v.values {
		if strings.HasPrefix(key, prefix) {
			set = append(set, value)
		}
	}
	slices.SortFunc(set, func(a, b control.Value) int { return strings.Compare(a.Key, b.Key) })
	return set, v.change, nil
}

// takeLocked puts next in force. written is a key whose revision rises even if its data stays.
func (v *Values) takeLocked(next map[string][]byte, written string) {
	changed := false
	for key := range v.values {
		if next[key] == nil {
			delete(v.values, key)
			changed = true
		}
	}
	for key, data := range next {
		have, ok := v.values[key]
		if ok && key != written && bytes.Equal(have.Data, data) {
			continue
		}
		v.revision++
		v.values[key] = control.Value{Key: key, Data: data, Revision: v.revision}
		changed = true
	}
	if changed {
		close(v.change)
		v.change = make(chan struct{})
	}
}

func (v *Values) reloadLocked() error {
	if v.cfg.Path == "" || v.closed {
		return nil
	}
	data, err := readFile(v.cfg.Path)
	if errors.Is(err, fs.ErrNotExist) {
		data, err = nil, nil
	}
	if err != nil {
		v.bad = err
		return err
	}
	if v.seen != nil && bytes.Equal(data, v.seen) {
		return v.bad
	}
	values, err := DecodeValues(data)
	v.seen, v.bad = append([]byte{}, data...), err
	if err != nil {
		v.bad = fmt.Errorf("values file %s: %w", v.cfg.Path, err)
		return v.bad
	}
	v.takeLocked(values, "")
	return nil
}

func (v *Values) saveLocked(values map[string][]byte) error {
	if v.cfg.Path == "" {
		return nil
	}
	text := make(map[string]string, len(values))
	for key, data := range values {
		text[key] = string(data)
	}
	data, err := yaml.Marshal(text)
	if err != nil {
		return fmt.Errorf("encode values: %w", err)
	}
	if err := control.WriteFile(v.cfg.Path, data); err != nil {
		return fmt.Errorf("write values: %w", err)
	}
	v.seen, v.bad = data, nil
	return nil
}

// DecodeValues parses a values file: a mapping of keys to texts.
//
//	config/entry: |
//	  log: {level: debug}
func DecodeValues(data []byte) (map[string][]byte, error) {
	var text map[string]string
	if err := yaml.Unmarshal(data, &text); err != nil {
		return nil, err
	}
	values := make(map[string][]byte, len(text))
	for key, value := range text {
		if err := control.ValidValue(key, []byte(value)); err != nil {
			return nil, err
		}
		values[key] = append([]byte{}, value...)
	}
	return values, nil
}

// maxFile bounds what is read: values are pages of text.
const maxFile = 1 << 20

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
