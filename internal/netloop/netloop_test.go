package netloop

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cloudwego/netpoll"
)

func TestLinesOfNetpollBecomeRecords(t *testing.T) {
	var out bytes.Buffer
	w := logWriter{slog.New(slog.NewTextHandler(&out, nil))}
	if n, err := w.Write([]byte("2026/11/22 01:02:03 NETPOLL: accept failed\n")); n != 43 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if got := out.String(); !strings.Contains(got, `message="NETPOLL: accept failed"`) || strings.Contains(got, "01:02:03") {
		t.Errorf("logged %s", got)
	}
}

// pair is a Writer and the other end of its connection.
func pair(t *testing.T) (w *Writer, peer net.Conn, work *sync.WaitGroup) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	work = &sync.WaitGroup{}
	made := make(chan *Writer, 1)
	loop, err := netpoll.NewEventLoop(
		func(_ context.Context, nc netpoll.Connection) error { return nc.Reader().Skip(nc.Reader().Len()) },
		netpoll.WithOnPrepare(func(nc netpoll.Connection) context.Context {
			w := NewWriter(nc, work)
			_ = nc.AddCloseCallback(func(netpoll.Connection) error { w.Stop(); return nil })
			made <- w
			return context.Background()
		}))
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() { _ = loop.Serve(listener) })
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = loop.Shutdown(ctx)
		serving.Wait()
	})
	if peer, err = net.Dial("tcp", listener.Addr().String()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = peer.Close() })
	return <-made, peer, work
}

func TestWriterKeepsTheOrderOfABacklog(t *testing.T) {
	w, peer, work := pair(t)
	var want []byte
	for i := range 400 {
		block := bytes.Repeat([]byte{byte(i)}, 50_000)
		want = append(want, block...)
		w.Write(block, len(block))
	}
	if w.Queued() == 0 {
		t.Error("20 MB are in nobody's queue")
	}
	got := make([]byte, len(want))
	if _, err := io.ReadFull(peer, got); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("bytes differ, %v", err)
	}
	work.Wait()
	if q := w.Queued(); q != 0 {
		t.Errorf("%d bytes are still queued", q)
	}
	w.Write([]byte("and on"), 256)
	if q := w.Queued(); q != 0 {
		t.Errorf("a small write is queued: %d", q)
	}
	got = got[:6]
	if _, err := io.ReadFull(peer, got); err != nil || string(got) != "and on" {
		t.Errorf("read %q, %v", got, err)
	}
}

func TestCloseDeliversWhatWasWritten(t *testing.T) {
	w, peer, _ := pair(t)
	if _, err := peer.Write(make([]byte, 100_000)); err != nil { // unread bytes would reset the connection
		t.Fatal(err)
	}
	w.Write([]byte("the last words"), 14)
	w.Close()
	w.Write([]byte("too late"), 8)
	if got, err := io.ReadAll(peer); string(got) != "the last words" || err != nil {
		t.Errorf("read %q, %v", got, err)
	}
}

func TestCloseDoesNotWaitForAPeerThatNeverReads(t *testing.T) {
	w, _, work := pair(t)
	w.Write(make([]byte, 20<<20), 20<<20)
	w.Close()
	done := make(chan struct{})
	go func() { work.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("the writer still waits")
	}
}
