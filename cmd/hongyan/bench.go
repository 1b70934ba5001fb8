package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"hongyan/internal/bench"
	"hongyan/internal/secure"
	"hongyan/internal/token"
)

// benchFlags are what all scenarios share.
type benchFlags struct {
	cfg       bench.Config
	embedded  bool
	target    string
	ca        string
	transport string
	keys      string
	data      string
	serverPID int
	asJSON    bool
}

func newBenchCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bench SCENARIO",
		Short: "load, measured and checked message by message",
		Long: `Runs a load against a server and prints what came of it. With --embedded it starts a server of its
own as a child process, so that its CPU and memory can be told from the generator's.`,
		Example: "  hongyan bench pairs --embedded --pairs 200 --window 32 --duration 10s\n" +
			"  hongyan bench pairs --embedded --rate 1000 --json\n" +
			"  hongyan bench idle --embedded --transport ws --conns 10000",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return &usageError{fmt.Errorf("no scenario %q: pairs, idle, login", args[0])}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newBenchPairsCmd(), newBenchIdleCmd(), newBenchLoginCmd())
	return cmd
}

func newBenchPairsCmd() *cobra.Command {
	var f benchFlags
	cmd := &cobra.Command{
		Use:     "pairs",
		Short:   "private messages from one user of each pair to the other",
		Example: "  hongyan bench pairs --embedded --pairs 200 --window 1",
		Args:    noArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return f.run(cmd, bench.Pairs) },
	}
	f.register(cmd, 10*time.Second)
	fs := cmd.Flags()
	fs.DurationVar(&f.cfg.Warmup, "warmup", 2*time.Second, "not measured, at the start")
	fs.IntVar(&f.cfg.Pairs, "pairs", 200, "pairs of users")
	fs.IntVar(&f.cfg.Window, "window", 32, "unacknowledged messages per pair")
	fs.Float64Var(&f.cfg.Rate, "rate", 0, "messages per second over all pairs, instead of a window; latency counts from the intended time")
	fs.IntVar(&f.cfg.Size, "size", 256, "bytes of content")
	return cmd
}

func newBenchIdleCmd() *cobra.Command {
	var f benchFlags
	cmd := &cobra.Command{
		Use:     "idle",
		Short:   "authenticated connections that do nothing",
		Example: "  hongyan bench idle --embedded --conns 10000 --duration 30s",
		Args:    noArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return f.run(cmd, bench.Idle) },
	}
	f.register(cmd, 30*time.Second)
	cmd.Flags().IntVar(&f.cfg.Conns, "conns", 10000, "connections")
	return cmd
}

func newBenchLoginCmd() *cobra.Command {
	var f benchFlags
	cmd := &cobra.Command{
		Use:     "login",
		Short:   "users who log in and leave, over and over; ack_* is from the dial to the answer, CPU is per login",
		Example: "  hongyan bench login --embedded --conns 64",
		Args:    noArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return f.run(cmd, bench.Login) },
	}
	f.register(cmd, 10*time.Second)
	fs := cmd.Flags()
	fs.DurationVar(&f.cfg.Warmup, "warmup", 2*time.Second, "not measured, at the start")
	fs.IntVar(&f.cfg.Conns, "conns", 64, "users that log in at the same time")
	return cmd
}

func (f *benchFlags) register(cmd *cobra.Command, duration time.Duration) {
	fs := cmd.Flags()
	fs.BoolVar(&f.embedded, "embedded", false, "start a server of its own, as a child process")
	fs.StringVar(&f.target, "target", "", "a running server: tcp://127.0.0.1:7000, ws://127.0.0.1:8000 or http://127.0.0.1:8000 (long poll); with TLS tls://, wss:// or https://")
	fs.StringVar(&f.ca, "ca", "", "a PEM file of the authorities that sign the server's certificate; empty = those of the system")
	fs.StringVar(&f.transport, "transport", "tcp", "tcp, ws or poll, with --embedded")
	fs.StringVar(&f.keys, "keys", "", "the server's keys.json, to make tokens; default: in --data")
	fs.StringVar(&f.data, "data", "data", "the server's data directory")
	fs.IntVar(&f.serverPID, "server-pid", 0, "the server's process, for its CPU and memory")
	fs.StringVar(&f.cfg.Tenant, "tenant", "demo", "the tenant of the users")
	fs.DurationVar(&f.cfg.Duration, "duration", duration, "measured")
	fs.BoolVar(&f.asJSON, "json", false, "one JSON object")
}

func (f *benchFlags) run(cmd *cobra.Command, scenario func(context.Context, bench.Config) (*bench.Result, error)) error {
	ctx, stderr := cmd.Context(), cmd.ErrOrStderr()
	if err := f.connect(ctx, stderr); err != nil {
		return err
	}
	defer f.cfg.Server.Close()
	if file, ok := stderr.(*os.File); ok && term.IsTerminal(int(file.Fd())) {
		f.cfg.Progress = stderr
	}
	result, err := scenario(ctx, f.cfg)
	if err != nil {
		return err
	}
	write := result.WriteTable
	if f.asJSON {
		write = result.WriteJSON
	}
	if err := write(cmd.OutOrStdout()); err != nil {
		return err
	}
	if !result.Clean() {
		return &violationError{errors.New("messages were lost, doubled or out of order")}
	}
	return nil
}

// connect finds the server, or starts it.
func (f *benchFlags) connect(ctx context.Context, stderr io.Writer) error {
	if f.embedded == (f.target != "") {
		return &usageError{errors.New("give --embedded, or --target of a running server")}
	}
	if !slices.Contains([]string{bench.TCP, bench.WebSocket, bench.Poll}, f.transport) {
		return &usageError{fmt.Errorf("--transport %q: must be tcp, ws or poll", f.transport)}
	}
	if f.embedded {
		server, err := bench.StartEmbedded(ctx)
		if err != nil {
			return err
		}
		fmt.Fprintf(stderr, "started a server of our own, process %d\n", server.PID)
		f.cfg.Server, f.keys = server, server.Keys
		switch f.transport {
		case bench.WebSocket:
			f.target = "ws" + strings.TrimPrefix(server.HTTP, "http")
		case bench.Poll:
			f.target = server.HTTP
		default:
			f.target = "tcp://" + server.TCP
		}
	} else {
		f.cfg.Server = &bench.Server{PID: f.serverPID}
	}
	target, err := url.Parse(f.target)
	if err != nil || target.Host == "" {
		return &usageError{fmt.Errorf("--target %q: must be like tcp://127.0.0.1:7000", f.target)}
	}
	f.cfg.Target = target
	if f.cfg.TLS, err = (secure.Client{CA: f.ca}).Load(); err != nil {
		return &usageError{fmt.Errorf("--ca: %w", err)}
	}
	if f.keys == "" {
		f.keys = (&Config{Data: f.data}).keysFile()
	}
	keys, err := token.LoadKeys(f.keys)
	if err != nil {
		return fmt.Errorf("keys to make tokens with: %w", err)
	}
	f.cfg.Keys = keys
	return nil
}
