package gate

import (
	"cmp"
	"strings"
	"time"

	"hongyan/idl/code"
	"hongyan/idl/im"
	"hongyan/idl/tier"
	"hongyan/internal/conv"
	"hongyan/internal/route"
	"hongyan/internal/token"
	"hongyan/internal/wire"
)

const (
	maxDevice   = 64 // bytes
	maxPlatform = 16
)

// authLocked verifies the token, so that the user is known and with him his home, and
// sends AUTH there. A token that is no good is answered, then the connection closes.
func (c *Conn) authLocked(f *wire.Frame) *code.Error {
	if c.phase != opened {
		return code.Errorf(code.CloseProtocolError, "a second AUTH")
	}
	var auth im.Auth
	if auth.Unmarshal(f.Body) != nil {
		return code.Errorf(code.CloseProtocolError, "the body of AUTH cannot be decoded")
	}
	claims, err := c.verify(&auth)
	if err == nil {
		c.identifyLocked(&auth, &claims)
		err = c.packetLocked(f)
	}
	if err != nil {
		c.refuseLocked(f.Cmd, f.Seq, err)
		return loginRefused(err)
	}
	return nil
}

func (c *Conn) verify(auth *im.Auth) (token.Claims, *code.Error) {
	if !validDevice(auth.Device) || !validPlatform(auth.Platform) {
		return token.Claims{}, code.Errorf(code.BadRequest, "device and platform are up to %d and %d printable ASCII characters", maxDevice, maxPlatform)
	}
	claims, err := c.gate.deps.Keys.Verify(auth.Token)
	switch {
	case err != nil:
		return claims, code.From(err)
	case conv.ValidUID(claims.UID) != nil:
		return claims, code.Errorf(code.BadToken, "the token's uid is not valid")
	case claims.Device != "" && auth.Device != "" && claims.Device != auth.Device:
		return claims, code.Errorf(code.BadToken, "the token is for another device")
	}
	for _, d := range []string{auth.Device, c.device} {
		if claims.Device == "" {
			claims.Device = d
		}
	}
	if claims.Device == "" {
		return claims, code.Errorf(code.BadRequest, "no device: neither the token nor AUTH nor HELLO names one")
	}
	return claims, nil
}

// identifyLocked makes the connection the user's. His cursor counts as acknowledged: he says
// that he has everything up to it.
func (c *Conn) identifyLocked(auth *im.Auth, claims *token.Claims) {
	c.tenant, c.uid, c.device = intern(claims.Tenant), strings.Clone(claims.UID), strings.Clone(claims.Device)
	if auth.Platform != "" {
		c.platform = intern(auth.Platform)
	}
	c.class = classOf(c.platform, c.transport)
	c.hash = route.Hash(c.tenant, c.uid)
	c.epoch, c.cursor = auth.Epoch, auth.Cursor
	c.phase = authing
	c.authBy = c.gate.now() + int64(c.gate.cfg.RequestLife+c.gate.cfg.AuthTimeout)
	c.body.Store(uint32(c.gate.cfg.MaxBody))
	c.armLocked()
}

// loggedInLocked opens the session: the Logic of that address has answered, and it or the
// home it names has registered the route. False: it was open before, by an AUTH that had to be tried twice; the client has
// its answer.
func (c *Conn) loggedInLocked(d *tier.Down, logic string) bool {
	c.session = max(c.session, d.SessionEpoch)
	if c.phase == online {
		return false
	}
	c.phase, c.authBy = online, 0
	c.loginMS = time.Now().UnixMilli()
	if peer, err := c.gate.home(c); err == nil && peer.Addr == cmp.Or(d.Home, logic) {
		c.home = homeKey(peer)
	} // else one that stood in has the session: the next comparison of homes renews it
	return true
}

// loginRefused is how a connection ends whose AUTH was answered with err.
func loginRefused(err *code.Error) *code.Error {
	closing := code.CloseOverloaded
	switch err.Code {
	case code.BadToken:
		closing = code.CloseBadToken
	case code.Denied:
		closing = code.CloseBanned
	case code.BadRequest:
		closing = code.CloseProtocolError
	case code.StaleLogin:
		closing = code.CloseStaleLogin
	case code.TooManySessions:
		closing = code.CloseReplaced
	}
	return &code.Error{Code: closing, Message: err.Message, RetryAfter: err.RetryAfter}
}

// classOf is the device class of the multi-device policy.
func classOf(platform, transport string) string {
	switch platform {
	case "ios", "android", "mobile":
		return "mobile"
	case "ipad", "pad":
		return "pad"
	case "desktop", "windows", "macos", "linux", "cli":
		return "desktop"
	case "mini", "agent", "web":
		return platform
	}
	if transport == TCP {
		return "mobile"
	}
	return "web"
}

// intern keeps one copy of the words that nearly every connection shares, and clones others.
func intern(s string) string {
	for _, known := range [...]string{"demo", "default", "ios", "android", "web", "desktop", "mini", "agent", "cli"} {
		if s == known {
			return known
		}
	}
	return strings.Clone(s)
}

// validDevice: empty, or printable ASCII.
func validDevice(s string) bool   { return len(s) <= maxDevice && printable(s) }
func validPlatform(s string) bool { return len(s) <= maxPlatform && printable(s) }

func printable(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}
