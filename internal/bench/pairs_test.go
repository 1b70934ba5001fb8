package bench

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"hongyan/internal/token"
)

func pairsConfig(t *testing.T, s *fakeServer) Config {
	t.Helper()
	keys, err := token.RandomKeys("demo")
	if err != nil {
		t.Fatal(err)
	}
	return Config{
		Target: &url.URL{Scheme: "tcp", Host: s.addr}, Keys: keys, Tenant: "demo",
		Duration: 300 * time.Millisecond, Pairs: 2, Window: 4, Size: 64,
	}
}

func runPairs(t *testing.T, s *fakeServer, change func(*Config)) *Result {
	t.Helper()
	cfg := pairsConfig(t, s)
	if change != nil {
		change(&cfg)
	}
	r, err := Pairs(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if *r.Acked == 0 || *r.Delivered == 0 {
		t.Fatalf("nothing happened: %+v", r)
	}
	return r
}

func TestPairsFindNothingWrongWithAnHonestServer(t *testing.T) {
	r := runPairs(t, startFake(t), nil)
	if !r.Clean() || *r.Errors != 0 || r.AckP50 == nil || r.E2EP99 == nil {
		t.Fatalf("got %+v", r)
	}
}

func TestPairsAtARateKeepTheRate(t *testing.T) {
	r := runPairs(t, startFake(t), func(c *Config) { c.Rate, c.Duration = 500, time.Second })
	if !r.Clean() || *r.AckedPerS < 300 || *r.AckedPerS > 600 {
		t.Fatalf("got %v/s, %+v", *r.AckedPerS, r)
	}
}

// TestPairsOverTLS: the server's authority is one that no system knows.
func TestPairsOverTLS(t *testing.T) {
	pages := httptest.NewTLSServer(nil) // for its certificate
	defer pages.Close()
	l, err := tls.Listen("tcp", "127.0.0.1:0", pages.TLS)
	if err != nil {
		t.Fatal(err)
	}
	s := serveFake(t, l)
	over := func(c *Config) {
		c.Target = &url.URL{Scheme: "tls", Host: s.addr}
		c.TLS = &tls.Config{RootCAs: x509.NewCertPool()}
		c.TLS.RootCAs.AddCert(pages.Certificate())
	}
	if r := runPairs(t, s, over); !r.Clean() || *r.Errors != 0 {
		t.Fatalf("got %+v", r)
	}
	d, err := newDialer(&Config{Target: &url.URL{Scheme: "wss", Host: pages.Listener.Addr().String()}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.dial(t.Context(), 512); err == nil || !strings.Contains(err.Error(), "unknown authority") {
		t.Fatalf("a server of an unknown authority: %v", err)
	}
}

func TestPairsSeeALostMessage(t *testing.T) {
	s := startFake(t)
	s.lose = 5
	if r := runPairs(t, s, nil); *r.Lost == 0 || r.Clean() {
		t.Fatalf("a lost message of each pair was not seen: %+v", r)
	}
}

func TestPairsSeeADoubledMessage(t *testing.T) {
	s := startFake(t)
	s.double = 5
	if r := runPairs(t, s, nil); *r.Duplicates != 2 {
		t.Fatalf("want the doubled message of each pair, got %d", *r.Duplicates)
	}
}

func TestPairsSeeReorderedMessages(t *testing.T) {
	s := startFake(t)
	s.swap = 5
	if r := runPairs(t, s, nil); *r.Reordered != 2 || *r.Lost != 0 {
		t.Fatalf("want the swapped messages of each pair, got %+v", r)
	}
}

func TestPairsSendRefusedMessagesAgain(t *testing.T) {
	s := startFake(t)
	s.refuse = 7
	if r := runPairs(t, s, func(c *Config) { c.Window = 1 }); *r.Errors != 2 || !r.Clean() {
		t.Fatalf("got %+v", r)
	}
}

// A das that dies at a login answers with an unknown outcome. Seen red: the run ended with it.
func TestPairsLogInAgainWhereTheOutcomeIsUnknown(t *testing.T) {
	s := startFake(t)
	s.logins = 1
	if r := runPairs(t, s, nil); !r.Clean() {
		t.Fatalf("got %+v", r)
	}
}

// A promotion changes the epoch of everybody's log. Seen red: the run ended with the RESET.
func TestR18PairsFollowAPromotion(t *testing.T) {
	s := startFake(t)
	s.promote = 1200 // more than a page of HISTORY
	r := runPairs(t, s, func(c *Config) { c.Duration = time.Second })
	if !r.Clean() || *r.Lost != 0 || *r.Errors != 0 || r.Params["resets"].(int64) < 4 {
		t.Fatalf("got %+v", r)
	}
}

// What was acknowledged and received, and is gone after a promotion, is lost: its seq is given
// to another message. Seen red: with what was received before the RESET still held, the messages
// that took the places of the lost ones were called lost in their stead.
func TestR18PairsSeeWhatAPromotionLost(t *testing.T) {
	s := startFake(t)
	s.promote, s.forget = 300, 2
	run, err := openPairs(t.Context(), pairsConfig(t, s))
	if err != nil {
		t.Fatal(err)
	}
	defer run.close()
	r, err := run.measure(t.Context())
	if err != nil || *r.Lost != 4 || *r.Duplicates != 0 || *r.Reordered != 0 || r.Clean() {
		t.Fatalf("want two of each pair, got %+v, %v", r, err)
	}
	for i, c := range run.receivers {
		for _, n := range []uint64{298, 299} {
			if c.seen.has(n) || !c.ever.has(n) {
				t.Errorf("pair %d: message %d is not the one that was lost", i, n)
			}
		}
	}
}

func TestInterruptedRunPrintsWhatItHas(t *testing.T) {
	s := startFake(t)
	keys, err := token.RandomKeys("demo")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	r, err := Pairs(ctx, Config{
		Target: &url.URL{Scheme: "tcp", Host: s.addr}, Keys: keys, Tenant: "demo",
		Duration: time.Hour, Pairs: 1, Window: 1, Size: 64,
	})
	if err != nil || !r.Interrupted || *r.Acked == 0 {
		t.Fatalf("got %+v, %v", r, err)
	}
}

func TestBadParametersAreRefused(t *testing.T) {
	good := Config{Pairs: 1, Window: 1, Size: 64, Duration: time.Second}
	for want, change := range map[string]func(*Config){
		"--pairs":    func(c *Config) { c.Pairs = 0 },
		"--window":   func(c *Config) { c.Window = 33 },
		"--rate":     func(c *Config) { c.Rate = -1 },
		"--size":     func(c *Config) { c.Size = 1 },
		"--duration": func(c *Config) { c.Duration = 0 },
	} {
		cfg := good
		change(&cfg)
		if _, err := Pairs(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v", want, err)
		}
	}
	if _, err := Idle(t.Context(), Config{Conns: 5, Duration: time.Second}); err == nil {
		t.Error("idle without a server process was not refused")
	}
}

func TestPayloadShowsDamage(t *testing.T) {
	b := payload{3, 7, time.Second}.append(nil, 64)
	if len(b) != 64 {
		t.Fatalf("got %d bytes", len(b))
	}
	if p, ok := parsePayload(b); !ok || p != (payload{3, 7, time.Second}) {
		t.Fatalf("got %+v, %v", p, ok)
	}
	b[30] ^= 1
	if _, ok := parsePayload(b); ok {
		t.Fatal("a flipped bit was not seen")
	}
}

func TestResultHasTheKeysOfTheContract(t *testing.T) {
	r := runPairs(t, startFake(t), nil)
	var out bytes.Buffer
	if err := r.WriteJSON(&out); err != nil {
		t.Fatal(err)
	}
	var keys map[string]any
	if err := json.Unmarshal(out.Bytes(), &keys); err != nil {
		t.Fatal(err)
	}
	for _, key := range strings.Fields(`scenario params seconds sent acked delivered acked_per_s delivered_per_s
		ack_p50_ms ack_p99_ms ack_max_ms e2e_p50_ms e2e_p99_ms e2e_max_ms lost duplicates reordered errors`) {
		if _, ok := keys[key]; !ok {
			t.Errorf("%s is missing", key)
		}
	}
	var table bytes.Buffer
	if err := r.WriteTable(&table); err != nil || !strings.Contains(table.String(), "acked_per_s") {
		t.Errorf("table: %v\n%s", err, table.String())
	}
}
