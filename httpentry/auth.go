package httpentry

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"hongyan/idl/code"
	"hongyan/internal/conv"
)

// Headers of a server-side caller. A signed request carries
//
//	X-Hongyan-App: its name
//	X-Hongyan-Timestamp: Unix seconds
//	X-Hongyan-Nonce: 8 to 64 characters, never used before
//	X-Hongyan-Tenant: where he is a user; may be missing when the app has one tenant only
//	X-Hongyan-On-Behalf-Of: the user it acts for
//	X-Hongyan-Signature: hex(HMAC-SHA256(key, signed string))
//
// where the signed string is, joined by line feeds: timestamp, nonce, method, request target
// (path and query as sent), tenant, on-behalf-of, Idempotency-Key, hex(SHA-256(body)); a header
// that is not sent is an empty line.
const (
	headerApp         = "X-Hongyan-App"
	headerTimestamp   = "X-Hongyan-Timestamp"
	headerNonce       = "X-Hongyan-Nonce"
	headerSignature   = "X-Hongyan-Signature"
	headerTenant      = "X-Hongyan-Tenant"
	headerOnBehalfOf  = "X-Hongyan-On-Behalf-Of"
	headerIdempotency = "Idempotency-Key"
)

// caller is who asks, once authenticated.
type caller struct {
	tenant string
	uid    string // on whose behalf
	app    string // empty: the user himself
}

// authenticate finds out who asks. Its errors do not tell which part of a credential was wrong.
func (x *exchange) authenticate() (caller, error) {
	if x.header(headerApp) != "" {
		return x.signedApp()
	}
	scheme, credential, _ := strings.Cut(x.header("Authorization"), " ")
	credential = strings.TrimSpace(credential)
	switch {
	case strings.EqualFold(scheme, "Bearer") && credential != "":
		claims, err := x.srv.keys.Verify(credential)
		if err != nil {
			return caller{}, err
		}
		return caller{tenant: claims.Tenant, uid: claims.UID}, nil
	case strings.EqualFold(scheme, "App") && credential != "":
		return x.plainApp(credential)
	}
	return caller{}, code.Errorf(code.BadToken, "send Authorization: Bearer <token>, or sign the request as an app")
}

// plainApp takes "name:key" where the configuration, or the demo on this machine, allows it.
func (x *exchange) plainApp(credential string) (caller, error) {
	if !x.srv.cfg.PlainAppKeys && !(x.srv.cfg.Demo && x.direct()) {
		return caller{}, code.Errorf(code.BadToken, "plain app keys are switched off (plain_app_keys): sign the request")
	}
	name, key, _ := strings.Cut(credential, ":")
	app, ok := x.srv.apps[name]
	if subtle.ConstantTimeCompare([]byte(app.Key), []byte(key)) != 1 || !ok {
		return caller{}, code.Errorf(code.BadToken, "no such app, or another key")
	}
	return x.onBehalf(app)
}

func (x *exchange) signedApp() (caller, error) {
	s := signed{
		timestamp:   x.header(headerTimestamp),
		nonce:       x.header(headerNonce),
		method:      string(x.rc.Request.Method()),
		target:      string(x.rc.Request.Header.RequestURI()),
		tenant:      x.header(headerTenant),
		onBehalfOf:  x.header(headerOnBehalfOf),
		idempotency: x.header(headerIdempotency),
		body:        x.body(),
	}
	app, ok := x.srv.apps[x.header(headerApp)]
	given, err := hex.DecodeString(x.header(headerSignature))
	if err != nil || !hmac.Equal(given, s.sum(app.Key)) || !ok {
		return caller{}, code.Errorf(code.BadToken, "no such app, or the signature does not fit")
	}
	if err := x.srv.nonces.use(app.Name, s.timestamp, s.nonce, time.Now()); err != nil {
		return caller{}, err
	}
	return x.onBehalf(app)
}

func (x *exchange) onBehalf(app App) (caller, error) {
	uid := x.header(headerOnBehalfOf)
	if uid == "" && !x.endpoint.app {
		return caller{}, code.Errorf(code.BadRequest, "an app names its user in %s", headerOnBehalfOf)
	}
	if err := conv.ValidUID(uid); err != nil && uid != "" {
		return caller{}, code.Errorf(code.BadRequest, "%s: %v", headerOnBehalfOf, err)
	}
	tenant := x.header(headerTenant)
	switch {
	case tenant == "" && len(app.Tenants) == 1:
		tenant = app.Tenants[0]
	case !slices.Contains(app.Tenants, tenant):
		return caller{}, code.Errorf(code.Denied, "%s must name a tenant of the app", headerTenant)
	}
	return caller{tenant: tenant, uid: uid, app: app.Name}, nil
}

// signed is what the signature of a request covers.
type signed struct {
	timestamp, nonce, method, target, tenant, onBehalfOf, idempotency string
	body                                                              []byte
}

func (s *signed) sum(key string) []byte {
	digest := sha256.Sum256(s.body)
	mac := hmac.New(sha256.New, []byte(key))
	mac.Write([]byte(strings.Join([]string{
		s.timestamp, s.nonce, s.method, s.target, s.tenant, s.onBehalfOf, s.idempotency, hex.EncodeToString(digest[:]),
	}, "\n")))
	return mac.Sum(nil)
}

// nonces remembers which signed requests were seen, so that none works twice. Two
// generations: what is in either was seen, the older one is dropped when the newer one is
// as old as a timestamp can stay valid. It is this instance's memory only: a replay to
// another instance within the window is caught where it would matter, by client_msg_id,
// which is signed.
type nonces struct {
	window time.Duration
	max    int // per generation

	mu       sync.Mutex
	now, old map[string]struct{}
	since    time.Time // of now
}

const (
	minNonce, maxNonce = 8, 64 // characters
	maxNonces          = 1 << 20
)

func newNonces(window time.Duration) *nonces {
	return &nonces{window: window, max: maxNonces, now: map[string]struct{}{}}
}

// use accepts (timestamp, nonce) of an app once. Only called with a good signature, so that
// a stranger cannot fill the memory.
func (n *nonces) use(app, timestamp, nonce string, at time.Time) error {
	seconds, err := strconv.ParseInt(timestamp, 10, 64)
	if err != nil {
		return code.Errorf(code.BadToken, "%s is not a number of seconds", headerTimestamp)
	}
	if off := at.Sub(time.Unix(seconds, 0)); off.Abs() > n.window {
		return code.Errorf(code.BadToken, "%s is off by more than %s", headerTimestamp, n.window)
	}
	if len(nonce) < minNonce || len(nonce) > maxNonce {
		return code.Errorf(code.BadToken, "%s has %d to %d characters", headerNonce, minNonce, maxNonce)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if at.Sub(n.since) > 2*n.window {
		n.old, n.now, n.since = n.now, map[string]struct{}{}, at
	}
	key := app + "\x00" + nonce
	_, inNow := n.now[key]
	_, inOld := n.old[key]
	switch {
	case inNow || inOld:
		return code.Errorf(code.BadToken, "this request was seen before: %s is used once", headerNonce)
	case len(n.now) >= n.max:
		err := code.Errorf(code.RateLimited, "too many signed requests")
		err.RetryAfter = n.window
		return err
	}
	n.now[key] = struct{}{}
	return nil
}
