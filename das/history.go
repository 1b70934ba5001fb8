package das

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"hongyan/das/store"
	"hongyan/idl/code"
	"hongyan/idl/im"
	"hongyan/idl/tier"
)

// Limits of HISTORY.
const (
	historyDefault = 50
	historyMost    = 200
)

// History implements tier.Das: entries of a conversation of the user's, ascending. With
// from_seq or to_seq the lowest of that range, otherwise the newest below before_seq. More
// tells that earlier ones exist, of a range that it was cut short. Not a member: not_found.
func (d *Das) History(ctx context.Context, req *tier.HistoryRequest) (*im.HistoryRsp, error) {
	h := req.History
	if h == nil {
		return nil, code.Errorf(code.BadRequest, "history is empty")
	}
	key, _, err := convKey(req.Tenant, req.Uid, h.Conv)
	if err != nil {
		return nil, err
	}
	if h.ToSeq > 0 && h.FromSeq > h.ToSeq {
		return nil, code.Errorf(code.BadRequest, "from_seq %d is beyond to_seq %d", h.FromSeq, h.ToSeq)
	}
	return reading(ctx, d, d.lanes.message, "history", func(v store.View) (*im.HistoryRsp, error) {
		epoch, err := epochOf(v, key)
		if err != nil {
			return nil, err
		}
		head, err := v.Conv(key)
		if err != nil {
			return nil, fmt.Errorf("read the head of %q: %w", key.ID, err)
		}
		if head.Seq == 0 {
			return nil, notMember(key.ID)
		}
		if rsp := d.historyOfCopy(ctx, key, epoch, head, h); rsp != nil {
			return rsp, nil
		}
		rsp, err := history(v, key, head, h, d.cfg.MaxAnswer)
		if err != nil {
			return nil, err
		}
		// A device keeps what it is shown, so it must survive a failover (R19): every copy may lag.
		if err := store.Confirm(ctx, d.store, v); err != nil {
			d.log.Warn("history could not be confirmed", slog.Any("error", err))
			return nil, errUnsure
		}
		return rsp, nil
	})
}

// historyOfCopy reads the entries from a copy of the database, if one has everything that the
// primary's head tells of (R23, DD-08). nil: there is none, or it failed.
func (d *Das) historyOfCopy(ctx context.Context, key store.Key, epoch uint64, head store.ConvHead, h *im.History) *im.HistoryRsp {
	copies, ok := d.store.(store.Replicated)
	if !ok {
		return nil
	}
	v, err := copies.Replica(ctx, bucketOf(key))
	if err != nil {
		return nil
	}
	defer v.Close()
	if b, err := v.Bucket(bucketOf(key)); err != nil || b.Epoch != epoch {
		return nil
	}
	if there, err := v.Conv(key); err != nil || there.Seq < head.Seq {
		return nil
	}
	rsp, err := history(v, key, head, h, d.cfg.MaxAnswer)
	if err != nil {
		d.log.Warn("a copy could not be read", slog.Any("error", err))
		return nil
	}
	return rsp
}

// history reads entries up to a head that was read before.
func history(v store.View, key store.Key, head store.ConvHead, h *im.History, maxAnswer int) (*im.HistoryRsp, error) {
	room, modsRoom := budgets(maxAnswer)
	rsp := &im.HistoryRsp{ReadAtSeq: head.Seq}
	limit := clamp(h.Limit, historyDefault, historyMost)
	var list []*store.Message
	var err error
	if h.FromSeq > 0 || h.ToSeq > 0 {
		to := head.Seq
		if h.ToSeq > 0 {
			to = min(to, h.ToSeq)
		}
		if h.FromSeq <= to {
			list, err = v.Range(key, h.FromSeq, to, limit)
		}
		list = room.oldest(list)
		rsp.More = len(list) > 0 && list[len(list)-1].Seq < to
	} else {
		before := head.Seq + 1
		if h.BeforeSeq > 0 {
			before = min(before, h.BeforeSeq)
		}
		list, err = v.Last(key, before, limit)
		list = room.newest(list)
		rsp.More = len(list) > 0 && list[0].Seq > 1
	}
	if err != nil {
		return nil, fmt.Errorf("read entries of %q: %w", key.ID, err)
	}
	rsp.Messages = messagesOf(list)
	if h.Mods {
		mods, err := v.Modified(key, h.ModsKnown, modifiedMost)
		if err != nil {
			return nil, fmt.Errorf("read the modifications of %q: %w", key.ID, err)
		}
		mods = modsRoom.oldest(mods)
		rsp.Modified = messagesOf(mods)
	}
	return rsp, nil
}

// Find implements tier.Das: the entry of a sender by its dedupe key, none if it is not
// stored, as of the database (R16, R29).
func (d *Das) Find(ctx context.Context, req *tier.FindRequest) (*tier.FindReply, error) {
	key := store.Key{Tenant: req.Tenant, ID: req.Conv}
	if !key.Valid() {
		return nil, code.Errorf(code.BadRequest, "tenant %.80q or conv %.140q", req.Tenant, req.Conv)
	}
	return confirmed(ctx, d, d.lanes.message, "find", func(v store.View) (*tier.FindReply, error) {
		if _, err := epochOf(v, key); err != nil {
			return nil, err
		}
		m, err := v.ByClientID(key, req.Sender, req.ClientMsgId)
		if errors.Is(err, store.ErrNotFound) {
			return &tier.FindReply{}, nil
		}
		if err != nil {
			return nil, fmt.Errorf("look up a client_msg_id in %q: %w", key.ID, err)
		}
		told := new(im.Message)
		fillMessage(told, m)
		return &tier.FindReply{Message: told}, nil
	})
}

// ReadPoint implements tier.Das: where a READ of seq stands on the log, for a ReadMark to
// the das of the user. Not a member, or nothing there: not_found.
func (d *Das) ReadPoint(ctx context.Context, req *tier.ReadPointRequest) (*tier.ReadPointReply, error) {
	key, id, err := convKey(req.Tenant, req.Uid, req.Conv)
	if err != nil {
		return nil, err
	}
	return confirmed(ctx, d, d.lanes.message, "read_point", func(v store.View) (*tier.ReadPointReply, error) {
		return readPoint(v, key, id, req.Uid, req.Seq)
	})
}
