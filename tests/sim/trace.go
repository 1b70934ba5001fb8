package sim

import (
	"encoding/json"

	"hongyan/idl/im"
	"hongyan/internal/wire"
)

// bodyOf is a frame's body as a reader of the log wants it.
func bodyOf(f *wire.Frame) string {
	if f.Status != 0 {
		return text(f.Body, &im.Error{})
	}
	response := f.Flags&wire.FlagResponse != 0
	switch f.Cmd {
	case im.Cmd_AUTH:
		if response {
			return text(f.Body, &im.AuthAck{})
		}
		return text(f.Body, &im.Auth{})
	case im.Cmd_SEND, im.Cmd_RECALL, im.Cmd_EDIT:
		switch {
		case response:
			return text(f.Body, &im.SendAck{})
		case f.Cmd == im.Cmd_SEND:
			return text(f.Body, &im.Send{})
		}
		return text(f.Body, &im.Modify{})
	case im.Cmd_PUSH:
		return text(f.Body, &im.Push{})
	case im.Cmd_PUSH_ACK:
		return text(f.Body, &im.PushAck{})
	case im.Cmd_NOTICE:
		return text(f.Body, &im.Notice{})
	case im.Cmd_SYNC:
		if response {
			return text(f.Body, &im.SyncRsp{})
		}
		return text(f.Body, &im.Sync{})
	case im.Cmd_HISTORY:
		if response {
			return text(f.Body, &im.HistoryRsp{})
		}
		return text(f.Body, &im.History{})
	case im.Cmd_READ:
		if response {
			return text(f.Body, &im.ReadAck{})
		}
		return text(f.Body, &im.Read{})
	case im.Cmd_KICK:
		return text(f.Body, &im.Kick{})
	case im.Cmd_ERROR:
		return text(f.Body, &im.Error{})
	}
	return ""
}

func text(body []byte, m interface{ Unmarshal([]byte) error }) string {
	if err := m.Unmarshal(body); err != nil {
		return err.Error()
	}
	b, _ := json.Marshal(m) // of plain structs
	return string(b)
}
