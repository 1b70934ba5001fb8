package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.yaml.in/yaml/v3"
)

// LiveOptions of NewLive. Only the values and the key are needed.
type LiveOptions[T any] struct {
	// Default is in force while the key is not set.
	Default T
	// Decode parses the data; nil = Decode[T]: YAML or JSON by json tags, unknown keys refused.
	Decode func(data []byte) (T, error)
	// Validate tells what is wrong with a value before it is put in force.
	Validate func(T) error
	// Apply is told of each new value, serially. Its error refuses the value.
	Apply func(T) error
	// Notes tells what else there is to know of a value that was put in force, for the report.
	Notes func(T) []string

	// Tier and Addr name this process in its reports; Reports nil = nowhere.
	Tier, Addr string
	Reports    Reports
	Log        *slog.Logger
	Metrics    prometheus.Registerer
}

// Status tells what is in force, and what is not.
type Status struct {
	Key      string
	Revision int64     // the newest that was looked at; 0 = the key is not set
	InForce  int64     // the newest that was good; 0 = the default
	Err      error     // why Revision is not in force; nil = it is
	Since    time.Time // of the last change of all this; zero = nothing was looked at yet
}

// Live is the typed view of one value. A bad value is refused and shown (log, metric, Status,
// Reports), once; the last good one stays in force.
type Live[T any] struct {
	values  Values
	key     string
	opt     LiveOptions[T]
	refused prometheus.Counter // nil = no metrics

	mu      sync.Mutex
	current T
	status  Status

	seen []byte // data of the last look; only look uses it
}

// NewLive makes a view that shows the default until Load or Run.
func NewLive[T any](values Values, key string, opt LiveOptions[T]) (*Live[T], error) {
	if err := ValidKey(key); err != nil {
		return nil, err
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if opt.Decode == nil {
		opt.Decode = Decode[T]
	}
	l := &Live[T]{
		values: values, key: key, opt: opt, current: opt.Default,
		status: Status{Key: key},
	}
	if opt.Metrics != nil {
		vec, err := refusedCounter(opt.Metrics)
		if err != nil {
			return nil, err
		}
		l.refused = vec.WithLabelValues(key)
	}
	return l, nil
}

// refusedCounter is one for all views of a process.
func refusedCounter(reg prometheus.Registerer) (*prometheus.CounterVec, error) {
	vec := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "hongyan_control_values_refused_total",
		Help: "Values of the control centre that could not be used; the last good one stayed.",
	}, []string{"key"})
	err := reg.Register(vec)
	var again prometheus.AlreadyRegisteredError
	if errors.As(err, &again) {
		if old, ok := again.ExistingCollector.(*prometheus.CounterVec); ok {
			return old, nil
		}
	}
	return vec, err
}

// Load looks at the value once, so that it is in force before Run. The error is that of the
// control centre, or why the value was refused.
func (l *Live[T]) Load(ctx context.Context) error {
	v, err := l.values.Value(ctx, l.key)
	if err != nil {
		return fmt.Errorf("load %s: %w", l.key, err)
	}
	l.look(v)
	return l.Status().Err
}

// Run follows the value until ctx ends.
func (l *Live[T]) Run(ctx context.Context) error {
	return l.values.WatchValues(ctx, l.key, func(set []Value) {
		for _, v := range set {
			if v.Key == l.key { // others may start with it
				l.look(v)
				return
			}
		}
		l.look(Value{Key: l.key})
	})
}

// Get returns what is in force.
func (l *Live[T]) Get() T {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.current
}

// Status tells what is in force, and what is not.
func (l *Live[T]) Status() Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.status
}

// look puts a value in force or refuses it. Load and Run do not overlap.
func (l *Live[T]) look(v Value) {
	was := l.Status()
	if !was.Since.IsZero() && was.Revision == v.Revision && bytes.Equal(l.seen, v.Data) {
		return
	}
	next, err := l.use(v)
	l.seen = v.Data
	l.mu.Lock()
	l.status.Revision, l.status.Err, l.status.Since = v.Revision, err, time.Now()
	if err == nil {
		l.status.InForce, l.current = v.Revision, next
	}
	status := l.status
	l.mu.Unlock()
	var notes []string
	if err == nil && l.opt.Notes != nil {
		notes = l.opt.Notes(next)
	}
	l.show(status, notes)
}

func (l *Live[T]) use(v Value) (T, error) {
	next := l.opt.Default
	if v.Data != nil {
		var err error
		if next, err = l.opt.Decode(v.Data); err != nil {
			return next, err
		}
		if l.opt.Validate != nil {
			if err := l.opt.Validate(next); err != nil {
				return next, err
			}
		}
	}
	if l.opt.Apply != nil {
		return next, l.opt.Apply(next)
	}
	return next, nil
}

func (l *Live[T]) show(s Status, notes []string) {
	if s.Err != nil {
		l.opt.Log.Error("value refused, the last good one stays", "key", s.Key, "revision", s.Revision, "in_force", s.InForce, "err", s.Err)
		if l.refused != nil {
			l.refused.Inc()
		}
	} else {
		l.opt.Log.Info("value in force", "key", s.Key, "revision", s.Revision, "notes", notes)
	}
	if l.opt.Reports == nil {
		return
	}
	r := Report{Tier: l.opt.Tier, Addr: l.opt.Addr, Key: s.Key, Revision: s.Revision, InForce: s.InForce, Notes: notes, Since: s.Since}
	if s.Err != nil {
		r.Err = s.Err.Error()
	}
	l.opt.Reports.Report(r)
}

// Decode parses YAML, and so JSON, into T by its json tags. Unknown and repeated keys are errors.
func Decode[T any](data []byte) (T, error) {
	var out T
	var tree any
	dec := yaml.NewDecoder(bytes.NewReader(data))
	if err := dec.Decode(&tree); errors.Is(err, io.EOF) {
		return out, errors.New("the value is empty")
	} else if err != nil {
		return out, err
	}
	if err := dec.Decode(new(any)); !errors.Is(err, io.EOF) {
		return out, errors.New("more than one document")
	}
	text, err := json.Marshal(tree)
	if err != nil {
		return out, fmt.Errorf("keys must be text: %w", err)
	}
	strict := json.NewDecoder(bytes.NewReader(text))
	strict.DisallowUnknownFields()
	err = strict.Decode(&out)
	return out, err
}
