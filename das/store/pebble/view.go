package pebblestore

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"slices"

	"hongyan/das/store"
)

// view is one iterator, opened before it waits for the flush of all it may show.
type view struct {
	s      *Store
	rows   rowReader
	closed bool
}

// View implements store.Store.
func (s *Store) View(ctx context.Context) (store.View, error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	defer s.life.RUnlock()
	v := &view{s: s, rows: rowReader{db: s.db}}
	if err := v.rows.open(); err != nil {
		return nil, err
	}
	if err := s.flushes.wait(ctx); err != nil {
		return nil, errors.Join(err, v.rows.close())
	}
	s.views.Add(1)
	return v, nil
}

// Close implements store.View.
func (v *view) Close() {
	v.s.life.RLock()
	defer v.s.life.RUnlock()
	if v.closed {
		return
	}
	v.closed = true
	v.s.views.Add(-1)
	if v.s.closed {
		return // and its iterator with the database
	}
	if err := v.rows.close(); err != nil {
		v.s.log.Error("a view did not close", "err", err)
	}
}

// look runs one read. What it finds is worth nothing if the store has broken meanwhile.
func look[T any](v *view, read func(*rowReader) (T, error)) (T, error) {
	var none T
	v.s.life.RLock()
	defer v.s.life.RUnlock()
	if v.closed || v.s.closed {
		return none, store.ErrClosed
	}
	got, err := read(&v.rows)
	if broken := v.s.flushes.broke(); broken != nil {
		return none, broken
	}
	if err != nil {
		return none, err
	}
	return got, nil
}

func (v *view) Bucket(id uint32) (store.BucketState, error) {
	return look(v, func(r *rowReader) (store.BucketState, error) {
		if id >= store.Buckets {
			return store.BucketState{}, store.ErrNotFound
		}
		return r.bucket(id)
	})
}

func (v *view) Conv(k store.Key) (store.ConvHead, error) {
	return look(v, func(r *rowReader) (head store.ConvHead, err error) {
		if !k.Valid() {
			return head, nil
		}
		return r.convHead(k)
	})
}

// User reads all rows of a user to find his highest version: see heads.user.
func (v *view) User(k store.Key) (store.UserHead, error) {
	return look(v, func(r *rowReader) (head store.UserHead, err error) {
		if !k.Valid() {
			return head, nil
		}
		err = r.eachMember(k, func(_, val []byte) error {
			version, err := memberVersion(val)
			head.Version = max(head.Version, version)
			return err
		})
		if err == nil {
			head.Woken, err = r.woken(k)
		}
		return head, err
	})
}

func (v *view) Message(k store.Key, seq uint64) (*store.Message, error) {
	return look(v, func(r *rowReader) (*store.Message, error) {
		if !k.Valid() {
			return nil, store.ErrNotFound
		}
		return r.message(k, seq)
	})
}

func (v *view) Range(k store.Key, from, to uint64, limit int) ([]*store.Message, error) {
	return v.messages(k, from, to, limit, false)
}

func (v *view) Last(k store.Key, before uint64, limit int) ([]*store.Message, error) {
	list, err := v.messages(k, 0, before-1, limit, true) // before 0 wraps to the end
	slices.Reverse(list)
	return list, err
}

func (v *view) messages(k store.Key, from, to uint64, limit int, back bool) ([]*store.Message, error) {
	return look(v, func(r *rowReader) (list []*store.Message, err error) {
		if !k.Valid() || from > to {
			return nil, nil
		}
		err = r.messages(k, from, to, back, func(m *store.Message) error {
			if list = append(list, m); len(list) == limit {
				return errStop
			}
			return nil
		})
		return list, err
	})
}

func (v *view) Modified(k store.Key, after uint64, limit int) ([]*store.Message, error) {
	return look(v, func(r *rowReader) (list []*store.Message, err error) {
		if !k.Valid() || after == 1<<64-1 {
			return nil, nil
		}
		var seqs []uint64
		lo, hi, prefix := r.seqsUnder(tableModified, k, after+1, 1<<64-1)
		err = r.scan(lo, hi, false, func(key, _ []byte) error {
			if len(key) != prefix+16 {
				return errCorrupt
			}
			if seqs = append(seqs, binary.BigEndian.Uint64(key[prefix+8:])); len(seqs) == limit {
				return errStop
			}
			return nil
		})
		for _, seq := range seqs {
			m, err := r.message(k, seq)
			if err != nil {
				return nil, err
			}
			list = append(list, m)
		}
		return list, err
	})
}

func (v *view) ByClientID(k store.Key, sender, clientMsgID string) (*store.Message, error) {
	return look(v, func(r *rowReader) (*store.Message, error) {
		if !k.Valid() || clientMsgID == "" || !store.ValidID(sender) || !store.ValidID(clientMsgID) {
			return nil, store.ErrNotFound
		}
		seq, err := r.byClientID(k, sender, parseUUID(clientMsgID))
		if err != nil {
			return nil, err
		}
		return r.message(k, seq)
	})
}

func (v *view) Member(user store.Key, conv string) (store.Member, error) {
	return look(v, func(r *rowReader) (store.Member, error) {
		if !user.Valid() || conv == "" || !store.ValidID(conv) {
			return store.Member{}, store.ErrNotFound
		}
		return r.member(user, conv)
	})
}

func (v *view) Changes(user store.Key, after uint64, limit int) ([]store.Member, error) {
	return v.members(user, limit, func(version uint64) bool { return version > after },
		func(a, b store.Member) int { return cmp.Compare(a.Version, b.Version) })
}

func (v *view) Members(user store.Key, before uint64, limit int) ([]store.Member, error) {
	return v.members(user, limit, func(version uint64) bool { return before == 0 || version < before },
		func(a, b store.Member) int { return cmp.Compare(b.Version, a.Version) })
}

func (v *view) members(user store.Key, limit int, match func(uint64) bool, order func(a, b store.Member) int) ([]store.Member, error) {
	return look(v, func(r *rowReader) ([]store.Member, error) {
		if !user.Valid() {
			return nil, nil
		}
		return r.members(user, match, order, limit)
	})
}

func (v *view) Devices(user store.Key) ([]store.Device, error) {
	return look(v, func(r *rowReader) ([]store.Device, error) {
		if !user.Valid() {
			return nil, nil
		}
		return r.devices(user)
	})
}

func (v *view) Sessions(user store.Key) ([]store.Session, error) {
	return look(v, func(r *rowReader) ([]store.Session, error) {
		if !user.Valid() {
			return nil, nil
		}
		return r.sessions(user)
	})
}

func (v *view) FanOutRows(after store.RowKey, created store.Created, limit int) ([]store.FanOutRow, error) {
	return outbox(v, tableFanOut, after, created, limit, decodeFanOut)
}

func (v *view) DeliverRows(after store.RowKey, created store.Created, limit int) ([]store.DeliverRow, error) {
	return outbox(v, tableDeliver, after, created, limit, decodeDeliver)
}

func outbox[R any](v *view, table byte, after store.RowKey, created store.Created, limit int,
	decode func([]byte, store.RowKey) (R, error)) ([]R, error) {
	return look(v, func(r *rowReader) (list []R, err error) {
		err = r.outbox(table, after, created, func(k store.RowKey, val []byte) error {
			row, err := decode(val, k)
			if list = append(list, row); err == nil && len(list) == limit {
				return errStop
			}
			return err
		})
		return list, err
	})
}

func (v *view) Pushes(user store.Key, limit int) ([]store.Push, error) {
	return look(v, func(r *rowReader) ([]store.Push, error) {
		if !user.Valid() {
			return nil, nil
		}
		return r.pushes(user, limit)
	})
}
