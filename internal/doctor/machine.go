package doctor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Machine is the host that doctor runs on.
type Machine struct {
	// Connections of clients that one process here may hold; 0 = none.
	Connections int
	// DataDir is where the embedded store and queue, keys and snapshots are; empty = none.
	DataDir string
	// Proc and Sys stand for /proc and /sys in tests; empty = those.
	Proc, Sys string
}

func (m Machine) examine() []Finding {
	if m.Proc == "" {
		m.Proc = "/proc"
	}
	if m.Sys == "" {
		m.Sys = "/sys"
	}
	return examine(context.Background(), "this machine", m, machineChecks())
}

func machineChecks() []check[Machine] {
	return []check[Machine]{
		{"open files", Machine.files},
		{"open files of the system", Machine.systemFiles},
		{"backlog of new connections", Machine.backlog},
		{"half-open connections", Machine.synBacklog},
		{"swap", Machine.swap},
		{"transparent huge pages", Machine.hugePages},
		{"data directory", Machine.directory},
		{"room for data", Machine.room},
		{"flush of the data directory", Machine.flush},
	}
}

// spareFiles is what a process opens beside the connections of clients.
const spareFiles = 1024

func (m Machine) files(context.Context) Finding {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return unchecked("a limit above the connections", err)
	}
	need := uint64(m.Connections) + spareFiles
	wanted := fmt.Sprintf("%d: %d connections and %d others", need, m.Connections, spareFiles)
	return expect(limit.Max >= need, Warning, fmt.Sprintf("%d, at most %d", limit.Cur, limit.Max), wanted,
		fmt.Sprintf("LimitNOFILE=%d in the systemd unit (or ulimit -Hn); or lower max_connections: beyond the limit connections are refused", need))
}

// read returns a number of a file below /proc.
func (m Machine) read(name string) (int64, error) {
	text, err := os.ReadFile(filepath.Join(m.Proc, name))
	if err != nil {
		return 0, err
	}
	return number(strings.TrimSpace(string(text))), nil
}

func (m Machine) atLeast(name, sysctl string, least int64, otherwise Verdict, why string) Finding {
	wanted := fmt.Sprintf("at least %d", least)
	n, err := m.read(name)
	if err != nil {
		return unchecked(wanted, err)
	}
	return expect(n >= least, otherwise, fmt.Sprint(n), wanted, fmt.Sprintf("sysctl -w %s=%d, and in /etc/sysctl.d/; %s", sysctl, least, why))
}

func (m Machine) systemFiles(context.Context) Finding {
	return m.atLeast("sys/fs/file-max", "fs.file-max", 2*(int64(m.Connections)+spareFiles), Violation, "all processes share it")
}

func (m Machine) backlog(context.Context) Finding {
	return m.atLeast("sys/net/core/somaxconn", "net.core.somaxconn", 4096, Warning, "in a storm of logins connections are dropped")
}

func (m Machine) synBacklog(context.Context) Finding {
	return m.atLeast("sys/net/ipv4/tcp_max_syn_backlog", "net.ipv4.tcp_max_syn_backlog", 1024, Warning, "in a storm of logins connections are dropped")
}

func (m Machine) swap(context.Context) Finding {
	const wanted = "none, or vm.swappiness of 10 at most"
	text, err := os.ReadFile(filepath.Join(m.Proc, "meminfo"))
	if err != nil {
		return unchecked(wanted, err)
	}
	total := int64(0)
	for line := range strings.Lines(string(text)) {
		_, _ = fmt.Sscanf(line, "SwapTotal: %d kB", &total)
	}
	swappiness, err := m.read("sys/vm/swappiness")
	if total == 0 || err == nil && swappiness <= 10 {
		return ok(bytesOf(total<<10)+" of swap", wanted)
	}
	return warn(fmt.Sprintf("%s of swap, swappiness %d", bytesOf(total<<10), swappiness), wanted, "sysctl -w vm.swappiness=1, and in /etc/sysctl.d/; a process that is swapped out looks dead")
}

func (m Machine) hugePages(context.Context) Finding {
	const wanted = "madvise or never"
	text, err := os.ReadFile(filepath.Join(m.Sys, "kernel/mm/transparent_hugepage/enabled"))
	if errors.Is(err, os.ErrNotExist) {
		return ok("not built into this kernel", wanted)
	}
	if err != nil {
		return unchecked(wanted, err)
	}
	_, after, _ := strings.Cut(string(text), "[")
	chosen, _, _ := strings.Cut(after, "]")
	return expect(chosen != "always", Warning, chosen, wanted, "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled; with always, Redis stalls and idle connections cost more memory")
}

// Magic numbers of file systems in memory.
const (
	tmpfs = 0x01021994
	ramfs = 0x858458f6
)

// statfs asks the file system of the data directory, or of the nearest directory above that exists.
func (m Machine) statfs() (fs syscall.Statfs_t, dir string, err error) {
	for dir = filepath.Clean(m.DataDir); ; dir = filepath.Dir(dir) {
		if err = syscall.Statfs(dir, &fs); !errors.Is(err, os.ErrNotExist) || dir == filepath.Dir(dir) {
			return fs, dir, err
		}
	}
}

func (m Machine) directory(context.Context) Finding {
	if m.DataDir == "" {
		return Finding{}
	}
	const wanted = "on a disk"
	fs, dir, err := m.statfs()
	if err != nil {
		return unchecked(wanted, err)
	}
	return expect(fs.Type != tmpfs && fs.Type != ramfs, Warning, fmt.Sprintf("%s, file system %#x", dir, fs.Type), wanted,
		"it is in memory: what is stored there is gone after a restart of the machine. Set data to a directory on a disk")
}

func (m Machine) room(context.Context) Finding {
	if m.DataDir == "" {
		return Finding{}
	}
	const wanted = "5 GiB and 10 % free"
	fs, _, err := m.statfs()
	if err != nil {
		return unchecked(wanted, err)
	}
	free, all := int64(fs.Bavail)*fs.Bsize, int64(fs.Blocks)*fs.Bsize
	found := fmt.Sprintf("%s of %s free", bytesOf(free), bytesOf(all))
	switch {
	case free < 512<<20:
		return violation(found, wanted, "free some: with a full disk every send is refused")
	case free < 5<<30 || free < all/10:
		return warn(found, wanted, "free some, or give it a larger disk")
	}
	return ok(found, wanted)
}

// flushRounds is how often the disk is tried.
const flushRounds = 15

// flush writes and flushes a small file some times, as each commit does.
func (m Machine) flush(context.Context) Finding {
	if m.DataDir == "" {
		return Finding{}
	}
	const wanted = "10ms at most"
	_, dir, err := m.statfs()
	if err != nil {
		return unchecked(wanted, err)
	}
	f, err := os.CreateTemp(dir, ".doctor-*")
	if err != nil {
		return unchecked(wanted, err)
	}
	defer os.Remove(f.Name()) // what is left of it harms nobody
	defer f.Close()
	block := make([]byte, 4096)
	took := make([]time.Duration, flushRounds)
	for i := range took {
		began := time.Now()
		if _, err := f.Write(block); err != nil {
			return unchecked(wanted, err)
		}
		if err := syscall.Fdatasync(int(f.Fd())); err != nil {
			return violation(err.Error(), wanted, "the disk does not flush: replace it, or the file system")
		}
		took[i] = time.Since(began)
	}
	slices.Sort(took)
	median, worst := took[len(took)/2].Round(10*time.Microsecond), took[len(took)-1].Round(10*time.Microsecond)
	found := fmt.Sprintf("%v, %v at worst", median, worst)
	if median > 100*time.Millisecond {
		return violation(found, wanted, "this disk is too slow: every send waits for a flush. An SSD with power-loss protection flushes below 1 ms")
	}
	return expect(median <= 10*time.Millisecond, Warning, found, wanted, "an SSD with power-loss protection flushes below 1 ms")
}
