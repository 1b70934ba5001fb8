// Command notices is a business system that tells users of their orders through RocketMQ. It
// knows docs/queue.md and nothing else of IM:
//
//	go run ./examples/notices -name-servers 127.0.0.1:9876 -tenant demo -uid alice -order o-17
//
// and, to everybody who is connected: -online "the sale ends in an hour".
package main

import (
	"context"
	"encoding/json"
	"flag"
	"log/slog"
	"os"
	"strings"
	"time"

	rocketmq "github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/primitive"
	"github.com/apache/rocketmq-client-go/v2/producer"
)

// notice is a SystemNotice of docs/queue.md, in JSON.
type notice struct {
	Tenant      string `json:"tenant"`
	Channel     string `json:"channel"`
	UID         string `json:"uid"`
	ClientMsgID string `json:"client_msg_id"`
	Text        string `json:"text"`
	Data        []byte `json:"data,omitempty"` // base64 in JSON
}

// online is an OnlineNotice of docs/queue.md, in JSON.
type online struct {
	ID     string `json:"id"`
	Tenant string `json:"tenant"`
	Text   string `json:"text"`
	AtMS   int64  `json:"at_ms"`
	TTLMS  int64  `json:"ttl_ms"`
}

func main() {
	servers := flag.String("name-servers", "127.0.0.1:9876", "host:port, separated by commas")
	prefix := flag.String("prefix", "hongyan_", "of Hongyan's topics")
	tenant := flag.String("tenant", "demo", "")
	uid := flag.String("uid", "alice", "who is told")
	order := flag.String("order", "o-1", "the order it is about")
	everybody := flag.String("online", "", "a text for everybody who is connected, instead")
	flag.Parse()

	msg, err := shipped(*prefix, *tenant, *uid, *order)
	if *everybody != "" {
		msg, err = announcement(*prefix, *tenant, *everybody)
	}
	if err == nil {
		err = send(strings.Split(*servers, ","), msg)
	}
	if err != nil {
		slog.Error("notices", "err", err)
		os.Exit(1)
	}
	slog.Info("sent", "topic", msg.Topic, "key", msg.GetShardingKey())
}

// shipped tells one user that his order is on its way. The id is made of what happened, not
// of this attempt to tell it: however often it is sent, he is told once.
func shipped(prefix, tenant, uid, order string) (*primitive.Message, error) {
	card, err := json.Marshal(map[string]string{"order": order, "state": "shipped"})
	if err != nil {
		return nil, err
	}
	payload, err := json.Marshal(notice{
		Tenant: tenant, Channel: "orders", UID: uid, ClientMsgID: "shipped-" + order,
		Text: "Your order " + order + " is on its way.", Data: card,
	})
	if err != nil {
		return nil, err
	}
	// The sharding key keeps one user's notices in order.
	return primitive.NewMessage(prefix+"system", payload).WithShardingKey(tenant + "/" + uid).WithTag("orders"), nil
}

// announcement is for everybody who is connected now; of no use in a minute.
func announcement(prefix, tenant, text string) (*primitive.Message, error) {
	now := time.Now()
	payload, err := json.Marshal(online{
		ID: "sale-" + now.UTC().Format("20060102T150405.000"), Tenant: tenant, Text: text, AtMS: now.UnixMilli(), TTLMS: 60_000,
	})
	if err != nil {
		return nil, err
	}
	return primitive.NewMessage(prefix+"online", payload).WithShardingKey(tenant), nil
}

// send returns when the broker has stored the message. A system that must not forget a
// notice keeps it in its own database until then.
func send(servers []string, msg *primitive.Message) error {
	p, err := rocketmq.NewProducer(
		producer.WithNsResolver(primitive.NewPassthroughResolver(servers)),
		producer.WithGroupName("orders-notices"),
		producer.WithQueueSelector(producer.NewHashQueueSelector()),
		producer.WithRetry(2),
	)
	if err != nil {
		return err
	}
	if err := p.Start(); err != nil {
		return err
	}
	defer func() { _ = p.Shutdown() }()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_, err = p.SendSync(ctx, msg)
	return err
}
