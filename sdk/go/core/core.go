package core

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"hongyan/idl/code"
	"hongyan/idl/im"
	"hongyan/internal/wire"
)

// Core is the state machine of one device. See the package comment for how it is driven.
type Core struct {
	cfg   Config
	saved *Saved // UID, Counter, Cursor; logs and outbox below are its maps, with what is not kept
	out   Output

	// The connection. All of it is as good as new after Disconnected.
	stage     stage
	link      Link
	deadline  time.Time // of HELLO and AUTH
	seq       uint32
	calls     map[uint32]*call
	maxBody   int
	heartbeat time.Duration
	wroteAt   time.Time
	owedSince time.Time // of the first request since anything was heard; zero = none
	pinging   bool

	// Receiving.
	logs     map[string]*log
	dirty    []*log   // changed since the last Take
	gaps     []*log   // with something to fetch, oldest first
	fetching int      // of them, asked for
	ahead    []change // versions beyond cursor+1, waiting for those between
	sync     syncing
	reads    int                             // answers under way that were read from the log
	late     map[string]map[uint64]*Modified // learnt while one was: they win over it (R25)
	moved    bool                            // the cursor has moved since the last Take
	batch    uint64                          // N of the last Output with After
	unstored []stored                        // handed out, not yet Stored
	durable  Cursor
	acked    Cursor // acknowledged on this connection
	ackDue   time.Time

	// Sending.
	outbox []*sending // by N
	byID   map[string]*sending
	limits map[string]int // conversations in which a send was refused: so many may fly
	lastN  uint64
	marks  []*mark // READs under way
	asks   []*ask  // user calls under way
	lastID uint64  // of asks

	next    time.Time // earliest timer, from the last advance
	touches uint64    // counts use of logs: the order of mods_known
	clock   clock
}

// stage of the connection.
type stage uint8

const (
	down stage = iota
	greeting
	authenticating
	online
)

// Link is what the driver knows of a connection it has opened.
type Link struct {
	Token string
	// AckAtOnce: the transport acknowledges with its next request, so PUSH_ACK is not
	// gathered (long poll).
	AckAtOnce bool
}

// Output is what the driver performs, in the order told in the package comment.
type Output struct {
	Before  *Change
	Frames  []wire.Frame
	Answers []Answer
	Events  []Event
	After   *Change
	N       uint64 // for Stored; set with After
	Close   *Closing
}

// Empty tells that there is nothing to do.
func (o *Output) Empty() bool {
	return o.Before == nil && o.After == nil && o.Close == nil &&
		len(o.Frames)+len(o.Answers)+len(o.Events) == 0
}

// Closing asks for the end of the connection, after the frames.
type Closing struct {
	Code       code.Code
	Reason     string
	Final      bool          // do not reconnect by yourself
	RetryAfter time.Duration // 0 = back off as usual
}

// call is a request whose response is awaited on this connection.
type call struct {
	at   time.Time
	late func(now time.Time) // RequestTimeout has passed; nil = nothing happens
	done func(now time.Time, a answer)
}

// answer is a decoded response header: err is nil or what the server said.
type answer struct {
	err  *code.Error
	body []byte
}

// stored is what the driver was given to save: the cursor of an Output.
type stored struct {
	n      uint64
	cursor Cursor
}

// New makes the core of a device from what its store holds. It takes over saved; nil is a
// new device.
func New(cfg Config, saved *Saved) (*Core, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if saved == nil {
		saved = &Saved{}
	}
	if err := saved.Validate(); err != nil {
		return nil, fmt.Errorf("the device's store is damaged: %w", err)
	}
	c := &Core{
		cfg:     cfg,
		saved:   saved,
		calls:   map[uint32]*call{},
		logs:    make(map[string]*log, len(saved.Convs)),
		late:    map[string]map[uint64]*Modified{},
		byID:    make(map[string]*sending, len(saved.Outbox)),
		limits:  map[string]int{},
		durable: saved.Cursor,
	}
	c.restoreLogs()
	c.restoreOutbox()
	return c, nil
}

// UID is whose device this is, "" before the first login.
func (c *Core) UID() string { return c.saved.UID }

// Cursor is the position up to which changes are applied.
func (c *Core) Cursor() Cursor { return c.saved.Cursor }

// Online tells that the core is logged in.
func (c *Core) Online() bool { return c.stage == online }

// Level tells that the core is online and knows of nothing that it lacks.
func (c *Core) Level() bool {
	return c.stage == online && len(c.gaps) == 0 && len(c.ahead) == 0 && !c.sync.busy && c.sync.due.IsZero()
}

// Held returns what is held of a conversation: entries above floor, and the highest seq
// known to exist.
func (c *Core) Held(conv string) (held Ranges, floor, last uint64) {
	l := c.logs[conv]
	if l == nil {
		return nil, 0, 0
	}
	return slices.Clone(l.Held), l.Floor, l.Last
}

// Wake is when Tick wants to be called; zero = never.
func (c *Core) Wake() time.Time { return c.next }

// Take returns what is to be done and forgets it.
func (c *Core) Take() Output {
	c.gatherAfter()
	out := c.out
	c.out = Output{}
	return out
}

// Ending is the Close of the next Output, nil if there is none: for a driver whose reader
// wants to know before the output was performed.
func (c *Core) Ending() *Closing { return c.out.Close }

// gatherAfter puts the changed logs and the cursor into one change.
func (c *Core) gatherAfter() {
	if len(c.dirty) > 0 || c.moved {
		after := c.after()
		for _, l := range c.dirty {
			after.Convs = append(after.Convs, l.delta())
		}
		if c.moved {
			cursor := c.saved.Cursor
			after.Cursor = &cursor
		}
		c.dirty, c.moved = c.dirty[:0], false
	}
	if c.out.After == nil {
		return
	}
	c.batch++
	c.out.N = c.batch
	c.unstored = append(c.unstored, stored{c.batch, c.saved.Cursor})
}

// Stored says that the After of Output n, and so of all before it, is saved.
func (c *Core) Stored(now time.Time, n uint64) {
	for len(c.unstored) > 0 && c.unstored[0].n <= n {
		c.durable = c.unstored[0].cursor
		c.unstored = c.unstored[1:]
	}
	c.advance(now)
}

// Tick lets time pass.
func (c *Core) Tick(now time.Time) { c.advance(now) }

// Connected begins a session on a connection that was just opened.
func (c *Core) Connected(now time.Time, l Link) {
	c.drop(now)
	c.out.Frames, c.out.Close = nil, nil // of the connection before
	c.stage, c.link = greeting, l
	c.deadline = now.Add(c.cfg.RequestTimeout)
	c.maxBody = defaultMaxBody
	c.heartbeat = c.cfg.Heartbeat
	c.wroteAt, c.owedSince = now, time.Time{}
	c.hello(now)
	c.advance(now)
}

// Disconnected says that the connection is gone.
func (c *Core) Disconnected(now time.Time) {
	c.drop(now)
	c.out.Frames = nil
	c.advance(now)
}

// drop forgets everything that belonged to the connection.
func (c *Core) drop(now time.Time) {
	c.stage = down
	c.seq = 0
	clear(c.calls)
	clear(c.late)
	c.reads, c.fetching, c.pinging = 0, 0, false
	c.ahead = nil
	c.sync = syncing{}
	c.acked, c.ackDue = Cursor{}, time.Time{}
	for _, l := range c.gaps {
		l.fetching = false
		l.due = now.Add(c.cfg.GapDelay)
		l.tries = 0
	}
	for _, m := range c.marks {
		m.flying, m.notBefore = false, time.Time{}
	}
	c.dropAsks()
	c.dropSends()
}

// closeLink ends the connection from our side.
func (c *Core) closeLink(now time.Time, cl Closing) {
	if c.out.Close == nil {
		c.out.Close = &cl
	}
	c.drop(now)
}

// advance does what is due and computes the next timer.
func (c *Core) advance(now time.Time) {
	c.next = time.Time{}
	c.expireSends(now)
	c.expireAsks(now)
	c.expireCalls(now)
	switch c.stage {
	case greeting, authenticating:
		if c.due(now, c.deadline) {
			c.closeLink(now, Closing{Code: code.CloseAuthTimeout, Reason: "no answer to " + c.stage.String()})
		}
	case online:
		c.syncIfDue(now)
		c.fetchGaps(now)
		c.writeSends(now)
		c.writeMarks(now)
		c.writeAsks(now)
		c.ackIfDue(now)
		c.pingIfDue(now)
	}
}

func (s stage) String() string {
	switch s {
	case greeting:
		return "HELLO"
	case authenticating:
		return "AUTH"
	case online:
		return "online"
	}
	return "down"
}

// due tells whether t has come; if not, the next timer is t at the latest. Zero is never.
func (c *Core) due(now, t time.Time) bool {
	if t.IsZero() {
		return false
	}
	if !t.After(now) {
		return true
	}
	if c.next.IsZero() || t.Before(c.next) {
		c.next = t
	}
	return false
}

// expireCalls gives late calls their chance. Their order is that of asking.
func (c *Core) expireCalls(now time.Time) {
	var late []uint32
	for seq, k := range c.calls {
		if k.late != nil && c.due(now, k.at.Add(c.cfg.RequestTimeout)) {
			late = append(late, seq)
		}
	}
	slices.SortFunc(late, func(a, b uint32) int { return cmp.Compare(a, b) })
	for _, seq := range late {
		if k := c.calls[seq]; k != nil { // an earlier one may have closed the link
			delete(c.calls, seq)
			k.late(now)
		}
	}
}

// body is any generated message.
type body interface {
	Marshal([]byte) ([]byte, error)
}

// request writes a request and remembers what to do with its response.
func (c *Core) request(now time.Time, cmd im.Cmd, b body, k *call) uint32 {
	c.seq++
	k.at = now
	if c.owedSince.IsZero() {
		c.owedSince = now
	}
	c.calls[c.seq] = k
	if k.late != nil {
		c.due(now, now.Add(c.cfg.RequestTimeout))
	}
	c.frame(now, wire.Frame{Cmd: cmd, Seq: c.seq, Body: encode(b)})
	return c.seq
}

// oneway writes a frame that is not answered.
func (c *Core) oneway(now time.Time, cmd im.Cmd, b body) {
	c.frame(now, wire.Frame{Cmd: cmd, Flags: wire.FlagOneWay, Body: encode(b)})
}

func (c *Core) frame(now time.Time, f wire.Frame) {
	c.out.Frames = append(c.out.Frames, f)
	c.wroteAt = now
}

// encode cannot fail for the messages made here; if it did, the server would refuse the
// empty body.
func encode(b body) []byte {
	buf, err := b.Marshal(nil)
	if err != nil {
		return nil
	}
	return buf
}

func (c *Core) before() *Change {
	if c.out.Before == nil {
		c.out.Before = &Change{}
	}
	return c.out.Before
}

func (c *Core) after() *Change {
	if c.out.After == nil {
		c.out.After = &Change{}
	}
	return c.out.After
}

func (c *Core) emit(e Event) { c.out.Events = append(c.out.Events, e) }

func (c *Core) problem(cd code.Code, format string, a ...any) {
	c.emit(Problem{code.Errorf(cd, format, a...)})
}
