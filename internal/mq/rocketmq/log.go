package rocketmq

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/apache/rocketmq-client-go/v2/rlog"
)

// quietFor bounds what the client repeats: while a broker is down it complains every few
// seconds for each queue.
const quietFor = 10 * time.Second

// clientLog takes what the client has to say to slog.
type clientLog struct {
	log *slog.Logger

	mu   sync.Mutex
	said map[string]*said // by message; the client has some hundred
}

type said struct {
	at   time.Time
	more int // not told since
}

// LogTo sends what the RocketMQ client has to say to a logger. The client has one log for
// the whole process.
func LogTo(log *slog.Logger) {
	rlog.SetLogger(&clientLog{log: log, said: map[string]*said{}})
}

// Debug implements rlog.Logger: nothing, the client has a line for every message.
func (l *clientLog) Debug(string, map[string]any) {}

// Info implements rlog.Logger.
func (l *clientLog) Info(msg string, fields map[string]any) { l.tell(slog.LevelDebug, msg, fields) }

// Warning implements rlog.Logger.
func (l *clientLog) Warning(msg string, fields map[string]any) { l.tell(slog.LevelWarn, msg, fields) }

// Error implements rlog.Logger.
func (l *clientLog) Error(msg string, fields map[string]any) { l.tell(slog.LevelWarn, msg, fields) }

// Fatal implements rlog.Logger. It does not end the process.
func (l *clientLog) Fatal(msg string, fields map[string]any) { l.tell(slog.LevelError, msg, fields) }

// Level implements rlog.Logger: slog's is meant.
func (l *clientLog) Level(string) {}

// OutputPath implements rlog.Logger: slog's is meant.
func (l *clientLog) OutputPath(string) error { return nil }

func (l *clientLog) tell(level slog.Level, msg string, fields map[string]any) {
	if msg == "" || !l.log.Enabled(context.Background(), level) {
		return
	}
	l.mu.Lock()
	s := l.said[msg]
	if s == nil {
		s = &said{}
		l.said[msg] = s
	}
	if time.Since(s.at) < quietFor {
		s.more++
		l.mu.Unlock()
		return
	}
	more := s.more
	s.at, s.more = time.Now(), 0
	l.mu.Unlock()
	args := make([]any, 0, 2*len(fields)+4)
	for k, v := range fields {
		args = append(args, k, v)
	}
	l.log.Log(context.Background(), level, "rocketmq client: "+msg, append(args, "more", more)...)
}
