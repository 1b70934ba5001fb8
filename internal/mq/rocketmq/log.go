package rocketmq

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/apache/rocketmq-client-go/v2/rlog"
)

// quietFor bounds what the client repeats: while a broker is down it complains every few
// seconds for each queue.
const quietFor = 10 * time.Second

// clientLog takes what the client has to say to slog.
type clientLog struct {
	log atomic.Pointer[slog.Logger]

	mu   sync.Mutex
	said map[string]*said // by message; the client has some hundred
}

type said struct {
	at   time.Time
	more int // not told since
}

// The client's log is one for the whole process, and may be set only while nothing runs: so ours
// is set once, and where it leads is changed.
var (
	clientsLog = &clientLog{said: map[string]*said{}}
	setOnce    sync.Once
)

// LogTo sends what the RocketMQ client has to say to a logger.
func LogTo(log *slog.Logger) {
	clientsLog.log.Store(log)
	setOnce.Do(func() { rlog.SetLogger(clientsLog) })
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
	log := l.log.Load()
	if msg == "" || !log.Enabled(context.Background(), level) {
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
	log.Log(context.Background(), level, "rocketmq client: "+msg, append(args, "more", more)...)
}
