package control

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// Value is one live setting. Data nil: not set, and Revision is 0.
type Value struct {
	Key      string `json:"key"`
	Data     []byte `json:"data"`
	Revision int64  `json:"revision"` // rises with every write of the key; 0 = not set
}

// AnyRevision lets PutValue write whatever is there.
const AnyRevision = -1

// MaxValue bounds the data of one value, in bytes.
const MaxValue = 1 << 20

// Values are the live settings of a cluster: small, read by all, written by operators. What
// they hand out is shared: nobody changes it. Safe for concurrent use.
type Values interface {
	// Value returns what key is set to now, as far as this process knows.
	Value(ctx context.Context, key string) (Value, error)
	// PutValue writes; data nil removes the key. revision >= 0: only if the key's revision
	// still is that (0 = not set), else ErrConflict; AnyRevision: whatever is there.
	PutValue(ctx context.Context, key string, data []byte, revision int64) (Value, error)
	// WatchValues calls fn with every value whose key starts with prefix, in the order of
	// keys: at once and after changes, always the whole set, serially, on the calling
	// goroutine, until ctx ends. Changes that come faster than fn returns are shown as one;
	// the newest state is always shown. ErrClosed ends it early.
	WatchValues(ctx context.Context, prefix string, fn func([]Value)) error
}

// ErrConflict: the value was changed by somebody else meanwhile.
var ErrConflict = errors.New("value has changed")

// ValidKey tells what is wrong with a key: words of letters, digits and _.:@-, separated by
// single slashes, 256 bytes at most.
func ValidKey(key string) error {
	if key == "" || len(key) > 256 {
		return fmt.Errorf("key %.40q: length %d is not within 1..256", key, len(key))
	}
	for word := range strings.SplitSeq(key, "/") {
		if word == "" {
			return fmt.Errorf("key %q: nothing between two slashes, or at an end", key)
		}
		for _, c := range []byte(word) {
			if !keyByte(c) {
				return fmt.Errorf("key %q: %q is none of letters, digits and _.:@-", key, c)
			}
		}
	}
	return nil
}

func keyByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("_.:@-", c) >= 0
}

// ValidValue tells what is wrong with a value that is to be written.
func ValidValue(key string, data []byte) error {
	if err := ValidKey(key); err != nil {
		return err
	}
	if len(data) > MaxValue {
		return fmt.Errorf("value of %s has %d bytes, at most %d are taken", key, len(data), MaxValue)
	}
	return nil
}
