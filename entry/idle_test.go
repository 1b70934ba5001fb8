package entry_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"

	"hongyan/idl/im"
	"hongyan/internal/wire"
)

// idleClientsEnv makes the test binary a process of idle clients: "address count".
const idleClientsEnv = "ENTRY_TEST_IDLE_CLIENTS"

// idleEnv is how many connections TestMF13 holds: ENTRY_TEST_IDLE=10000 go test -run MF13 -v.
const idleEnv = "ENTRY_TEST_IDLE"

// holdIdleClients logs clients in, says so, and holds them until its input ends.
func holdIdleClients(spec string) int {
	var addr string
	var n int
	if _, err := fmt.Sscan(spec, &addr, &n); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	buf := make([]byte, 4096)
	var conns []net.Conn
	for i := range n {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		conns = append(conns, conn)
		body, _ := (&im.Auth{Token: fmt.Sprintf("user%d/d1", i), Platform: "ios"}).Marshal(nil)
		if _, err := conn.Write(wire.Append(nil, &wire.Frame{Cmd: im.Cmd_AUTH, Body: body})); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		have := 0
		for have < wire.HeaderLen {
			m, err := conn.Read(buf)
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
				return 1
			}
			have += m
		}
	}
	fmt.Println("ready")
	_, _ = io.Copy(io.Discard, os.Stdin)
	runtime.KeepAlive(conns) // one that is collected is closed
	return 0
}

// resident memory of this process, bytes, after what is free was given back.
func resident(t *testing.T) int {
	t.Helper()
	debug.FreeOSMemory()
	debug.FreeOSMemory()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Skip("no /proc here")
	}
	_, line, _ := strings.Cut(string(status), "VmRSS:")
	kb, err := strconv.Atoi(strings.Fields(line)[0])
	if err != nil {
		t.Fatal(err)
	}
	return kb << 10
}

// MF-13: what an idle authenticated connection costs the server, its session included and
// the kernel's part left out. The clients are another process.
func TestMF13IdleConnections(t *testing.T) {
	n := 500
	if v := os.Getenv(idleEnv); v != "" {
		var err error
		if n, err = strconv.Atoi(v); err != nil {
			t.Fatal(err)
		}
	}
	s, _, _ := serve(t, nil)
	warm := dial(t, s)
	warm.login("warm")
	before := resident(t)

	clients := exec.Command(os.Args[0])
	clients.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d", idleClientsEnv, s.Addr(), n))
	var stderr bytes.Buffer
	clients.Stderr = &stderr
	in, err := clients.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := clients.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := clients.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = in.Close()
		if err := clients.Wait(); err != nil && !errors.Is(err, os.ErrClosed) {
			t.Errorf("clients: %v %s", err, stderr.String())
		}
	}()
	if _, err := io.ReadFull(out, make([]byte, len("ready"))); err != nil {
		t.Fatalf("clients: %v %s", err, stderr.String())
	}
	each := (resident(t) - before) / n
	t.Logf("%d connections, %d bytes each", n, each)
	if n >= 5000 && each > 6000 {
		t.Errorf("%d bytes a connection", each)
	}
}
