package das

import (
	"errors"

	"hongyan/das/store"
	"hongyan/idl/code"
	"hongyan/idl/im"
	"hongyan/idl/tier"
)

// validate checks what a write must look like before it is queued. Whether a conversation
// id is one, is seen when it is loaded.
func (d *Das) validate(r *tier.Submit) error {
	switch {
	case r.Append != nil:
		return d.validateAppend(r.Append)
	case r.Fanout != nil:
		return ids(field{"conv", r.Fanout.Conv})
	case r.Read != nil:
		if r.Read.Seq == 0 {
			return code.Errorf(code.BadRequest, "seq of a read must not be 0")
		}
		return errors.Join(ids(field{"conv", r.Read.Conv}), homes(r.Read.Homes))
	case r.Settings != nil:
		if len(r.Settings.Settings.GetFields()) == 0 {
			return code.Errorf(code.BadRequest, "fields: name what to set")
		}
		return ids(field{"conv", r.Settings.Settings.Conv})
	case r.Login != nil:
		return ids(field{"device", r.Login.Device}, field{"class", r.Login.Class})
	case r.Logout != nil:
		return ids(field{"device", r.Logout.Device})
	case r.Cursor != nil:
		return ids(field{"device", r.Cursor.Device})
	case r.Done != nil:
		return validateDone(r.Done)
	case r.Record != nil:
		return d.validateRecord(r.Record)
	}
	return nil
}

type field struct{ name, value string }

// ids checks names that become parts of keys.
func ids(list ...field) error {
	for _, f := range list {
		if f.value == "" || !store.ValidID(f.value) {
			return code.Errorf(code.BadRequest, "%s must have 1 to %d bytes and no zero byte, not %.80q", f.name, store.MaxID, f.value)
		}
	}
	return nil
}

// maxClientMsgID is the longest client_msg_id in bytes; a UUID has 36.
const maxClientMsgID = 64

func (d *Das) validateAppend(a *tier.Append) error {
	switch id := a.ClientMsgId; {
	case id == "" || len(id) > maxClientMsgID || !store.ValidID(id):
		return code.Errorf(code.BadRequest, "client_msg_id must have 1 to %d bytes and no zero byte", maxClientMsgID)
	case a.After == id:
		return code.Errorf(code.BadRequest, "after names the message itself")
	case len(a.After) > maxClientMsgID:
		return code.Errorf(code.BadRequest, "after is longer than a client_msg_id")
	case len(a.Text)+len(a.Data) > d.cfg.MaxBody:
		return code.Errorf(code.TooLarge, "body has %d bytes, over %d", len(a.Text)+len(a.Data), d.cfg.MaxBody)
	case a.Kind < 0 || a.Kind > im.Kind_EVENT_UNBLOCK:
		return code.Errorf(code.BadRequest, "kind %d is unknown", a.Kind)
	case isModify(a.Kind) && a.TargetSeq == 0:
		return code.Errorf(code.BadRequest, "a recall or edit names its target")
	}
	return homes(a.Homes)
}

// homes checks the boot ids that will own outbox rows; an empty one is the caller.
func homes(list []*tier.Home) error {
	for _, h := range list {
		if !store.ValidID(h.GetBoot()) {
			return code.Errorf(code.BadRequest, "boot %.80q of a home", h.GetBoot())
		}
	}
	return nil
}

func validateDone(o *tier.OutboxDone) error {
	const most = 1<<slotShift - 1
	if o.From > o.To || o.To > most || o.Shard >= maxSlot {
		return code.Errorf(code.BadRequest, "range %d..%d of shard %d", o.From, o.To, o.Shard)
	}
	if o.Kind != tier.Outbox_FANOUT && o.Kind != tier.Outbox_DELIVER {
		return code.Errorf(code.BadRequest, "outbox %d is unknown", o.Kind)
	}
	return nil
}

func (d *Das) validateRecord(r *tier.PushRecord) error {
	if !store.ValidID(r.Device) || !store.ValidID(r.Conv) {
		return code.Errorf(code.BadRequest, "device or conv of a push")
	}
	if n := len(r.Title) + len(r.Body) + len(r.Collapse); n > d.cfg.MaxBody {
		return code.Errorf(code.TooLarge, "push has %d bytes, over %d", n, d.cfg.MaxBody)
	}
	return nil
}
