package token

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/golang-jwt/jwt/v5"

	"hongyan/internal/conv"
)

// Keys are what tokens are verified, and for demo tenants signed, with. It never changes
// and is safe for concurrent use.
type Keys struct {
	tenants map[string]*tenantKeys
	parser  *jwt.Parser
}

type tenantKeys struct {
	byID map[string]key
	sign string // kid of the first key that can sign, empty if none can
}

// key is bound to one algorithm: the token's own word on it is never believed.
type key struct {
	method jwt.SigningMethod
	verify any // []byte for HS256, ed25519.PublicKey for EdDSA
	sign   any // nil: verifies only
}

// file is keys.json. The first key of a tenant that can sign is the one that signs; a new
// key is put before the old one, and the old one removed a day later.
//
//	{"tenants": {"shop": [{"kid": "2026-11", "alg": "EdDSA", "public": "<base64>"}]}}
type file struct {
	Tenants map[string][]entry `json:"tenants"`
}

type entry struct {
	KID     string `json:"kid"`
	Alg     string `json:"alg"`               // HS256 or EdDSA
	Secret  []byte `json:"secret,omitempty"`  // HS256: at least 32 bytes, base64
	Public  []byte `json:"public,omitempty"`  // EdDSA: 32 bytes, base64
	Private []byte `json:"private,omitempty"` // EdDSA, only where tokens are signed here: the seed, 32 bytes, base64
}

const (
	maxFile   = 1 << 20
	minSecret = 32
)

// LoadKeys reads keys.json. It refuses a file that others can read or that the group can
// write. A missing file is an fs.ErrNotExist.
func LoadKeys(path string) (*Keys, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("load keys: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("load keys: %w", err)
	}
	if mode := info.Mode().Perm(); mode&0o027 != 0 {
		return nil, fmt.Errorf("load keys: %s has mode %04o: it holds secrets, make it 0600", path, mode)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("load keys: %w", err)
	}
	k, err := ParseKeys(text)
	if err != nil {
		return nil, fmt.Errorf("load keys: %s: %w", path, err)
	}
	return k, nil
}

// ParseKeys reads the contents of keys.json. Errors never show a secret.
func ParseKeys(text []byte) (*Keys, error) {
	if len(text) > maxFile {
		return nil, fmt.Errorf("over %d bytes", maxFile)
	}
	var parsed file
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&parsed); err != nil {
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("something follows the keys")
	}
	return newKeys(parsed)
}

// String keeps secrets out of logs.
func (k *Keys) String() string { return fmt.Sprintf("keys of %d tenants", len(k.tenants)) }

func newKeys(parsed file) (*Keys, error) {
	k := &Keys{tenants: map[string]*tenantKeys{}, parser: newParser()}
	for tenant, entries := range parsed.Tenants {
		if err := conv.ValidUID(tenant); err != nil {
			return nil, fmt.Errorf("tenant %q: %w", tenant, err)
		}
		t := &tenantKeys{byID: map[string]key{}}
		for _, e := range entries {
			if err := t.add(e); err != nil {
				return nil, fmt.Errorf("tenant %q, key %q: %w", tenant, e.KID, err)
			}
		}
		k.tenants[tenant] = t
	}
	if len(k.tenants) == 0 {
		return nil, errors.New("no tenant")
	}
	return k, nil
}

func (t *tenantKeys) add(e entry) error {
	if _, twice := t.byID[e.KID]; twice || e.KID == "" {
		return errors.New("a kid must be there and unique within its tenant")
	}
	one, err := e.key()
	if err != nil {
		return err
	}
	t.byID[e.KID] = one
	if one.sign != nil && t.sign == "" {
		t.sign = e.KID
	}
	return nil
}

func (e *entry) key() (key, error) {
	switch e.Alg {
	case "HS256":
		if len(e.Secret) < minSecret || len(e.Public)+len(e.Private) > 0 {
			return key{}, fmt.Errorf("HS256 has a secret of at least %d bytes and nothing else", minSecret)
		}
		return key{jwt.SigningMethodHS256, e.Secret, e.Secret}, nil
	case "EdDSA":
		return e.edKey()
	}
	return key{}, fmt.Errorf("alg %q is neither HS256 nor EdDSA", e.Alg)
}

func (e *entry) edKey() (key, error) {
	if len(e.Secret) > 0 {
		return key{}, errors.New("EdDSA has no secret")
	}
	k := key{method: jwt.SigningMethodEdDSA}
	public := ed25519.PublicKey(e.Public)
	if len(e.Private) > 0 {
		if len(e.Private) != ed25519.SeedSize {
			return key{}, fmt.Errorf("the private key has %d bytes, a seed has %d", len(e.Private), ed25519.SeedSize)
		}
		private := ed25519.NewKeyFromSeed(e.Private)
		own := private.Public().(ed25519.PublicKey)
		if len(public) > 0 && !own.Equal(public) {
			return key{}, errors.New("the public key is not that of the private one")
		}
		public, k.sign = own, private
	}
	if len(public) != ed25519.PublicKeySize {
		return key{}, fmt.Errorf("the public key has %d bytes instead of %d", len(public), ed25519.PublicKeySize)
	}
	k.verify = public
	return k, nil
}

// RandomKeys are keys for one tenant that live in memory only.
func RandomKeys(tenant string) (*Keys, error) {
	parsed, err := randomFile(tenant)
	if err != nil {
		return nil, err
	}
	return newKeys(parsed)
}

func randomFile(tenant string) (file, error) {
	if err := conv.ValidUID(tenant); err != nil {
		return file{}, err
	}
	secret := make([]byte, minSecret)
	_, _ = rand.Read(secret) // never fails: it ends the process instead
	return file{Tenants: map[string][]entry{tenant: {{KID: "demo", Alg: "HS256", Secret: secret}}}}, nil
}

// GenerateKeys makes keys for one tenant with a new random secret and writes them to path,
// mode 0600, whole or not at all. A file that is there already is kept: fs.ErrExist.
func GenerateKeys(path, tenant string) (*Keys, error) {
	parsed, err := randomFile(tenant)
	if err != nil {
		return nil, fmt.Errorf("generate keys: %w", err)
	}
	text, err := json.MarshalIndent(parsed, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("generate keys: %w", err)
	}
	if err := create(path, append(text, '\n')); err != nil {
		return nil, fmt.Errorf("generate keys: %w", err)
	}
	return newKeys(parsed)
}

// LoadOrGenerate loads the keys, and generates them on the first run. Of several processes
// that start at once, one generates and all load the same.
func LoadOrGenerate(path, tenant string) (*Keys, error) {
	k, err := LoadKeys(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return k, err
	}
	k, err = GenerateKeys(path, tenant)
	if errors.Is(err, fs.ErrExist) {
		return LoadKeys(path)
	}
	return k, err
}

// create writes a new file whole: it appears under its name only when it is on disk. The
// link fails where a rename would replace what another process has just made.
func create(path string, text []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".keys-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(text)
	err = errors.Join(err, tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Link(tmp.Name(), path)
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	return err
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// Secret is the HS256 secret of a tenant's signing key in base64, to be shown to who
// integrates a demo tenant; empty where there is none.
func (k *Keys) Secret(tenant string) (kid, secret string) {
	t, ok := k.tenants[tenant]
	if !ok {
		return "", ""
	}
	raw, ok := t.byID[t.sign].sign.([]byte)
	if !ok {
		return "", ""
	}
	return t.sign, base64.StdEncoding.EncodeToString(raw)
}
