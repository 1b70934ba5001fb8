package rpc

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/cloudwego/kitex/pkg/kerrors"
	"github.com/cloudwego/kitex/pkg/remote"

	"hongyan/idl/code"
)

// ErrDown is wrapped by the errors of calls that failed between the processes.
var ErrDown = errors.New("instance does not answer")

// Down tells that err says nothing about the request, only that this instance could not
// be reached or was lost under way: another one may be tried, where repeating is harmless.
func Down(err error) bool { return errors.Is(err, ErrDown) }

const (
	// retryAfterKey carries code.Error.RetryAfter, in milliseconds.
	retryAfterKey = "retry_after_ms"
	// maxMessage bounds the text of an error, which travels in the header.
	maxMessage = 1 << 10
)

// toWire is e as Kitex's business status.
func toWire(e *code.Error) kerrors.BizStatusErrorIface {
	message := e.Message
	if len(message) > maxMessage {
		message = strings.ToValidUTF8(message[:maxMessage], "")
	}
	if e.RetryAfter <= 0 {
		return kerrors.NewBizStatusError(int32(e.Code), message)
	}
	ms := max(1, e.RetryAfter.Milliseconds())
	return kerrors.NewBizStatusErrorWithExtra(int32(e.Code), message, map[string]string{retryAfterKey: strconv.FormatInt(ms, 10)})
}

// fromWire is what the far end's handler answered.
func fromWire(biz kerrors.BizStatusErrorIface) *code.Error {
	e := &code.Error{Code: code.Code(biz.BizStatusCode()), Message: biz.BizMessage()}
	if ms, err := strconv.ParseInt(biz.BizExtra()[retryAfterKey], 10, 64); err == nil && ms > 0 {
		e.RetryAfter = time.Duration(ms) * time.Millisecond
	}
	return e
}

// clientError translates the error of a Kitex call to addr into the *code.Error that the
// interface promises.
func clientError(addr string, err error) error {
	if biz, ok := kerrors.FromBizStatusError(err); ok {
		return fromWire(biz)
	}
	switch {
	case errors.Is(err, kerrors.ErrRPCTimeout), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return code.Errorf(code.Expired, "the request outlived its deadline")
	case errors.Is(err, kerrors.ErrGetConnection):
		return code.Errorf(code.Unavailable, "%s: %w: %s", addr, ErrDown, cause(err))
	}
	if tooLarge(err) {
		return code.Errorf(code.TooLarge, "%s: %s", addr, cause(err))
	}
	if remoteFault(err) {
		return code.Errorf(code.Internal, "%s: %s", addr, cause(err))
	}
	return code.Errorf(code.UnknownOutcome, "%s: %w: %s", addr, ErrDown, cause(err))
}

// remoteFault tells that the far end, alive, refused the call itself: a method it does not
// know, a body over its limit.
func remoteFault(err error) bool {
	te, ok := errors.AsType[*remote.TransError](err)
	if !ok {
		return false
	}
	switch te.TypeID() {
	case remote.UnknownMethod, remote.UnknownService, remote.InternalError, remote.WrongMethodName:
		return true
	}
	return false
}

// cause is the text of err without Kitex's own wrapping.
func cause(err error) string {
	if d, ok := errors.AsType[*kerrors.DetailedError](err); ok && d.Unwrap() != nil {
		return d.Unwrap().Error()
	}
	return err.Error()
}
