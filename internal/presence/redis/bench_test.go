package redis_test

import (
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"hongyan/internal/presence"
	"hongyan/tests/servers"
)

// cpu is what this process has used.
func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkRenewals puts the routes of 100,000 users again and again: one at a time, and in
// batches as logic does. cpu-us is this process', redis-us the server's, both a renewal.
func BenchmarkRenewals(b *testing.B) {
	for _, size := range []int{1, 256} {
		b.Run(fmt.Sprintf("batch=%d", size), func(b *testing.B) {
			s := servers.StartRedis(b)
			c, client := open(b, config(s.Addr)), one(b, s.Addr)
			users := make([]presence.User, 100_000)
			for i := range users {
				users[i] = presence.User{Tenant: "demo", UID: fmt.Sprint("user", i)}
			}
			batch := make([]presence.Change, size)
			used, served, n := cpu(), info(b, client), 0
			for b.Loop() {
				for i := range batch {
					batch[i] = presence.Change{User: users[n%len(users)], Routes: []presence.Route{phone(1)}}
					n++
				}
				if err := c.Apply(b.Context(), batch); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "renewals/s")
			b.ReportMetric(float64((cpu()-used).Microseconds())/float64(n), "cpu-us")
			now := info(b, client)
			seconds := now["used_cpu_user"] + now["used_cpu_sys"] - served["used_cpu_user"] - served["used_cpu_sys"]
			b.ReportMetric(seconds*1e6/float64(n), "redis-us")
			b.ReportMetric((now["used_memory_dataset"]-served["used_memory_dataset"])/float64(min(n, len(users))), "redis-bytes/user")
		})
	}
}

func info(b *testing.B, client rueidis.Client) map[string]float64 {
	text, err := do(b, client, "INFO", "everything").ToString()
	if err != nil {
		b.Fatal(err)
	}
	values := map[string]float64{}
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		if f, err := strconv.ParseFloat(value, 64); err == nil {
			values[name] = f
		}
	}
	return values
}
