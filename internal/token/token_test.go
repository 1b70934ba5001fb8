package token_test

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"hongyan/idl/code"
	"hongyan/internal/token"
)

var (
	secret = []byte("0123456789abcdef0123456789abcdef")
	seed   = []byte("fedcba9876543210fedcba9876543210")
	edKey  = ed25519.NewKeyFromSeed(seed)
	public = edKey.Public().(ed25519.PublicKey)
)

// fixed has two tenants: shop signs with EdDSA and still accepts its old HS256 key; mall
// only verifies.
func fixed(t testing.TB) *token.Keys {
	t.Helper()
	b64 := base64.StdEncoding.EncodeToString
	k, err := token.ParseKeys(fmt.Appendf(nil, `{"tenants": {
		"shop": [{"kid":"ed","alg":"EdDSA","private":%q,"public":%q},{"kid":"hs","alg":"HS256","secret":%q}],
		"mall": [{"kid":"ed","alg":"EdDSA","public":%q}]}}`, b64(seed), b64(public), b64(secret), b64(public)))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// forge signs whatever claims with whatever key.
func forge(t testing.TB, method jwt.SigningMethod, kid any, key any, change map[string]any) string {
	t.Helper()
	c := jwt.MapClaims{"tenant": "shop", "uid": "alice", "jti": "1", "exp": time.Now().Add(time.Hour).Unix()}
	for name, v := range change {
		if c[name] = v; v == nil {
			delete(c, name)
		}
	}
	tok := jwt.NewWithClaims(method, c)
	if kid != nil {
		tok.Header["kid"] = kid
	}
	text, err := tok.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestSignAndVerify(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := fixed(t)
		text, err := k.Sign(token.Claims{Tenant: "shop", UID: "alice", Device: "d-1"})
		if err != nil {
			t.Fatal(err)
		}
		c, err := k.Verify(text)
		if err != nil || c.Tenant != "shop" || c.UID != "alice" || c.Device != "d-1" || c.ID == "" || time.Until(c.Expires) != time.Hour {
			t.Errorf("%+v, %v", c, err)
		}
		time.Sleep(time.Hour + 29*time.Second)
		if _, err := k.Verify(text); err != nil {
			t.Errorf("within the leeway: %v", err)
		}
		time.Sleep(time.Second)
		if _, err := k.Verify(text); code.Of(err) != code.BadToken || !strings.Contains(err.Error(), "expired") {
			t.Errorf("expired: %v", err)
		}
	})
}

func TestVerifyRefuses(t *testing.T) {
	k := fixed(t)
	hs := jwt.SigningMethodHS256
	in := func(d time.Duration) int64 { return time.Now().Add(d).Unix() }
	good := forge(t, hs, "hs", secret, nil)
	head, rest, _ := strings.Cut(good, ".")
	cases := []struct{ name, token, says string }{
		{"empty", "", "malformed"},
		{"garbage", "a.b.c", "malformed"},
		{"too long", strings.Repeat("x", 5000), "longer"},
		{"signature cut off", good[:strings.LastIndex(good, ".")+1], "signature"},
		{"another signature", good[:len(good)-5] + "AAAAA", ""},
		{"another header", strings.TrimRight(base64.URLEncoding.EncodeToString([]byte(`{"alg":"HS256","kid":"hs","x":1}`)), "=") + "." + rest, "signature"},
		{"padding", head + "=." + rest, ""},
		{"another secret", forge(t, hs, "hs", []byte("another secret of thirty-two byte"), nil), "signature"},
		{"alg none", forge(t, jwt.SigningMethodNone, "hs", jwt.UnsafeAllowNoneSignatureType, nil), ""},
		{"alg HS512", forge(t, jwt.SigningMethodHS512, "hs", secret, nil), ""},
		{"public key as HMAC secret", forge(t, hs, "ed", []byte(public), nil), "EdDSA only"},
		{"private key of the wrong kid", forge(t, jwt.SigningMethodEdDSA, "hs", edKey, nil), "HS256 only"},
		{"no kid", forge(t, hs, nil, secret, nil), "kid"},
		{"kid is no string", forge(t, hs, 7, secret, nil), "kid"},
		{"unknown kid", forge(t, hs, "old", secret, nil), "kid"},
		{"unknown tenant", forge(t, hs, "hs", secret, map[string]any{"tenant": "bazaar"}), "tenant"},
		{"key of another tenant", forge(t, hs, "hs", secret, map[string]any{"tenant": "mall"}), "kid"},
		{"no exp", forge(t, hs, "hs", secret, map[string]any{"exp": nil}), "exp"},
		{"expired", forge(t, hs, "hs", secret, map[string]any{"exp": in(-time.Minute)}), "expired"},
		{"exp too far ahead", forge(t, hs, "hs", secret, map[string]any{"exp": in(25 * time.Hour)}), "exp"},
		{"exp overflows", forge(t, hs, "hs", secret, map[string]any{"exp": 1e300}), "exp"},
		{"not yet valid", forge(t, hs, "hs", secret, map[string]any{"nbf": in(time.Hour)}), "not valid yet"},
		{"issued in the future", forge(t, hs, "hs", secret, map[string]any{"iat": in(time.Hour)}), "before issued"},
		{"no uid", forge(t, hs, "hs", secret, map[string]any{"uid": nil}), "uid"},
		{"uid with a colon", forge(t, hs, "hs", secret, map[string]any{"uid": "a:b"}), "uid"},
		{"no jti", forge(t, hs, "hs", secret, map[string]any{"jti": nil}), "jti"},
		{"long device", forge(t, hs, "hs", secret, map[string]any{"device": strings.Repeat("d", 65)}), "device"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got, err := k.Verify(c.token)
			if code.Of(err) != code.BadToken || got != (token.Claims{}) {
				t.Fatalf("%+v, %v", got, err)
			}
			if !strings.Contains(err.Error(), c.says) {
				t.Errorf("%q does not say %q", err, c.says)
			}
		})
	}
	if _, err := k.Verify(good); err != nil {
		t.Errorf("the good one: %v", err)
	}
	if _, err := k.Verify(forge(t, jwt.SigningMethodEdDSA, "ed", edKey, map[string]any{"tenant": "mall"})); err != nil {
		t.Errorf("a tenant that only verifies: %v", err)
	}
}

func TestSignRefuses(t *testing.T) {
	k := fixed(t)
	for name, c := range map[string]token.Claims{
		"unknown tenant":            {Tenant: "bazaar", UID: "alice"},
		"a tenant without a signer": {Tenant: "mall", UID: "alice"},
		"no uid":                    {Tenant: "shop"},
		"over 24 hours":             {Tenant: "shop", UID: "alice", Expires: time.Now().Add(25 * time.Hour)},
	} {
		if text, err := k.Sign(c); err == nil {
			t.Errorf("%s: %s", name, text)
		}
	}
}

func TestParseKeysRefuses(t *testing.T) {
	long := base64.StdEncoding.EncodeToString(secret)
	for name, text := range map[string]string{
		"empty":               ``,
		"no tenant":           `{"tenants":{}}`,
		"unknown field":       `{"tenants":{"a":[{"kid":"1","alg":"HS256","secret":"` + long + `","x":1}]}}`,
		"tenant's name":       `{"tenants":{"a b":[]}}`,
		"short secret":        `{"tenants":{"a":[{"kid":"1","alg":"HS256","secret":"c2hvcnQ="}]}}`,
		"no kid":              `{"tenants":{"a":[{"alg":"HS256","secret":"` + long + `"}]}}`,
		"kid twice":           `{"tenants":{"a":[{"kid":"1","alg":"HS256","secret":"` + long + `"},{"kid":"1","alg":"HS256","secret":"` + long + `"}]}}`,
		"alg none":            `{"tenants":{"a":[{"kid":"1","alg":"none"}]}}`,
		"EdDSA with a secret": `{"tenants":{"a":[{"kid":"1","alg":"EdDSA","secret":"` + long + `"}]}}`,
		"EdDSA without a key": `{"tenants":{"a":[{"kid":"1","alg":"EdDSA"}]}}`,
		"EdDSA, short seed":   `{"tenants":{"a":[{"kid":"1","alg":"EdDSA","private":"c2hvcnQ="}]}}`,
		"EdDSA, other public": `{"tenants":{"a":[{"kid":"1","alg":"EdDSA","private":"` + long + `","public":"` + long + `"}]}}`,
	} {
		t.Run(name, func(t *testing.T) {
			_, err := token.ParseKeys([]byte(text))
			if err == nil || strings.Contains(err.Error(), long) {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestKeysFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.json")
	if _, err := token.LoadKeys(path); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	made, err := token.GenerateKeys(path, "demo")
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	loaded, err := token.LoadKeys(path)
	if err != nil {
		t.Fatal(err)
	}
	text, err := made.Sign(token.Claims{Tenant: "demo", UID: "alice"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := loaded.Verify(text); err != nil {
		t.Error(err)
	}
	if kid, s := loaded.Secret("demo"); kid != "demo" || len(s) != 44 {
		t.Errorf("secret %q of %d characters", kid, len(s))
	}
	if _, err := token.GenerateKeys(path, "demo"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("keys were overwritten: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), ".*")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := token.LoadKeys(path); err == nil || !strings.Contains(err.Error(), "0600") {
		t.Errorf("a file for all to read: %v", err)
	}
}

// Of tiers that start together on a new machine, all come to the same keys.
func TestLoadOrGenerateTogether(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.json")
	secrets := make([]string, 8)
	var all sync.WaitGroup
	for i := range secrets {
		all.Go(func() {
			k, err := token.LoadOrGenerate(path, "demo")
			if err != nil {
				t.Error(err)
				return
			}
			_, secrets[i] = k.Secret("demo")
		})
	}
	all.Wait()
	for _, s := range secrets {
		if s == "" || s != secrets[0] {
			t.Fatalf("different secrets: %q", secrets)
		}
	}
}

// Whatever Verify accepts carries the HMAC of the fixed secret or the signature of the
// fixed key, computed here without the library.
func FuzzVerify(f *testing.F) {
	k := fixed(f)
	f.Add(forge(f, jwt.SigningMethodHS256, "hs", secret, nil))
	f.Add(forge(f, jwt.SigningMethodEdDSA, "ed", edKey, nil))
	f.Add(forge(f, jwt.SigningMethodHS256, "ed", []byte(public), nil))
	f.Add(forge(f, jwt.SigningMethodNone, "hs", jwt.UnsafeAllowNoneSignatureType, nil))
	f.Add("..")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := k.Verify(text)
		if err != nil {
			if code.Of(err) != code.BadToken {
				t.Errorf("error %v", err)
			}
			return
		}
		dot := strings.LastIndex(text, ".")
		signed := []byte(text[:dot])
		signature, err := base64.RawURLEncoding.DecodeString(text[dot+1:])
		mac := hmac.New(sha256.New, secret)
		mac.Write(signed)
		if err != nil || !hmac.Equal(mac.Sum(nil), signature) && !ed25519.Verify(public, signed, signature) {
			t.Errorf("%q was accepted as %+v", text, c)
		}
	})
}

func FuzzParseKeys(f *testing.F) {
	long := base64.StdEncoding.EncodeToString(secret)
	f.Add([]byte(`{"tenants":{"a":[{"kid":"1","alg":"HS256","secret":"` + long + `"}]}}`))
	f.Add([]byte(`{"tenants":{"a":[{"kid":"1","alg":"EdDSA","private":"` + long + `"}]}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		if _, err := token.ParseKeys(text); err == nil && !json.Valid(text) {
			t.Errorf("%q was accepted", text)
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	k := fixed(b)
	for name, text := range map[string]string{
		"HS256": forge(b, jwt.SigningMethodHS256, "hs", secret, nil),
		"EdDSA": forge(b, jwt.SigningMethodEdDSA, "ed", edKey, nil),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := k.Verify(text); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
