package sim

import (
	"context"

	"hongyan/idl/im"
	"hongyan/idl/tier"
)

// The clients of the tiers, as a process at one address sees them.

type logicAt struct {
	net  *network
	from *process
	to   string
}

func (c logicAt) Uplink(ctx context.Context, req *tier.UplinkBatch) (*tier.Accepted, error) {
	return call(ctx, c.net, c.from, c.to, req, func(h any, ctx context.Context, r *tier.UplinkBatch) (*tier.Accepted, error) {
		return h.(tier.Logic).Uplink(ctx, r)
	})
}

func (c logicAt) Renew(ctx context.Context, req *tier.RenewBatch) (*tier.RenewReply, error) {
	return call(ctx, c.net, c.from, c.to, req, func(h any, ctx context.Context, r *tier.RenewBatch) (*tier.RenewReply, error) {
		return h.(tier.Logic).Renew(ctx, r)
	})
}

func (c logicAt) Settled(ctx context.Context, req *tier.SettledBatch) (*tier.Accepted, error) {
	return call(ctx, c.net, c.from, c.to, req, func(h any, ctx context.Context, r *tier.SettledBatch) (*tier.Accepted, error) {
		return h.(tier.Logic).Settled(ctx, r)
	})
}

func (c logicAt) Deliver(ctx context.Context, req *tier.DeliverBatch) (*tier.Accepted, error) {
	return call(ctx, c.net, c.from, c.to, req, func(h any, ctx context.Context, r *tier.DeliverBatch) (*tier.Accepted, error) {
		return h.(tier.Logic).Deliver(ctx, r)
	})
}

func (c logicAt) FannedOut(ctx context.Context, req *tier.FannedOutBatch) (*tier.Accepted, error) {
	return call(ctx, c.net, c.from, c.to, req, func(h any, ctx context.Context, r *tier.FannedOutBatch) (*tier.Accepted, error) {
		return h.(tier.Logic).FannedOut(ctx, r)
	})
}

func (c logicAt) Execute(ctx context.Context, req *tier.ExecuteRequest) (*tier.ExecuteReply, error) {
	return call(ctx, c.net, c.from, c.to, req, func(h any, ctx context.Context, r *tier.ExecuteRequest) (*tier.ExecuteReply, error) {
		return h.(tier.Logic).Execute(ctx, r)
	})
}

type gatewayAt logicAt

func (c gatewayAt) Downlink(ctx context.Context, req *tier.DownlinkBatch) (*tier.DownlinkReply, error) {
	return call(ctx, c.net, c.from, c.to, req, func(h any, ctx context.Context, r *tier.DownlinkBatch) (*tier.DownlinkReply, error) {
		return h.(tier.Gateway).Downlink(ctx, r)
	})
}

type dasAt logicAt

func (c dasAt) Submit(ctx context.Context, req *tier.SubmitBatch) (*tier.SubmitReply, error) {
	return call(ctx, c.net, c.from, c.to, req, func(h any, ctx context.Context, r *tier.SubmitBatch) (*tier.SubmitReply, error) {
		return h.(tier.Das).Submit(ctx, r)
	})
}

func (c dasAt) Write(ctx context.Context, req *tier.SubmitBatch) (*tier.SettledBatch, error) {
	return call(ctx, c.net, c.from, c.to, req, func(h any, ctx context.Context, r *tier.SubmitBatch) (*tier.SettledBatch, error) {
		return h.(tier.Das).Write(ctx, r)
	})
}

func (c dasAt) Sync(ctx context.Context, req *tier.SyncRequest) (*im.SyncRsp, error) {
	return call(ctx, c.net, c.from, c.to, req, func(h any, ctx context.Context, r *tier.SyncRequest) (*im.SyncRsp, error) {
		return h.(tier.Das).Sync(ctx, r)
	})
}

func (c dasAt) History(ctx context.Context, req *tier.HistoryRequest) (*im.HistoryRsp, error) {
	return call(ctx, c.net, c.from, c.to, req, func(h any, ctx context.Context, r *tier.HistoryRequest) (*im.HistoryRsp, error) {
		return h.(tier.Das).History(ctx, r)
	})
}

func (c dasAt) Conversations(ctx context.Context, req *tier.ConversationsRequest) (*im.ConversationsRsp, error) {
	return call(ctx, c.net, c.from, c.to, req, func(h any, ctx context.Context, r *tier.ConversationsRequest) (*im.ConversationsRsp, error) {
		return h.(tier.Das).Conversations(ctx, r)
	})
}

func (c dasAt) Unread(ctx context.Context, req *tier.UnreadRequest) (*im.UnreadRsp, error) {
	return call(ctx, c.net, c.from, c.to, req, func(h any, ctx context.Context, r *tier.UnreadRequest) (*im.UnreadRsp, error) {
		return h.(tier.Das).Unread(ctx, r)
	})
}

func (c dasAt) Find(ctx context.Context, req *tier.FindRequest) (*tier.FindReply, error) {
	return call(ctx, c.net, c.from, c.to, req, func(h any, ctx context.Context, r *tier.FindRequest) (*tier.FindReply, error) {
		return h.(tier.Das).Find(ctx, r)
	})
}

func (c dasAt) ReadPoint(ctx context.Context, req *tier.ReadPointRequest) (*tier.ReadPointReply, error) {
	return call(ctx, c.net, c.from, c.to, req, func(h any, ctx context.Context, r *tier.ReadPointRequest) (*tier.ReadPointReply, error) {
		return h.(tier.Das).ReadPoint(ctx, r)
	})
}

func (c dasAt) Progress(ctx context.Context, req *tier.ProgressRequest) (*tier.ProgressReply, error) {
	return call(ctx, c.net, c.from, c.to, req, func(h any, ctx context.Context, r *tier.ProgressRequest) (*tier.ProgressReply, error) {
		return h.(tier.Das).Progress(ctx, r)
	})
}

func (c dasAt) Scan(ctx context.Context, req *tier.ScanRequest) (*tier.ScanReply, error) {
	return call(ctx, c.net, c.from, c.to, req, func(h any, ctx context.Context, r *tier.ScanRequest) (*tier.ScanReply, error) {
		return h.(tier.Das).Scan(ctx, r)
	})
}

func (c dasAt) Pushes(ctx context.Context, req *tier.PushesRequest) (*tier.PushesReply, error) {
	return call(ctx, c.net, c.from, c.to, req, func(h any, ctx context.Context, r *tier.PushesRequest) (*tier.PushesReply, error) {
		return h.(tier.Das).Pushes(ctx, r)
	})
}
