package das

import (
	"context"
	"fmt"

	"hongyan/das/store"
	"hongyan/idl/code"
	"hongyan/idl/tier"
)

// progressMost is how many users one question may name.
const progressMost = 1000

// Progress implements tier.Das: how far each user's log has come and how far he has: heads,
// woken, best cursor, and his live sessions and devices where asked for. From the store, in
// one snapshot (R16).
func (d *Das) Progress(ctx context.Context, req *tier.ProgressRequest) (*tier.ProgressReply, error) {
	if len(req.Uids) > progressMost {
		return nil, code.Errorf(code.TooLarge, "%d users asked for, over %d", len(req.Uids), progressMost)
	}
	for _, uid := range req.Uids {
		if _, err := userKey(req.Tenant, uid); err != nil {
			return nil, err
		}
	}
	return reading(ctx, d, d.lanes.session, "progress", func(v store.View) (*tier.ProgressReply, error) {
		reply := &tier.ProgressReply{Users: make([]*tier.UserProgress, len(req.Uids))}
		for i, uid := range req.Uids {
			u, err := progress(v, store.Key{Tenant: req.Tenant, ID: uid}, req.Sessions, req.Devices)
			if err != nil {
				return nil, err
			}
			reply.Users[i] = u
		}
		return reply, nil
	})
}

func progress(v store.View, user store.Key, sessions, devices bool) (*tier.UserProgress, error) {
	epoch, err := epochOf(v, user)
	if err != nil {
		return nil, err
	}
	head, err := v.User(user)
	if err != nil {
		return nil, fmt.Errorf("read the head of user %q: %w", user.ID, err)
	}
	u := &tier.UserProgress{Uid: user.ID, Epoch: epoch, Head: head.Version, Woken: min(head.Woken, head.Version)}
	list, err := v.Devices(user)
	if err != nil {
		return nil, fmt.Errorf("read the devices of %q: %w", user.ID, err)
	}
	for _, d := range list {
		if d.Epoch == epoch { // a cursor of another epoch says nothing
			u.Cursor = max(u.Cursor, min(d.Cursor, head.Version))
		}
		if devices {
			u.Devices = append(u.Devices, &tier.Device{
				Device: d.ID, Platform: d.Platform, PushToken: d.PushToken,
				Epoch: d.Epoch, Cursor: d.Cursor, SeenMs: d.SeenMS,
			})
		}
	}
	if !sessions {
		return u, nil
	}
	rows, err := v.Sessions(user)
	if err != nil {
		return nil, fmt.Errorf("read the sessions of %q: %w", user.ID, err)
	}
	live := rows[:0]
	for _, r := range rows {
		if r.Device != "" {
			live = append(live, r)
		}
	}
	u.Sessions = tellSessions(live)
	return u, nil
}
