package logic

import (
	"unicode/utf8"

	"hongyan/idl/code"
	"hongyan/idl/im"
	"hongyan/internal/conv"
)

// Limits of what clients name.
const (
	maxClientMsgID = 64
	maxDevice      = 64
	maxTenant      = 64
	maxRemark      = 128 // bytes
	maxPushToken   = 512
	maxSync        = 500
	maxMessages    = 100 // of each conversation, in lists
	maxHistory     = 200
	maxUIDs        = 100
	firstEvent     = im.Kind_EVENT_RECALL
)

// checkID checks a client_msg_id, or another id of that form, under its field's name.
func checkID(field, id string) error {
	if len(id) == 0 {
		return code.Errorf(code.BadRequest, "%s is missing", field)
	}
	return checkOptionalID(field, id, maxClientMsgID)
}

func checkOptionalID(field, id string, most int) error {
	if len(id) > most {
		return code.Errorf(code.BadRequest, "%s has %d bytes, at most %d are allowed", field, len(id), most)
	}
	for i := range len(id) {
		if id[i] <= ' ' || id[i] > '~' {
			return code.Errorf(code.BadRequest, "%s: only printable ASCII characters without blanks are allowed", field)
		}
	}
	return nil
}

func checkTenant(tenant string) error {
	if tenant == "" {
		return code.Errorf(code.BadRequest, "tenant is missing")
	}
	return checkOptionalID("tenant", tenant, maxTenant)
}

// checkText checks a text of people.
func checkText(field, text string, most int) error {
	if len(text) > most {
		return code.Errorf(code.TooLarge, "%s has %d bytes, at most %d are allowed", field, len(text), most)
	}
	if !utf8.ValidString(text) {
		return code.Errorf(code.BadRequest, "%s is not valid UTF-8", field)
	}
	return nil
}

// checkBody checks what a message says. Its limits are configuration: who may meet them
// with a message that was committed before asks Find first (R29).
func (l *Logic) checkBody(text string, data []byte) error {
	if err := checkText("text", text, l.cfg.MaxText); err != nil {
		return err
	}
	if len(data) > l.cfg.MaxData {
		return code.Errorf(code.TooLarge, "data has %d bytes, at most %d are allowed", len(data), l.cfg.MaxData)
	}
	if text == "" && len(data) == 0 {
		return code.Errorf(code.BadRequest, "text and data are both empty")
	}
	return nil
}

// kindOf returns the kind of a message that is to be sent. Unspecified is a notice where a
// channel speaks (only the platform writes there), and text where a user does, also when an
// internal system speaks for him: every entrance gives the same message the same kind.
func kindOf(kind im.Kind, id conv.ID, system bool) (im.Kind, error) {
	switch {
	case kind == im.Kind_UNSPECIFIED && id.Kind == conv.KindSystem:
		return im.Kind_SYSTEM, nil
	case kind == im.Kind_UNSPECIFIED:
		return im.Kind_TEXT, nil
	case kind >= im.Kind_TEXT && kind <= im.Kind_CUSTOM, kind == im.Kind_SYSTEM && system:
		return kind, nil
	}
	return 0, code.Errorf(code.BadRequest, "kind %d cannot be sent", kind)
}

// limit checks a list's limit: 0 is the default.
func limit(field string, n, standard, most uint32) (uint32, error) {
	if n == 0 {
		return standard, nil
	}
	if n > most {
		return 0, code.Errorf(code.BadRequest, "%s is %d, at most %d is allowed", field, n, most)
	}
	return n, nil
}

// member parses a conversation's id and checks that the user may see it.
func member(r *request, id string) (conv.ID, error) {
	c, err := conv.Parse(id)
	if err != nil {
		return conv.ID{}, err
	}
	if !c.Has(r.up.Uid) && !(r.system && c.Kind == conv.KindSystem) {
		return conv.ID{}, code.Errorf(code.Denied, "%s is not a member of %s", r.up.Uid, id)
	}
	return c, nil
}

// target says where a message goes and as whom: the conversation named, or the private
// one with to. Only an internal system writes to s:, as the channel.
func target(r *request, id, to string) (name, sender string, c conv.ID, err error) {
	if to != "" {
		if name, err = conv.Private(r.up.Uid, to); err != nil {
			return "", "", c, err
		}
		if id != "" && id != name {
			return "", "", c, code.Errorf(code.BadRequest, "conv %.140q is not the conversation with to %q", id, to)
		}
		id = name
	}
	if id == "" {
		return "", "", c, code.Errorf(code.BadRequest, "conv or to is missing")
	}
	if c, err = member(r, id); err != nil {
		return "", "", c, err
	}
	sender = r.up.Uid
	if c.Kind == conv.KindSystem {
		if !r.system {
			return "", "", c, code.Errorf(code.Denied, "only the platform writes to %s", id)
		}
		sender = c.A
	}
	return id, sender, c, nil
}

// checkMods checks the modifications that a client says to know.
func checkMods(mods []*im.ModsKnown) error {
	if len(mods) > maxSync {
		return code.Errorf(code.BadRequest, "mods_known names %d conversations, at most %d are allowed", len(mods), maxSync)
	}
	for _, m := range mods {
		if _, err := conv.Parse(m.Conv); err != nil {
			return code.Errorf(code.BadRequest, "mods_known: %w", err)
		}
	}
	return nil
}
