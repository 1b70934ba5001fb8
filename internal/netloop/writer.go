package netloop

import (
	"errors"
	"sync"
	"syscall"
	"time"

	"github.com/cloudwego/netpoll"
)

const (
	// chunk of a backlog is given to netpoll at once, bytes: what a peer must take within
	// chunkTimeout.
	chunk        = 16 << 10
	chunkTimeout = 30 * time.Second
	// linger is how long a connection that is being closed may take to accept what was queued,
	// and then to say goodbye itself.
	linger = time.Second
)

// Writer is the write side of a connection, safe for concurrent use.
//
// What the kernel takes at once is written from the caller's goroutine, with one system call
// and without a buffer that would stay with an idle connection. Only what is left is queued,
// and drained by a goroutine that lives while the peer is behind: netpoll's own Flush waits
// for a slow reader, and must not make a caller wait that has pushes for others.
//
// A descriptor may belong to another connection once it is closed. netpoll closes it after
// the close callbacks, and Stop, called from one, waits for a write under way and forbids
// more.
type Writer struct {
	nc   netpoll.Connection
	fd   int
	work *sync.WaitGroup // of draining goroutines

	mu      sync.Mutex
	backlog []byte // not yet given to netpoll
	giving  int    // bytes netpoll holds
	extra   int    // what the backlog weighs beyond its bytes
	active  bool   // a goroutine drains
	closing bool   // to be closed when all is written
	stopped bool
	closer  *time.Timer
}

// NewWriter makes the Writer of a connection, for its OnPrepare. Goroutines are counted in
// work, whose owner waits for them.
func NewWriter(nc netpoll.Connection, work *sync.WaitGroup) *Writer {
	w := &Writer{nc: nc, fd: -1, work: work}
	if c, ok := nc.(netpoll.Conn); ok {
		w.fd = c.Fd()
	}
	return w
}

// Write sends b, or queues what the peer does not take at once. b is not kept. weight is
// what it counts as while it is queued, at least its length.
func (w *Writer) Write(b []byte, weight int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stopped || w.closing {
		return
	}
	if !w.active {
		n, err := w.writeNow(b)
		if err != nil {
			w.breakLocked()
			return
		}
		if n == len(b) {
			return
		}
		b = b[n:]
	}
	w.backlog = append(w.backlog, b...)
	w.extra += max(0, weight-len(b))
	if !w.active {
		w.active = true
		w.work.Go(w.drain)
	}
}

// writeNow gives the kernel what it takes without waiting.
func (w *Writer) writeNow(b []byte) (int, error) {
	if w.fd < 0 {
		return 0, nil // not a socket: everything goes through netpoll
	}
	for {
		n, err := syscall.Write(w.fd, b)
		switch {
		case err == nil:
			return n, nil
		case errors.Is(err, syscall.EINTR):
		case errors.Is(err, syscall.EAGAIN):
			return 0, nil
		default:
			return 0, err
		}
	}
}

// breakLocked: the connection is broken. It is closed from another goroutine, for netpoll
// runs the close callbacks, and with them Stop, on the one that closes.
func (w *Writer) breakLocked() {
	w.closing = true
	w.work.Go(func() { _ = w.nc.Close() })
}

// drain writes the backlog until nothing is left.
func (w *Writer) drain() {
	_ = w.nc.SetWriteTimeout(chunkTimeout)
	for b := w.next(); b != nil; b = w.next() {
		out := w.nc.Writer()
		_, err := out.WriteBinary(b)
		if err == nil {
			err = out.Flush()
		}
		if err != nil {
			_ = w.nc.Close()
			return
		}
	}
}

// next cuts a chunk off the backlog; nil ends the draining.
func (w *Writer) next() []byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.giving = 0
	if w.stopped {
		return nil
	}
	if len(w.backlog) == 0 {
		w.active, w.backlog, w.extra = false, nil, 0
		if w.closing {
			w.finishLocked()
		}
		return nil
	}
	n := min(len(w.backlog), chunk)
	b := w.backlog[:n:n]
	w.backlog, w.giving = w.backlog[n:], n
	return b
}

// Queued is the weight of what the kernel has not taken, in bytes.
func (w *Writer) Queued() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.backlog) + w.giving + w.extra
}

// Close closes the connection when everything is written, or after a while. Nothing is
// written after it. The peer is told by half a close first and has a moment to read: a whole
// close, with bytes of his unread, would reset the connection and destroy the last frame.
func (w *Writer) Close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stopped || w.closing {
		return
	}
	w.closing = true
	w.closer = time.AfterFunc(linger, func() { _ = w.nc.Close() })
	if !w.active {
		w.finishLocked()
	}
}

func (w *Writer) finishLocked() {
	if w.fd >= 0 {
		_ = syscall.Shutdown(w.fd, syscall.SHUT_WR)
	}
	if w.closer != nil {
		w.closer.Reset(linger)
	}
}

// Stop ends the Writer. It belongs into a close callback of the connection.
func (w *Writer) Stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stopped, w.backlog = true, nil
	if w.closer != nil {
		w.closer.Stop()
	}
}
