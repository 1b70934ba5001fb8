package jtransit

import (
	"slices"
	"strings"
	"time"

	"hongyan/internal/control"
)

// fileStatus names what became of Config.CallsFile as a whole.
const fileStatus = "calls_file"

// show tells what has become of the configuration of each name: once, by log, metrics and
// reports to the control centre.
func (j *Jtransit) show(status []CallStatus, values []control.Value) {
	if j.cfg.CallsFile != "" {
		status = append(status, CallStatus{Name: fileStatus, Source: "file", Err: j.fileErr})
	}
	before := map[string]CallStatus{}
	for _, s := range j.Status() {
		before[s.Name] = s
	}
	now := time.Now()
	for i := range status {
		s := &status[i]
		was, known := before[s.Name]
		s.InForce = s.Revision
		if s.Err != nil {
			s.InForce = was.InForce
		}
		if s.Missing {
			s.InForce = 0
		}
		s.Since = was.Since
		if known && was.Revision == s.Revision && was.Source == s.Source && text(was.Err) == text(s.Err) {
			continue
		}
		s.Since = now
		switch {
		case s.Err != nil && s.Missing:
			j.log.Error("call cannot be made and is not answered", "call", s.Name, "source", s.Source, "revision", s.Revision, "err", s.Err)
		case s.Err != nil:
			j.log.Error("configuration of a call refused, the last good one stays", "call", s.Name, "source", s.Source, "revision", s.Revision, "err", s.Err)
		default:
			j.log.Info("call in force", "call", s.Name, "source", s.Source, "revision", s.Revision)
		}
		if s.Err != nil {
			j.met.refused.WithLabelValues(s.Name).Inc()
		}
		if s.Source == "live" {
			j.report(KeyCalls+s.Name, s.Revision, s.InForce, s.Since, text(s.Err))
		}
	}
	j.showIDLs(values, now)
	j.statusMu.Lock()
	j.status = status
	j.statusMu.Unlock()
	j.met.forget(before, status)
}

// showIDLs reports on the texts of IDLs: a bad one is refused by every call that uses it.
func (j *Jtransit) showIDLs(values []control.Value, now time.Time) {
	shown := map[string]idlReport{}
	for _, v := range values {
		name, ok := strings.CutPrefix(v.Key, KeyIDL)
		if !ok || v.Data == nil {
			continue
		}
		was := j.idls[name]
		r := idlReport{revision: v.Revision, inForce: v.Revision, err: j.unitErr(name)}
		if r.err != "" {
			r.inForce = was.inForce
		}
		shown[name] = r
		if r != was {
			j.report(v.Key, r.revision, r.inForce, now, r.err)
		}
	}
	j.idls = shown
}

type idlReport struct {
	revision, inForce int64
	err               string
}

// unitErr is why an IDL that reads a file does not compile; empty where all do.
func (j *Jtransit) unitErr(name string) string {
	for _, u := range j.units {
		if _, reads := u.made[name]; reads && u.err != nil {
			return u.err.Error()
		}
	}
	return ""
}

func (j *Jtransit) report(key string, revision, inForce int64, since time.Time, err string) {
	if j.deps.Reports == nil {
		return
	}
	j.deps.Reports.Report(control.Report{
		Tier: "jtransit", Addr: j.deps.Addr, Key: key, Revision: revision, InForce: inForce, Since: since, Err: err,
	})
}

// Status tells what became of the configuration of every name, in their order.
func (j *Jtransit) Status() []CallStatus {
	j.statusMu.Lock()
	defer j.statusMu.Unlock()
	return slices.Clone(j.status)
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
