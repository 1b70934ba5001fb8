// Package token verifies the tokens of clients: short JWTs that a tenant's own backend
// signs for its users, by EdDSA or HS256. The header names the key (kid); the claims are
// tenant, uid, device (optional), exp (at most 24 h ahead) and jti.
package token

import (
	"errors"
	"fmt"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"

	"hongyan/idl/code"
	"hongyan/internal/conv"
)

const (
	// MaxLife is the longest a token may still be valid.
	MaxLife = 24 * time.Hour
	// leeway forgives clocks that differ between the tenant's backend and us.
	leeway = 30 * time.Second
	// maxToken is the longest token looked at, in bytes.
	maxToken = 4096
	// maxID is the longest jti or device, in bytes.
	maxID = 64
)

// Claims are what a verified token says.
type Claims struct {
	Tenant  string
	UID     string
	Device  string // empty: any device of the user
	ID      string // jti
	Expires time.Time
}

// claims is their form in the token. Times are seconds since 1970.
type claims struct {
	Tenant string `json:"tenant"`
	UID    string `json:"uid"`
	Device string `json:"device,omitempty"`
	jwt.RegisteredClaims
}

func newParser() *jwt.Parser {
	return jwt.NewParser(
		jwt.WithValidMethods([]string{jwt.SigningMethodHS256.Alg(), jwt.SigningMethodEdDSA.Alg()}),
		jwt.WithExpirationRequired(),
		jwt.WithIssuedAt(),
		jwt.WithLeeway(leeway),
		jwt.WithStrictDecoding(),
	)
}

// Verify checks signature, times and form of a token, always all of them. Any failure is a
// BadToken *code.Error.
func (k *Keys) Verify(token string) (Claims, error) {
	if len(token) > maxToken {
		return Claims{}, code.Errorf(code.BadToken, "the token is longer than %d bytes", maxToken)
	}
	var c claims
	if _, err := k.parser.ParseWithClaims(token, &c, k.keyOf); err != nil {
		return Claims{}, code.Errorf(code.BadToken, "%w", err)
	}
	if err := c.check(); err != nil {
		return Claims{}, code.Errorf(code.BadToken, "token: %w", err)
	}
	return Claims{Tenant: c.Tenant, UID: c.UID, Device: c.Device, ID: c.ID, Expires: c.ExpiresAt.Time}, nil
}

// keyOf finds the key by tenant and kid, which the signature has yet to prove. A key
// serves its own algorithm only, so a public key is never taken for an HMAC secret.
func (k *Keys) keyOf(t *jwt.Token) (any, error) {
	kid, _ := t.Header["kid"].(string)
	tenant, ok := k.tenants[t.Claims.(*claims).Tenant]
	if !ok {
		return nil, errors.New("unknown tenant")
	}
	one, ok := tenant.byID[kid]
	if !ok {
		return nil, errors.New("the tenant has no key of this kid")
	}
	if one.method != t.Method {
		return nil, fmt.Errorf("this key is for %s only", one.method.Alg())
	}
	return one.verify, nil
}

// check holds the claims to their limits.
func (c *claims) check() error {
	if err := conv.ValidUID(c.UID); err != nil {
		return err
	}
	switch {
	case len(c.Device) > maxID:
		return fmt.Errorf("device is longer than %d bytes", maxID)
	case c.ID == "" || len(c.ID) > maxID:
		return fmt.Errorf("jti must have 1 to %d bytes", maxID)
	case time.Until(c.ExpiresAt.Time) > MaxLife+leeway:
		return fmt.Errorf("exp is more than %v ahead", MaxLife)
	}
	return nil
}

// Sign makes a token with the tenant's signing key. Expires zero means in one hour, an
// empty ID a random one.
func (k *Keys) Sign(c Claims) (string, error) {
	tenant, ok := k.tenants[c.Tenant]
	if !ok || tenant.sign == "" {
		return "", code.Errorf(code.NotFound, "no key to sign tokens of tenant %q with", c.Tenant)
	}
	if c.Expires.IsZero() {
		c.Expires = time.Now().Add(time.Hour)
	}
	if c.ID == "" {
		c.ID = uuid.NewString()
	}
	full := &claims{Tenant: c.Tenant, UID: c.UID, Device: c.Device, RegisteredClaims: jwt.RegisteredClaims{
		ID: c.ID, ExpiresAt: jwt.NewNumericDate(c.Expires), IssuedAt: jwt.NewNumericDate(time.Now()),
	}}
	if err := full.check(); err != nil {
		return "", code.Errorf(code.BadRequest, "sign a token: %w", err)
	}
	one := tenant.byID[tenant.sign]
	t := jwt.NewWithClaims(one.method, full)
	t.Header["kid"] = tenant.sign
	text, err := t.SignedString(one.sign)
	if err != nil {
		return "", fmt.Errorf("sign a token: %w", err)
	}
	return text, nil
}
