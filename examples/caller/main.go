// Command caller is an internal system of the platform that calls IM: it was written from
// idl/platform.proto alone, with the client that the stock kitex tool generates of it.
//
//	go run ./examples/caller -key-file data/demo-app.key send alice bob "your teapot is on its way"
//	go run ./examples/caller -key-file data/demo-app.key notify orders "a parcel is on its way" alice bob
//	go run ./examples/caller -key-file data/demo-app.key unread bob
//	go run ./examples/caller -key-file data/demo-app.key history bob p:alice:bob
//	go run ./examples/caller -key-file data/demo-app.key online alice bob
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/cloudwego/kitex/client"
	"github.com/cloudwego/kitex/pkg/transmeta"
	"github.com/cloudwego/kitex/transport"
	"github.com/google/uuid"

	"hongyan/examples/caller/gen/platform"
	"hongyan/examples/caller/gen/platform/imui"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "caller:", err)
		os.Exit(1)
	}
}

// system is this program as IM knows it, and IM as it knows it.
type system struct {
	im     imui.Client
	caller *platform.Caller
	out    io.Writer
}

func run(args []string, out io.Writer) error {
	flags := flag.NewFlagSet("caller", flag.ContinueOnError)
	at := flags.String("at", "127.0.0.1:9000", "where IMUI is, host:port")
	app := flags.String("app", "demo", "how IM knows this program")
	tenant := flags.String("tenant", "demo", "in which it acts")
	keyFile := flags.String("key-file", "data/demo-app.key", "holds the app's key")
	if err := flags.Parse(args); err != nil {
		return err
	}
	key, err := os.ReadFile(*keyFile)
	if err != nil {
		return err
	}
	im, err := imui.NewClient("hongyan.imui",
		client.WithHostPorts(*at),
		client.WithTransportProtocol(transport.TTHeader),
		client.WithMetaHandler(transmeta.ClientTTHeaderHandler),
		client.WithRPCTimeout(10*time.Second),
	)
	if err != nil {
		return err
	}
	s := &system{im, &platform.Caller{App: *app, Key: strings.TrimSpace(string(key)), Tenant: *tenant}, out}
	return s.do(context.Background(), flags.Args())
}

var errUsage = errors.New("usage: caller [flags] send FROM TO TEXT | notify CHANNEL TEXT USER... | online USER... | unread USER | history USER CONV")

func (s *system) do(ctx context.Context, args []string) error {
	if len(args) < 2 {
		return errUsage
	}
	switch name, rest := args[0], args[1:]; {
	case name == "send" && len(rest) == 3:
		return s.send(ctx, rest[0], rest[1], rest[2])
	case name == "notify" && len(rest) >= 3:
		return s.notify(ctx, rest[0], rest[1], rest[2:])
	case name == "unread" && len(rest) == 1:
		reply, err := s.im.Unread(ctx, &platform.UnreadRequest{Caller: s.caller, Uid: rest[0]})
		return s.show(reply, err, reply.GetStatus())
	case name == "history" && len(rest) == 2:
		reply, err := s.im.History(ctx, &platform.HistoryRequest{Caller: s.caller, Uid: rest[0], Conv: rest[1], Limit: 20})
		return s.show(reply, err, reply.GetStatus())
	case name == "online":
		reply, err := s.im.Online(ctx, &platform.OnlineRequest{Caller: s.caller, Uids: rest})
		return s.show(reply, err, reply.GetStatus())
	}
	return errUsage
}

// send sends one message for a user. The id makes it safe to repeat: it is stored once.
func (s *system) send(ctx context.Context, from, to, text string) error {
	req := &platform.SendMessageRequest{Caller: s.caller, From: from, To: to, Text: text, ClientMsgId: uuid.NewString()}
	var reply *platform.SendMessageReply
	err := again(func() (*platform.Status, error) {
		var err error
		reply, err = s.im.SendMessage(ctx, req)
		return reply.GetStatus(), err
	})
	return s.show(reply, err, reply.GetStatus())
}

// notify tells many users something, in the name of a channel. Each has a result of his own;
// whoever could not be told is told again, under the same id.
func (s *system) notify(ctx context.Context, channel, text string, users []string) error {
	id := uuid.NewString()
	results := map[string]*platform.SendResult{}
	err := again(func() (*platform.Status, error) {
		reply, err := s.im.SendSystem(ctx, &platform.SendSystemRequest{
			Caller: s.caller, Channel: channel, Text: text, To: users, ClientMsgId: id,
		})
		if err != nil || reply.Status.Code != 0 {
			return reply.GetStatus(), err
		}
		worst := reply.Status
		users = nil
		for _, r := range reply.Results {
			results[r.Uid] = r
			if r.Status.Retryable {
				worst, users = r.Status, append(users, r.Uid)
			}
		}
		return worst, nil
	})
	return s.show(results, err, nil)
}

// attempts of a call that may succeed if it is made again.
const attempts = 5

// again repeats a call while it fails between the processes, or with a status that says to.
func again(call func() (*platform.Status, error)) error {
	var status *platform.Status
	var err error
	for n := range attempts {
		status, err = call()
		if err == nil && !status.GetRetryable() {
			return nil
		}
		time.Sleep(max(time.Duration(status.GetRetryAfterMs())*time.Millisecond, 100*time.Millisecond<<n))
	}
	return err
}

func (s *system) show(reply any, err error, status *platform.Status) error {
	if err != nil {
		return err
	}
	if status != nil && status.Code != 0 {
		return fmt.Errorf("%s: %s", status.Name, status.Message)
	}
	return json.NewEncoder(s.out).Encode(reply)
}
