// Package service is the stock of a warehouse: what another team writes on Kitex, from its
// own stock.thrift. IM calls it through jtransit; it imports nothing of Hongyan.
package service

import (
	"context"
	"fmt"
	"net"

	"github.com/bytedance/gopkg/cloud/metainfo"
	"github.com/cloudwego/kitex/pkg/kerrors"
	"github.com/cloudwego/kitex/pkg/transmeta"
	"github.com/cloudwego/kitex/server"

	"hongyan/examples/stock/gen/places"
	"hongyan/examples/stock/gen/stock"
	rpc "hongyan/examples/stock/gen/stock/inventory"
)

// NoSuchItem is the warehouse's own status for what it does not know.
const NoSuchItem = 20404

// New makes a server of the warehouse at a listener; Run serves it. Kitex wants the handler
// to be a pointer.
func New(ln net.Listener, handler stock.Inventory) server.Server {
	return rpc.NewServer(handler,
		server.WithListener(ln),
		// Who asks, and statuses like NoSuchItem, travel in the header.
		server.WithMetaHandler(transmeta.ServerTTHeaderHandler),
	)
}

// Warehouse has three teapots.
type Warehouse struct{}

const (
	teapot = "teapot"
	have   = 3
)

// Look tells how many there are, and to those who ask where.
func (Warehouse) Look(_ context.Context, req *stock.LookRequest) (*stock.Item, error) {
	if req.Sku != teapot {
		return nil, kerrors.NewBizStatusError(NoSuchItem, fmt.Sprintf("no item %q", req.Sku))
	}
	item := &stock.Item{Sku: req.Sku, Count: have, Unit: places.Unit_PIECE}
	if req.GetPlaces() {
		shelf := "A3"
		item.Places = []*places.Place{{Warehouse: "north", Shelf: &shelf}, {Warehouse: "south"}}
	}
	return item, nil
}

// Reserve sets some aside for who asks.
func (w Warehouse) Reserve(ctx context.Context, req *stock.ReserveRequest) (*stock.Item, error) {
	item, err := w.Look(ctx, &stock.LookRequest{Sku: req.Sku})
	if err != nil {
		return nil, err
	}
	if req.Count > have {
		return nil, &stock.OutOfStock{Message: fmt.Sprintf("only %d are left", have), Left: have}
	}
	buyer, _ := metainfo.GetValue(ctx, "HONGYAN_UID")
	item.Count -= req.Count
	item.Reserved = map[string]int32{buyer: int32(req.Count)}
	return item, nil
}

// Total counts what there is of an item.
func (Warehouse) Total(_ context.Context, sku string, unit places.Unit) (int64, error) {
	if sku != teapot || unit != places.Unit_PIECE {
		return 0, nil
	}
	return have, nil
}

// Ping answers.
func (Warehouse) Ping(context.Context) error { return nil }
