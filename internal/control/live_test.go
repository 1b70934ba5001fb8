package control_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/prometheus/client_golang/prometheus"

	"hongyan/internal/control"
	"hongyan/internal/control/local"
)

type limits struct {
	Rate  int    `json:"rate"`
	Class string `json:"class"`
}

func TestLiveKeepsTheLastGoodValue(t *testing.T) { // JM-05
	synctest.Test(t, func(t *testing.T) {
		center, err := local.New(nil)
		if err != nil {
			t.Fatal(err)
		}
		defer center.Close()
		var logged bytes.Buffer
		var applied []int
		metrics := prometheus.NewRegistry()
		live := open(t, center, control.LiveOptions[limits]{
			Default: limits{Rate: 1},
			Validate: func(l limits) error {
				if l.Rate <= 0 {
					return errors.New("rate must be more than 0")
				}
				return nil
			},
			Apply: func(l limits) error {
				if l.Rate == 13 {
					return errors.New("not today")
				}
				applied = append(applied, l.Rate)
				return nil
			},
			Tier: "entry", Addr: "a:1", Reports: center,
			Log: slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelError})), Metrics: metrics,
		})
		if live.Get().Rate != 1 || !live.Status().Since.IsZero() {
			t.Fatalf("before anything was read: %+v, %+v", live.Get(), live.Status())
		}
		set := func(data string) control.Status {
			t.Helper()
			if _, err := center.PutValue(t.Context(), "limits", []byte(data), control.AnyRevision); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			return live.Status()
		}
		set("rate: 2")
		if err := live.Load(t.Context()); err != nil || live.Get().Rate != 2 {
			t.Fatalf("after Load: %+v, %v", live.Get(), err)
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- live.Run(ctx) }()
		if s := set(`{"rate": 3, "class": "x"}`); s.Err != nil || live.Get() != (limits{3, "x"}) || s.InForce != s.Revision {
			t.Fatalf("a good value: %+v, %+v", live.Get(), s)
		}
		good := live.Status().Revision
		bad := []string{"rate: many", "rate: 0", "rat: 4", "", "rate: [", "rate: 13", "rate: 4\n---\nrate: 5", "rate: 4\nrate: 5", "1: 2"}
		for _, data := range bad {
			if s := set(data); s.Err == nil || s.InForce != good || s.Revision <= good || live.Get().Rate != 3 {
				t.Errorf("%q: %+v in force, status %+v", data, live.Get(), s)
			}
		}
		if n := strings.Count(logged.String(), "refused"); n != len(bad) {
			t.Errorf("%d refusals logged, want %d", n, len(bad))
		}
		if n := refusals(t, metrics); n != len(bad) {
			t.Errorf("%d refusals counted, want %d", n, len(bad))
		}
		reports, _ := center.Reports(t.Context(), "limits")
		if len(reports) != 1 || reports[0].Err == "" || reports[0].InForce != good || reports[0].Tier != "entry" {
			t.Errorf("reported %+v", reports)
		}
		if s := set("rate: 6"); s.Err != nil || live.Get().Rate != 6 {
			t.Errorf("after the mistake was corrected: %+v", s)
		}
		if _, err := center.PutValue(t.Context(), "limits", nil, control.AnyRevision); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if !slices.Equal(applied, []int{2, 3, 6, 1}) {
			t.Errorf("applied %v", applied)
		}
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func refusals(t *testing.T, metrics prometheus.Gatherer) int {
	t.Helper()
	families, err := metrics.Gather()
	if err != nil || len(families) != 1 || families[0].GetName() != "hongyan_control_values_refused_total" {
		t.Fatalf("gathered %v, %v", families, err)
	}
	return int(families[0].GetMetric()[0].GetCounter().GetValue())
}

func TestLivesShareOneMetric(t *testing.T) {
	metrics := prometheus.NewRegistry()
	for _, key := range []string{"a", "b"} {
		if _, err := control.NewLive(local.NewValues(), key, control.LiveOptions[limits]{Metrics: metrics}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := control.NewLive(local.NewValues(), "a b", control.LiveOptions[limits]{}); err == nil {
		t.Error("a bad key was taken")
	}
}

func open(t *testing.T, values control.Values, opt control.LiveOptions[limits]) *control.Live[limits] {
	t.Helper()
	live, err := control.NewLive(values, "limits", opt)
	if err != nil {
		t.Fatal(err)
	}
	return live
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"rate": 3, "class": "x"}`))
	f.Add([]byte("rate: &a 1\nclass: *a"))
	f.Fuzz(func(_ *testing.T, data []byte) {
		_, _ = control.Decode[limits](data)
		_, _ = control.Decode[map[string]any](data)
	})
}
