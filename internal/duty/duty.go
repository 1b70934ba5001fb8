// Package duty names what an instance of logic may be there for, so that the tier can be
// split: a storm of logins then meets other processes than the messages (ZZ-21).
//
// Message is more than a kind of command: whoever serves it is home to users. He holds their
// routes, pushes to them and drives outbox rows. The other duties keep nothing of a user.
package duty

import (
	"fmt"
	"slices"
	"strings"

	"hongyan/idl/im"
)

const (
	Session = "session" // AUTH with its first sync, LOGOUT
	Message = "message" // SEND and every other change; the homes of users
	Contact = "contact" // what reads: SYNC, HISTORY, CONVERSATIONS, CONTACTS, UNREAD, PRESENCE
	Open    = "open"    // CALL: services of the platform
)

// All duties.
func All() []string { return []string{Session, Message, Contact, Open} }

// Of a command of a client.
func Of(cmd im.Cmd) string {
	switch cmd {
	case im.Cmd_AUTH, im.Cmd_LOGOUT:
		return Session
	case im.Cmd_SYNC, im.Cmd_HISTORY, im.Cmd_CONVERSATIONS, im.Cmd_CONTACTS, im.Cmd_UNREAD, im.Cmd_PRESENCE:
		return Contact
	case im.Cmd_CALL:
		return Open
	}
	return Message
}

// Join checks duties and makes of them what an instance announces (control.Instance.Serves):
// in the order of All, separated by commas, and "" for all of them. None is all.
func Join(duties []string) (string, error) {
	for _, d := range duties {
		if !slices.Contains(All(), d) {
			return "", fmt.Errorf("%q is not a duty: %s are", d, strings.Join(All(), ", "))
		}
	}
	var out []string
	for _, d := range All() {
		if slices.Contains(duties, d) {
			out = append(out, d)
		}
	}
	if len(out) == len(All()) {
		return "", nil
	}
	return strings.Join(out, ","), nil
}

// Serves tells whether an instance that announces serves has a duty.
func Serves(serves, duty string) bool {
	if serves == "" {
		return true
	}
	for rest := serves; rest != ""; {
		var d string
		if d, rest, _ = strings.Cut(rest, ","); d == duty {
			return true
		}
	}
	return false
}
