package telemetry

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// daily is a writer with one file a day, by local time. It has no goroutine: the first
// line after midnight opens the new file.
type daily struct {
	dir, name string
	keep      int // days; 0 = all

	mu   sync.Mutex
	file *os.File
	day  string
}

const dayForm = "2006-01-02"

// Open returns what NewLogger is to write to: the day's file of name where c has a
// directory (MF-12), stderr otherwise. A file belongs to one process: name is the tier,
// with its slot where several run on one host. c must be valid.
func Open(c Config, name string, stderr io.Writer) (io.WriteCloser, error) {
	if c.Dir == "" {
		return unowned{stderr}, nil
	}
	if name == "" || name != filepath.Base(name) || strings.ContainsAny(name, `*?[\`) {
		return nil, fmt.Errorf("open log: name %q cannot be part of a file name", name)
	}
	d, err := openDaily(c.Dir, name, c.KeepDays)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	return d, nil
}

// unowned is a stream that others close.
type unowned struct{ io.Writer }

func (unowned) Close() error { return nil }

func openDaily(dir, name string, keep int) (*daily, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, err
	}
	d := &daily{dir: dir, name: name, keep: keep}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.turnLocked(time.Now()); err != nil {
		return nil, err
	}
	return d, nil
}

func (d *daily) Write(line []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.file == nil {
		return 0, os.ErrClosed
	}
	if now := time.Now(); now.Format(dayForm) != d.day {
		if err := d.turnLocked(now); err != nil {
			// Yesterday's file is better than no line at all.
			fmt.Fprintf(d.file, "log file of %s cannot be opened: %v\n", now.Format(dayForm), err)
		}
	}
	return d.file.Write(line)
}

func (d *daily) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.file == nil {
		return nil
	}
	err := d.file.Close()
	d.file = nil
	return err
}

// turnLocked opens the file of the day and drops those that are too old.
func (d *daily) turnLocked(now time.Time) error {
	day := now.Format(dayForm)
	file, err := os.OpenFile(d.path(day), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	if err != nil {
		return err
	}
	if d.file != nil {
		_ = d.file.Close()
	}
	d.file, d.day = file, day
	if d.keep > 0 {
		d.dropLocked(now.AddDate(0, 0, 1-d.keep).Format(dayForm))
	}
	return nil
}

// dropLocked removes the files of days before first. What cannot be removed stays.
func (d *daily) dropLocked(first string) {
	files, err := filepath.Glob(d.path("????-??-??"))
	if err != nil {
		return
	}
	for _, file := range files {
		if file < d.path(first) {
			_ = os.Remove(file)
		}
	}
}

func (d *daily) path(day string) string {
	return filepath.Join(d.dir, d.name+"-"+day+".log")
}
