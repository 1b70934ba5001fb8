package httpentry

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"strconv"
	"time"

	"github.com/cloudwego/hertz/pkg/protocol"

	"hongyan/idl/code"
)

// errorBody is every error of the HTTP API and of the long poll. Its status is Code's.
type errorBody struct {
	Code         uint32 `json:"code"`
	Name         string `json:"name"`
	Message      string `json:"message"`
	RequestID    string `json:"request_id"`
	Retryable    bool   `json:"retryable"`
	RetryAfterMS int64  `json:"retry_after_ms"`
}

const jsonType = "application/json; charset=utf-8"

// writeError puts err into rsp. What is not a *code.Error must have been logged.
func writeError(rsp *protocol.Response, err error, requestID string) {
	e := code.From(err)
	message := e.Message
	if message == "" {
		message = e.Code.Meaning()
	}
	body, _ := json.Marshal(errorBody{
		Code: uint32(e.Code), Name: e.Code.Name(), Message: message, RequestID: requestID,
		Retryable: e.Code.Retryable(), RetryAfterMS: e.RetryAfter.Milliseconds(),
	})
	rsp.SetStatusCode(e.Code.HTTP())
	rsp.Header.SetContentType(jsonType)
	rsp.Header.Set("Cache-Control", "no-store")
	rsp.Header.Set("X-Request-ID", requestID)
	if e.RetryAfter > 0 {
		rsp.Header.Set("Retry-After", strconv.FormatInt(int64((e.RetryAfter+time.Second-1)/time.Second), 10))
	}
	if e.Code == code.BadToken {
		rsp.Header.Set("WWW-Authenticate", `Bearer realm="hongyan"`)
	}
	rsp.SetBodyRaw(body)
}

// newRequestID is 16 random bytes in hex.
func newRequestID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// requestID takes the caller's if it can be logged and searched as it is, else makes one.
func requestID(given []byte) string {
	if len(given) == 0 || len(given) > 64 {
		return newRequestID()
	}
	for _, c := range given {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_', c == '.', c == ':':
		default:
			return newRequestID()
		}
	}
	return string(given)
}
