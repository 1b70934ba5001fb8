package pebblestore

import (
	"fmt"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// logFS is the file system that Pebble sees. Where Pebble would take the process down with
// a panic, because the disk is full when the next log is to be made, it breaks the store
// instead and hands out a log that takes nothing: the commit at hand gets an error, and
// whoever runs the store can end in order.
type logFS struct {
	vfs.FS
	fail func(error)
}

func (fs *logFS) Unwrap() vfs.FS { return fs.FS }

func (fs *logFS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := fs.FS.Create(name, category)
	return fs.log(name, f, err)
}

func (fs *logFS) ReuseForWrite(oldname, newname string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := fs.FS.ReuseForWrite(oldname, newname, category)
	return fs.log(newname, f, err)
}

func (fs *logFS) log(name string, f vfs.File, err error) (vfs.File, error) {
	if err == nil || !strings.HasSuffix(name, ".log") {
		return f, err
	}
	err = fmt.Errorf("new log file: %w", err)
	fs.fail(err)
	return &brokenFile{vfs.NewMemFile(nil), err}, nil
}

func (fs *logFS) OpenDir(name string) (vfs.File, error) {
	f, err := fs.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return &logDir{f, fs.fail}, nil
}

// logDir is the directory of the log: if it cannot be synced, a new log may be gone after a
// crash. The store is broken then, so that no commit in that log is answered.
type logDir struct {
	vfs.File
	fail func(error)
}

func (d *logDir) Sync() error {
	if err := d.File.Sync(); err != nil {
		d.fail(fmt.Errorf("sync of the directory: %w", err))
	}
	return nil
}

// brokenFile fails every write.
type brokenFile struct {
	vfs.File
	err error
}

func (f *brokenFile) Write([]byte) (int, error)          { return 0, f.err }
func (f *brokenFile) WriteAt([]byte, int64) (int, error) { return 0, f.err }
func (f *brokenFile) Preallocate(int64, int64) error     { return nil }
func (f *brokenFile) Sync() error                        { return f.err }
func (f *brokenFile) SyncData() error                    { return f.err }
func (f *brokenFile) SyncTo(int64) (bool, error)         { return false, f.err }
