package httpentry

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"strings"
	"time"

	"hongyan/idl/code"
	"hongyan/internal/gate"
	"hongyan/internal/token"
)

// sid is what a long-poll client shows with every request: its session's name and, signed,
// what its token claimed. So any instance can go on with the session (the cursor comes with
// the poll), and none asks for the token again. It lives as long as the token.
//
// Form: "lp1." + base64url(fields, HMAC-SHA256 over them); fields are varints and strings
// with their length, in the order of the struct.
type sid struct {
	key      string // 16 random bytes: the session
	expires  int64  // Unix seconds
	tenant   string
	uid      string
	device   string
	tokenID  string // jti
	platform string
	counter  uint64 // connection counter of the login
}

const (
	sidPrefix = "lp1."
	sidKeyLen = 16
	maxSID    = 2048 // characters
)

func newSIDKey() string {
	var b [sidKeyLen]byte
	_, _ = rand.Read(b[:]) // never fails
	return string(b[:])
}

// signer makes and reads sids.
type signer struct{ secret []byte }

// newSigner signs with secret; with a random one, that only this process knows, if it is empty.
func newSigner(secret string) *signer {
	if secret != "" {
		return &signer{secret: []byte(secret)}
	}
	b := make([]byte, sha256.Size)
	_, _ = rand.Read(b)
	return &signer{secret: b}
}

func (s *signer) sum(fields []byte) []byte {
	mac := hmac.New(sha256.New, s.secret)
	mac.Write([]byte(sidPrefix)) // signatures for other purposes do not fit
	mac.Write(fields)
	return mac.Sum(nil)
}

func (s *signer) sign(v sid) string {
	var b []byte
	b = appendField(b, v.key)
	b = binary.AppendVarint(b, v.expires)
	for _, f := range []string{v.tenant, v.uid, v.device, v.tokenID, v.platform} {
		b = appendField(b, f)
	}
	b = binary.AppendUvarint(b, v.counter)
	return sidPrefix + base64.RawURLEncoding.EncodeToString(append(b, s.sum(b)...))
}

func appendField(b []byte, f string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(f))), f...)
}

var errSID = code.Errorf(code.BadToken, "the sid is not one of ours, or has expired: open a new session")

// read checks form, signature and expiry. Any failure is BadToken.
func (s *signer) read(text string, now time.Time) (sid, error) {
	encoded, ok := strings.CutPrefix(text, sidPrefix)
	if !ok || len(text) > maxSID {
		return sid{}, errSID
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(encoded)
	if err != nil || len(b) < sha256.Size {
		return sid{}, errSID
	}
	fields, sum := b[:len(b)-sha256.Size], b[len(b)-sha256.Size:]
	if !hmac.Equal(sum, s.sum(fields)) {
		return sid{}, errSID
	}
	v, ok := parseSID(fields)
	if !ok || now.Unix() >= v.expires {
		return sid{}, errSID
	}
	return v, nil
}

// parseSID reads the fields of a sid.
func parseSID(b []byte) (v sid, ok bool) {
	r := fieldReader{b: b}
	v.key = r.text()
	v.expires = r.varint()
	for _, f := range []*string{&v.tenant, &v.uid, &v.device, &v.tokenID, &v.platform} {
		*f = r.text()
	}
	v.counter = r.uvarint()
	return v, !r.bad && len(r.b) == 0 && len(v.key) == sidKeyLen
}

// fieldReader takes fields off b; bad tells that one was not there.
type fieldReader struct {
	b   []byte
	bad bool
}

func (r *fieldReader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	return taken(r, v, n)
}

func (r *fieldReader) varint() int64 {
	v, n := binary.Varint(r.b)
	return taken(r, v, n)
}

func taken[T any](r *fieldReader, v T, n int) T {
	if n <= 0 || r.bad {
		r.bad = true
		var zero T
		return zero
	}
	r.b = r.b[n:]
	return v
}

func (r *fieldReader) text() string {
	n := r.uvarint()
	if r.bad || n > uint64(len(r.b)) {
		r.bad = true
		return ""
	}
	s := string(r.b[:n])
	r.b = r.b[n:]
	return s
}

// verifier lets a sid stand for the token it was made from, in the AUTH with which an
// instance takes a session over.
type verifier struct {
	keys gate.Verifier
	sids *signer
}

func (v *verifier) Verify(text string) (token.Claims, error) {
	if !strings.HasPrefix(text, sidPrefix) {
		return v.keys.Verify(text)
	}
	s, err := v.sids.read(text, time.Now())
	if err != nil {
		return token.Claims{}, err
	}
	return token.Claims{
		Tenant: s.tenant, UID: s.uid, Device: s.device, ID: s.tokenID, Expires: time.Unix(s.expires, 0),
	}, nil
}
