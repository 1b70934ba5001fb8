package gate

import (
	"bytes"
	"context"
	"sync"
	"sync/atomic"
	"time"

	"hongyan/idl/code"
	"hongyan/idl/im"
	"hongyan/idl/tier"
	"hongyan/internal/duty"
	"hongyan/internal/wire"
)

// uplink is the way up: for each slot of the Logic tier a few lanes, chosen by the user's
// hash. A lane has one batch under way at a time, so a user's packets keep their order
// (ZZ-16), also while their home is down and others stand in (ZZ-17). Where the tier is split
// by duty, what waits for one instance stands before nothing of another (ZZ-21).
type uplink struct {
	gate  *Gate
	bytes atomic.Int64 // bodies of packets in all lanes
	table atomic.Pointer[[][]*lane]

	mu      sync.Mutex // guards growing of table, and below
	ctx     context.Context
	running bool
	work    sync.WaitGroup
}

func newUplink(g *Gate) *uplink {
	u := &uplink{gate: g}
	u.table.Store(&[][]*lane{})
	return u
}

// run serves the lanes, those there are and those to come, until ctx ends.
func (u *uplink) run(ctx context.Context) {
	u.mu.Lock()
	u.ctx, u.running = ctx, true
	for _, stripes := range *u.table.Load() {
		u.startLocked(stripes)
	}
	u.mu.Unlock()
	<-ctx.Done()
	u.mu.Lock()
	u.running = false
	u.mu.Unlock()
	u.work.Wait()
}

func (u *uplink) startLocked(stripes []*lane) {
	for _, l := range stripes {
		u.work.Go(func() { l.sender.Run(u.ctx) })
	}
}

// lane of a user for a duty. It depends on the number of slots, so a connection changes its
// lane to its home only when nothing of its own is in the old one.
func (u *uplink) lane(task string, hash uint64) *lane {
	slot, stripe := u.gate.deps.Logics.Place(task, hash), (hash>>32)%uint64(u.gate.cfg.Stripes)
	table := *u.table.Load()
	if slot >= len(table) {
		table = u.grow(slot + 1)
	}
	return table[slot][stripe]
}

// dutyOf names what an item is for. Events concern the home.
func dutyOf(up *tier.Uplink) string {
	if up.Event != tier.Uplink_PACKET {
		return duty.Message
	}
	return duty.Of(im.Cmd(up.Cmd))
}

func (u *uplink) grow(slots int) [][]*lane {
	u.mu.Lock()
	defer u.mu.Unlock()
	table := append([][]*lane(nil), *u.table.Load()...)
	for len(table) < slots {
		stripes := make([]*lane, u.gate.cfg.Stripes)
		for i := range stripes {
			stripes[i] = newLane(u)
		}
		if u.running {
			u.startLocked(stripes)
		}
		table = append(table, stripes)
	}
	u.table.Store(&table)
	return table
}

// settle waits until every lane is empty, at most the grace.
func (u *uplink) settle(grace time.Duration) {
	for end := time.Now().Add(grace); time.Now().Before(end) && !u.empty(); {
		time.Sleep(5 * time.Millisecond)
	}
}

func (u *uplink) empty() bool {
	for _, stripes := range *u.table.Load() {
		for _, l := range stripes {
			if l.sender.Len() > 0 {
				return false
			}
		}
	}
	return true
}

// packet is one item on its way to a Logic.
type packet struct {
	up    *tier.Uplink
	conn  *Conn
	since int64 // queued, as Gate.now
	due   int64 // end of its life
	tried bool  // a Logic may have it
	aside bool  // not for the home: it is not in its connection's lane
}

// packetLocked queues a command of the client for his home Logic.
func (c *Conn) packetLocked(f *wire.Frame) *code.Error {
	life := c.gate.cfg.RequestLife
	if f.Cmd == im.Cmd_SEND {
		life = c.gate.cfg.SendLife
		if !c.openSlotLocked(f.Seq) {
			return overloaded("too many SENDs without an answer on one connection")
		}
	}
	up := &tier.Uplink{
		Event:        tier.Uplink_PACKET,
		Conn:         c.id,
		Tenant:       c.tenant,
		Uid:          c.uid,
		Device:       c.device,
		SessionEpoch: c.session,
		Cmd:          uint32(f.Cmd),
		Seq:          f.Seq,
		Body:         bytes.Clone(f.Body),
		RequestId:    c.requestID(f.Seq),
	}
	if f.Cmd == im.Cmd_AUTH {
		up.Platform, up.Class, up.Ip = c.platform, c.class, c.ip
	}
	if !c.queueLocked(up, life) {
		c.closeSlotLocked(f.Seq)
		return overloaded("the gateway cannot pass requests on as fast as they come")
	}
	return nil
}

func overloaded(message string) *code.Error {
	return &code.Error{Code: code.Overloaded, Message: message, RetryAfter: time.Second}
}

// eventLocked tells Logic about the connection. When the lane is full it is not told: it
// learns by the next renewal, or by being answered that the connection is gone.
func (c *Conn) eventLocked(event tier.Uplink_Event) bool {
	return c.queueLocked(&tier.Uplink{
		Event:        event,
		Conn:         c.id,
		Tenant:       c.tenant,
		Uid:          c.uid,
		Device:       c.device,
		SessionEpoch: c.session,
		Class:        c.class,
		Epoch:        c.epoch,
		Cursor:       c.cursor,
	}, c.gate.cfg.RequestLife)
}

// queueLocked puts an item into the connection's lane. False: there is no room.
func (c *Conn) queueLocked(up *tier.Uplink, life time.Duration) bool {
	u, size := c.gate.up, int64(len(up.Body))
	if u.bytes.Add(size) > int64(c.gate.cfg.UplinkBytes) {
		u.bytes.Add(-size)
		return false
	}
	now := c.gate.now()
	p := packet{up: up, conn: c, since: now, due: now + int64(life)}
	if !c.enterLocked(&p) {
		u.bytes.Add(-size)
		return false
	}
	return true
}

// enterLocked puts a packet into its lane. A user's packets keep their order for each duty.
func (c *Conn) enterLocked(p *packet) bool {
	u := c.gate.up
	if task := dutyOf(p.up); task != duty.Message && c.gate.deps.Logics.Split() {
		p.aside = true
		return u.lane(task, c.hash).sender.Add(*p)
	}
	if c.lined.Load() == 0 {
		c.lane = u.lane(duty.Message, c.hash)
	}
	c.lined.Add(1)
	if !c.lane.sender.Add(*p) {
		c.lined.Add(-1)
		return false
	}
	return true
}

// done: a Logic has the packet, or its sender was answered.
func (u *uplink) done(p *packet) {
	u.bytes.Add(-int64(len(p.up.Body)))
	if !p.aside {
		p.conn.lined.Add(-1)
	}
}

// fail answers the packet's sender. A connection whose AUTH failed is closed.
func (p *packet) fail(err *code.Error) {
	if p.up.Event != tier.Uplink_PACKET {
		return
	}
	c, cmd := p.conn, im.Cmd(p.up.Cmd)
	c.mu.Lock()
	defer c.unlock()
	if cmd == im.Cmd_SEND {
		c.closeSlotLocked(p.up.Seq)
	}
	if oneWay(cmd) {
		return
	}
	c.refuseLocked(cmd, p.up.Seq, err)
	if cmd == im.Cmd_AUTH && c.phase == authing {
		c.endLocked(loginRefused(err))
	}
}
