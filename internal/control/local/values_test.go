package local

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hongyan/internal/control"
	"hongyan/internal/control/controltest"
)

func TestValuesSuite(t *testing.T) {
	t.Run("memory", func(t *testing.T) {
		controltest.RunValues(t, func(*testing.T) control.Values { return NewValues() })
	})
	t.Run("file", func(t *testing.T) {
		controltest.RunValues(t, func(t *testing.T) control.Values {
			return openValues(t, filepath.Join(t.TempDir(), "values.yaml"), nil)
		})
	})
}

func TestServicesSuite(t *testing.T) {
	controltest.RunServices(t, func(*testing.T) control.Services { return NewServices() })
}

func TestReportsSuite(t *testing.T) {
	controltest.RunReports(t, func(t *testing.T) control.Reports { return open(t, nil) })
}

func TestValuesFileIsFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "values.yaml")
		var logged bytes.Buffer
		v := openValues(t, path, slog.New(slog.NewTextHandler(&logged, nil)))
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- v.Run(ctx) }()
		var seen []string
		go v.WatchValues(ctx, "", func(set []control.Value) {
			words := ""
			for _, value := range set {
				words += value.Key + "=" + string(value.Data) + ";"
			}
			seen = append(seen, words)
		})
		step := func(content string) { write(t, path, content); time.Sleep(3500 * time.Millisecond); synctest.Wait() }
		step("a: x\nb: |\n  y\n")
		step("a: {nested: true}\n") // refused: a and b stay
		if v.Err() == nil || strings.Count(logged.String(), "refused") != 1 {
			t.Errorf("bad content: Err %v, logged %q, want one report", v.Err(), logged.String())
		}
		if _, err := v.PutValue(ctx, "c", []byte("z"), control.AnyRevision); err == nil {
			t.Error("a put overwrote a file that somebody is editing")
		}
		step("b: |\n  y\n")
		if _, err := v.PutValue(ctx, "c", []byte("z"), control.AnyRevision); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		want := []string{"", "a=x;b=y\n;", "b=y\n;", "b=y\n;c=z;"}
		if strings.Join(seen, "|") != strings.Join(want, "|") {
			t.Errorf("a watcher saw %q, want %q", seen, want)
		}
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		again := openValues(t, path, nil)
		if got, _ := again.Value(t.Context(), "c"); string(got.Data) != "z" {
			t.Errorf("after a restart c is %q", got.Data)
		}
	})
}

func TestValuesFileMustBeUsableAtTheStart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "values.yaml")
	if err := os.WriteFile(path, []byte("a b: c"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenValues(ValuesConfig{Path: path, Interval: time.Second}, nil); err == nil {
		t.Error("opened with a bad key")
	}
	if _, err := OpenValues(ValuesConfig{Path: path}, nil); err == nil {
		t.Error("opened without an interval")
	}
}

func FuzzDecodeValues(f *testing.F) {
	f.Add([]byte("a: x\nb/c: |\n  log: {level: debug}\n"))
	f.Add([]byte("a: !!binary gICA\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		values, err := DecodeValues(data)
		for key, value := range values {
			if err == nil && (control.ValidValue(key, value) != nil || value == nil) {
				t.Fatalf("%q = %q was taken", key, value)
			}
		}
	})
}

func openValues(t *testing.T, path string, log *slog.Logger) *Values {
	t.Helper()
	v, err := OpenValues(ValuesConfig{Path: path, Interval: time.Second}, log)
	if err != nil {
		t.Fatal(err)
	}
	return v
}
