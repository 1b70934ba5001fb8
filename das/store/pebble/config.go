package pebblestore

import (
	"fmt"
	"log/slog"
	"runtime"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/sstable/block"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"
)

// Config says where the database is and how much memory it may take.
type Config struct {
	// Dir is the data directory; it is created if need be. One process at a time uses it.
	Dir string `yaml:"dir" koanf:"dir"`
	// CacheMiB is the cache of blocks read from disk, in MiB.
	CacheMiB int `yaml:"cache_mib" koanf:"cache_mib"`
	// MemTableMiB is how much is gathered in memory before it is sorted into a file, in MiB.
	// Two to four of them may exist at a time.
	MemTableMiB int `yaml:"mem_table_mib" koanf:"mem_table_mib"`
	// HeadConvs is how many heads of conversations are held to check fences without reading,
	// about 250 bytes each.
	HeadConvs int `yaml:"head_convs" koanf:"head_convs"`
	// HeadRows is how many member rows' positions are held for the same end, about 150 bytes
	// each.
	HeadRows int `yaml:"head_rows" koanf:"head_rows"`
}

// DefaultConfig fits a machine with a few GiB of memory to spare.
func DefaultConfig() Config {
	return Config{Dir: "data", CacheMiB: 128, MemTableMiB: 64, HeadConvs: 400_000, HeadRows: 800_000}
}

// Validate tells the first setting that cannot work.
func (c Config) Validate() error {
	switch {
	case c.Dir == "":
		return fmt.Errorf("dir is empty")
	case c.CacheMiB < 1:
		return fmt.Errorf("cache_mib is %d, it must be at least 1", c.CacheMiB)
	case c.MemTableMiB < 1 || c.MemTableMiB > 1024:
		return fmt.Errorf("mem_table_mib is %d, it must be 1 to 1024", c.MemTableMiB)
	case c.HeadConvs < 2 || c.HeadRows < 2:
		return fmt.Errorf("head_convs is %d and head_rows %d, both must be at least 2", c.HeadConvs, c.HeadRows)
	}
	return nil
}

// Deps are what the store is given. All may be nil.
type Deps struct {
	FS      vfs.FS // the file system, for tests; nil is the real one
	Log     *slog.Logger
	Metrics prometheus.Registerer
}

// options tunes Pebble for few large batches of small rows whose keys are random and
// whose values are rewritten seldom, except member rows.
func (c Config) options(fs vfs.FS, log *pebbleLog) *pebble.Options {
	o := &pebble.Options{
		FS:                 fs,
		FormatMajorVersion: pebble.FormatNewest,
		Logger:             log,
		EventListener:      log.events(),
		CacheSize:          int64(c.CacheMiB) << 20,
		MemTableSize:       uint64(c.MemTableMiB) << 20,
		// Flushing may lag behind writing by three memtables before writes wait.
		MemTableStopWritesThreshold: 4,
		// Compactions of L0 begin early and may lag far: reads pay a look into each sublevel,
		// and most of those are spared by filters.
		L0CompactionThreshold: 4,
		L0StopWritesThreshold: 40,
		LBaseMaxBytes:         256 << 20,
		// The kernel writes back in small pieces instead of one long pause at a flush's end.
		BytesPerSync:               1 << 20,
		WALBytesPerSync:            512 << 10,
		MaxOpenFiles:               4096,
		CompactionConcurrencyRange: func() (int, int) { return 1, max(1, runtime.GOMAXPROCS(0)/2) },
	}
	for i := range o.Levels {
		l := &o.Levels[i]
		l.BlockSize = 16 << 10
		l.IndexBlockSize = 64 << 10
		l.FilterPolicy = bloom.FilterPolicy(10)
		l.Compression = func() *block.CompressionProfile { return sstable.SnappyCompression }
		if i < 2 { // short-lived: not worth compressing
			l.Compression = func() *block.CompressionProfile { return sstable.NoCompression }
		}
	}
	// Files small enough that their filters and indexes are loaded at little cost.
	o.TargetFileSizes = [...]int64{4 << 20, 8 << 20, 16 << 20, 32 << 20, 32 << 20, 32 << 20, 32 << 20}
	return o
}

// pebbleLog takes what Pebble has to say to slog, and its last words to fatal.
type pebbleLog struct {
	log     *slog.Logger
	fatal   func(error)
	stalled func() // counts a stall
}

var _ pebble.Logger = (*pebbleLog)(nil)

func (l *pebbleLog) Infof(format string, args ...any) {
	l.log.Debug("pebble", "said", fmt.Sprintf(format, args...))
}

func (l *pebbleLog) Errorf(format string, args ...any) {
	l.log.Error("pebble", "said", fmt.Sprintf(format, args...))
}

// Fatalf breaks the store instead of ending the process here: whoever runs it does, when
// it has said so.
func (l *pebbleLog) Fatalf(format string, args ...any) {
	l.fatal(fmt.Errorf("pebble: %s", strings.TrimPrefix(fmt.Sprintf(format, args...), "pebble: ")))
}

func (l *pebbleLog) events() *pebble.EventListener {
	return &pebble.EventListener{
		BackgroundError: func(err error) { l.log.Error("background work of the database failed", "err", err) },
		DiskSlow:        func(i pebble.DiskSlowInfo) { l.log.Warn("disk is slow", "path", i.Path, "for", i.Duration) },
		WriteStallBegin: func(i pebble.WriteStallBeginInfo) {
			l.stalled()
			l.log.Warn("writes wait for the disk", "why", i.Reason)
		},
		WriteStallEnd: func() { l.log.Warn("writes go on") },
		DataCorruption: func(i pebble.DataCorruptionInfo) {
			l.fatal(fmt.Errorf("corrupt data in %s: %w", i.Path, i.Details))
		},
	}
}
