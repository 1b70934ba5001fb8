package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"hongyan/idl/im"
	"hongyan/internal/conv"
	"hongyan/internal/secure"
	"hongyan/internal/token"
	hongyan "hongyan/sdk/go"
)

// chatFlags of one run.
type chatFlags struct {
	as, to, target, ca, data, keys, tenant, device string
	history                                        uint32
	linger                                         time.Duration
}

// connectPatience is how long a chat tries to get its first connection.
const connectPatience = 10 * time.Second

func newChatCmd() *cobra.Command {
	var f chatFlags
	cmd := &cobra.Command{
		Use:   "chat --as U --to V",
		Short: "chat in the terminal",
		Long: `Talks to another user, one line a message. /help tells the commands. Without a terminal it sends
what it reads and ends when that was stored.`,
		Example: "  hongyan chat --as alice --to bob\n  echo 'it is on its way' | hongyan chat --as bob --to alice --target ws://127.0.0.1:8000",
		Args:    noArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	fs := cmd.Flags()
	fs.StringVar(&f.as, "as", "", "who you are")
	fs.StringVar(&f.to, "to", "", "whom you talk to")
	fs.StringVar(&f.target, "target", "tcp://127.0.0.1:7000", "the server: tcp://, ws:// or http:// (long poll); with TLS tls://, wss:// or https://")
	fs.StringVar(&f.ca, "ca", "", "a PEM file of the authorities that sign the server's certificate; empty = those of the system")
	fs.StringVar(&f.data, "data", "data", "the server's data directory, for its keys")
	fs.StringVar(&f.keys, "keys", "", "the server's keys.json, to make your token; default: in --data")
	fs.StringVar(&f.tenant, "tenant", "demo", "the tenant")
	fs.StringVar(&f.device, "device", "", "the name of this device; empty = a new one")
	fs.Uint32Var(&f.history, "history", 20, "earlier messages shown at the start, at most 200")
	fs.DurationVar(&f.linger, "linger", 0, "without a terminal: go on listening for so long after the input has ended")
	return cmd
}

func (f *chatFlags) run(cmd *cobra.Command) error {
	ctx := cmd.Context()
	id, err := conv.Private(f.as, f.to)
	if err != nil {
		return &usageError{fmt.Errorf("--as and --to: %w", err)}
	}
	if f.history > 200 {
		return &usageError{fmt.Errorf("--history %d: at most 200", f.history)}
	}
	screen, lines, restore, err := openScreen(cmd.InOrStdin(), cmd.OutOrStdout())
	if err != nil {
		return err
	}
	defer restore()
	c := &chat{flags: f, conv: id, out: screen, shown: map[uint64]bool{}, unanswered: map[string]bool{}, settled: make(chan struct{}, 1), left: make(chan error, 1)}
	if err := c.open(); err != nil {
		return err
	}
	err = c.talk(ctx, lines)
	return errors.Join(err, c.client.Close())
}

// openScreen returns where to write and the lines that are typed. On a terminal incoming
// lines do not tear what is being typed. The goroutine that reads ends with the input or
// the process: a read of stdin cannot be interrupted.
func openScreen(in io.Reader, out io.Writer) (io.Writer, <-chan string, func(), error) {
	lines := make(chan string) // nobody types faster than we send
	stdin, ok1 := in.(*os.File)
	stdout, ok2 := out.(*os.File)
	if !ok1 || !ok2 || !term.IsTerminal(int(stdin.Fd())) || !term.IsTerminal(int(stdout.Fd())) {
		go func() {
			defer close(lines)
			s := bufio.NewScanner(in)
			s.Buffer(nil, 1<<20)
			for s.Scan() {
				lines <- s.Text()
			}
		}()
		return out, lines, func() {}, nil
	}
	before, err := term.MakeRaw(int(stdin.Fd()))
	if err != nil {
		return nil, nil, nil, fmt.Errorf("terminal: %w", err)
	}
	t := term.NewTerminal(struct {
		io.Reader
		io.Writer
	}{stdin, stdout}, "> ")
	if width, height, err := term.GetSize(int(stdout.Fd())); err == nil {
		_ = t.SetSize(width, height)
	}
	go func() {
		defer close(lines)
		for {
			line, err := t.ReadLine()
			if err != nil {
				return
			}
			lines <- line
		}
	}()
	return t, lines, func() { _ = term.Restore(int(stdin.Fd()), before) }, nil
}

// chat is one conversation on a screen.
type chat struct {
	flags  *chatFlags
	conv   string
	client *hongyan.Client
	left   chan error // the server ended it for good; 1

	mu         sync.Mutex
	out        io.Writer
	waiting    []*hongyan.Message // that came before the history was shown
	started    bool
	shown      map[uint64]bool // seqs
	top        uint64          // the highest
	mine       uint64          // seq of the newest own message
	read       uint64          // up to where the other side has read
	unanswered map[string]bool // sends by client_msg_id
	failed     int
	settled    chan struct{} // an answer came; 1
}

func (c *chat) open() error {
	file := c.flags.keys
	if file == "" {
		file = (&Config{Data: c.flags.data}).keysFile()
	}
	keys, err := token.LoadKeys(file)
	if err != nil {
		return fmt.Errorf("keys to make a token with: %w", err)
	}
	if c.flags.device == "" {
		var b [4]byte
		_, _ = rand.Read(b[:]) // never fails
		c.flags.device = "chat-" + hex.EncodeToString(b[:])
	}
	tlsConfig, err := (secure.Client{CA: c.flags.ca}).Load()
	if err != nil {
		return &usageError{fmt.Errorf("--ca: %w", err)}
	}
	c.client, err = hongyan.New(hongyan.Options{
		Endpoints: []string{c.flags.target},
		Device:    c.flags.device,
		TLS:       tlsConfig,
		Token: func(context.Context) (string, error) {
			return keys.Sign(token.Claims{Tenant: c.flags.tenant, UID: c.flags.as, Expires: time.Now().Add(time.Hour)})
		},
		On: hongyan.Handlers{
			Message: c.received, Sent: c.sent, Failed: c.refused, Read: c.seen, Modified: c.modified,
			State: c.state,
		},
	})
	if err != nil {
		return &usageError{fmt.Errorf("--target: %w", err)}
	}
	return nil
}

func (c *chat) talk(ctx context.Context, lines <-chan string) error {
	first, cancel := context.WithTimeout(ctx, connectPatience)
	defer cancel()
	if err := c.client.Connect(first); err != nil {
		return fmt.Errorf("log in as %s at %s: %w", c.flags.as, c.flags.target, err)
	}
	if err := c.begin(ctx); err != nil {
		return err
	}
	for {
		select {
		case line, ok := <-lines:
			if !ok {
				return c.finish(ctx)
			}
			if quit := c.line(ctx, strings.TrimSpace(line)); quit {
				return c.finish(ctx)
			}
		case err := <-c.left:
			return err
		case <-ctx.Done():
			return nil
		}
	}
}

// begin shows the newest messages, and from then on what comes.
func (c *chat) begin(ctx context.Context) error {
	var list []*hongyan.Message
	if c.flags.history > 0 {
		got, _, err := c.client.History(ctx, c.conv, hongyan.HistoryQuery{Limit: c.flags.history})
		if notFound := hongyan.CodeOf(err) == hongyan.NotFound; err != nil && !notFound {
			return fmt.Errorf("history: %w", err)
		}
		list = got
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range append(list, c.waiting...) {
		c.showLocked(m)
	}
	c.started, c.waiting = true, nil
	return nil
}

// finish waits until everything typed is stored.
func (c *chat) finish(ctx context.Context) error {
	if c.flags.linger > 0 {
		select {
		case <-time.After(c.flags.linger):
		case <-ctx.Done():
		}
	}
	for {
		c.mu.Lock()
		open, failed := len(c.unanswered), c.failed
		c.mu.Unlock()
		if open == 0 && failed > 0 {
			return fmt.Errorf("%d messages were not taken", failed)
		}
		if open == 0 {
			return nil
		}
		select {
		case <-c.settled:
		case err := <-c.left:
			return err
		case <-ctx.Done():
			return fmt.Errorf("%d messages were not acknowledged", open)
		}
	}
}

const chatHelp = `/recall   take your newest message back
/edit T   replace its text by T
/who      is the other side online?
/block, /unblock
/quit     (or Ctrl-D)`

func (c *chat) line(ctx context.Context, line string) (quit bool) {
	command, rest, _ := strings.Cut(line, " ")
	switch command {
	case "":
	case "/quit":
		return true
	case "/help":
		c.print("%s", chatHelp)
	case "/recall", "/edit":
		c.change(command, strings.TrimSpace(rest))
	case "/who":
		c.who(ctx)
	case "/block", "/unblock":
		if err := c.client.Block(ctx, c.flags.to, command == "/block"); err != nil {
			c.print("  ! %v", err)
		}
	default:
		c.send(hongyan.Outgoing{To: c.flags.to, Text: line})
	}
	return false
}

func (c *chat) change(command, text string) {
	c.mu.Lock()
	target := c.mine
	c.mu.Unlock()
	switch {
	case target == 0:
		c.print("  ! there is no message of yours here")
	case command == "/edit" && text == "":
		c.print("  ! /edit needs the new text")
	case command == "/edit":
		c.send(hongyan.Outgoing{Cmd: im.Cmd_EDIT, Conv: c.conv, Target: target, Text: text})
	default:
		c.send(hongyan.Outgoing{Cmd: im.Cmd_RECALL, Conv: c.conv, Target: target})
	}
}

func (c *chat) send(m hongyan.Outgoing) {
	c.mu.Lock()
	defer c.mu.Unlock() // before the outcome can come
	m.Displayed = c.top
	id, err := c.client.SendAsync(m)
	if err != nil {
		c.printLocked("  ! %v", err)
		c.failed++
		return
	}
	c.unanswered[id] = true
}

func (c *chat) who(ctx context.Context) {
	users, err := c.client.Presence(ctx, c.flags.to)
	switch {
	case err != nil:
		c.print("  ! %v", err)
	case len(users) == 1 && users[0].Online:
		c.print("  %s is online: %s", c.flags.to, strings.Join(users[0].Platforms, ", "))
	default:
		c.print("  %s is offline", c.flags.to)
	}
}

func (c *chat) received(m *hongyan.Message) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case m.Conv != c.conv:
		if c.started {
			c.printLocked("  (a message of %s)", clean(m.Sender))
		}
	case !c.started:
		c.waiting = append(c.waiting, m)
	default:
		c.showLocked(m)
	}
}

// showLocked prints a message once, and marks it as read.
func (c *chat) showLocked(m *hongyan.Message) {
	if c.shown[m.Seq] {
		return
	}
	c.shown[m.Seq] = true
	c.top = max(c.top, m.Seq)
	own := m.Sender == c.flags.as
	if m.Kind >= im.Kind_EVENT_RECALL {
		return // told as what it changes
	}
	text := clean(m.Text)
	switch {
	case m.Recalled:
		text = "(recalled)"
	case text == "":
		text = fmt.Sprintf("(%s, %d bytes)", strings.ToLower(m.Kind.String()), len(m.Data))
	}
	c.printLocked("%s %s: %s", time.UnixMilli(m.CreatedMs).Format("15:04"), clean(m.Sender), text)
	if own {
		c.mine = max(c.mine, m.Seq)
	} else {
		c.client.MarkRead(c.conv, m.Seq)
	}
}

func (c *chat) sent(s hongyan.Sent) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.Message.Conv == c.conv && c.started {
		c.showLocked(s.Message)
	}
	c.answeredLocked(s.ClientMsgID)
}

func (c *chat) refused(f hongyan.Failed) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.printLocked("  ! not sent: %q: %v", f.Outgoing.Text, f.Err)
	c.failed++
	c.answeredLocked(f.ClientMsgID)
}

func (c *chat) answeredLocked(id string) {
	delete(c.unanswered, id)
	select {
	case c.settled <- struct{}{}:
	default:
	}
}

// seen tells when the other side has read the newest own message.
func (c *chat) seen(r hongyan.Read) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.Conv != c.conv || !r.ByPeer {
		return
	}
	if c.started && c.read < c.mine && r.Seq >= c.mine {
		c.printLocked("  (read)")
	}
	c.read = max(c.read, r.Seq)
}

func (c *chat) modified(m hongyan.Modified) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case m.Conv != c.conv || !c.started: // what is shown later is as it is now
	case m.Recalled:
		c.printLocked("  (message %d was recalled)", m.Seq)
	default:
		c.printLocked("  (message %d now says: %s)", m.Seq, clean(m.Text))
	}
}

func (c *chat) state(s hongyan.State, reason error) {
	switch {
	case s == hongyan.Stopped && !errors.Is(reason, hongyan.ErrClosed):
		select {
		case c.left <- fmt.Errorf("the server ended the session: %w", reason):
		default:
		}
	case s == hongyan.Connecting && reason != nil:
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.started {
			c.printLocked("  (connection lost: %v; trying again)", reason)
		}
	}
}

func (c *chat) print(format string, a ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.printLocked(format, a...)
}

func (c *chat) printLocked(format string, a ...any) {
	_, _ = fmt.Fprintf(c.out, format+"\n", a...)
}

// clean keeps what others write from steering the terminal.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\t' || unicode.Is(unicode.Bidi_Control, r) {
			return '\uFFFD'
		}
		return r
	}, s)
}
