package code_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"hongyan/idl/code"
)

func TestEveryCodeIsComplete(t *testing.T) {
	for _, c := range code.All() {
		if c > 0xffff {
			t.Errorf("%d does not fit the status of a frame", c)
		}
		if c.Name() == "" || c.Meaning() == "" || c.HTTP() < 200 {
			t.Errorf("%d: name %q, meaning %q, http %d", c, c.Name(), c.Meaning(), c.HTTP())
		}
	}
	if !code.OutOfOrder.Retryable() || code.CloseReplaced.Retryable() {
		t.Error("out_of_order is retryable, close_replaced is not")
	}
	unknown := code.Code(9999)
	if unknown.Name() != "code_9999" || unknown.HTTP() != 500 || unknown.Retryable() || unknown.Meaning() == "" {
		t.Errorf("unknown code: %s %d", unknown.Name(), unknown.HTTP())
	}
}

func TestFrom(t *testing.T) {
	cause := errors.New("disk")
	denied := code.Errorf(code.Denied, "not yours: %w", cause)
	cases := []struct {
		name string
		err  error
		want code.Code
	}{
		{"nil", nil, code.OK},
		{"its own", denied, code.Denied},
		{"wrapped", fmt.Errorf("submit: %w", denied), code.Denied},
		{"deadline", context.DeadlineExceeded, code.Expired},
		{"cancelled", fmt.Errorf("call: %w", context.Canceled), code.Expired},
		{"anything else", cause, code.Internal},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if got := code.Of(c.err); got != c.want {
				t.Errorf("code %s, want %s", got, c.want)
			}
		})
	}
	if !errors.Is(denied, cause) || denied.Error() != "denied: not yours: disk" {
		t.Errorf("%q does not wrap its cause", denied)
	}
	if e := code.From(cause); e.Message != "internal error" || !errors.Is(e, cause) {
		t.Errorf("internal error shows %q", e.Message)
	}
}
