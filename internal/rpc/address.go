package rpc

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"
)

// split tells the network of an address and checks its form.
func split(addr string) (network string, err error) {
	if addr == "" {
		return "", errors.New("address is empty")
	}
	if strings.Contains(addr, "/") {
		return "unix", nil
	}
	if _, _, err := net.SplitHostPort(addr); err != nil {
		return "", fmt.Errorf("address %q is neither host:port nor the path of a socket: %w", addr, err)
	}
	return "tcp", nil
}

// listen opens addr. A Unix socket that a dead process left behind is taken over.
func listen(addr string) (net.Listener, error) {
	network, err := split(addr)
	if err != nil {
		return nil, err
	}
	if network == "unix" {
		removeStale(addr)
	}
	return net.Listen(network, addr)
}

func removeStale(path string) {
	info, err := os.Stat(path)
	if err != nil || info.Mode().Type() != os.ModeSocket {
		return
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		_ = conn.Close() // somebody lives there: let listen report it
		return
	}
	_ = os.Remove(path)
}
