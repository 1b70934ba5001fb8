package sim

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"testing"
	"testing/synctest"
	"time"
)

// Environment of the tests.
const (
	envFrom   = "HONGYAN_SIM_FROM"   // first seed, default 1
	envSeeds  = "HONGYAN_SIM_SEEDS"  // how many, default 1000
	envSeed   = "HONGYAN_SIM_SEED"   // TestReplay: this one
	envRepeat = "HONGYAN_SIM_REPEAT" // so often, default 1
	envLog    = "HONGYAN_SIM_LOG"    // TestReplay: the log of everything goes to this file
	envWorker = "HONGYAN_SIM_WORKER" // set by TestSeeds for its children: k/n
)

func number(t testing.TB, name string, standard uint64) uint64 {
	s := os.Getenv(name)
	if s == "" {
		return standard
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// run simulates one seed in a bubble of its own.
func run(t *testing.T, seed uint64, r rules, log *slog.Logger) (res *result) {
	synctest.Test(t, func(*testing.T) { res = simulate(seed, r, log) })
	return res
}

// oneProcessor makes what runs as repeatable as the scheduler allows.
func oneProcessor(t testing.TB) {
	was := runtime.GOMAXPROCS(1)
	gc := debug.SetGCPercent(1000)
	t.Cleanup(func() {
		runtime.GOMAXPROCS(was)
		debug.SetGCPercent(gc)
	})
}

// replayOf is how a seed is run again.
func replayOf(seed uint64) string {
	return fmt.Sprintf("%s=%d %s=sim.log go test -v -run TestReplay ./tests/sim", envSeed, seed, envLog)
}

// TestReplay runs one seed again, and logs what happens.
func TestReplay(t *testing.T) {
	if os.Getenv(envSeed) == "" {
		t.Skip(envSeed + " names no seed")
	}
	seed := number(t, envSeed, 1)
	oneProcessor(t)
	repeats := int(number(t, envRepeat, 1))
	failed := 0
	for range repeats {
		var out io.Writer = io.Discard
		if name := os.Getenv(envLog); name != "" {
			f, err := os.Create(name)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = f.Close() }()
			out = f
		}
		began := time.Now()
		res := run(t, seed, rules{}, logTo(out))
		if len(res.violations) > 0 {
			failed++
		}
		if repeats > 1 && len(res.violations) == 0 {
			continue
		}
		t.Logf("%v for %v of %s, converged in %v\n%s", time.Since(began), res.profile.faults, res.profile.shape.name, res.converged, res.stats)
		for _, v := range res.violations {
			t.Error(v)
		}
	}
	if repeats > 1 {
		t.Logf("%d of %d repeats broke a promise", failed, repeats)
	}
}

// logTo logs in the time of the bubble.
func logTo(out io.Writer) *slog.Logger {
	if out == io.Discard {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{
		Level: slog.LevelDebug,
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				a.Value = slog.StringValue(a.Value.Time().Format("04:05.000000"))
			}
			return a
		},
	}))
}
