package servers

import (
	"bufio"
	"fmt"
	"iter"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// Packages are tested side by side, by more than one checkout perhaps, so each set takes an
// offset that nobody has. With this step no port of a set is one of another set, and all stay
// below those that the kernel gives to clients: a server that was killed gets its port again.
const (
	firstOffset = 1000
	offsetStep  = 120
	mostSets    = 8
)

func offsets() iter.Seq[int] {
	return func(yield func(int) bool) {
		for i := range mostSets {
			if !yield(firstOffset + i*offsetStep) {
				return
			}
		}
	}
}

// claimOffset takes an offset until unlock: by a lock, which ends with the process at the
// latest, and only if nothing listens there.
func claimOffset(t testing.TB) (offset int, unlock func()) {
	t.Helper()
	ports, err := portsOf(script("set.env"))
	if err != nil {
		t.Fatal(err)
	}
	for offset := range offsets() {
		name := filepath.Join(os.TempDir(), fmt.Sprintf("hongyan-servers-%d-%d.lock", os.Getuid(), offset))
		lock, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		if syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil || !allFree(ports, offset) {
			lock.Close()
			continue
		}
		return offset, func() { lock.Close() }
	}
	t.Fatalf("all %d sets of servers for tests are taken; those that a killed test left behind: pgrep -af %s", mostSets,
		filepath.Join(os.TempDir(), "hongyan-servers-"))
	return 0, nil
}

// portsOf are the ports in set.env, and those beside them that a RocketMQ broker takes too.
func portsOf(file string) (ports []int, err error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), "=")
		if !strings.HasSuffix(name, "_PORT") {
			continue
		}
		port, err := strconv.Atoi(value)
		if err != nil {
			return nil, fmt.Errorf("%s: %s: %w", file, name, err)
		}
		ports = append(ports, port)
		if name == "SERVERS_ROCKETMQ_BROKER_PORT" {
			ports = append(ports, port-2, port+1)
		}
	}
	return ports, lines.Err()
}

func allFree(ports []int, offset int) bool {
	for _, port := range ports {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port+offset))
		if err != nil {
			return false
		}
		l.Close()
	}
	return true
}
