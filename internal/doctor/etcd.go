package doctor

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// Etcd is the control centre.
type Etcd struct {
	Endpoints          []string // URLs
	Username, Password string
	TLS                *tls.Config   // nil = none
	Prefix             string        // of our keys, with slashes at both ends
	Lease              time.Duration // as configured
}

// member is one endpoint with what it said of itself.
type member struct {
	etcd   *Etcd
	client *clientv3.Client
	http   *http.Client
	addr   string
	status *clientv3.StatusResponse
}

func (e *Etcd) examine(ctx context.Context, k *skews) (findings []Finding) {
	if len(e.Endpoints) == 0 {
		return nil
	}
	client, err := clientv3.New(clientv3.Config{
		Endpoints: e.Endpoints, Username: e.Username, Password: e.Password, TLS: e.TLS,
		DialTimeout: 3 * time.Second, Logger: zap.NewNop(), Context: ctx,
	})
	if err != nil {
		return unreachable("etcd", err)
	}
	defer client.Close()
	for _, addr := range e.Endpoints {
		findings = append(findings, e.examineMember(ctx, client, addr, k)...)
	}
	if Count(findings, OK) == 0 { // nobody answers: each says so
		return findings
	}
	return append(findings, examine(ctx, "etcd cluster", &member{etcd: e, client: client}, clusterChecks())...)
}

func (e *Etcd) examineMember(ctx context.Context, client *clientv3.Client, addr string, k *skews) []Finding {
	name := "etcd " + addr
	transport := &http.Transport{TLSClientConfig: e.TLS}
	defer transport.CloseIdleConnections()
	m := &member{etcd: e, client: client, addr: addr, http: &http.Client{Transport: transport}}
	ask, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	var err error
	if m.status, err = client.Status(ask, addr); err != nil {
		return unreachable(name, err)
	}
	findings := append([]Finding{reachable(name, "etcd "+m.status.Version)}, examine(ctx, name, m, memberChecks())...)
	clock := k.clock(ctx, name, time.Second, m.now)
	clock.Server, clock.Check = name, "clock"
	return append(findings, clock)
}

func memberChecks() []check[*member] {
	return []check[*member]{
		{"version", (*member).version},
		{"has a leader", (*member).leader},
		{"follows its leader", (*member).applied},
		{"size", (*member).size},
		{"errors", (*member).errors},
		{"auto-compaction", (*member).compaction},
	}
}

func clusterChecks() []check[*member] {
	return []check[*member]{
		{"quorum answers", (*member).quorum},
		{"members", (*member).members},
		{"alarms", (*member).alarms},
		{"leases", (*member).leases},
	}
}

func (m *member) version(context.Context) Finding {
	var major, minor int
	_, _ = fmt.Sscanf(m.status.Version, "%d.%d", &major, &minor)
	return expect(major > 3 || major == 3 && minor >= 5, Violation, m.status.Version, "3.5 or newer", "upgrade it")
}

func (m *member) leader(context.Context) Finding {
	return expect(m.status.Leader != 0, Violation, fmt.Sprintf("leader %x", m.status.Leader), "a leader", "it has lost the majority of its cluster: see etcdctl endpoint status --cluster")
}

// appliedMost is how many entries of its log a member may have yet to apply.
const appliedMost = 5000

func (m *member) applied(context.Context) Finding {
	behind := int64(m.status.RaftIndex) - int64(m.status.RaftAppliedIndex)
	return expect(behind < appliedMost, Warning, fmt.Sprintf("%d entries to apply", behind), fmt.Sprintf("below %d", appliedMost), "its disk or processor is too slow for etcd")
}

// sizeFull is the share of the quota from which on it is too little: at all of it etcd takes
// no more writes, leases among them.
const sizeFull = 0.8

// quotaDefault is what etcd takes when it is not told.
const quotaDefault = 2 << 30

func (m *member) size(ctx context.Context) Finding {
	quota := m.status.DbSizeQuota
	if quota == 0 {
		if v, err := m.metric(ctx, "etcd_server_quota_backend_bytes"); err == nil {
			quota = int64(v)
		}
	}
	if quota == 0 {
		quota = quotaDefault
	}
	found := fmt.Sprintf("%s of %s, %s in use", bytesOf(m.status.DbSize), bytesOf(quota), bytesOf(m.status.DbSizeInUse))
	return expect(float64(m.status.DbSize) < sizeFull*float64(quota), Violation, found, "below 80 % of the quota",
		"etcdctl compact $(etcdctl endpoint status -w json | jq .[0].Status.header.revision); etcdctl defrag; and raise --quota-backend-bytes")
}

func (m *member) errors(context.Context) Finding {
	return expect(len(m.status.Errors) == 0, Violation, list(m.status.Errors), "none", "see what it says of itself; etcdctl alarm list")
}

// revisionsMost is how many old revisions are no sign of a missing compaction.
const revisionsMost = 1_000_000

// compaction cannot be asked: the revisions that are kept tell.
func (m *member) compaction(ctx context.Context) Finding {
	const wanted = "--auto-compaction-mode=periodic --auto-compaction-retention=1h"
	compacted, err := m.metric(ctx, "etcd_debugging_mvcc_compact_revision")
	if err != nil {
		return unchecked(wanted, err)
	}
	current, err := m.metric(ctx, "etcd_debugging_mvcc_current_revision")
	if err != nil {
		return unchecked(wanted, err)
	}
	found := fmt.Sprintf("%.0f revisions kept, compacted at %.0f", current-compacted, max(compacted, 0))
	switch {
	case current-compacted > revisionsMost:
		return violation(found, wanted, "set both and restart: without it the database grows until it takes no more writes")
	case compacted <= 0:
		return Finding{Found: found + ": etcd does not tell whether it will be", Wanted: wanted, Verdict: NotChecked, Advice: "see that etcd was started with both options"}
	}
	return ok(found, wanted)
}

// metric reads one number of /metrics.
func (m *member) metric(ctx context.Context, name string) (float64, error) {
	rsp, err := m.get(ctx, "/metrics")
	if err != nil {
		return 0, err
	}
	defer rsp.Body.Close()
	lines := bufio.NewScanner(io.LimitReader(rsp.Body, 8<<20))
	for lines.Scan() {
		if value, found := strings.CutPrefix(lines.Text(), name+" "); found {
			return strconv.ParseFloat(value, 64)
		}
	}
	return 0, errors.Join(fmt.Errorf("/metrics of %s has no %s", m.addr, name), lines.Err())
}

func (m *member) get(ctx context.Context, path string) (*http.Response, error) {
	url := m.addr
	if !strings.Contains(url, "://") {
		url = "http://" + url
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+path, nil)
	if err != nil {
		return nil, err
	}
	return m.http.Do(req)
}

// now is the server's clock as its HTTP answers are dated, in whole seconds.
func (m *member) now(ctx context.Context) (time.Time, error) {
	rsp, err := m.get(ctx, "/version")
	if err != nil {
		return time.Time{}, err
	}
	_ = rsp.Body.Close()
	return http.ParseTime(rsp.Header.Get("Date"))
}

// quorum reads through the majority: a single member could answer alone.
func (m *member) quorum(ctx context.Context) Finding {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	began := time.Now()
	_, err := m.client.Get(ctx, m.etcd.Prefix+"doctor")
	took := time.Since(began).Round(time.Millisecond)
	if err != nil {
		return violation(err.Error(), "an answer within 100ms", "a majority of the members must run and reach each other")
	}
	return expect(took < 100*time.Millisecond, Warning, took.String(), "an answer within 100ms", "etcd needs a fast disk (fsync below 10 ms) and a near network")
}

func (m *member) members(ctx context.Context) Finding {
	const wanted = "3 or 5 members, none a learner"
	list, err := m.client.MemberList(ctx)
	if err != nil {
		return unchecked(wanted, err)
	}
	learners := 0
	for _, x := range list.Members {
		if x.IsLearner {
			learners++
		}
	}
	n := len(list.Members)
	return expect(n >= 3 && n%2 == 1 && learners == 0, Warning, fmt.Sprintf("%d members, %d learners", n, learners), wanted,
		"with fewer than 3 the loss of one stops changes of the cluster (what runs goes on); an even number tolerates no more than one less")
}

func (m *member) alarms(ctx context.Context) Finding {
	rsp, err := m.client.AlarmList(ctx)
	if err != nil {
		return unchecked("none", err)
	}
	var names []string
	for _, a := range rsp.Alarms {
		names = append(names, fmt.Sprintf("%s of %x", pb.AlarmType_name[int32(a.Alarm)], a.MemberID))
	}
	return expect(len(names) == 0, Violation, list(names), "none", "NOSPACE: compact, defrag, raise the quota, then etcdctl alarm disarm. CORRUPT: replace the member")
}

// leases compares what instances hold with what is configured here: one with another length
// runs with another configuration.
func (m *member) leases(ctx context.Context) Finding {
	if m.etcd.Lease == 0 || m.etcd.Prefix == "" {
		return Finding{}
	}
	wanted := fmt.Sprintf("%v each", m.etcd.Lease)
	keys, err := m.client.Get(ctx, m.etcd.Prefix, clientv3.WithPrefix(), clientv3.WithLimit(1000)) // keys only come without their lease
	if err != nil {
		return unchecked(wanted, err)
	}
	seen := map[int64]bool{}
	var odd []string
	for _, kv := range keys.Kvs {
		if kv.Lease == 0 || seen[kv.Lease] {
			continue
		}
		seen[kv.Lease] = true
		if l, err := m.client.TimeToLive(ctx, clientv3.LeaseID(kv.Lease)); err == nil && l.GrantedTTL != int64(m.etcd.Lease.Seconds()) {
			odd = append(odd, fmt.Sprintf("%s: %d s", kv.Key, l.GrantedTTL))
		}
	}
	return expect(len(odd) == 0, Warning, fmt.Sprintf("%d leases; %s", len(seen), list(odd)), wanted, "these instances run with another control.lease: give all the same")
}
