package rpc

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/cloudwego/kitex/pkg/klog"
	"github.com/cloudwego/netpoll"
)

// LogKitex sends what Kitex and netpoll report of themselves to log, for the whole
// process: errors only, as warnings, and at most linesPerSecond of them. Failed calls
// reach their callers anyhow; without the bound a dead instance fills the disk. main calls
// it once, before the first server or client.
func LogKitex(log *slog.Logger) {
	k := &kitexLog{log: log}
	klog.SetLogger(k)
	netpoll.SetLoggerOutput(k)
}

const linesPerSecond = 10

// kitexLog implements klog.FullLogger.
type kitexLog struct {
	log *slog.Logger

	mu      sync.Mutex
	second  time.Time // start of the second being counted
	lines   int
	dropped int
}

func (k *kitexLog) report(ctx context.Context, text string) {
	dropped, ok := k.admit(time.Now())
	if !ok {
		return
	}
	args := []any{"err", text}
	if dropped > 0 {
		args = append(args, "dropped_lines", dropped)
	}
	k.log.WarnContext(ctx, "kitex", args...)
}

// admit tells whether a line may be written now, and how many were not since the last.
func (k *kitexLog) admit(now time.Time) (dropped int, ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if now.Sub(k.second) >= time.Second {
		k.second, k.lines = now, 0
	}
	if k.lines == linesPerSecond {
		k.dropped++
		return 0, false
	}
	k.lines++
	dropped, k.dropped = k.dropped, 0
	return dropped, true
}

// Write takes a line of netpoll's log.
func (k *kitexLog) Write(line []byte) (int, error) {
	k.report(context.Background(), strings.TrimSpace(string(line)))
	return len(line), nil
}

func (k *kitexLog) Error(v ...any)            { k.report(context.Background(), fmt.Sprint(v...)) }
func (k *kitexLog) Fatal(v ...any)            { k.report(context.Background(), fmt.Sprint(v...)) }
func (k *kitexLog) Errorf(f string, v ...any) { k.report(context.Background(), fmt.Sprintf(f, v...)) }
func (k *kitexLog) Fatalf(f string, v ...any) { k.report(context.Background(), fmt.Sprintf(f, v...)) }
func (k *kitexLog) CtxErrorf(ctx context.Context, f string, v ...any) {
	k.report(ctx, fmt.Sprintf(f, v...))
}
func (k *kitexLog) CtxFatalf(ctx context.Context, f string, v ...any) {
	k.report(ctx, fmt.Sprintf(f, v...))
}

// Everything below an error stays unwritten.

func (*kitexLog) Trace(...any)                               {}
func (*kitexLog) Debug(...any)                               {}
func (*kitexLog) Info(...any)                                {}
func (*kitexLog) Notice(...any)                              {}
func (*kitexLog) Warn(...any)                                {}
func (*kitexLog) Tracef(string, ...any)                      {}
func (*kitexLog) Debugf(string, ...any)                      {}
func (*kitexLog) Infof(string, ...any)                       {}
func (*kitexLog) Noticef(string, ...any)                     {}
func (*kitexLog) Warnf(string, ...any)                       {}
func (*kitexLog) CtxTracef(context.Context, string, ...any)  {}
func (*kitexLog) CtxDebugf(context.Context, string, ...any)  {}
func (*kitexLog) CtxInfof(context.Context, string, ...any)   {}
func (*kitexLog) CtxNoticef(context.Context, string, ...any) {}
func (*kitexLog) CtxWarnf(context.Context, string, ...any)   {}
func (*kitexLog) SetLevel(klog.Level)                        {}
func (*kitexLog) SetOutput(io.Writer)                        {}
