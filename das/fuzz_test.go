package das

import (
	"context"
	"log/slog"
	"testing"

	"hongyan/das/store"
	"hongyan/das/store/memory"
	"hongyan/idl/tier"
	"hongyan/internal/control"
)

// FuzzParseScanKey: the after of a Scan comes from outside.
func FuzzParseScanKey(f *testing.F) {
	f.Add("")
	f.Add("12/boot-L1")
	f.Add("2:12/boot:L1")
	f.Add(formatScanKey(0, store.RowKey{Owner: "a/b", N: 1<<64 - 1}))
	f.Fuzz(func(t *testing.T, s string) {
		db, k, err := parseScanKey(s)
		if err != nil || k == (store.RowKey{}) {
			return
		}
		if at, again, err := parseScanKey(formatScanKey(db, k)); err != nil || again != k || at != db {
			t.Fatalf("%q is %d %v, written and read again %d %v, %v", s, db, k, at, again, err)
		}
	})
}

// FuzzWrite: whatever a batch holds, each item is answered, nothing panics, and the store
// gets no batch that breaks its rules.
func FuzzWrite(f *testing.F) {
	seed := func(items ...*tier.Submit) {
		b, err := (&tier.SubmitBatch{Boot: "boot", Items: items}).Marshal(nil)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	seed(send("p:a:b", "a", "m1", "x"), recall("a", "r1", 1), edit("a", "e1", 1, "y"), read("b", "p:a:b", 1))
	seed(fanOut("b", "p:a:b", 3), login("phone", 1, 2), logout("phone", 1), block("p:a:b", "b", "k", true))
	seed(&tier.Submit{Woken: &tier.Woken{Uid: "b", Epoch: 1, Version: 9}},
		&tier.Submit{Done: &tier.OutboxDone{Owner: "boot", From: 1, To: 5}},
		&tier.Submit{Cursor: &tier.CursorMark{Uid: "b", Device: "phone", Epoch: 1, Cursor: 1, Class: "mobile", SessionEpoch: 1}},
		&tier.Submit{Record: &tier.PushRecord{Uid: "b", Device: "phone"}})
	f.Fuzz(func(t *testing.T, in []byte) {
		b := new(tier.SubmitBatch)
		if b.Unmarshal(in) != nil || len(b.Items) > 100 {
			return
		}
		s := memory.New(memory.Options{Exclusive: true, Strict: true})
		d, err := New(DefaultConfig(), Deps{
			Store: s, Logics: noLogics, Self: control.Instance{Addr: "D0"}, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- d.Run(ctx) }()
		rsp, err := d.Write(ctx, b)
		cancel()
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		if err == nil && len(rsp.Items) != len(b.Items) {
			t.Fatalf("%d items, %d answers", len(b.Items), len(rsp.Items))
		}
		for _, a := range rsp.GetItems() {
			if a.Code == 500 {
				t.Fatalf("item %d: %s", a.Id, a.Message)
			}
		}
	})
}
