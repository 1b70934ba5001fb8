package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"hongyan/internal/control"
	"hongyan/internal/doctor"
	"hongyan/internal/gate"
	"hongyan/internal/presence"
	"hongyan/internal/token"
)

// configuration is the server that findings about settings are said to be of.
const configuration = "configuration"

// usable tells whether the configuration was taken.
func usable(err error) doctor.Finding {
	f := doctor.Finding{Server: configuration, Check: "can be used", Found: "yes", Wanted: "yes", Verdict: doctor.OK}
	if err != nil {
		f.Found, f.Verdict, f.Advice = joinLines(err), doctor.Violation, "correct it; hongyan config print shows every key with its default"
	}
	return f
}

// settingCheck is a check of settings that are each fine by themselves. found empty: it does
// not apply.
type settingCheck struct {
	name      string
	look      func(c *Config) (found, wanted string, good bool)
	otherwise doctor.Verdict
	advice    string
}

func examineSettings(c *Config) []doctor.Finding {
	var findings []doctor.Finding
	for _, s := range settingChecks() {
		found, wanted, good := s.look(c)
		if found == "" {
			continue
		}
		f := doctor.Finding{Server: configuration, Check: s.name, Found: found, Wanted: wanted, Verdict: doctor.OK}
		if !good {
			f.Verdict, f.Advice = s.otherwise, s.advice
		}
		findings = append(findings, f)
	}
	return findings
}

func settingChecks() []settingCheck {
	return []settingCheck{
		{"renewals: gateways and logic", sameRenewal, doctor.Violation,
			"set entry.gate.renew_every, httpentry.gate.renew_every and logic.renew_period alike: who renews later than is expected looks offline"},
		{"renewals: sessions", sessionsLive, doctor.Violation,
			"set das.session.free_after to three periods at least, renew_after below one: a session that is renewed in time would be free for others"},
		{"renewals: presence", presenceLives, doctor.Violation,
			"lower the renewal period: routes that are renewed in time would expire between"},
		{"presence is shared", sharedPresence, doctor.Warning,
			"name Redis in presence.addrs: a logic that stands in for another does not know who is connected, and takes a renewal period to learn it"},
		{"lease", leaseFits, doctor.Warning,
			"set control.lease to 10s: a shorter one loses instances that only stutter, a longer one keeps the dead in the lists"},
		{"commits: das and its databases", commitTimes, doctor.Warning,
			"raise das.commit.timeout to sql.commit_timeout at least: das calls an outcome unknown that the database would still have told"},
		{"connections for writers", writerConns, doctor.Warning,
			"raise sql.write_conns to the writers of das (das.writers) at least: they wait for each other"},
		{"a SEND's life and dedupe", dedupeCovers, doctor.Violation,
			"raise das.dedupe_window to twice a SEND's life at least: a first attempt that comes late could be stored twice"},
		{"a SEND's life at its tiers", sendLife, doctor.Warning,
			"set gate.send_life and logic.send_ttl alike: the shorter one decides"},
		{"waiting for a commit", settleCovers, doctor.Warning,
			"raise logic.settle_timeout to das.commit.timeout at least: senders are told \"unknown outcome\" of commits that succeed"},
		{"waiting for an answer", requestCovers, doctor.Warning,
			"raise gate.request_life over logic.command_timeout: the gateway gives up what Logic still does"},
		{"fan-out is overdue", fanOutAges, doctor.Warning,
			"set das.lag.age and logic.fan_out_age alike: one counts as late what the other still waits for"},
		{"frames and messages", bodiesFit, doctor.Violation,
			"raise gate.max_body, or lower logic.max_text and max_data: a message that is allowed does not fit into a frame"},
		{"addresses in the lists", addressesOnce, doctor.Violation,
			"give each process of a tier an address of its own: two in one slot share what must have one owner"},
		{"loopback in the lists", noLoopback, doctor.Violation,
			"other hosts cannot reach a loopback address: use the address that they see, as advertise and in the lists"},
		{"one-commit form", oneCommitAlone, doctor.Violation,
			"set das.form: auto: in one commit, a message and its members' rows must be in a database of this das alone"},
		{"demo page", demoOff, doctor.Violation,
			"set httpentry.demo: false: it logs in whom it is asked to"},
		{"keys that sign", demoKeys, doctor.Warning,
			"keep only public keys (EdDSA) here and sign tokens in the platform's backend: who reads this file can be anybody"},
		{"app keys", plainAppKeys, doctor.Warning,
			"set httpentry.plain_app_keys: false, and let the apps sign their requests: whoever listens on the way has the key"},
		{"TCP without encryption", plaintext, doctor.Warning,
			"put TLS in front of entry, or let clients use its encryption (entry.plaintext: false)"},
	}
}

// cluster tells that other hosts are part of it.
func (c *Config) cluster() bool { return len(c.hosts()) > 0 }

// lists are the addresses of the tiers.
func (c *Config) lists() map[string][]string {
	return map[string][]string{
		tierLogic: withoutDuties(c.Cluster.Logic), tierDas: c.Cluster.Das, tierExtLogic: c.Cluster.ExtLogic, tierJtransit: c.Cluster.Jtransit,
	}
}

// hosts are the hosts of the lists that are not this machine's loopback.
func (c *Config) hosts() []string {
	var hosts []string
	for _, addrs := range c.lists() {
		for _, addr := range addrs {
			if host := hostOf(addr); !isLoopback(host) && !slices.Contains(hosts, host) {
				hosts = append(hosts, host)
			}
		}
	}
	return hosts
}

func hostOf(addr string) string {
	if host, _, err := net.SplitHostPort(addr); err == nil {
		return host
	}
	return addr
}

func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

func (c *Config) gates() []gate.Config { return []gate.Config{c.Entry.Gate, c.HTTPEntry.Gate} }

func sameRenewal(c *Config) (found, wanted string, good bool) {
	e, h, l := c.Entry.Gate.RenewEvery, c.HTTPEntry.Gate.RenewEvery, c.Logic.RenewPeriod
	return fmt.Sprintf("%v, %v and %v", e, h, l), "the same", e == l && h == l
}

func (c *Config) renewal() time.Duration {
	return max(c.Entry.Gate.RenewEvery, c.HTTPEntry.Gate.RenewEvery, c.Logic.RenewPeriod)
}

func sessionsLive(c *Config) (found, wanted string, good bool) {
	s, period := c.Das.Session, c.renewal()
	return fmt.Sprintf("free after %v, written after %v", s.FreeAfter, s.RenewAfter),
		fmt.Sprintf("free after %v or later, written after %v at most", 3*period, period),
		s.FreeAfter >= 3*period && s.RenewAfter <= period
}

func presenceLives(c *Config) (found, wanted string, good bool) {
	ttl := presence.TTL
	if c.usesRedis() {
		ttl = c.Presence.TTL
	}
	return fmt.Sprintf("expires after %v", ttl), fmt.Sprintf("%v or later", 2*c.renewal()), ttl >= 2*c.renewal()
}

func (c *Config) usesRedis() bool { return len(c.Presence.Addrs) > 0 }

// Leases that are shorter lose instances that only stutter, longer ones keep the dead.
const (
	leaseLeast = 5 * time.Second
	leaseMost  = time.Minute
)

func leaseFits(c *Config) (found, wanted string, good bool) {
	if !c.usesEtcd() {
		return "", "", true
	}
	l := c.Control.Lease
	return l.String(), fmt.Sprintf("%v to %v, three requests of %v at least", leaseLeast, leaseMost, c.Control.Timeout),
		l >= leaseLeast && l <= leaseMost && l >= 3*c.Control.Timeout
}

func sharedPresence(c *Config) (found, wanted string, good bool) {
	if len(c.Cluster.Logic) < 2 && !c.usesEtcd() {
		return "", "", true
	}
	if !c.usesRedis() {
		return "none", "Redis, with several logics", false
	}
	return "Redis", "Redis, with several logics", true
}

func commitTimes(c *Config) (found, wanted string, good bool) {
	if !c.usesDatabases() {
		return "", "", true
	}
	return fmt.Sprintf("%v in the database, %v in das", c.SQL.CommitTimeout, c.Das.Commit.Timeout), "das waits at least as long", c.Das.Commit.Timeout >= c.SQL.CommitTimeout
}

func writerConns(c *Config) (found, wanted string, good bool) {
	if !c.usesDatabases() {
		return "", "", true
	}
	writers := c.Das.Writers.Conversations + c.Das.Writers.Users
	return fmt.Sprintf("%d connections for %d writers", c.SQL.WriteConns, writers), "one each", c.SQL.WriteConns >= writers
}

func (c *Config) sendLife() time.Duration {
	return max(c.Entry.Gate.SendLife, c.HTTPEntry.Gate.SendLife, c.Logic.SendTTL)
}

func dedupeCovers(c *Config) (found, wanted string, good bool) {
	w := c.Das.DedupeWindow
	return fmt.Sprintf("remembered %v", w), fmt.Sprintf("%v or longer", 2*c.sendLife()), w >= 2*c.sendLife()
}

func sendLife(c *Config) (found, wanted string, good bool) {
	e, h, l := c.Entry.Gate.SendLife, c.HTTPEntry.Gate.SendLife, c.Logic.SendTTL
	return fmt.Sprintf("%v, %v and %v", e, h, l), "the same", e == l && h == l
}

func settleCovers(c *Config) (found, wanted string, good bool) {
	return fmt.Sprintf("waits %v for a commit of %v", c.Logic.SettleTimeout, c.Das.Commit.Timeout), "at least as long", c.Logic.SettleTimeout >= c.Das.Commit.Timeout
}

func requestCovers(c *Config) (found, wanted string, good bool) {
	shortest := min(c.Entry.Gate.RequestLife, c.HTTPEntry.Gate.RequestLife)
	return fmt.Sprintf("waits %v for a command of %v", shortest, c.Logic.CommandTimeout), "at least as long", shortest >= c.Logic.CommandTimeout
}

func fanOutAges(c *Config) (found, wanted string, good bool) {
	return fmt.Sprintf("%v for das, %v for logic", c.Das.Lag.Age, c.Logic.FanOutAge), "the same", c.Das.Lag.Age == c.Logic.FanOutAge
}

// frameSpare is what a SEND holds beside its text and data, in bytes.
const frameSpare = 1024

func bodiesFit(c *Config) (found, wanted string, good bool) {
	most := c.Logic.MaxText + c.Logic.MaxData + frameSpare
	least := c.Das.MaxBody
	for _, g := range c.gates() {
		least = min(least, g.MaxBody)
	}
	return fmt.Sprintf("%d bytes fit", least), fmt.Sprintf("%d", most), least >= most
}

func addressesOnce(c *Config) (found, wanted string, good bool) {
	var wrong []string
	n := 0
	for tier, addrs := range c.lists() {
		n += len(addrs)
		m := control.Members{Slots: len(addrs)}
		for slot, addr := range addrs {
			m.Instances = append(m.Instances, control.Instance{Tier: tier, Slot: slot, Addr: addr})
		}
		if _, err := control.Normalize(tier, m); err != nil {
			wrong = append(wrong, err.Error())
		}
	}
	if n == 0 {
		return "", "", true
	}
	slices.Sort(wrong)
	if len(wrong) > 0 {
		return strings.Join(wrong, "; "), "each once", false
	}
	return fmt.Sprintf("%d, each once", n), "each once", true
}

func noLoopback(c *Config) (found, wanted string, good bool) {
	if !c.cluster() {
		return "", "", true
	}
	var wrong []string
	for tier, addrs := range c.lists() {
		for _, addr := range addrs {
			if isLoopback(hostOf(addr)) {
				wrong = append(wrong, tier+" "+addr)
			}
		}
	}
	own := c.Cluster.Advertise
	if own == "" {
		own = c.Cluster.Listen
	}
	if isLoopback(hostOf(own)) {
		wrong = append(wrong, "this process "+own)
	}
	slices.Sort(wrong)
	if len(wrong) == 0 {
		return "none", "none", true
	}
	return strings.Join(wrong, ", "), "none, with hosts " + strings.Join(c.hosts(), ", "), false
}

func oneCommitAlone(c *Config) (found, wanted string, good bool) {
	return "form " + string(c.Das.Form), "auto with several das", c.Das.Form != "one-commit" || len(c.Cluster.Das) < 2
}

func demoOff(c *Config) (found, wanted string, good bool) {
	return fmt.Sprintf("demo: %v", c.HTTPEntry.Demo), "off where others can reach it", !c.HTTPEntry.Demo || isLoopback(hostOf(c.HTTPEntry.Listen))
}

// demoKeys: a key that signs is made by dev for its tenant. Where only loopback is listened
// on, that is what it is for.
func demoKeys(c *Config) (found, wanted string, good bool) {
	const want = "none that signs, where others can reach it"
	if _, err := os.Stat(c.keysFile()); errors.Is(err, fs.ErrNotExist) {
		return "", "", true
	}
	keys, err := token.LoadKeys(c.keysFile())
	if err != nil {
		return err.Error(), want, false
	}
	_, err = keys.Sign(token.Claims{Tenant: c.Tenant, UID: "doctor", Expires: time.Now().Add(time.Minute)})
	if err != nil {
		return "none that signs for " + c.Tenant, want, true
	}
	return fmt.Sprintf("%s signs for %s", c.keysFile(), c.Tenant), want, !c.exposed()
}

// exposed tells that clients on other hosts can reach a gateway.
func (c *Config) exposed() bool {
	return c.cluster() || !isLoopback(hostOf(c.Entry.Listen)) || !isLoopback(hostOf(c.HTTPEntry.Listen))
}

func plainAppKeys(c *Config) (found, wanted string, good bool) {
	return fmt.Sprintf("plain_app_keys: %v", c.HTTPEntry.PlainAppKeys), "false where others can listen", !c.HTTPEntry.PlainAppKeys || !c.exposed()
}

func plaintext(c *Config) (found, wanted string, good bool) {
	return fmt.Sprintf("plaintext: %v", c.Entry.Plaintext), "false where others can listen", !c.Entry.Plaintext || !c.exposed()
}
