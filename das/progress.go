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
// one snapshot of each database (R16), in no order; who cannot be read just now is left out.
func (d *Das) Progress(ctx context.Context, req *tier.ProgressRequest) (*tier.ProgressReply, error) {
	if len(req.Uids) > progressMost {
		return nil, code.Errorf(code.TooLarge, "%d users asked for, over %d", len(req.Uids), progressMost)
	}
	for _, uid := range req.Uids {
		if _, err := userKey(req.Tenant, uid); err != nil {
			return nil, err
		}
	}
	return d.eachPart(req.Uids, func(uid string) store.Key { return store.Key{Tenant: req.Tenant, ID: uid} }, func(uids []string) (*tier.ProgressReply, error) {
		return confirmed(ctx, d, d.lanes.session, "progress", func(v store.View) (*tier.ProgressReply, error) {
			reply := &tier.ProgressReply{Users: make([]*tier.UserProgress, len(uids))}
			for i, uid := range uids {
				u, err := progress(v, store.Key{Tenant: req.Tenant, ID: uid}, req)
				if err != nil {
					return nil, err
				}
				reply.Users[i] = u
			}
			return reply, nil
		})
	})
}

// eachPart asks about the users of each database by themselves: one that is not there, or
// cannot confirm what it shows, leaves its users out of the reply and spoils nothing for the
// others. An error: there is nothing to tell.
func (d *Das) eachPart(uids []string, key func(string) store.Key, ask func([]string) (*tier.ProgressReply, error)) (*tier.ProgressReply, error) {
	if len(d.parts) == 1 {
		return ask(uids)
	}
	byPart := make([][]string, len(d.parts))
	for _, uid := range uids {
		db := d.database(key(uid).Bucket())
		byPart[db] = append(byPart[db], uid)
	}
	reply := &tier.ProgressReply{}
	var failed error
	for _, uids := range byPart {
		if len(uids) == 0 {
			continue
		}
		part, err := ask(uids)
		if err != nil {
			failed = err
			continue
		}
		reply.Users = append(reply.Users, part.Users...)
	}
	if len(reply.Users) == 0 && failed != nil {
		return nil, failed
	}
	return reply, nil
}

func progress(v store.View, user store.Key, req *tier.ProgressRequest) (*tier.UserProgress, error) {
	epoch, err := epochOf(v, user)
	if err != nil {
		return nil, err
	}
	head, err := v.User(user)
	if err != nil {
		return nil, fmt.Errorf("read the head of user %q: %w", user.ID, err)
	}
	u := &tier.UserProgress{Uid: user.ID, Epoch: epoch, Head: head.Version, Woken: min(head.Woken, head.Version)}
	var list []store.Device
	if req.Devices || !req.NoCursor {
		if list, err = v.Devices(user); err != nil {
			return nil, fmt.Errorf("read the devices of %q: %w", user.ID, err)
		}
	}
	for _, d := range list {
		if d.Epoch == epoch { // a cursor of another epoch says nothing
			u.Cursor = max(u.Cursor, min(d.Cursor, head.Version))
		}
		if req.Devices {
			u.Devices = append(u.Devices, &tier.Device{
				Device: d.ID, Platform: d.Platform, PushToken: d.PushToken,
				Epoch: d.Epoch, Cursor: d.Cursor, SeenMs: d.SeenMS,
			})
		}
	}
	if !req.Sessions {
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
