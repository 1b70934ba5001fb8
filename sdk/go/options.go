package hongyan

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net/url"

	"hongyan/idl/code"
	"hongyan/idl/im"
	"hongyan/sdk/go/core"
)

// What the protocol and the core define, under the names an application uses.
type (
	Message      = im.Message
	Conversation = im.Conversation
	Contact      = im.Contact
	Presence     = im.UserPresence
	Kind         = im.Kind
	Code         = code.Code
	Error        = code.Error // Code, Message, RetryAfter

	Outgoing  = core.Outgoing // exactly one of Conv and To; an empty ClientMsgID is made up
	Sent      = core.Sent
	Failed    = core.Failed
	Modified  = core.Modified
	Read      = core.Read
	Typing    = core.Typing
	Announced = core.Announced
	Kicked    = core.Kicked
	Removed   = core.Removed
	Queued    = core.Queued

	Store  = core.Store
	Memory = core.Memory
)

// Codes that applications ask for most; all of them are in hongyan/idl/code.
const (
	NotFound = code.NotFound
	Denied   = code.Denied
	Blocked  = code.Blocked
	Expired  = code.Expired
)

// CodeOf is the code of an error that a method returned; 0 = no error.
func CodeOf(err error) Code { return code.Of(err) }

// TokenProvider returns a token for the user, as the platform's own backend signs it. It
// is asked before each connection.
type TokenProvider func(ctx context.Context) (string, error)

// Token is a provider that always returns the same token.
func Token(token string) TokenProvider {
	return func(context.Context) (string, error) { return token, nil }
}

// Options of a Client. Endpoints, Token and Device must be set.
type Options struct {
	// Endpoints of the same system, best first: tcp://host:port, tls://, ws://, wss://,
	// http:// and https:// (long poll). When one does not answer, the next is tried.
	Endpoints []string
	Token     TokenProvider
	// Device is the stable id of this installation, at most 64 bytes.
	Device   string
	Platform string // ios, android, web, desktop, mini, cli; empty = cli

	// Store keeps cursor and outbox; nil keeps them in memory, for a client that is new at
	// every start. A store belongs to one user on one device.
	Store Store
	On    Handlers

	Logger *slog.Logger // nil = silent

	// TLS is for tls://, wss:// and https://: RootCAs for an authority of the company's own,
	// certificates of the client. nil = the authorities of the system. It is copied.
	TLS *tls.Config

	// Dialers add or replace transports, by the scheme of the endpoint.
	Dialers map[string]Dialer
	// Tuning overrides the protocol's numbers where its fields are not zero. Device and
	// Platform above win.
	Tuning core.Config
}

// Handlers tell the application what happens. Any may be nil. They run one at a time, in
// order, on a goroutine of the client: what they have seen is confirmed to the server when
// they return. They may call the client, but for Close, which waits for them, and should
// not wait long: while they run, nothing else is told.
type Handlers struct {
	// Message is a new entry of a conversation: a message, or an event (Kind 64 and above)
	// such as a recall. Order by (Conv, Seq): a gap may be filled later.
	Message func(*Message)
	// Sent and Failed are the outcome of every Send, SendAsync, Recall and Edit. A failed
	// one stays in the outbox for Retry or Discard.
	Sent   func(Sent)
	Failed func(Failed)
	// Modified is an entry that was recalled or edited; the higher ModSeq wins.
	Modified func(Modified)
	// Replaced and Removed happen when the database has failed over to an older copy: the
	// server holds another message at this (Conv, Seq), or none above After.
	Replaced func(*Message)
	Removed  func(Removed)
	// Conversation is a row that changed: unread, read state, settings; without messages.
	// Of a partial one only Conv, LastSeq, ReadSeq and Unread are meant.
	Conversation func(row *Conversation, partial bool)
	Read         func(Read)
	Typing       func(Typing)
	// Announced is something for everybody who is connected now; told at most once.
	Announced func(Announced)
	// Unread is the total, where the server notifies without bodies (notify-then-query).
	Unread func(total uint64)
	// Synced: level with the server.
	Synced func()
	// Kicked: the server ended the session, for good if Final(Code).
	Kicked func(Kicked)
	// TokenExpired: the token was refused. Get another and Connect again.
	TokenExpired func(*Error)
	State        func(State, error)
	// Problem is an error of the server outside of any call.
	Problem func(*Error)
}

// State of the connection.
type State int

const (
	Idle       State = iota // before Connect
	Connecting              // trying; with the error of the last try
	Online
	Stopped // for good, with the reason, until Connect is called again
)

func (s State) String() string {
	return [...]string{"idle", "connecting", "online", "stopped"}[s]
}

// Final tells that the client does not reconnect by itself after this code.
func Final(c Code) bool { return core.Final(c) }

// check fills in defaults and finds what cannot work.
func (o *Options) check() (map[string]Dialer, []*url.URL, error) {
	if o.Token == nil {
		return nil, nil, errors.New("no token provider")
	}
	if o.Store == nil {
		o.Store = &Memory{}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	known := dialers(o.TLS)
	for scheme, d := range o.Dialers {
		known[scheme] = d
	}
	endpoints, err := parseEndpoints(o.Endpoints, known)
	return known, endpoints, err
}
