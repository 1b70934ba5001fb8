package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"hongyan/idl/platform"
	hongyan "hongyan/sdk/go"
	"hongyan/tests/e2e/cluster"
)

const conv = "p:alice:bob"

// request is one call of the HTTP API, repeated while the answer asks for that; body nil = GET.
func request(t testing.TB, s *cluster.System, method, path, authorization string, body any, headers ...string) (status int, answer map[string]any) {
	t.Helper()
	var text []byte
	switch b := body.(type) {
	case nil:
	case string:
		text = []byte(b)
	default:
		var err error
		if text, err = json.Marshal(b); err != nil {
			t.Fatal(err)
		}
	}
	cluster.Eventually(t, patience, method+" "+path+" is answered for good", func() bool {
		req, err := http.NewRequestWithContext(t.Context(), method, s.HTTP[0]+path, bytes.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		if authorization != "" {
			req.Header.Set("Authorization", authorization)
		}
		if body != nil {
			req.Header.Set("Content-Type", "application/json")
		}
		for i := 0; i+1 < len(headers); i += 2 {
			req.Header.Set(headers[i], headers[i+1])
		}
		status, answer = fetch(t, req)
		return answer["retryable"] != true
	})
	return status, answer
}

func fetch(t testing.TB, req *http.Request) (status int, answer map[string]any) {
	t.Helper()
	rsp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", req.Method, req.URL.Path, err)
	}
	defer rsp.Body.Close()
	text, err := io.ReadAll(rsp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &answer); err != nil {
		t.Fatalf("%s %s: %d %s: not JSON", req.Method, req.URL.Path, rsp.StatusCode, text)
	}
	return rsp.StatusCode, answer
}

func bearer(t testing.TB, s *cluster.System, uid string) string { return "Bearer " + s.Token(t, uid) }

// TestConversation is the issue in one flow: two people and the platform, over every way in,
// on several devices (ZZ-01, ZZ-02, ZZ-06, ZZ-07, ZZ-10, DD-01, DD-11, MF-08).
func TestConversation(t *testing.T) {
	cluster.ForEach(t, func(t *testing.T, s *cluster.System) {
		alice := newDevice(t, s, "alice", "app", "tcp")
		bobWeb := newDevice(t, s, "bob", "web", "ws")
		bobMini := newDevice(t, s, "bob", "mini", "http")

		first := alice.say("bob", "hello bob")
		if first.Message.Conv != conv || first.Message.Seq != 1 {
			t.Fatalf("got %+v", first.Message)
		}
		for _, d := range []*device{bobWeb, bobMini} {
			cluster.Eventually(t, patience, "bob gets it on each device", func() bool { return d.has(conv, "hello bob") })
			cluster.Eventually(t, patience, "one unread", func() bool { return d.unread(conv) == 1 })
		}
		bobWeb.say("alice", "hello alice")
		cluster.Eventually(t, patience, "alice gets the answer", func() bool { return alice.has(conv, "hello alice") })
		cluster.Eventually(t, patience, "bob's other device shows what he sent", func() bool { return bobMini.has(conv, "hello alice") })
		bobMini.say("alice", "from the mini-program")
		cluster.Eventually(t, patience, "alice gets it", func() bool { return alice.has(conv, "from the mini-program") })

		readEverywhere(t, alice, bobWeb, bobMini)
		fromTheBackend(t, s, alice, bobWeb)
		fromThePlatform(t, s, bobWeb)
		changesOfMessages(t, alice, bobWeb)
		blocking(t, alice, bobWeb)
		lists(t, s, alice)
		for _, d := range []*device{alice, bobWeb, bobMini} {
			for id, n := range see(d, func(d *device) map[string]int { return d.shown }) {
				if n != 1 {
					t.Errorf("%s was shown %d times", id, n)
				}
			}
		}
	})
}

// readEverywhere: P12, a read on one device counts on the others, and the peer sees it.
func readEverywhere(t *testing.T, alice, bobWeb, bobMini *device) {
	t.Helper()
	bobMini.MarkRead(conv, 3)
	cluster.Eventually(t, patience, "read on the other device too", func() bool { return bobWeb.unread(conv) == 0 })
	cluster.Eventually(t, patience, "alice sees that bob has read", func() bool {
		return see(alice, func(d *device) bool { return d.rows[conv] != nil && d.rows[conv].PeerReadSeq == 3 })
	})
}

// fromTheBackend: the HTTP API, as a user and as a server on behalf of one.
func fromTheBackend(t *testing.T, s *cluster.System, alice, bob *device) {
	t.Helper()
	status, sent := request(t, s, "POST", "/v1/messages", bearer(t, s, "alice"), map[string]any{"to": "bob", "text": "by HTTP"}, "Idempotency-Key", "http-1")
	if status != 200 {
		t.Fatalf("got %d %v", status, sent)
	}
	cluster.Eventually(t, patience, "bob gets it", func() bool { return bob.has(conv, "by HTTP") })
	status, again := request(t, s, "POST", "/v1/messages", bearer(t, s, "alice"), map[string]any{"to": "bob", "text": "by HTTP"}, "Idempotency-Key", "http-1")
	if status != 200 || again["seq"] != sent["seq"] || again["duplicate"] != true {
		t.Fatalf("a repeated send: got %d %v, first %v", status, again, sent)
	}
	status, other := request(t, s, "POST", "/v1/messages", bearer(t, s, "alice"), map[string]any{"to": "bob", "text": "another"}, "Idempotency-Key", "http-1")
	if status != 409 || other["name"] != "conflict" {
		t.Fatalf("the same id for another body: got %d %v", status, other)
	}
	status, app := request(t, s, "POST", "/v1/messages", "App "+cluster.App+":"+s.AppKey(), map[string]any{"to": "alice", "text": "on behalf"}, "X-Hongyan-On-Behalf-Of", "bob", "Idempotency-Key", "app-1")
	if status != 200 {
		t.Fatalf("on behalf of bob: got %d %v", status, app)
	}
	cluster.Eventually(t, patience, "alice gets it", func() bool { return alice.has(conv, "on behalf") })
}

// fromThePlatform: IMUI by Kitex, messages and notices (ZZ-02, ZZ-03, ZZ-10).
func fromThePlatform(t *testing.T, s *cluster.System, bob *device) {
	t.Helper()
	client, caller := s.IMUI(t)
	sent := called(t, client.SendMessage, &platform.SendMessageRequest{Caller: caller, From: "alice", To: "bob", ClientMsgId: "k1", Text: "by Kitex"})
	if sent.Status.Code != 0 {
		t.Fatalf("got %+v", sent)
	}
	cluster.Eventually(t, patience, "bob gets it", func() bool { return bob.has(conv, "by Kitex") })
	notice := called(t, client.SendSystem, &platform.SendSystemRequest{Caller: caller, Channel: "orders", To: []string{"bob", "carol", "not valid"}, ClientMsgId: "n1", Text: "shipped"})
	if notice.Status.Code != 0 || len(notice.Results) != 3 {
		t.Fatalf("got %+v", notice)
	}
	if r := notice.Results; r[0].Status.Code != 0 || r[1].Status.Code != 0 || r[2].Status.Name != "bad_request" {
		t.Fatalf("results: %+v %+v %+v", r[0].Status, r[1].Status, r[2].Status)
	}
	cluster.Eventually(t, patience, "the notice arrives", func() bool { return bob.has("s:orders:bob", "shipped") })
	cluster.Eventually(t, patience, "bob is online, carol is not", func() bool {
		online := called(t, client.Online, &platform.OnlineRequest{Caller: caller, Uids: []string{"bob", "carol"}})
		return online.Status.Code == 0 && online.Users[0].Online && !online.Users[1].Online
	})
	cluster.Eventually(t, patience, "one unread for carol", func() bool {
		unread := called(t, client.Unread, &platform.UnreadRequest{Caller: caller, Uid: "carol"})
		return unread.Status.Code == 0 && unread.Total == 1
	})
}

// called is the answer of IMUI, asked again while that asks for it.
func called[Req any, Rsp interface{ GetStatus() *platform.Status }](t *testing.T, call func(context.Context, Req) (Rsp, error), req Req) (rsp Rsp) {
	t.Helper()
	cluster.Eventually(t, patience, fmt.Sprintf("%T is answered for good", req), func() bool {
		var err error
		if rsp, err = call(t.Context(), req); err != nil {
			t.Fatalf("%T: %v", req, err)
		}
		return !rsp.GetStatus().GetRetryable()
	})
	return rsp
}

// changesOfMessages: recall and edit reach every side, and history does not show what was recalled.
func changesOfMessages(t *testing.T, alice, bob *device) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	oops := alice.say("bob", "oops")
	typo := alice.say("bob", "helo")
	if _, err := alice.Recall(ctx, conv, oops.Message.Seq); err != nil {
		t.Fatalf("recall: %v", err)
	}
	if _, err := alice.Edit(ctx, conv, typo.Message.Seq, "hello", nil); err != nil {
		t.Fatalf("edit: %v", err)
	}
	cluster.Eventually(t, patience, "bob sees both changes", func() bool {
		return see(bob, func(d *device) bool {
			return d.modified[oops.Message.Seq].Recalled && d.modified[typo.Message.Seq].Text == "hello"
		})
	})
	var list []*hongyan.Message
	err := insist(ctx, func() (err error) {
		list, _, err = bob.History(ctx, conv, hongyan.HistoryQuery{From: oops.Message.Seq, To: typo.Message.Seq})
		return err
	})
	if err != nil || len(list) != 2 || !list[0].Recalled || list[0].Text != "" || list[1].Text != "hello" {
		t.Fatalf("history: %v, %v", list, err)
	}
	if _, err := bob.Recall(ctx, conv, typo.Message.Seq); err == nil {
		t.Fatal("bob could recall what alice wrote")
	}
}

func blocking(t *testing.T, alice, bob *device) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := insist(ctx, func() error { return bob.Block(ctx, "alice", true) }); err != nil {
		t.Fatalf("block: %v", err)
	}
	if _, err := alice.Send(ctx, hongyan.Outgoing{To: "bob", Text: "can you hear me"}); err == nil || !strings.Contains(err.Error(), "blocked") {
		t.Fatalf("a blocked user's message: got %v", err)
	}
	if err := insist(ctx, func() error { return bob.Block(ctx, "alice", false) }); err != nil {
		t.Fatalf("unblock: %v", err)
	}
	alice.say("bob", "again")
	cluster.Eventually(t, patience, "it arrives after the unblock", func() bool { return bob.has(conv, "again") })
}

func lists(t *testing.T, s *cluster.System, alice *device) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	remark, pinned := "Bobby", true
	err := insist(ctx, func() error {
		_, err := alice.Configure(ctx, conv, hongyan.Settings{Remark: &remark, Pinned: &pinned})
		return err
	})
	if err != nil {
		t.Fatalf("settings: %v", err)
	}
	cluster.Eventually(t, patience, "bob is her one contact, online", func() bool {
		contacts, _, err := alice.Contacts(ctx, hongyan.Page{})
		return err == nil && len(contacts) == 1 && contacts[0].Uid == "bob" && contacts[0].Remark == "Bobby" && contacts[0].Online
	})
	cluster.Eventually(t, patience, "the conversation is pinned and shows what was said last", func() bool {
		convs, _, err := alice.Conversations(ctx, hongyan.Page{}, 1)
		return err == nil && len(convs) == 1 && convs[0].Pinned && convs[0].Messages[0].Text == "again"
	})
	status, unread := request(t, s, "GET", "/v1/unread", bearer(t, s, "alice"), nil)
	if status != 200 || fmt.Sprint(unread["total"]) == "0" {
		t.Fatalf("unread: %d %v", status, unread)
	}
}

// TestOfflineUserIsWokenAndFindsEverything: nobody connected, extlogic pushes by vendor, and
// the next login finds all of it in order (ZZ-08, DD-16, R09).
func TestOfflineUserIsWokenAndFindsEverything(t *testing.T) {
	cluster.ForEach(t, func(t *testing.T, s *cluster.System) {
		store := &hongyan.Memory{}
		bob := openDevice(t, s, "bob", "phone", "tcp", store) // known to the system, then gone
		alice := newDevice(t, s, "alice", "app", "tcp")
		alice.say("bob", "are you there")
		cluster.Eventually(t, patience, "the first message", func() bool { return bob.has(conv, "are you there") })
		if err := bob.Close(); err != nil {
			t.Fatal(err)
		}
		var want []string
		for i := range 30 {
			text := fmt.Sprintf("message %d", i)
			alice.say("bob", text)
			want = append(want, text)
		}
		cluster.Eventually(t, patience, "the vendor is asked to push to bob's phone", func() bool {
			return strings.Contains(s.Log("dev")+s.Log("extlogic"), "bob-phone")
		})
		back := openDevice(t, s, "bob", "phone", "ws", store)
		cluster.Eventually(t, patience, "everything, in order", func() bool { return slices.Equal(back.texts(conv), want) })
	})
}
