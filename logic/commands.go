package logic

import (
	"context"
	"sync"
	"time"

	"hongyan/idl/code"
	"hongyan/idl/im"
	"hongyan/idl/tier"
	"hongyan/internal/route"
)

// message is any generated protobuf message.
type message interface {
	Marshal(in []byte) ([]byte, error)
}

// request is one command of a user, whichever entrance it came through.
type request struct {
	// up is the packet as its gateway handed it over; for Execute one is made. Never changed.
	up *tier.Uplink
	// gateway and boot say where the connection is; empty with Execute.
	gateway, boot string
	// system: an internal system asks, not a user's own device.
	system bool
	// deadline after which it is not worth doing.
	deadline time.Time
	// at is when its turn came.
	at time.Time
	// done takes the answer of Execute; capacity 1.
	done chan *tier.ExecuteReply
	// arrived is set once another Logic, the user's home, has the route of this AUTH.
	arrived *arrival
	// job is run instead of a command: what a command leaves to be done in a lane.
	job func(ctx context.Context)
}

func (r *request) cmd() im.Cmd { return im.Cmd(r.up.Cmd) }

// user is the hash that places the request's user.
func (r *request) user() uint64 { return route.Hash(r.up.Tenant, r.up.Uid) }

// laneKind names a lane: one for each duty, and inline for none.
type laneKind int

const (
	inline  laneKind = iota // SEND: checked and submitted by the caller's goroutine, so that its order holds
	session                 // AUTH, LOGOUT, ended connections
	chat                    // what changes something small
	query                   // what reads
	open                    // business commands of the platform
	duties
)

// command is a row of the table of commands.
type command struct {
	duty laneKind
	// run answers with a message, an error, or with neither when the answer comes later.
	run func(l *Logic, ctx context.Context, r *request) (message, error)
	// oneWay: never answered.
	oneWay bool
	// connected: makes sense for a connection only, not through Execute.
	connected bool
}

// commands is the table of all commands, for every entrance: what is not in it is unsupported.
func commands() map[im.Cmd]command {
	auth := on(session, (*Logic).auth)
	auth.connected = true
	logout := on(session, (*Logic).logout)
	logout.connected = true
	typing := on(chat, (*Logic).typing)
	typing.oneWay = true
	return map[im.Cmd]command{
		im.Cmd_AUTH:          auth,
		im.Cmd_LOGOUT:        logout,
		im.Cmd_SEND:          reused(inline, (*Logic).send),
		im.Cmd_RECALL:        on(chat, (*Logic).recall),
		im.Cmd_EDIT:          on(chat, (*Logic).edit),
		im.Cmd_BLOCK:         on(chat, (*Logic).block),
		im.Cmd_READ:          on(chat, (*Logic).read),
		im.Cmd_SETTINGS:      on(chat, (*Logic).settings),
		im.Cmd_TYPING:        typing,
		im.Cmd_SYNC:          on(query, (*Logic).sync),
		im.Cmd_HISTORY:       on(query, (*Logic).history),
		im.Cmd_CONVERSATIONS: on(query, (*Logic).conversations),
		im.Cmd_CONTACTS:      on(query, (*Logic).contacts),
		im.Cmd_UNREAD:        on(query, (*Logic).unread),
		im.Cmd_PRESENCE:      on(query, (*Logic).presence),
		im.Cmd_CALL:          on(open, (*Logic).call),
	}
}

// decoder is a pointer to a generated message of type T.
type decoder[T any] interface {
	*T
	Unmarshal(in []byte) error
}

// on is the row of a command whose body is a T.
func on[T any, P decoder[T]](d laneKind, handle func(*Logic, context.Context, *request, P) (message, error)) command {
	return command{duty: d, run: func(l *Logic, ctx context.Context, r *request) (message, error) {
		req := P(new(T))
		if err := req.Unmarshal(r.up.Body); err != nil {
			return nil, code.Errorf(code.BadRequest, "the body is not a %s request", r.cmd())
		}
		return handle(l, ctx, r, req)
	}}
}

// reused is on, for a handler that keeps nothing of the request but its strings and bytes:
// the one decoded into is used again.
func reused[T any, P decoder[T]](d laneKind, handle func(*Logic, context.Context, *request, P) (message, error)) command {
	pool := &sync.Pool{New: func() any { return P(new(T)) }}
	return command{duty: d, run: func(l *Logic, ctx context.Context, r *request) (message, error) {
		req := pool.Get().(P)
		defer func() {
			*req = *new(T)
			pool.Put(req)
		}()
		if err := req.Unmarshal(r.up.Body); err != nil {
			return nil, code.Errorf(code.BadRequest, "the body is not a %s request", r.cmd())
		}
		return handle(l, ctx, r, req)
	}}
}

// command of a command word, nil when there is none.
func (l *Logic) command(cmd uint32) *command {
	if cmd < uint32(len(l.table)) {
		return l.table[cmd]
	}
	return nil
}
