package control

import (
	"cmp"
	"context"
	"time"
)

// Report is what one process made of one value.
type Report struct {
	Tier     string    `json:"tier"`
	Addr     string    `json:"addr"` // the process, among those of its tier
	Key      string    `json:"key"`
	Revision int64     `json:"revision"`        // what was looked at
	InForce  int64     `json:"in_force"`        // what is applied: an older one where Revision was refused; 0 = the default
	Err      string    `json:"err,omitempty"`   // why Revision is not in force
	Notes    []string  `json:"notes,omitempty"` // what else to know: keys that need a restart
	Since    time.Time `json:"since"`
}

// Reports is where processes tell operators what they made of the values. Safe for
// concurrent use.
type Reports interface {
	// Report shows r, in place of an earlier one of the same process and key, while this
	// process lives. It does not wait for the control centre.
	Report(r Report)
	// Reports lists what living processes have reported of a key; empty = of all keys.
	Reports(ctx context.Context, key string) ([]Report, error)
}

// CompareReports orders reports by key, tier and address.
func CompareReports(a, b Report) int {
	return cmp.Or(cmp.Compare(a.Key, b.Key), cmp.Compare(a.Tier, b.Tier), cmp.Compare(a.Addr, b.Addr))
}
