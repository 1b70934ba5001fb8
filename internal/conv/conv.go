// Package conv makes and parses the ids of conversations:
//
//	p:<low>:<high>      private, two uids in byte order
//	s:<channel>:<uid>   system notices of a channel to one user
//
// A uid or channel is 1 to 64 bytes of letters, digits and _ . @ -
package conv

import (
	"strings"

	"hongyan/idl/code"
)

// Kinds of conversation.
const (
	KindPrivate = 'p'
	KindSystem  = 's'
)

// MaxUID is the longest uid or channel, in bytes.
const MaxUID = 64

// ID is a parsed conversation id. Its strings share the memory of what was parsed.
type ID struct {
	Kind byte
	A, B string // p: the uids, A < B; s: channel and uid
}

// Parse takes a conversation id apart, or says with BadRequest what is wrong with it.
func Parse(id string) (ID, error) {
	kind, rest, _ := strings.Cut(id, ":")
	a, b, ok := strings.Cut(rest, ":")
	if !ok || (kind != "p" && kind != "s") {
		return ID{}, code.Errorf(code.BadRequest, "conv %.140q is not p:<uid>:<uid> or s:<channel>:<uid>", id)
	}
	if err := validPair(a, b); err != nil {
		return ID{}, err
	}
	if kind == "p" && a >= b {
		return ID{}, code.Errorf(code.BadRequest, "conv %q: the two uids must differ and stand in byte order", id)
	}
	return ID{Kind: kind[0], A: a, B: b}, nil
}

// Private is the id of the private conversation of two users, in either order.
func Private(a, b string) (string, error) {
	if err := validPair(a, b); err != nil {
		return "", err
	}
	switch {
	case a == b:
		return "", code.Errorf(code.BadRequest, "a conversation of %q with itself", a)
	case a > b:
		a, b = b, a
	}
	return ID{KindPrivate, a, b}.String(), nil
}

// System is the id of a channel's conversation with a user.
func System(channel, uid string) (string, error) {
	if err := validPair(channel, uid); err != nil {
		return "", err
	}
	return ID{KindSystem, channel, uid}.String(), nil
}

// ValidUID says with BadRequest what keeps s from being a uid or channel.
func ValidUID(s string) error {
	if len(s) == 0 || len(s) > MaxUID {
		return code.Errorf(code.BadRequest, "a uid or channel has 1 to %d bytes, not %d", MaxUID, len(s))
	}
	for i := range len(s) {
		if !allowed(s[i]) {
			return code.Errorf(code.BadRequest, "uid or channel %q: only letters, digits and _ . @ - are allowed", s)
		}
	}
	return nil
}

func validPair(a, b string) error {
	if err := ValidUID(a); err != nil {
		return err
	}
	return ValidUID(b)
}

func allowed(c byte) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		return true
	}
	return c == '_' || c == '.' || c == '@' || c == '-'
}

// String is the id that Parse takes apart.
func (id ID) String() string { return string(rune(id.Kind)) + ":" + id.A + ":" + id.B }

// Has tells whether the user is a member.
func (id ID) Has(uid string) bool {
	return id.B == uid || id.Kind == KindPrivate && id.A == uid
}

// Members are the uids of the members, in byte order. A channel is not one.
func (id ID) Members() []string {
	if id.Kind == KindPrivate {
		return []string{id.A, id.B}
	}
	return []string{id.B}
}

// Peer is whom a member talks to: the other uid, or the channel. Empty for a stranger.
func (id ID) Peer(uid string) string {
	switch {
	case uid == id.B:
		return id.A
	case id.Kind == KindPrivate && uid == id.A:
		return id.B
	}
	return ""
}
