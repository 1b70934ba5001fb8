package duty

import (
	"testing"

	"hongyan/idl/im"
)

func TestJoin(t *testing.T) {
	for _, c := range []struct {
		duties []string
		want   string
		fails  bool
	}{
		{nil, "", false},
		{[]string{"session"}, "session", false},
		{[]string{"open", "session", "open"}, "session,open", false},
		{[]string{"contact", "message", "open", "session"}, "", false},
		{[]string{"login"}, "", true},
		{[]string{""}, "", true},
	} {
		got, err := Join(c.duties)
		if got != c.want || (err != nil) != c.fails {
			t.Errorf("Join(%q) = %q, %v", c.duties, got, err)
		}
	}
}

func TestServes(t *testing.T) {
	for _, c := range []struct {
		serves, duty string
		want         bool
	}{
		{"", Session, true},
		{"session", Session, true},
		{"session", Message, false},
		{"session,open", Open, true},
		{"message,contact", "contact", true},
		{"message,contact", "cont", false},
	} {
		if got := Serves(c.serves, c.duty); got != c.want {
			t.Errorf("Serves(%q, %q) = %v", c.serves, c.duty, got)
		}
	}
}

// What is not known to be another's is the home's.
func TestOf(t *testing.T) {
	for cmd, want := range map[im.Cmd]string{
		im.Cmd_AUTH: Session, im.Cmd_LOGOUT: Session, im.Cmd_SYNC: Contact, im.Cmd_PRESENCE: Contact,
		im.Cmd_CALL: Open, im.Cmd_SEND: Message, im.Cmd_READ: Message, im.Cmd_TYPING: Message, 999: Message,
	} {
		if got := Of(cmd); got != want {
			t.Errorf("Of(%v) = %s, want %s", cmd, got, want)
		}
	}
}
