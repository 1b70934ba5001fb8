package hongyan

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"hongyan/sdk/go/core"
)

// File is a Store in one file: a journal of changes, one line each, `crc32c json`. A change
// is one write and one fsync; a line that a crash has torn is not there. When the journal
// has grown to several times what it holds, it is rewritten beside and renamed over.
type File struct {
	mu     sync.Mutex
	path   string
	lock   *os.File
	f      *os.File
	saved  core.Saved
	size   int64 // bytes in the journal
	live   int64 // bytes of its last snapshot
	broken error // after a failed write nobody knows what is on disk
}

// compactAt is the least size, in bytes, at which a journal is rewritten.
const compactAt = 1 << 20

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// OpenFile opens the store of one device, or makes a new one, mode 0600. A second process
// that opens the same file is refused.
func OpenFile(path string) (*File, error) {
	lock, err := lockFile(path + ".lock")
	if err != nil {
		return nil, fmt.Errorf("device store %s: %w", path, err)
	}
	s := &File{path: path, lock: lock}
	if err := s.open(); err != nil {
		_ = lock.Close()
		return nil, fmt.Errorf("device store %s: %w", path, err)
	}
	return s, nil
}

func (s *File) open() error {
	f, err := os.OpenFile(s.path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	whole, err := replay(f, &s.saved)
	if err == nil {
		err = s.saved.Validate()
	}
	if err == nil {
		err = f.Truncate(whole)
	}
	if err == nil {
		_, err = f.Seek(whole, io.SeekStart)
	}
	if err == nil {
		err = syncDir(filepath.Dir(s.path))
	}
	if err != nil {
		_ = f.Close()
		return err
	}
	s.f, s.size = f, whole
	return nil
}

// replay applies every whole line and returns how many bytes they are. A broken line is
// the torn end of the last write; lines after it mean that the file is damaged.
func replay(r io.Reader, into *core.Saved) (whole int64, err error) {
	in := bufio.NewReader(r)
	for {
		line, err := in.ReadBytes('\n')
		if len(line) == 0 && err == io.EOF {
			return whole, nil
		}
		if err != nil && err != io.EOF {
			return whole, err
		}
		c, ok := parseLine(line)
		if !ok {
			if _, err := in.ReadByte(); err != io.EOF {
				return whole, fmt.Errorf("line at byte %d is damaged", whole)
			}
			return whole, nil
		}
		into.Apply(c)
		whole += int64(len(line))
	}
}

func parseLine(line []byte) (*core.Change, bool) {
	body, ended := bytes.CutSuffix(line, []byte("\n"))
	sum, body, ok := bytes.Cut(body, []byte(" "))
	if !ok || !ended {
		return nil, false
	}
	want, err := strconv.ParseUint(string(sum), 16, 32)
	if err != nil || uint32(want) != crc32.Checksum(body, castagnoli) {
		return nil, false
	}
	var c core.Change
	if json.Unmarshal(body, &c) != nil || !sane(&c) {
		return nil, false
	}
	return &c, true
}

// sane: a line holds no null where Apply expects something.
func sane(c *core.Change) bool {
	for _, v := range c.Convs {
		if v == nil {
			return false
		}
	}
	for _, q := range c.Put {
		if q == nil {
			return false
		}
	}
	return true
}

func appendLine(dst []byte, c *core.Change) ([]byte, error) {
	body, err := json.Marshal(c)
	if err != nil {
		return dst, err
	}
	dst = fmt.Appendf(dst, "%08x ", crc32.Checksum(body, castagnoli))
	dst = append(dst, body...)
	return append(dst, '\n'), nil
}

// Load returns a copy of what is kept.
func (s *File) Load() (*core.Saved, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.saved.Clone(), s.broken
}

// Save writes the change and waits for the disk. After an error the store is of no more
// use: open it again.
func (s *File) Save(c *core.Change) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken != nil {
		return s.broken
	}
	if err := s.append(c); err != nil {
		s.broken = fmt.Errorf("device store %s: %w", s.path, err)
		return s.broken
	}
	s.saved.Apply(c)
	if s.size > compactAt && s.size > 4*s.live {
		if err := s.compact(); err != nil {
			s.broken = fmt.Errorf("device store %s: rewrite: %w", s.path, err)
			return s.broken
		}
	}
	return nil
}

func (s *File) append(c *core.Change) error {
	line, err := appendLine(nil, c)
	if err != nil {
		return err
	}
	if _, err := s.f.Write(line); err != nil {
		return err
	}
	s.size += int64(len(line))
	return s.f.Sync()
}

// compact writes everything as one change into a new file that takes the place of the old.
func (s *File) compact() error {
	line, err := appendLine(nil, snapshot(&s.saved))
	if err != nil {
		return err
	}
	tmp, err := os.OpenFile(s.path+".new", os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = tmp.Write(line)
	if err == nil {
		err = tmp.Sync()
	}
	if err == nil {
		err = os.Rename(tmp.Name(), s.path)
	}
	if err != nil {
		return errors.Join(err, tmp.Close())
	}
	_ = s.f.Close() // its content is in the new one
	s.f, s.size, s.live = tmp, int64(len(line)), int64(len(line))
	return syncDir(filepath.Dir(s.path))
}

func snapshot(s *core.Saved) *core.Change {
	c := &core.Change{UID: s.UID, Counter: s.Counter, Cursor: &s.Cursor}
	for _, v := range s.Convs {
		c.Convs = append(c.Convs, v)
	}
	for _, q := range s.Outbox {
		c.Put = append(c.Put, q)
	}
	return c
}

// Close gives the file back.
func (s *File) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if errors.Is(s.broken, os.ErrClosed) {
		return nil
	}
	s.broken = fmt.Errorf("device store %s: %w", s.path, os.ErrClosed)
	return errors.Join(s.f.Close(), s.lock.Close())
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
