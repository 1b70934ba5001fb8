package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"hongyan/internal/doctor"
)

// runDoctor runs the command with a configuration and returns its report.
func runDoctor(t *testing.T, yaml string) (report doctorReport, status int) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "hongyan.yaml")
	if err := os.WriteFile(file, []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	status = run(t.Context(), []string{"doctor", "--config", file, "--json"}, &stdout, &stderr)
	if err := json.Unmarshal(stdout.Bytes(), &report); err != nil {
		t.Fatalf("%v: %s%s", err, stdout.String(), stderr.String())
	}
	return report, status
}

// Defaults are sound: nobody should have to correct what he did not write.
func TestDoctorFindsNothingWrongWithDefaults(t *testing.T) {
	report, status := runDoctor(t, "data: "+t.TempDir())
	for _, f := range report.Checks {
		if f.Server == configuration && f.Verdict != doctor.OK {
			t.Errorf("%+v", f)
		}
	}
	if status != exitDone || report.Violations > 0 || report.OK < 15 {
		t.Errorf("status %d, %+v", status, report)
	}
}

func TestDoctorNamesSettingsThatDoNotFit(t *testing.T) {
	for _, c := range []struct {
		name, yaml, check string
		verdict           doctor.Verdict
	}{
		{"an unknown key", "entri: {}", "can be used", doctor.Violation},
		{"a lease that is too short", "control: {endpoints: ['http://127.0.0.1:1'], lease: 2s, timeout: 500ms}", "lease", doctor.Warning},
		{"several logics that each remember", "cluster: {logic: [10.0.0.1:1, 10.0.0.2:1]}", "presence is shared", doctor.Warning},
		{"a value that cannot be", "das: {commit: {items: 0}}", "can be used", doctor.Violation},
		{"gateways renew too late", "entry: {gate: {renew_every: 50s}}", "renewals: gateways and logic", doctor.Violation},
		{"sessions end before a renewal", "das: {session: {free_after: 30s}}", "renewals: sessions", doctor.Violation},
		{"routes expire before a renewal", "logic: {renew_period: 45s}", "renewals: presence", doctor.Violation},
		{"keys are forgotten too early", "das: {dedupe_window: 1m}", "a SEND's life and dedupe", doctor.Violation},
		{"senders give up too early", "logic: {settle_timeout: 2s}", "waiting for a commit", doctor.Warning},
		{"messages that do not fit", "logic: {max_data: 300000}", "frames and messages", doctor.Violation},
		{"an address twice", "cluster: {das: [10.0.0.1:1, 10.0.0.1:1]}", "addresses in the lists", doctor.Violation},
		{"loopback among hosts", "cluster: {logic: [10.0.0.1:1, 127.0.0.1:2]}", "loopback in the lists", doctor.Violation},
		{"one commit, several das", "{das: {form: one-commit}, cluster: {das: [10.0.0.1:1, 10.0.0.2:1]}}", "one-commit form", doctor.Violation},
		{"the demo for everybody", "httpentry: {demo: true, listen: '0.0.0.0:8000'}", "demo page", doctor.Violation},
		{"app keys that can be listened to", "httpentry: {plain_app_keys: true, listen: '0.0.0.0:8000'}", "app keys", doctor.Warning},
		{"TCP that can be listened to", "entry: {plaintext: true, listen: '0.0.0.0:7000'}", "TCP without encryption", doctor.Warning},
	} {
		t.Run(c.name, func(t *testing.T) {
			report, status := runDoctor(t, c.yaml)
			for _, f := range report.Checks {
				if f.Check != c.check {
					continue
				}
				if f.Verdict != c.verdict || f.Advice == "" {
					t.Errorf("%+v", f)
				}
				if c.verdict == doctor.Violation && status != exitViolation {
					t.Errorf("status %d", status)
				}
				return
			}
			t.Errorf("%s was not looked at", c.check)
		})
	}
}

// A topic that is missing is found before the first message that goes to it. Seen red: online
// was not among them.
func TestDoctorLooksForEveryTopic(t *testing.T) {
	cfg := defaultConfig()
	cfg.Queue.NameServers = []string{"127.0.0.1:9876"}
	got := doctorTarget(t.Context(), &cfg).RocketMQ.Topics
	if want := []string{"hongyan_offline", "hongyan_system", "hongyan_online"}; !slices.Equal(got, want) {
		t.Errorf("topics %v, want %v", got, want)
	}
}
