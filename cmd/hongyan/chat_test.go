package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"hongyan/internal/token"
	hongyan "hongyan/sdk/go"
)

func TestChatShowsEachMessageOnceAndHarmless(t *testing.T) {
	var out bytes.Buffer
	client, err := hongyan.New(hongyan.Options{
		Endpoints: []string{"tcp://127.0.0.1:1"}, Token: hongyan.Token("x"), Device: "d",
	})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	c := &chat{
		flags: &chatFlags{as: "alice", to: "bob"}, conv: "p:alice:bob", client: client, out: &out,
		shown: map[uint64]bool{}, unanswered: map[string]bool{}, settled: make(chan struct{}, 1), started: true,
	}
	evil := &hongyan.Message{Conv: c.conv, Seq: 2, Sender: "bob", Text: "\x1b[2Jhi\u202e\nthere", CreatedMs: time.Now().UnixMilli()}
	c.received(evil)
	c.received(evil)
	c.received(&hongyan.Message{Conv: c.conv, Seq: 1, Sender: "bob", Text: "late", CreatedMs: 1})
	c.received(&hongyan.Message{Conv: "p:alice:eve", Seq: 1, Sender: "eve", Text: "x"})
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 3 || !strings.HasSuffix(lines[0], "bob: \uFFFD[2Jhi\uFFFD\uFFFDthere") || !strings.HasSuffix(lines[1], "late") || !strings.Contains(lines[2], "eve") {
		t.Fatalf("shown:\n%s", out.String())
	}
}

func TestChatRefusesBadUse(t *testing.T) {
	dir := t.TempDir()
	if _, err := token.LoadOrGenerate(dir+"/keys.json", "demo"); err != nil {
		t.Fatal(err)
	}
	for args, want := range map[string]int{
		"chat --as alice":                                                   exitUsage,
		"chat --as alice --to alice":                                        exitUsage,
		"chat --as a/b --to bob":                                            exitUsage,
		"chat --as alice --to bob --history 500":                            exitUsage,
		"chat --as alice --to bob --target ftp://x:1 --data " + dir:         exitUsage,
		"chat --as alice --to bob --data " + dir + "/none":                  exitFailed,
		"chat --as alice --to bob --ca " + dir + "/none --data " + dir:      exitUsage,
		"chat --as alice --to bob --ca " + dir + "/keys.json --data " + dir: exitUsage,
		"chat --as alice --to bob --nonsense":                               exitUsage,
	} {
		var stdout, stderr bytes.Buffer
		if got := run(t.Context(), strings.Fields(args), &stdout, &stderr); got != want || stdout.Len() > 0 || stderr.Len() == 0 {
			t.Errorf("%s: exit %d, want %d; %q %q", args, got, want, stdout.String(), stderr.String())
		}
	}
}
