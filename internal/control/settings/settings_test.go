package settings

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"

	"hongyan/internal/config"
	"hongyan/internal/control"
	"hongyan/internal/control/local"
)

type sample struct {
	Data  string `koanf:"data"`
	Level string `koanf:"level" live:"true"`
	Rate  int    `koanf:"rate" live:"true"`
	Queue int    `koanf:"queue"`
}

func load(overlay []byte) (*sample, error) {
	cfg := &sample{Data: "data", Level: "info", Rate: 10, Queue: 100}
	err := config.Load(cfg, config.Sources{
		Overlay: overlay, OverlayName: Key("entry"), OverlayFixed: []string{"data"}, Env: []string{"HONGYAN_QUEUE=200"},
	})
	if err == nil && cfg.Rate <= 0 {
		err = errors.New("rate must be more than 0")
	}
	return cfg, err
}

func TestLiveKeysChangeOthersWaitForARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		center, err := local.New(nil)
		if err != nil {
			t.Fatal(err)
		}
		defer center.Close()
		put := func(text string) {
			t.Helper()
			if _, err := center.PutValue(t.Context(), Key("entry"), []byte(text), control.AnyRevision); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		put("rate: 20\nqueue: 1\n")
		s := open(t, center)
		if got := *s.Start(); got != (sample{"data", "info", 20, 200}) {
			t.Fatalf("started with %+v: the value is over the defaults, the environment over the value", got)
		}
		var seen []sample
		s.OnChange(func(c *sample) error { seen = append(seen, *c); return nil })
		s.OnChange(func(c *sample) error {
			if c.Rate == 13 {
				return errors.New("an unlucky rate")
			}
			return nil
		})
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- s.Run(ctx) }()
		report := func() control.Report {
			reports, _ := center.Reports(t.Context(), Key("entry"))
			return reports[0]
		}
		put("rate: 30\n")
		put("rate: 30\ndata: elsewhere\n")
		if r := report(); !strings.Contains(r.Err, "data is of this process alone") || r.InForce >= r.Revision {
			t.Errorf("a fixed key: %+v", r)
		}
		put("rate: 13\nlevel: warn\n")
		if r := report(); !strings.Contains(r.Err, "an unlucky rate") || s.Current().Level != "info" || s.Current().Rate != 30 {
			t.Errorf("a change that a tier refused: %+v, in force %+v", r, s.Current())
		}
		put("level: debug\nqueue: 5\n")
		if r := report(); r.Err != "" || s.Status().Err != nil || len(r.Notes) != 0 { // the environment says 200 all the same
			t.Errorf("a good value: %+v", r)
		}
		want := []sample{{"data", "info", 30, 200}, {"data", "warn", 13, 200}, {"data", "info", 30, 200}, {"data", "debug", 10, 200}}
		if len(seen) != len(want) {
			t.Fatalf("hooks saw %+v, want %+v", seen, want)
		}
		for i := range want {
			if seen[i] != want[i] {
				t.Errorf("call %d of the hook saw %+v, want %+v", i, seen[i], want[i])
			}
		}
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestKeysThatNeedARestartAreShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		center, _ := local.New(nil)
		defer center.Close()
		s, err := Open(t.Context(), center, Options[sample]{
			Tier: "entry", Reports: center, Base: &sample{Rate: 1, Queue: 1},
			Load: func(overlay []byte) (*sample, error) {
				cfg := &sample{Rate: 1, Queue: 1}
				return cfg, config.Load(cfg, config.Sources{Overlay: overlay, OverlayName: "x"})
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := center.PutValue(t.Context(), Key("entry"), []byte("queue: 7"), 0); err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		go s.Run(ctx)
		synctest.Wait()
		reports, _ := center.Reports(t.Context(), Key("entry"))
		if len(reports) != 1 || len(reports[0].Notes) != 1 || reports[0].Notes[0] != "queue needs a restart" || s.Current().Queue != 1 {
			t.Errorf("reported %+v, in force %+v", reports, s.Current())
		}
		stop()
		synctest.Wait()
	})
}

func TestABadValueDoesNotKeepAProcessFromStarting(t *testing.T) {
	center, _ := local.New(nil)
	defer center.Close()
	if _, err := center.PutValue(t.Context(), Key("entry"), []byte("rate: 0"), 0); err != nil {
		t.Fatal(err)
	}
	s := open(t, center)
	if s.Start().Rate != 10 || s.Status().Err == nil {
		t.Errorf("started with %+v, status %+v", s.Start(), s.Status())
	}
	_ = center.Close()
	if _, err := Open(t.Context(), center, Options[sample]{Tier: "entry", Base: new(sample), Load: load}); !errors.Is(err, control.ErrClosed) {
		t.Errorf("without a control centre: %v", err)
	}
}

// A process loads its configuration itself, before there is a control centre. Seen red: Open
// loaded it once more.
func TestWithoutAValueNothingIsLoadedAnew(t *testing.T) {
	center, _ := local.New(nil)
	defer center.Close()
	base := &sample{Rate: 7}
	s, err := Open(t.Context(), center, Options[sample]{Tier: "entry", Base: base, Load: func([]byte) (*sample, error) {
		return nil, errors.New("loaded")
	}})
	if err != nil || s.Start() != base || s.Status().Err != nil {
		t.Errorf("started with %+v, %v", s, err)
	}
}

func open(t *testing.T, center *local.Center) *Settings[sample] {
	t.Helper()
	base, err := load(nil)
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.Context(), center, Options[sample]{Base: base, Load: load, Tier: "entry", Addr: "entry-0", Reports: center})
	if err != nil {
		t.Fatal(err)
	}
	return s
}
