package core

import (
	"time"

	"hongyan/idl/code"
	"hongyan/idl/im"
)

// Event is something the application is told. Messages in events belong to it.
type Event interface{ event() }

type (
	// Received is a new entry of a log: someone's message or event, or one of this user
	// that another device sent.
	Received struct{ Message *im.Message }

	// Sent is an entry of this device's outbox that is stored on the server.
	Sent struct {
		ClientMsgID string
		Message     *im.Message
		Duplicate   bool // an earlier write had stored it
	}

	// Failed is an entry of the outbox that was refused for good or ran out of time
	// (Expired: it may be stored nevertheless). It stays, for Retry or Discard.
	Failed struct {
		ClientMsgID string
		Outgoing    Outgoing
		Err         *code.Error
	}

	// Modified is an entry that was recalled or edited. It may name one that the
	// application does not hold; of two the higher ModSeq wins.
	Modified struct {
		Conv     string
		Seq      uint64
		ModSeq   uint64
		Recalled bool
		Text     string
		Data     []byte
	}

	// Replaced: the server holds another entry at this (conv, seq) than the application
	// was given: the database has failed over to an older copy.
	Replaced struct{ Message *im.Message }

	// Removed: the server does not hold the entries above After any more.
	Removed struct {
		Conv  string
		After uint64
	}

	// Row is a conversation's row that moved: unread, read state, settings. Without messages.
	Row struct {
		Conversation *im.Conversation
		Partial      bool // only Conv, Version, LastSeq and the read positions are set; Unread if ReadSeq is
	}

	// Read: this user (on any device) or the peer has read up to Seq.
	Read struct {
		Conv   string
		Seq    uint64
		ByPeer bool
	}

	// Typing: a peer is writing.
	Typing struct {
		Conv, UID string
		Stopped   bool
	}

	// Announced: something for everybody who is connected, told at most once.
	Announced struct {
		ID   string
		Text string
		Data []byte
		At   time.Time
	}

	// Online: logged in.
	Online struct{ Tenant, UID, Device, Session string }

	// Synced: level with the server as it was a moment ago.
	Synced struct{ Epoch, Version uint64 }

	// Reset: the server's copy is another than the cursor's; the list is taken anew.
	Reset struct{ Old, New uint64 } // epochs

	// Noticed: the server wants to be asked (notify-then-query).
	Noticed struct {
		What   im.Notice_What
		Unread uint64
	}

	// Kicked: the server ends this session. A final one is not followed by a reconnect.
	Kicked struct {
		Code     code.Code
		Reason   string
		ByDevice string
		At       time.Time
	}

	// GoAway: the server is leaving; reconnect within MaxDelay.
	GoAway struct {
		MaxDelay  time.Duration
		Endpoints []string
		Reason    string
	}

	// Problem is an error outside of any request, or a gap that can never be filled.
	Problem struct{ Err *code.Error }
)

func (Received) event()  {}
func (Sent) event()      {}
func (Failed) event()    {}
func (Modified) event()  {}
func (Replaced) event()  {}
func (Removed) event()   {}
func (Row) event()       {}
func (Read) event()      {}
func (Typing) event()    {}
func (Announced) event() {}
func (Online) event()    {}
func (Synced) event()    {}
func (Reset) event()     {}
func (Noticed) event()   {}
func (Kicked) event()    {}
func (GoAway) event()    {}
func (Problem) event()   {}
