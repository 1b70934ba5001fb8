// Package service is the order service of a shop: what another team writes on Kitex, from
// its own orders.proto. IM calls it through jtransit; it imports nothing of Hongyan.
package service

import (
	"context"
	"net"

	"github.com/bytedance/gopkg/cloud/metainfo"
	"github.com/cloudwego/kitex/pkg/kerrors"
	"github.com/cloudwego/kitex/pkg/transmeta"
	"github.com/cloudwego/kitex/server"

	orders "hongyan/examples/orders/gen/orders"
	rpc "hongyan/examples/orders/gen/orders/orders"
)

// NotYours is the shop's own status for another buyer's order.
const NotYours = 20403

// New makes a server of the shop's orders at a listener; Run serves it. Kitex wants the
// handler to be a pointer.
func New(ln net.Listener, handler orders.Orders) server.Server {
	return rpc.NewServer(handler,
		server.WithListener(ln),
		// Statuses like NotYours travel in the header.
		server.WithMetaHandler(transmeta.ServerTTHeaderHandler),
	)
}

// Shop has one order for each buyer: o-alice is alice's.
type Shop struct{}

// Get returns an order to its buyer.
func (Shop) Get(ctx context.Context, req *orders.GetRequest) (*orders.Order, error) {
	buyer, _ := metainfo.GetValue(ctx, "HONGYAN_UID")
	if buyer == "" || req.Id != "o-"+buyer {
		return nil, kerrors.NewBizStatusError(NotYours, "not your order")
	}
	return &orders.Order{
		Id: req.Id, Buyer: buyer, Status: orders.Status_PAID, Cents: 12900,
		Items: []*orders.Item{{Title: "茶壶", Count: 1}},
	}, nil
}

// Cancel cancels an order of its buyer.
func (s Shop) Cancel(ctx context.Context, req *orders.CancelRequest) (*orders.Order, error) {
	order, err := s.Get(ctx, &orders.GetRequest{Id: req.Id})
	if err != nil {
		return nil, err
	}
	order.Status = orders.Status_CANCELLED
	return order, nil
}

// MayTalk keeps everybody away from whom the shop has closed out.
func (Shop) MayTalk(_ context.Context, req *orders.TalkRequest) (*orders.Verdict, error) {
	if req.From == closedOut || req.To == closedOut {
		return &orders.Verdict{Denied: true, Reason: closedOut + " is closed out"}, nil
	}
	return &orders.Verdict{}, nil
}

const closedOut = "mallory"
