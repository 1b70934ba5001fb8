package gate

import (
	"strings"
	"time"

	"hongyan/idl/code"
	"hongyan/idl/im"
	"hongyan/internal/wire"
)

// Receive takes one frame of the client, with a protobuf body, one at a time for each
// connection. The body may be reused afterwards.
func (c *Conn) Receive(f wire.Frame) {
	c.gate.metrics.framesIn.Inc()
	c.gate.metrics.bytesIn.Add(float64(len(f.Body)))
	c.mu.Lock()
	defer c.unlock()
	if c.phase == closed {
		return
	}
	err := c.admitLocked()
	if err == nil {
		err = c.takeLocked(&f)
	}
	if err != nil {
		c.rejectLocked(f.Cmd, f.Seq, err, f.Flags&wire.FlagOneWay != 0 || oneWay(f.Cmd))
	}
}

// earlyFrames is how many frames may come before AUTH.
const earlyFrames = 16

// admitLocked is the first gate: how many frames, whatever is in them.
func (c *Conn) admitLocked() *code.Error {
	if c.phase == opened {
		if c.early++; c.early > earlyFrames {
			return code.Errorf(code.CloseProtocolError, "%d frames and no AUTH", earlyFrames)
		}
		return nil
	}
	if err := c.crowdedLocked(); err != nil {
		return err
	}
	if !c.allowLocked() {
		return &code.Error{
			Code: code.RateLimited, Message: "too many requests on one connection", RetryAfter: time.Second,
		}
	}
	return nil
}

// takeLocked serves what is the gateway's own and passes everything else up.
func (c *Conn) takeLocked(f *wire.Frame) *code.Error {
	if f.Flags&wire.FlagResponse != 0 {
		return nil // of a PING of ours, or of nothing
	}
	switch f.Cmd {
	case im.Cmd_PING:
		return c.pingLocked(f)
	case im.Cmd_HELLO:
		return c.helloLocked(f)
	case im.Cmd_AUTH:
		return c.authLocked(f)
	}
	if !fromClients(f.Cmd) {
		return c.unknown(f)
	}
	switch c.phase {
	case opened:
		return code.Errorf(code.CloseProtocolError, "%s before AUTH", f.Cmd)
	case authing:
		return code.Errorf(code.Unavailable, "AUTH has not been answered yet")
	}
	switch f.Cmd {
	case im.Cmd_PUSH_ACK:
		return c.pushAckLocked(f)
	case im.Cmd_SYNC:
		if err := c.syncLocked(f); err != nil {
			return err
		}
	}
	return c.packetLocked(f)
}

// unknown commands are errors where an answer is expected, or demanded (FlagCritical).
func (c *Conn) unknown(f *wire.Frame) *code.Error {
	if f.Flags&wire.FlagOneWay != 0 && f.Flags&wire.FlagCritical == 0 {
		return nil
	}
	f.Flags &^= wire.FlagOneWay
	return code.Errorf(code.Unsupported, "%s is not a command for this server", f.Cmd)
}

// fromClients tells the commands that Logic takes from clients.
func fromClients(cmd im.Cmd) bool {
	switch cmd {
	case im.Cmd_SEND, im.Cmd_PUSH_ACK, im.Cmd_SYNC, im.Cmd_HISTORY, im.Cmd_READ, im.Cmd_TYPING,
		im.Cmd_RECALL, im.Cmd_EDIT, im.Cmd_CONVERSATIONS, im.Cmd_CONTACTS, im.Cmd_PRESENCE,
		im.Cmd_CALL, im.Cmd_LOGOUT, im.Cmd_UNREAD, im.Cmd_SETTINGS, im.Cmd_BLOCK:
		return true
	}
	return false
}

// oneWay tells the commands that are never answered.
func oneWay(cmd im.Cmd) bool { return cmd == im.Cmd_PUSH_ACK || cmd == im.Cmd_TYPING }

func badBody(cmd im.Cmd) *code.Error {
	return code.Errorf(code.BadRequest, "the body of %s cannot be decoded", cmd)
}

// features this server has beyond version 1.
func features() []string { return []string{"json"} }

func (c *Conn) helloLocked(f *wire.Frame) *code.Error {
	if c.phase != opened {
		return code.Errorf(code.CloseProtocolError, "HELLO after AUTH")
	}
	var hello im.Hello
	if hello.Unmarshal(f.Body) != nil {
		return badBody(f.Cmd)
	}
	if !validDevice(hello.Device) || !validPlatform(hello.Platform) {
		return code.Errorf(code.BadRequest, "device and platform are up to %d and %d printable ASCII characters", maxDevice, maxPlatform)
	}
	if !offersPlain(hello.Suites) {
		return code.Errorf(code.Unsupported, "no suite in common; this server has plain")
	}
	if hello.Device != "" {
		c.device = strings.Clone(hello.Device)
	}
	if hello.Platform != "" {
		c.platform = intern(hello.Platform)
	}
	cfg := &c.gate.cfg
	ack, _ := (&im.HelloAck{
		ServerMs:      time.Now().UnixMilli(),
		Suite:         "plain",
		HeartbeatMinS: uint32(cfg.HeartbeatMin / time.Second),
		HeartbeatMaxS: uint32(c.maxBeat() / time.Second),
		MaxBody:       uint32(cfg.MaxBody),
		ServerVersion: c.gate.deps.Version,
		Features:      features(),
	}).Marshal(nil)
	c.answerLocked(f.Cmd, f.Seq, ack)
	return nil
}

func offersPlain(suites []string) bool {
	for _, s := range suites {
		if s == "plain" {
			return true
		}
	}
	return len(suites) == 0
}

// maxBeat: only native clients may ask for long heartbeats, others have proxies between
// that forget silent connections.
func (c *Conn) maxBeat() time.Duration {
	if c.transport == TCP {
		return c.gate.cfg.HeartbeatMax
	}
	return c.gate.cfg.HeartbeatMin
}

func (c *Conn) pingLocked(f *wire.Frame) *code.Error {
	var ping im.Ping
	if ping.Unmarshal(f.Body) != nil {
		return badBody(f.Cmd)
	}
	if ping.EveryS != 0 {
		every := time.Duration(ping.EveryS) * time.Second
		c.beat = uint16(min(max(every, c.gate.cfg.HeartbeatMin), c.maxBeat()) / time.Second)
		c.armLocked()
	}
	pong, _ := (&im.Pong{ServerMs: time.Now().UnixMilli()}).Marshal(nil)
	c.answerLocked(f.Cmd, f.Seq, pong)
	return nil
}
