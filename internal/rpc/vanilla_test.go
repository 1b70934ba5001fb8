package rpc_test

import (
	"context"
	"testing"
	"time"

	"github.com/cloudwego/kitex/client"
	"github.com/cloudwego/kitex/pkg/transmeta"
	"github.com/cloudwego/kitex/transport"

	"hongyan/idl/code"
	"hongyan/idl/platform"
	"hongyan/idl/platform/imui"
	"hongyan/idl/tier"
	"hongyan/internal/rpc"
)

// Another team generates its client from idl/platform.proto alone and sets what it likes
// (ZZ-10): it needs nothing of this package.
func TestZZ10VanillaKitexClient(t *testing.T) {
	at, _ := serve(t, "127.0.0.1:0", rpc.ServerOptions{},
		rpc.Das(&fakeDas{}), // has a History of its own
		rpc.IMUI(&fakeIMUI{history: func(_ context.Context, req *platform.HistoryRequest) (*platform.HistoryReply, error) {
			if req.Uid == "" {
				return nil, code.Errorf(code.BadRequest, "uid is empty")
			}
			return &platform.HistoryReply{
				Status:   &platform.Status{Code: uint32(code.NotFound), Name: "not_found"},
				Messages: []*platform.Message{{Conv: req.Conv, Text: req.Uid + " 你好"}},
			}, nil
		}}))
	ttheader := []client.Option{client.WithTransportProtocol(transport.TTHeader), client.WithMetaHandler(transmeta.ClientTTHeaderHandler)}
	for name, opts := range map[string][]client.Option{
		"defaults":         nil,
		"TTHeader":         ttheader,
		"framed":           {client.WithTransportProtocol(transport.Framed)},
		"short connection": append(ttheader, client.WithShortConnection()),
		"gRPC":             {client.WithTransportProtocol(transport.GRPC)},
	} {
		t.Run(name, func(t *testing.T) {
			// The destination is a name of their own choice.
			c, err := imui.NewClient("their.name.for.im", append(opts, client.WithHostPorts(at))...)
			if err != nil {
				t.Fatal(err)
			}
			rsp, err := c.History(t.Context(), &platform.HistoryRequest{Uid: "alice", Conv: "p:alice:bob"})
			if err != nil || rsp.Status.Name != "not_found" || len(rsp.Messages) != 1 || rsp.Messages[0].Text != "alice 你好" {
				t.Fatalf("%+v, %v", rsp, err)
			}
		})
	}
}

// What a call costs: go test -bench . -benchtime 2s ./internal/rpc
func BenchmarkUnary(b *testing.B)           { benchmark(b, 1, context.Background()) }
func BenchmarkUnaryDeadline(b *testing.B)   { benchmark(b, 1, deadline(b)) }
func BenchmarkBatch32(b *testing.B)         { benchmark(b, 32, context.Background()) }
func BenchmarkBatch32Deadline(b *testing.B) { benchmark(b, 32, deadline(b)) }

// deadline is a context that Kitex watches from another goroutine.
func deadline(b *testing.B) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	b.Cleanup(cancel)
	return ctx
}

func benchmark(b *testing.B, batch int, ctx context.Context) {
	at, _ := serve(b, "127.0.0.1:0", rpc.ServerOptions{}, rpc.Logic(&fakeLogic{
		uplink: func(context.Context, *tier.UplinkBatch) (*tier.Accepted, error) { return &tier.Accepted{}, nil },
	}))
	l := dialLogic(b, at, rpc.Options{})
	body := make([]byte, 256)
	req := &tier.UplinkBatch{Gateway: "127.0.0.1:7000", Boot: "b"}
	for range batch {
		req.Items = append(req.Items, &tier.Uplink{Conn: 1, Tenant: "demo", Uid: "alice", Device: "phone", SessionEpoch: 3, Cmd: 4, Seq: 9, Body: body})
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := l.Uplink(ctx, req); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*batch), "us/msg")
}

func BenchmarkUnaryParallel(b *testing.B) {
	at, _ := serve(b, "127.0.0.1:0", rpc.ServerOptions{}, rpc.Logic(&fakeLogic{execute: echo}))
	l := dialLogic(b, at, rpc.Options{})
	b.SetParallelism(32) // 64 callers on two cores
	req := &tier.ExecuteRequest{Uid: "alice", Body: make([]byte, 256)}
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := l.Execute(context.Background(), req); err != nil {
				b.Error(err)
				return
			}
		}
	})
}
