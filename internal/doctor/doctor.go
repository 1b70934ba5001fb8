package doctor

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// Verdict of one check.
type Verdict string

// Verdicts.
const (
	OK         Verdict = "ok"
	Warning    Verdict = "warning"     // nothing is broken today
	Violation  Verdict = "violation"   // a promise does not hold
	NotChecked Verdict = "not checked" // it could not be asked
)

// Finding is what one check of one server found.
type Finding struct {
	Server  string  `json:"server"`
	Check   string  `json:"check"`
	Found   string  `json:"found"`
	Wanted  string  `json:"wanted"`
	Verdict Verdict `json:"verdict"`
	Advice  string  `json:"advice,omitempty"` // what to do, with the statement to run
}

// Target is what is to be examined. What is empty is left out.
type Target struct {
	Shards   []Shard
	Sessions Sessions
	// Schema is the version of the tables that this program needs.
	Schema   int64
	RocketMQ RocketMQ
	Redis    Redis
	Etcd     Etcd
	Machine  Machine
	// Timeout bounds the examination of one server; 0 = 10 s.
	Timeout time.Duration
}

// Run examines everything, servers at the same time. The findings are in the order of the
// target. When ctx ends, what was not asked yet is not checked.
func Run(ctx context.Context, t Target) []Finding {
	if t.Timeout <= 0 {
		t.Timeout = 10 * time.Second
	}
	var skews skews
	parts := []func(context.Context) []Finding{
		func(context.Context) []Finding { return t.Machine.examine() },
	}
	for i := range t.Shards {
		parts = append(parts, func(ctx context.Context) []Finding { return t.examineShard(ctx, i, &skews) })
	}
	parts = append(parts,
		func(ctx context.Context) []Finding { return t.RocketMQ.examine(ctx) },
		func(ctx context.Context) []Finding { return t.Redis.examine(ctx, &skews) },
		func(ctx context.Context) []Finding { return t.Etcd.examine(ctx, &skews) },
	)
	results := make([][]Finding, len(parts))
	var wg sync.WaitGroup
	for i, part := range parts {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, t.Timeout)
			defer cancel()
			results[i] = part(ctx)
		})
	}
	wg.Wait()
	var all []Finding
	for _, r := range results {
		all = append(all, r...)
	}
	return append(all, skews.compare()...)
}

// Count of findings with a verdict.
func Count(findings []Finding, v Verdict) int {
	n := 0
	for i := range findings {
		if findings[i].Verdict == v {
			n++
		}
	}
	return n
}

// check is one thing to look at on a server of type S. look is a method of S.
type check[S any] struct {
	name string
	look func(s S, ctx context.Context) Finding
}

// examine runs checks on a server.
func examine[S any](ctx context.Context, server string, s S, checks []check[S]) []Finding {
	findings := make([]Finding, 0, len(checks))
	for _, c := range checks {
		f := c.look(s, ctx)
		if f.Verdict == "" {
			continue // does not apply to this server
		}
		f.Server, f.Check = server, c.name
		findings = append(findings, f)
	}
	return findings
}

// unreachable is the one finding of a server that does not answer.
func unreachable(server string, err error) []Finding {
	return []Finding{{
		Server: server, Check: "reachable", Found: err.Error(), Wanted: "an answer", Verdict: Violation,
		Advice: "start it, or correct its address and credentials; nothing else of it was checked",
	}}
}

func reachable(server, version string) Finding {
	return Finding{Server: server, Check: "reachable", Found: version, Wanted: "an answer", Verdict: OK}
}

func ok(found, wanted string) Finding { return Finding{Found: found, Wanted: wanted, Verdict: OK} }

func warn(found, wanted, advice string) Finding {
	return Finding{Found: found, Wanted: wanted, Verdict: Warning, Advice: advice}
}

func violation(found, wanted, advice string) Finding {
	return Finding{Found: found, Wanted: wanted, Verdict: Violation, Advice: advice}
}

func unchecked(wanted string, why any) Finding {
	return Finding{Found: fmt.Sprint(why), Wanted: wanted, Verdict: NotChecked}
}

// expect is ok if good, else the verdict with the advice.
func expect(good bool, otherwise Verdict, found, wanted, advice string) Finding {
	if good {
		return ok(found, wanted)
	}
	return Finding{Found: found, Wanted: wanted, Verdict: otherwise, Advice: advice}
}
