package das

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"hongyan/das/store/memory"
	"hongyan/idl/code"
	"hongyan/idl/im"
	"hongyan/idl/tier"
)

var update = flag.Bool("update", false, "write the answers of flows anew")

// TestFlows plays the scripts of testdata/flows: lines that begin with > are commands, the
// lines after them what das must answer. -update writes the answers anew, to be read.
//
//	send DAS CONV SENDER ID TEXT [attempt=N] [after=ID] [shown=N] [& CONV SENDER ID TEXT ...]
//	recall|edit DAS CONV SENDER ID TARGET [TEXT]     block|unblock DAS CONV SENDER ID
//	read DAS UID CONV SEQ                            settings DAS UID CONV FIELD
//	drive DAS          the fan-outs that the last answer orders
//	sync DAS UID EPOCH CURSOR      history DAS UID CONV      rows DAS fanout|deliver
//	lose before|after  the next commit or its answer         restart DAS
func TestFlows(t *testing.T) {
	files, err := filepath.Glob("testdata/flows/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no flows", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) { playFlow(t, file) })
	}
}

type flow struct {
	*bed
	script        string
	exclusive     bool
	das           map[string]*Das
	stop          map[string]func() error
	before, after trap
	last          answers
	out           strings.Builder
}

func playFlow(t *testing.T, file string) {
	f := newFlow(t, file)
	opt := memory.Options{Strict: true, Exclusive: f.exclusive, BeforeCommit: f.before.hit, AfterCommit: f.after.hit}
	inBed(t, memory.New(opt), f.play)
	if *update {
		if err := os.WriteFile(file, []byte(f.out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	f.compare(t)
}

func newFlow(t *testing.T, file string) *flow {
	t.Helper()
	script, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return &flow{
		script: string(script), exclusive: strings.Contains(string(script), "\n# store: exclusive"),
		das: make(map[string]*Das), stop: make(map[string]func() error),
	}
}

func (f *flow) play(t *testing.T, b *bed) {
	f.bed = b
	for line := range strings.Lines(f.script) {
		switch {
		case strings.HasPrefix(line, ">"):
			f.out.WriteString(line)
			f.command(strings.Fields(line[1:]))
		case strings.HasPrefix(line, "#") || strings.TrimSpace(line) == "":
			f.out.WriteString(line)
		}
	}
	for _, stop := range f.stop {
		if err := stop(); err != nil {
			t.Error(err)
		}
	}
}

func (f *flow) compare(t *testing.T) {
	t.Helper()
	if got := f.out.String(); got != f.script {
		t.Errorf("got:\n%s\nwant:\n%s", got, f.script)
	}
}

func (f *flow) command(w []string) {
	arg := func(i int) string {
		if i < len(w) {
			return w[i]
		}
		return ""
	}
	num := func(i int) uint64 { n, _ := strconv.ParseUint(arg(i), 10, 64); return n }
	switch w[0] {
	case "send":
		f.send(w)
	case "recall":
		f.show(f.write(f.on(arg(1)), modify(im.Kind_EVENT_RECALL, arg(2), arg(3), arg(4), num(5), "")))
	case "edit":
		f.show(f.write(f.on(arg(1)), modify(im.Kind_EVENT_EDIT, arg(2), arg(3), arg(4), num(5), arg(6))))
	case "block", "unblock":
		f.show(f.write(f.on(arg(1)), block(arg(2), arg(3), arg(4), w[0] == "block")))
	case "read":
		f.show(f.write(f.on(arg(1)), read(arg(2), arg(3), num(4))))
	case "settings":
		s := &im.Settings{Conv: arg(3), Pinned: true, Muted: true, Hidden: true, Remark: "remark", Fields: w[4:]}
		f.show(f.write(f.on(arg(1)), settings(arg(2), s)))
	case "drive":
		f.drive(f.on(arg(1)))
	case "sync":
		f.syncCommand(f.on(arg(1)), arg(2), num(3), num(4))
	case "history":
		f.printf("%s\n", texts(f.history(f.on(arg(1)), arg(2), arg(3))))
	case "rows":
		kind := tier.Outbox(tier.Outbox_value[strings.ToUpper(arg(2))])
		f.printf("%s\n", f.rows(f.on(arg(1)), kind))
	case "lose":
		x := &f.before
		if arg(1) == "after" {
			x = &f.after
		}
		x.arm(1)
	case "restart":
		if err := f.stop[arg(1)](); err != nil {
			f.Error(err)
		}
		delete(f.das, arg(1))
		time.Sleep(time.Second)
	default:
		f.Fatalf("unknown command %q", w)
	}
}

func (f *flow) printf(format string, a ...any) { fmt.Fprintf(&f.out, format, a...) }

// on is the das of a name, D0, D1...; it is started when it is first named.
func (f *flow) on(name string) *Das {
	if f.das[name] == nil {
		slot, err := strconv.Atoi(strings.TrimPrefix(name, "D"))
		if err != nil {
			f.Fatalf("das %q", name)
		}
		f.das[name], f.stop[name] = f.startStoppable(slot)
	}
	return f.das[name]
}

func (f *flow) send(w []string) {
	var items []*tier.Submit
	for i := 2; i+3 < len(w); {
		s := send(w[i], w[i+1], w[i+2], w[i+3])
		for i += 4; i < len(w) && w[i] != "&"; i++ {
			k, v, _ := strings.Cut(w[i], "=")
			n, _ := strconv.ParseUint(v, 10, 32)
			switch k {
			case "attempt":
				s.Append.Attempt = uint32(n)
			case "after":
				s.Append.After = v
			case "shown":
				s.Append.DisplayedSeq = n
			default:
				f.Fatalf("option %q", w[i])
			}
		}
		items, i = append(items, s), i+1
	}
	f.show(f.write(f.on(w[1]), items...))
}

// show writes an answer down: a line an item, a line a change.
func (f *flow) show(a answers) {
	f.last = a
	for _, s := range a.items {
		if s.Code != 0 {
			f.printf("%s\n", code.Code(s.Code).Name())
			continue
		}
		f.printf("ok")
		if p := s.Append; p != nil {
			if p.Seq > 0 {
				f.printf(" %s/%d", p.Conv, p.Seq)
			}
			if p.Duplicate {
				f.printf(" duplicate")
			}
			for _, m := range p.Order.GetMembers() {
				f.printf(" order(%s last %d/%d peer_read %d)", m.Uid, m.LastSeq, m.LastOrd, m.PeerReadSeq)
			}
		}
		if s.Version > 0 {
			f.printf(" version %d last_seq %d", s.Version, s.LastSeq)
		}
		f.printf("\n")
	}
	for _, c := range a.changes {
		kind := "again"
		if c.Deliver > 0 {
			kind = "new"
		}
		f.printf("  %s %s: %s\n", kind, c.Uid, rowLine(c.Row))
	}
}

func rowLine(r *im.Conversation) string {
	s := fmt.Sprintf("@%d %s last %d read %d peer_read %d unread %d", r.Version, r.Conv, r.LastSeq, r.ReadSeq, r.PeerReadSeq, r.Unread)
	if r.Blocked {
		s += " blocked"
	}
	if r.Pinned || r.Muted || r.Hidden || r.Remark != "" {
		s += fmt.Sprintf(" pinned %t muted %t hidden %t remark %q", r.Pinned, r.Muted, r.Hidden, r.Remark)
	}
	if len(r.Messages) > 0 {
		s += " [" + texts(r.Messages) + "]"
	}
	return s
}

func (f *flow) drive(d *Das) {
	for _, s := range f.last.items {
		for _, m := range s.GetAppend().GetOrder().GetMembers() {
			a := f.write(d, &tier.Submit{Fanout: m})
			for _, c := range a.changes {
				f.printf("  %s\n", c.Uid+": "+rowLine(c.Row))
			}
		}
	}
}

func (f *flow) syncCommand(d *Das, uid string, epoch, cursor uint64) {
	rsp, err := d.Sync(f.Context(), &tier.SyncRequest{Tenant: tenant, Uid: uid, Sync: &im.Sync{Epoch: epoch, Cursor: cursor}})
	switch {
	case err != nil:
		f.printf("%v\n", err)
	case rsp.MustReset:
		f.printf("reset, epoch %d head %d\n", rsp.Epoch, rsp.Head)
	default:
		f.printf("cursor %d of %d\n", rsp.NextCursor, rsp.Head)
		for _, r := range rsp.Changes {
			f.printf("  %s\n", rowLine(r))
		}
	}
}
