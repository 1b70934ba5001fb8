package extlogic

import (
	"cmp"
	"strings"
	"unicode"

	"hongyan/idl/im"
)

// compose makes one notification of each conversation that has something to show, of the
// newest MaxConversations at most. rows ascend by version.
func (e *ExtLogic) compose(u user, rows []*im.Conversation) []Notification {
	var notes []Notification
	for _, row := range rows {
		m := toShow(u, row)
		if m == nil {
			continue
		}
		notes = append(notes, Notification{
			Tenant: u.tenant, UID: u.uid, Conv: row.Conv, Seq: m.Seq,
			Title: oneLine(cmp.Or(row.Remark, row.Peer, m.Sender), e.cfg.MaxText), Body: e.body(m), Collapse: row.Conv,
		})
	}
	return notes[max(0, len(notes)-e.cfg.MaxConversations):]
}

// toShow is the newest message that the user has not read and wants to hear of, or nil.
func toShow(u user, row *im.Conversation) *im.Message {
	if row.Unread == 0 || row.Muted || row.Blocked {
		return nil
	}
	for i := len(row.Messages) - 1; i >= 0; i-- {
		m := row.Messages[i]
		if m.Seq <= row.ReadSeq {
			return nil
		}
		if countable(m.Kind) && !m.Recalled && m.Sender != u.uid {
			return m
		}
	}
	return nil
}

// countable tells a message from an event.
func countable(k im.Kind) bool { return k < im.Kind_EVENT_RECALL }

func (e *ExtLogic) body(m *im.Message) string {
	if e.cfg.HideText {
		return "[message]"
	}
	if text := oneLine(m.Text, e.cfg.MaxText); text != "" {
		return text
	}
	switch m.Kind {
	case im.Kind_IMAGE, im.Kind_FILE, im.Kind_AUDIO, im.Kind_VIDEO, im.Kind_LOCATION, im.Kind_CARD:
		return "[" + strings.ToLower(m.Kind.String()) + "]"
	}
	return "[message]"
}

// oneLine joins lines and cuts after most characters.
func oneLine(s string, most int) string {
	s = strings.Join(strings.FieldsFunc(s, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }), " ")
	n := 0
	for i := range s {
		if n == most {
			return s[:i] + "…"
		}
		n++
	}
	return s
}
