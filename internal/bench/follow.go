package bench

import (
	"fmt"
	"time"

	"hongyan/idl/code"
	"hongyan/idl/im"
	"hongyan/internal/wire"
)

// A SYNC without an answer is asked again after syncPatience, one that was refused after
// syncPause at least.
const (
	syncPatience = 5 * time.Second
	syncPause    = 200 * time.Millisecond
)

// follow is where a connection is in its user's log. It goes on through RESET as the SDK does:
// the list is taken anew from 0, in the log's new epoch.
type follow struct {
	epoch  uint64
	cursor uint64 // highest version applied
	told   uint64 // highest version acknowledged
	items  int    // applied since
	toldAt time.Time

	messages uint32    // of each conversation that SYNC asks for
	asked    time.Time // of the SYNC under way; zero = none is
	due      time.Time // of the next one, after a refusal; zero = none is wanted
	seq      uint32    // of the newest SYNC, counted down: SENDs count up
	renewing bool      // the list is being taken anew
	syncs    int64
	resets   int64
}

// applied moves the cursor to the next version; false when something before it is missing, or
// the log is another.
func (c *conn) applied(epoch, version uint64) bool {
	switch {
	case version == 0:
		return true // the change follows
	case epoch != c.epoch:
		return false
	case version <= c.cursor:
		return true
	case version > c.cursor+1:
		return false
	}
	c.cursor = version
	c.items++
	return true
}

// behind tells whether a NOTICE says something new: it may have been on its way while what
// it speaks of arrived.
func (c *conn) behind(f wire.Frame) bool {
	var n im.Notice
	return n.Unmarshal(f.Body) != nil || n.Head == 0 || n.Epoch != c.epoch || n.Head > c.cursor
}

// sync asks for what was missed, unless that was asked already.
func (c *conn) sync(now time.Time) error {
	if !c.asked.IsZero() && now.Sub(c.asked) < syncPatience {
		return nil
	}
	c.asked, c.due = now, time.Time{}
	c.syncs++
	c.seq--
	return c.queue(im.Cmd_SYNC, c.seq, 0, &im.Sync{Epoch: c.epoch, Cursor: c.cursor, Limit: 100, Messages: c.messages})
}

// syncIfDue asks again where no answer came, or a refusal.
func (c *conn) syncIfDue(now time.Time) error {
	if !c.due.IsZero() && now.After(c.due) || !c.asked.IsZero() && now.Sub(c.asked) >= syncPatience {
		return c.sync(now)
	}
	return nil
}

// synced takes the answer to SYNC and asks for the next page. rsp is nil where it brings
// nothing; reset tells that the log is another from now on: the list follows.
func (c *conn) synced(f wire.Frame, now time.Time) (rsp *im.SyncRsp, reset bool, err error) {
	if f.Seq != c.seq || c.asked.IsZero() {
		return nil, false, nil // asked again meanwhile
	}
	c.asked = time.Time{}
	if f.Status == code.Reset {
		return nil, true, c.restart(0, now)
	}
	if f.Status != code.OK {
		e := errorOf(f)
		if !f.Status.Retryable() {
			return nil, false, fmt.Errorf("SYNC: %w", e)
		}
		c.due = now.Add(max(e.RetryAfter, syncPause))
		return nil, false, nil
	}
	rsp = new(im.SyncRsp)
	if err := rsp.Unmarshal(f.Body); err != nil {
		return nil, false, err
	}
	if rsp.MustReset || rsp.Epoch != c.epoch && c.epoch != 0 {
		return nil, true, c.restart(rsp.Epoch, now)
	}
	c.epoch, c.cursor = rsp.Epoch, max(c.cursor, rsp.NextCursor)
	c.items++
	if rsp.More {
		return rsp, false, c.sync(now)
	}
	c.renewing = false
	return rsp, false, nil
}

// restart takes the list anew; where that is reset too, after a pause.
func (c *conn) restart(epoch uint64, now time.Time) error {
	again := c.renewing
	c.epoch, c.cursor, c.told, c.renewing = epoch, 0, 0, true
	c.resets++
	if again {
		c.due = now.Add(syncPause)
		return nil
	}
	return c.sync(now)
}
