package extlogic

import (
	"context"
	"errors"
	"fmt"

	"hongyan/idl/code"
	"hongyan/idl/im"
	"hongyan/idl/tier"
	"hongyan/internal/route"
)

// user names whose store is meant.
type user struct{ tenant, uid string }

// ask makes one call to the das of a user. Who cannot be reached is passed over by the
// next call; whether to repeat this one is the queue's affair.
func ask[R any](ctx context.Context, e *ExtLogic, u user, call func(context.Context, tier.Das) (R, error)) (R, error) {
	var none R
	peer, err := e.das.Pick(route.Hash(u.tenant, u.uid))
	if err != nil {
		return none, err
	}
	ctx, cancel := context.WithTimeout(ctx, e.cfg.CallTimeout)
	defer cancel()
	rsp, err := call(ctx, peer.Client)
	if err != nil && unreachable(err) {
		e.das.Failed(peer)
	}
	return rsp, err
}

// unreachable tells that an error is neither the answer of a das nor a das that is slow.
func unreachable(err error) bool {
	if ce, ok := errors.AsType[*code.Error](err); ok {
		return ce.Code == code.Unavailable || ce.Code == code.UnknownOutcome
	}
	return !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded)
}

// progress reads how far a user's log and his devices are.
func (e *ExtLogic) progress(ctx context.Context, u user) (*tier.UserProgress, error) {
	rsp, err := ask(ctx, e, u, func(ctx context.Context, d tier.Das) (*tier.ProgressReply, error) {
		return d.Progress(ctx, &tier.ProgressRequest{Tenant: u.tenant, Uids: []string{u.uid}, Devices: true})
	})
	if err != nil {
		return nil, fmt.Errorf("read the progress of %s: %w", u.uid, err)
	}
	if len(rsp.Users) != 1 || rsp.Users[0].Uid != u.uid {
		return nil, fmt.Errorf("read the progress of %s: the reply tells of %d users", u.uid, len(rsp.Users))
	}
	return rsp.Users[0], nil
}

const (
	// syncPage is how many rows one look at a user's log returns at most.
	syncPage = 100
	// newest is how many messages of each are looked through for the one to show.
	newest = 5
	// recorded is how many pushes of a user are remembered against repeating them.
	recorded = 100
)

// changes reads the rows of a user's log beyond a version, ascending, and the version up to
// which they tell everything. reset: the log is not the one that version was of.
func (e *ExtLogic) changes(ctx context.Context, u user, epoch, from uint64) (rows []*im.Conversation, upTo uint64, reset bool, err error) {
	for {
		rsp, err := ask(ctx, e, u, func(ctx context.Context, d tier.Das) (*im.SyncRsp, error) {
			return d.Sync(ctx, &tier.SyncRequest{Tenant: u.tenant, Uid: u.uid, Sync: &im.Sync{Epoch: epoch, Cursor: from, Limit: syncPage, Messages: newest}})
		})
		if err != nil {
			return nil, 0, false, fmt.Errorf("read the changes of %s: %w", u.uid, err)
		}
		if rsp.MustReset || rsp.Epoch != epoch {
			return nil, 0, true, nil
		}
		rows = append(rows, rsp.Changes...)
		if !rsp.More || rsp.NextCursor <= from {
			return rows, rsp.NextCursor, false, nil
		}
		from = rsp.NextCursor
	}
}

// badge reads how many messages a user has not read.
func (e *ExtLogic) badge(ctx context.Context, u user) (uint64, error) {
	rsp, err := ask(ctx, e, u, func(ctx context.Context, d tier.Das) (*im.UnreadRsp, error) {
		return d.Unread(ctx, &tier.UnreadRequest{Tenant: u.tenant, Uid: u.uid})
	})
	if err != nil {
		return 0, fmt.Errorf("read the unread count of %s: %w", u.uid, err)
	}
	return rsp.Total, nil
}

// target is one conversation on one device.
type target struct{ device, conv string }

// pushed reads how far each device was told of each conversation.
func (e *ExtLogic) pushed(ctx context.Context, u user) (map[target]uint64, error) {
	rsp, err := ask(ctx, e, u, func(ctx context.Context, d tier.Das) (*tier.PushesReply, error) {
		return d.Pushes(ctx, &tier.PushesRequest{Tenant: u.tenant, Uid: u.uid, Limit: recorded})
	})
	if err != nil {
		return nil, fmt.Errorf("read the pushes of %s: %w", u.uid, err)
	}
	seqs := map[target]uint64{}
	for _, p := range rsp.Pushes {
		t := target{p.Device, p.Conv}
		seqs[t] = max(seqs[t], p.Seq)
	}
	return seqs, nil
}

// write commits some writes about one user.
func (e *ExtLogic) write(ctx context.Context, u user, items ...*tier.Submit) error {
	if len(items) == 0 {
		return nil
	}
	for i, it := range items {
		it.Id, it.Tenant = uint64(i)+1, u.tenant
	}
	rsp, err := ask(ctx, e, u, func(ctx context.Context, d tier.Das) (*tier.SettledBatch, error) {
		return d.Write(ctx, &tier.SubmitBatch{Logic: e.self.Addr, Boot: e.self.Boot, Items: items})
	})
	if err != nil {
		return fmt.Errorf("write for %s: %w", u.uid, err)
	}
	for _, s := range rsp.Items {
		if s.Code != 0 {
			return fmt.Errorf("write for %s: %w", u.uid, code.Errorf(code.Code(s.Code), "%s", s.Message))
		}
	}
	return nil
}
