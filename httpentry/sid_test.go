package httpentry

import (
	"encoding/base64"
	"strings"
	"testing"
	"time"

	"hongyan/idl/code"
	"hongyan/internal/token"
)

func someSID() sid {
	return sid{
		key: strings.Repeat("k", sidKeyLen), expires: time.Now().Add(time.Hour).Unix(), tenant: "demo", uid: "alice",
		device: "phone", tokenID: "jti-1", platform: "mini", counter: 7,
	}
}

func TestSIDsAreReadByWhoeverHasTheSecret(t *testing.T) {
	secret := strings.Repeat("s", 32)
	text := newSigner(secret).sign(someSID())
	got, err := newSigner(secret).read(text, time.Now())
	if err != nil || got != someSID() {
		t.Fatalf("%+v, %v", got, err)
	}
	claims, err := (&verifier{sids: newSigner(secret)}).Verify(text)
	want := token.Claims{Tenant: "demo", UID: "alice", Device: "phone", ID: "jti-1", Expires: time.Unix(someSID().expires, 0)}
	if err != nil || claims != want {
		t.Fatalf("as a token: %+v, %v", claims, err)
	}
}

func TestSIDsAreRefused(t *testing.T) {
	s := newSigner("")
	good := s.sign(someSID())
	raw, _ := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(good, sidPrefix))
	for i := range raw {
		changed := append([]byte(nil), raw...)
		changed[i] ^= 1
		if _, err := s.read(sidPrefix+base64.RawURLEncoding.EncodeToString(changed), time.Now()); code.Of(err) != code.BadToken {
			t.Fatalf("byte %d changed: %v", i, err)
		}
	}
	old := someSID()
	old.expires = time.Now().Unix()
	for name, text := range map[string]string{
		"empty": "", "prefix": "lp1.", "no prefix": good[4:], "cut": good[:len(good)-1], "longer": good + "A",
		"padding": good + "=", "expired": s.sign(old), "another secret": newSigner("").sign(someSID()), "long": sidPrefix + strings.Repeat("A", 5000),
	} {
		if _, err := s.read(text, time.Now()); code.Of(err) != code.BadToken {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzSID: what is not signed is refused; fields that parse mean one thing only.
func FuzzSID(f *testing.F) {
	s := newSigner("")
	f.Add(s.sign(someSID()), []byte{})
	signed := s.sign(someSID())
	f.Add("lp1.AAAA", []byte("\x10kkkkkkkkkkkkkkkk\x02\x01a\x01b\x01c\x01d\x01e\x07"))
	f.Fuzz(func(t *testing.T, text string, fields []byte) {
		if _, err := s.read(text, time.Now()); (err == nil) != (text == signed) && err == nil {
			t.Fatalf("%q was taken", text)
		}
		if v, ok := parseSID(fields); ok {
			again, err := s.read(s.sign(v), time.Unix(v.expires-1, 0))
			if err != nil && v.expires > -1<<62 && len(s.sign(v)) <= maxSID {
				t.Fatal(err)
			}
			if err == nil && again != v {
				t.Fatalf("%+v came back as %+v", v, again)
			}
		}
	})
}

// FuzzQuery: a query gives parameters or an error, never a panic, and what it gives is UTF-8.
func FuzzQuery(f *testing.F) {
	f.Add("limit=5&before_version=9")
	f.Add("uids=a,b&uids=c&x=%zz")
	f.Fuzz(func(t *testing.T, raw string) {
		values, err := queryValues(raw)
		if err != nil {
			if code.Of(err) != code.BadRequest {
				t.Fatal(err)
			}
			return
		}
		for _, v := range values {
			if strings.ToValidUTF8(v.name+v.value, "?") != v.name+v.value {
				t.Fatalf("%q", v)
			}
		}
	})
}

// FuzzBody: any body gives the fields of a message, or an error that is the caller's.
func FuzzBody(f *testing.F) {
	f.Add([]byte(`{"to":"bob","text":"hi"}`))
	f.Add([]byte(`{"sid":"x","command":{"cmd":"SEND"}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		keys, err := objectKeys(body)
		if err != nil && code.Of(err) != code.BadRequest {
			t.Fatal(err)
		}
		for _, k := range keys {
			_ = snake(k)
		}
	})
}
