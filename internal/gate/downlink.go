package gate

import (
	"cmp"
	"context"
	"encoding/binary"
	"slices"

	"hongyan/idl/code"
	"hongyan/idl/im"
	"hongyan/idl/tier"
	"hongyan/internal/wire"
)

// downScratch is the working memory of one Downlink call.
type downScratch struct {
	logic string // whose batch it is
	order []downRef
	run   []*tier.Down // pushes that will be one frame
	out   []wire.Frame
}

type downRef struct {
	conn uint64
	at   int32 // in the batch
}

// Downlink brings what a Logic has for connections. The items become the gateway's. All
// frames for one connection are written together, in the order of the batch.
func (g *Gate) Downlink(_ context.Context, req *tier.DownlinkBatch) (*tier.DownlinkReply, error) {
	s := g.downs.Get().(*downScratch)
	defer g.downs.Put(s)
	s.logic = req.Logic
	s.sort(req.Items)
	reply := &tier.DownlinkReply{}
	for rest := s.order; len(rest) > 0; {
		n := 1
		for n < len(rest) && rest[n].conn == rest[0].conn {
			n++
		}
		if c := g.conns.get(rest[0].conn); c == nil || !c.deliver(req.Items, rest[:n], s) {
			g.metrics.gone.Add(float64(n))
			reply.Gone = append(reply.Gone, rest[0].conn)
		}
		rest = rest[n:]
	}
	return reply, nil
}

// sort groups the items by connection and keeps the order within each.
func (s *downScratch) sort(items []*tier.Down) {
	s.order = s.order[:0]
	for i, d := range items {
		if d != nil {
			s.order = append(s.order, downRef{d.Conn, int32(i)})
		}
	}
	slices.SortFunc(s.order, func(a, b downRef) int {
		if c := cmp.Compare(a.conn, b.conn); c != 0 {
			return c
		}
		return cmp.Compare(a.at, b.at)
	})
}

// deliver gives the connection its items. False: it has ended.
func (c *Conn) deliver(items []*tier.Down, refs []downRef, s *downScratch) bool {
	c.mu.Lock()
	defer c.unlock()
	if c.phase == closed {
		return false
	}
	if err := c.crowdedLocked(); err != nil {
		c.endLocked(err)
		return false
	}
	s.out, s.run = s.out[:0], s.run[:0]
	var closing *code.Error
	for _, ref := range refs {
		d := items[ref.at]
		closing = c.downLocked(d, s)
		if d.Close != 0 && closing == nil {
			closing = code.Errorf(code.Code(d.Close), "%s", code.Code(d.Close).Meaning())
		}
		if closing != nil {
			break
		}
	}
	c.flushRunLocked(s)
	c.sendLocked(s.out...)
	clear(s.out)
	clear(s.run)
	if closing != nil {
		c.endLocked(closing)
		return true
	}
	c.armLocked()
	return true
}

// downLocked turns an item into frames. An error ends the connection after them.
func (c *Conn) downLocked(d *tier.Down, s *downScratch) *code.Error {
	cmd := im.Cmd(d.Cmd)
	if d.Response {
		return c.responseLocked(cmd, d, s)
	}
	switch {
	case cmd == im.Cmd_KICK:
		c.kicked = d.Close != 0
	case c.phase != online:
		c.holdLocked(d)
		return nil
	case cmd == im.Cmd_PUSH:
		c.pushLocked(d, s)
		return nil
	case c.slow:
		return nil // typing and the like: late is worse than never
	}
	c.flushRunLocked(s)
	s.out = append(s.out, wire.Frame{Cmd: cmd, Flags: wire.FlagOneWay, Body: d.Body})
	return nil
}

func (c *Conn) responseLocked(cmd im.Cmd, d *tier.Down, s *downScratch) *code.Error {
	c.flushRunLocked(s)
	if cmd == im.Cmd_SEND {
		c.closeSlotLocked(d.Seq)
	}
	login := cmd == im.Cmd_AUTH && d.Status == 0
	if login && !c.loggedInLocked(d, s.logic) {
		return nil
	}
	s.out = append(s.out, wire.Frame{
		Cmd: cmd, Flags: wire.FlagResponse, Status: code.Code(d.Status), Seq: d.Seq, Body: d.Body,
	})
	if login {
		c.releaseLocked(s)
	} else if cmd == im.Cmd_AUTH && c.phase == authing && d.Close == 0 {
		return loginRefused(&code.Error{Code: code.Code(d.Status), Message: code.Code(d.Status).Meaning()})
	}
	return nil
}

// maxHeld is how many items may wait for AUTH_ACK; it usually is on its way already.
const maxHeld = 64

// holdLocked keeps what comes before AUTH_ACK, which must be the first frame of a session.
func (c *Conn) holdLocked(d *tier.Down) {
	if c.phase == authing && len(c.held) <= maxHeld {
		c.held = append(c.held, d)
	}
}

// releaseLocked delivers what was held back. When it was too much, SYNC brings it.
func (c *Conn) releaseLocked(s *downScratch) {
	held := c.held
	c.held = nil
	if len(held) <= maxHeld {
		for _, d := range held {
			c.downLocked(d, s)
		}
		return
	}
	for _, d := range held {
		if im.Cmd(d.Cmd) == im.Cmd_PUSH {
			c.dropPushLocked(d, s)
		}
	}
}

// pushLocked takes one change: into the next frame, or into what the client has to SYNC for.
func (c *Conn) pushLocked(d *tier.Down, s *downScratch) {
	if d.Version == 0 { // not of the user's log: nobody acknowledges it
		if !c.slow {
			c.flushRunLocked(s)
			s.out = append(s.out, pushFrame(joinPushes([]*tier.Down{d})))
		}
		return
	}
	if !beyond(d.Epoch, d.Version, c.epoch, c.cursor) {
		c.reportLocked() // acknowledged before; Logic has not heard of it
		return
	}
	if c.slow || c.pend != nil && c.pend.told && c.pend.epoch == d.Epoch {
		c.dropPushLocked(d, s)
		return
	}
	if n := len(s.run); n > 0 && !follows(s.run[n-1], d) || runSize(s.run) > maxPush {
		c.flushRunLocked(s)
	}
	s.run = append(s.run, d)
}

// maxPush is from where on another change starts a frame of its own, bytes.
const maxPush = 16 << 10

// follows: one frame carries consecutive versions of one epoch (R12).
func follows(a, b *tier.Down) bool { return a.Epoch == b.Epoch && a.Version+1 == b.Version }

func runSize(run []*tier.Down) int {
	size := 0
	for _, d := range run {
		size += len(d.Body)
	}
	return size
}

// dropPushLocked: the client must SYNC to get this change. He is told once.
func (c *Conn) dropPushLocked(d *tier.Down, s *downScratch) {
	c.flushRunLocked(s)
	p := c.pendingLocked()
	if !p.enter(d.Epoch) {
		return
	}
	told := p.told
	p.head = max(p.head, d.Version)
	p.lose(d.Version)
	if !told {
		c.flushOutLocked(s)
		c.noticeLocked()
	}
}

// flushOutLocked sends what was gathered so far: something is to be sent behind it.
func (c *Conn) flushOutLocked(s *downScratch) {
	c.sendLocked(s.out...)
	clear(s.out)
	s.out = s.out[:0]
}

// flushRunLocked makes one PUSH of the gathered changes and remembers it until it is
// acknowledged.
func (c *Conn) flushRunLocked(s *downScratch) {
	if len(s.run) == 0 {
		return
	}
	run := s.run
	s.run = s.run[:0]
	first, last := run[0], run[len(run)-1]
	p := c.pendingLocked()
	if !p.enter(first.Epoch) {
		return
	}
	body := joinPushes(run)
	switch {
	case last.Version <= p.head: // driven again while unacknowledged: already kept
	case !p.fits(len(body), c.gate.cfg.AckBudget):
		c.dropPushLocked(last, s)
		return
	default:
		p.head = last.Version
		p.keep(last.Version, body)
	}
	s.out = append(s.out, pushFrame(body))
}

func pushFrame(body []byte) wire.Frame {
	return wire.Frame{Cmd: im.Cmd_PUSH, Flags: wire.FlagOneWay, Body: body}
}

// Tags of hongyan.im.Push.
const (
	tagEpoch   = 0x08 // field 1, varint
	tagChanges = 0x12 // field 2, bytes, repeated
)

// joinPushes encodes a Push of changes that are encoded already: a repeated field is its
// elements one after the other.
func joinPushes(run []*tier.Down) []byte {
	size := 1 + binary.MaxVarintLen64
	for _, d := range run {
		size += 1 + binary.MaxVarintLen32 + len(d.Body)
	}
	body := make([]byte, 0, size)
	if epoch := run[0].Epoch; epoch != 0 {
		body = append(body, tagEpoch)
		body = binary.AppendUvarint(body, epoch)
	}
	for _, d := range run {
		body = append(body, tagChanges)
		body = binary.AppendUvarint(body, uint64(len(d.Body)))
		body = append(body, d.Body...)
	}
	return body
}
