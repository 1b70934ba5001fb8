// Package code holds the codes that every tier, transport and SDK answers with, and the
// error that carries one. The table itself is idl/errors.tsv.
package code

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// Code is a row of the table: 0 is ok, below 1000 the outcome of a request, from 4300 the
// reason for which a connection is closed. It fits the 16-bit status of a frame.
type Code uint32

type row struct {
	name      string
	http      int
	retryable bool
	meaning   string
}

// Name is the code's name in the table, "code_<n>" for one that a newer peer made up.
func (c Code) Name() string {
	if r, ok := lookup(c); ok {
		return r.name
	}
	return "code_" + strconv.FormatUint(uint64(c), 10)
}

// HTTP is the status of an HTTP answer with this code; 500 for an unknown one.
func (c Code) HTTP() int {
	if r, ok := lookup(c); ok {
		return r.http
	}
	return 500
}

// Retryable tells that the same request may succeed later. An unknown code is not.
func (c Code) Retryable() bool {
	r, _ := lookup(c)
	return r.retryable
}

// Meaning is one sentence for people, "unknown code" for an unknown one.
func (c Code) Meaning() string {
	if r, ok := lookup(c); ok {
		return r.meaning
	}
	return "unknown code"
}

// String is Name, for logs.
func (c Code) String() string { return c.Name() }

// Error is what a caller outside of a tier may see of a failure.
type Error struct {
	Code    Code
	Message string // what was wrong, for the caller; never secrets or internals
	// RetryAfter is when to come back, 0 where nothing better than back-off is known.
	RetryAfter time.Duration

	cause error
}

// Errorf makes an Error. A %w keeps its operand for errors.Is and errors.As.
func Errorf(c Code, format string, a ...any) *Error {
	err := fmt.Errorf(format, a...)
	return &Error{Code: c, Message: err.Error(), cause: errors.Unwrap(err)}
}

func (e *Error) Error() string {
	if e.Message == "" {
		return e.Code.Name()
	}
	return e.Code.Name() + ": " + e.Message
}

func (e *Error) Unwrap() error { return e.cause }

// From returns the *Error that err is or wraps. An ended context is Expired. Anything else
// is Internal without its text: who calls From logs err itself, once. From(nil) is nil, as
// a *Error: compare it before it is put into an error variable.
func From(err error) *Error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return &Error{Code: Expired, Message: "the request outlived its deadline", cause: err}
	}
	return &Error{Code: Internal, Message: "internal error", cause: err}
}

// Of is the code of err: OK for nil, otherwise that of From.
func Of(err error) Code {
	if e := From(err); e != nil {
		return e.Code
	}
	return OK
}
