package hongyan_test

import (
	"context"
	"fmt"
	"log"
	"time"

	hongyan "hongyan/sdk/go"
)

// A client that keeps what it has in a file, falls back from TCP to WebSocket to long
// poll, and answers every message.
func Example() {
	store, err := hongyan.OpenFile("alice.device")
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()

	var c *hongyan.Client
	c, err = hongyan.New(hongyan.Options{
		Endpoints: []string{"tcp://127.0.0.1:7000", "ws://127.0.0.1:8000", "http://127.0.0.1:8000"},
		Token:     func(ctx context.Context) (string, error) { return askMyBackend(ctx, "alice") },
		Device:    "alices-phone",
		Store:     store,
		On: hongyan.Handlers{
			Message: func(m *hongyan.Message) {
				fmt.Println(m.Sender, "says", m.Text)
				c.MarkRead(m.Conv, m.Seq)
			},
			Failed:       func(f hongyan.Failed) { fmt.Println("not sent:", f.Outgoing.Text, f.Err) },
			TokenExpired: func(*hongyan.Error) { fmt.Println("log in again") },
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := c.Connect(ctx); err != nil {
		log.Fatal(err)
	}
	sent, err := c.Send(ctx, hongyan.Outgoing{To: "bob", Text: "is the blue one still there?"})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("stored as", sent.Message.Conv, sent.Message.Seq)
}

// Scrolling back through a conversation, a page at a time.
func ExampleClient_History() {
	c := connected()
	var before uint64
	for more := true; more; {
		var page []*hongyan.Message
		var err error
		page, more, err = c.History(context.Background(), "p:alice:bob", hongyan.HistoryQuery{Before: before, Limit: 50})
		if err != nil || len(page) == 0 {
			break
		}
		before = page[0].Seq
	}
}

// A message that could not be sent is kept until the user decides.
func ExampleClient_Retry() {
	c := connected()
	for _, q := range c.Outbox() {
		if q.Failed == hongyan.Expired {
			_ = c.Retry(q.ClientMsgID) // the same id: it is not stored twice
		} else if q.Failed != 0 {
			_ = c.Discard(q.ClientMsgID)
		}
	}
}

func askMyBackend(context.Context, string) (string, error) { return "", nil }
func connected() *hongyan.Client                           { return nil }
