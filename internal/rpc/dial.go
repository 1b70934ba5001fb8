package rpc

import (
	"context"

	"hongyan/idl/im"
	"hongyan/idl/platform"
	"hongyan/idl/platform/imui"
	"hongyan/idl/tier"
	"hongyan/idl/tier/das"
	"hongyan/idl/tier/gateway"
	"hongyan/idl/tier/jtransit"
	"hongyan/idl/tier/logic"
	"hongyan/idl/tier/queue"
)

// DialLogic returns the Logic at addr.
func DialLogic(addr string, opt Options) (tier.Logic, error) {
	c, err := dial(addr, "Logic", opt, logic.NewClient)
	return logicClient{addr, c}, err
}

// DialGateway returns the gateway at addr.
func DialGateway(addr string, opt Options) (tier.Gateway, error) {
	c, err := dial(addr, "Gateway", opt, gateway.NewClient)
	return gatewayClient{addr, c}, err
}

// DialDas returns the das at addr.
func DialDas(addr string, opt Options) (tier.Das, error) {
	c, err := dial(addr, "Das", opt, das.NewClient)
	return dasClient{addr, c}, err
}

// DialQueue returns the queue that an extlogic hosts at addr.
func DialQueue(addr string, opt Options) (tier.Queue, error) {
	c, err := dial(addr, "Queue", opt, queue.NewClient)
	return queueClient{addr, c}, err
}

// DialJtransit returns the jtransit at addr.
func DialJtransit(addr string, opt Options) (tier.Jtransit, error) {
	c, err := dial(addr, "Jtransit", opt, jtransit.NewClient)
	return jtransitClient{addr, c}, err
}

// DialIMUI returns the imui at addr.
func DialIMUI(addr string, opt Options) (platform.IMUI, error) {
	c, err := dial(addr, "IMUI", opt, imui.NewClient)
	return imuiClient{addr, c}, err
}

type logicClient struct {
	addr string
	c    logic.Client
}

func (l logicClient) Uplink(ctx context.Context, req *tier.UplinkBatch) (*tier.Accepted, error) {
	return call(ctx, l.addr, l.c.Uplink, req)
}

func (l logicClient) Renew(ctx context.Context, req *tier.RenewBatch) (*tier.RenewReply, error) {
	return call(ctx, l.addr, l.c.Renew, req)
}

func (l logicClient) Settled(ctx context.Context, req *tier.SettledBatch) (*tier.Accepted, error) {
	return call(ctx, l.addr, l.c.Settled, req)
}

func (l logicClient) Deliver(ctx context.Context, req *tier.DeliverBatch) (*tier.Accepted, error) {
	return call(ctx, l.addr, l.c.Deliver, req)
}

func (l logicClient) FannedOut(ctx context.Context, req *tier.FannedOutBatch) (*tier.Accepted, error) {
	return call(ctx, l.addr, l.c.FannedOut, req)
}

func (l logicClient) Execute(ctx context.Context, req *tier.ExecuteRequest) (*tier.ExecuteReply, error) {
	return call(ctx, l.addr, l.c.Execute, req)
}

type gatewayClient struct {
	addr string
	c    gateway.Client
}

func (g gatewayClient) Downlink(ctx context.Context, req *tier.DownlinkBatch) (*tier.DownlinkReply, error) {
	return call(ctx, g.addr, g.c.Downlink, req)
}

type queueClient struct {
	addr string
	c    queue.Client
}

func (q queueClient) Publish(ctx context.Context, req *tier.PublishBatch) (*tier.Accepted, error) {
	return call(ctx, q.addr, q.c.Publish, req)
}

func (q queueClient) Follow(ctx context.Context, req *tier.FollowRequest) (*tier.FollowReply, error) {
	return call(ctx, q.addr, q.c.Follow, req)
}

func (q queueClient) DeadLetters(ctx context.Context, req *tier.DeadLettersRequest) (*tier.DeadLettersReply, error) {
	return call(ctx, q.addr, q.c.DeadLetters, req)
}

func (q queueClient) RetryDeadLetters(ctx context.Context, req *tier.RetryDeadLettersRequest) (*tier.RetryDeadLettersReply, error) {
	return call(ctx, q.addr, q.c.RetryDeadLetters, req)
}

type jtransitClient struct {
	addr string
	c    jtransit.Client
}

func (j jtransitClient) Call(ctx context.Context, req *tier.CallRequest) (*tier.CallReply, error) {
	return call(ctx, j.addr, j.c.Call, req)
}

type dasClient struct {
	addr string
	c    das.Client
}

func (d dasClient) Submit(ctx context.Context, req *tier.SubmitBatch) (*tier.SubmitReply, error) {
	return call(ctx, d.addr, d.c.Submit, req)
}

func (d dasClient) Write(ctx context.Context, req *tier.SubmitBatch) (*tier.SettledBatch, error) {
	return call(ctx, d.addr, d.c.Write, req)
}

func (d dasClient) Sync(ctx context.Context, req *tier.SyncRequest) (*im.SyncRsp, error) {
	return call(ctx, d.addr, d.c.Sync, req)
}

func (d dasClient) History(ctx context.Context, req *tier.HistoryRequest) (*im.HistoryRsp, error) {
	return call(ctx, d.addr, d.c.History, req)
}

func (d dasClient) Conversations(ctx context.Context, req *tier.ConversationsRequest) (*im.ConversationsRsp, error) {
	return call(ctx, d.addr, d.c.Conversations, req)
}

func (d dasClient) Unread(ctx context.Context, req *tier.UnreadRequest) (*im.UnreadRsp, error) {
	return call(ctx, d.addr, d.c.Unread, req)
}

func (d dasClient) Find(ctx context.Context, req *tier.FindRequest) (*tier.FindReply, error) {
	return call(ctx, d.addr, d.c.Find, req)
}

func (d dasClient) ReadPoint(ctx context.Context, req *tier.ReadPointRequest) (*tier.ReadPointReply, error) {
	return call(ctx, d.addr, d.c.ReadPoint, req)
}

func (d dasClient) Progress(ctx context.Context, req *tier.ProgressRequest) (*tier.ProgressReply, error) {
	return call(ctx, d.addr, d.c.Progress, req)
}

func (d dasClient) Scan(ctx context.Context, req *tier.ScanRequest) (*tier.ScanReply, error) {
	return call(ctx, d.addr, d.c.Scan, req)
}

func (d dasClient) Pushes(ctx context.Context, req *tier.PushesRequest) (*tier.PushesReply, error) {
	return call(ctx, d.addr, d.c.Pushes, req)
}

type imuiClient struct {
	addr string
	c    imui.Client
}

func (i imuiClient) SendMessage(ctx context.Context, req *platform.SendMessageRequest) (*platform.SendMessageReply, error) {
	return call(ctx, i.addr, i.c.SendMessage, req)
}

func (i imuiClient) SendSystem(ctx context.Context, req *platform.SendSystemRequest) (*platform.SendSystemReply, error) {
	return call(ctx, i.addr, i.c.SendSystem, req)
}

func (i imuiClient) Unread(ctx context.Context, req *platform.UnreadRequest) (*platform.UnreadReply, error) {
	return call(ctx, i.addr, i.c.Unread, req)
}

func (i imuiClient) Conversations(ctx context.Context, req *platform.ConversationsRequest) (*platform.ConversationsReply, error) {
	return call(ctx, i.addr, i.c.Conversations, req)
}

func (i imuiClient) History(ctx context.Context, req *platform.HistoryRequest) (*platform.HistoryReply, error) {
	return call(ctx, i.addr, i.c.History, req)
}

func (i imuiClient) Contacts(ctx context.Context, req *platform.ContactsRequest) (*platform.ContactsReply, error) {
	return call(ctx, i.addr, i.c.Contacts, req)
}

func (i imuiClient) Online(ctx context.Context, req *platform.OnlineRequest) (*platform.OnlineReply, error) {
	return call(ctx, i.addr, i.c.Online, req)
}

func (i imuiClient) Notify(ctx context.Context, req *platform.NotifyRequest) (*platform.NotifyReply, error) {
	return call(ctx, i.addr, i.c.Notify, req)
}
