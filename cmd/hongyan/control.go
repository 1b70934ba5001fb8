package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"hongyan/das/store/shards"
	"hongyan/internal/config"
	"hongyan/internal/control"
	"hongyan/internal/control/etcd"
	"hongyan/internal/control/settings"
	"hongyan/jtransit"
)

func newControlCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "control",
		Short: "the control centre: who runs where, and live values",
		Long: `Reads and writes the control centre of a cluster (etcd, control.endpoints). Values:

  config/<tier>          YAML over the configuration of a tier; keys marked live change at once
  shards/map             which buckets are in which database (hongyan db)
  jtransit/calls/<name>  one call of a platform service
  jtransit/idl/<path>    the text of an IDL`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newControlInstancesCmd(), newControlGetCmd(), newControlSetCmd(), newControlWatchCmd(), newControlForgetCmd())
	return cmd
}

// controlFlags are on every subcommand of control.
type controlFlags struct {
	load      loadFlags
	endpoints []string
	asJSON    bool
}

func (f *controlFlags) register(cmd *cobra.Command) {
	f.load.register(cmd)
	cmd.Flags().StringSliceVar(&f.endpoints, "endpoints", nil, "URLs of etcd; default: control.endpoints of the configuration")
	cmd.Flags().BoolVar(&f.asJSON, "json", false, "one JSON object")
}

// with opens the control centre for one command.
func (f *controlFlags) with(cmd *cobra.Command, run func(ctx context.Context, c *etcd.Center) error) (err error) {
	f.load.set(cmd, "endpoints", "control.endpoints", f.endpoints)
	cfg, err := f.load.load(defaultConfig())
	if err != nil {
		return err
	}
	if !cfg.usesEtcd() {
		return &usageError{errors.New("no control centre: give --endpoints, or control.endpoints in the configuration")}
	}
	cfg.Control.Snapshot = "" // what an operator sees is what etcd has now
	c, err := etcd.Open(cmd.Context(), cfg.Control, etcd.Deps{})
	if err != nil {
		return oneLine(err)
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	return run(cmd.Context(), c)
}

func oneLine(err error) error { return errors.New(joinLines(err)) }

func newControlInstancesCmd() *cobra.Command {
	var flags controlFlags
	cmd := &cobra.Command{
		Use:     "instances [TIER...]",
		Short:   "the slots of each tier and who holds them",
		Example: "  hongyan control instances --endpoints http://127.0.0.1:2379\n  hongyan control instances logic das --json",
		RunE: func(cmd *cobra.Command, tiers []string) error {
			return flags.with(cmd, func(ctx context.Context, c *etcd.Center) error {
				if len(tiers) == 0 {
					tiers = c.Tiers()
				}
				rows, err := instanceRows(ctx, c, tiers)
				if err != nil {
					return err
				}
				unreadable := unreadableKeys(c)
				if flags.asJSON {
					return json.NewEncoder(cmd.OutOrStdout()).Encode(map[string]any{"instances": rows, "unreadable": unreadable})
				}
				if err := printInstances(cmd.OutOrStdout(), rows); err != nil {
					return err
				}
				for _, u := range unreadable {
					fmt.Fprintf(cmd.ErrOrStderr(), "ignored, because it cannot be read: %s: %s\n", u.Key, u.Err)
				}
				return nil
			})
		},
	}
	flags.register(cmd)
	return cmd
}

// instanceRow is one slot. Addr empty: nobody holds it now.
type instanceRow struct {
	Tier   string `json:"tier"`
	Slot   int    `json:"slot"`
	Addr   string `json:"addr"`
	Boot   string `json:"boot"`
	Serves string `json:"serves,omitempty"`
	Shards string `json:"shards,omitempty"`
}

func instanceRows(ctx context.Context, c control.Center, tiers []string) ([]instanceRow, error) {
	rows := []instanceRow{}
	for _, tier := range tiers {
		m, err := c.Members(ctx, tier)
		if err != nil {
			return nil, err
		}
		for slot := range m.Slots {
			row := instanceRow{Tier: tier, Slot: slot}
			for _, in := range m.Instances {
				if in.Slot == slot {
					row.Addr, row.Boot, row.Serves, row.Shards = in.Addr, in.Boot, in.Serves, in.Shards
				}
			}
			rows = append(rows, row)
		}
	}
	return rows, nil
}

func printInstances(out io.Writer, rows []instanceRow) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "TIER\tSLOT\tADDRESS\tBOOT\tSERVES\tSHARDS")
	for _, r := range rows {
		if r.Addr == "" {
			r.Addr, r.Boot = "(nobody)", "-"
		}
		if r.Serves == "" {
			r.Serves = "all"
		}
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\n", r.Tier, r.Slot, r.Addr, r.Boot, r.Serves, cmp.Or(r.Shards, "-"))
	}
	return w.Flush()
}

type unreadableKey struct {
	Key string `json:"key"`
	Err string `json:"err"`
}

func unreadableKeys(c *etcd.Center) []unreadableKey {
	keys := []unreadableKey{}
	for key, err := range c.Unreadable() {
		keys = append(keys, unreadableKey{key, err.Error()})
	}
	slices.SortFunc(keys, func(a, b unreadableKey) int { return strings.Compare(a.Key, b.Key) })
	return keys
}

func newControlGetCmd() *cobra.Command {
	var flags controlFlags
	cmd := &cobra.Command{
		Use:     "get [KEY]",
		Short:   "a value, and what every process made of it; without a key: which there are",
		Example: "  hongyan control get\n  hongyan control get config/entry",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return &usageError{errors.New("one key, or none")}
			}
			return flags.with(cmd, func(ctx context.Context, c *etcd.Center) error {
				if len(args) == 0 {
					return listValues(ctx, cmd.OutOrStdout(), c, flags.asJSON)
				}
				return getValue(ctx, cmd.OutOrStdout(), c, args[0], flags.asJSON)
			})
		},
	}
	flags.register(cmd)
	return cmd
}

// valueJSON is a value as scripts see it.
type valueJSON struct {
	Key      string           `json:"key"`
	Set      bool             `json:"set"`
	Revision int64            `json:"revision"`
	Text     string           `json:"text"`
	Reports  []control.Report `json:"reports"`
}

func getValue(ctx context.Context, out io.Writer, c *etcd.Center, key string, asJSON bool) error {
	v, err := c.Value(ctx, key)
	if err != nil {
		return err
	}
	reports, err := c.Reports(ctx, key)
	if err != nil {
		return err
	}
	if asJSON {
		return json.NewEncoder(out).Encode(valueJSON{key, v.Data != nil, v.Revision, string(v.Data), append([]control.Report{}, reports...)})
	}
	if v.Data == nil {
		fmt.Fprintf(out, "# %s is not set\n", key)
	} else {
		fmt.Fprintf(out, "# %s, revision %d\n%s\n", key, v.Revision, strings.TrimRight(string(v.Data), "\n"))
	}
	return printReports(out, reports, v.Revision)
}

// printReports tells what became of revision in each process.
func printReports(out io.Writer, reports []control.Report, revision int64) error {
	if len(reports) == 0 {
		return nil
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "TIER\tPROCESS\tREVISION\tIN FORCE\tSINCE\tRESULT")
	for _, r := range reports {
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%s\t%s\n", r.Tier, r.Addr, r.Revision, r.InForce, r.Since.Local().Format(time.DateTime), result(r, revision))
	}
	return w.Flush()
}

func result(r control.Report, revision int64) string {
	switch {
	case r.Err != "":
		return "REFUSED: " + r.Err
	case r.Revision != revision:
		return "not seen yet"
	case len(r.Notes) > 0:
		return strings.Join(r.Notes, ", ")
	}
	return "ok"
}

func listValues(ctx context.Context, out io.Writer, c control.Values, asJSON bool) error {
	ctx, end := context.WithCancel(ctx)
	defer end()
	var all []control.Value
	if err := c.WatchValues(ctx, "", func(set []control.Value) { all = set; end() }); err != nil {
		return err
	}
	if asJSON {
		rows := []valueJSON{}
		for _, v := range all {
			rows = append(rows, valueJSON{Key: v.Key, Set: true, Revision: v.Revision, Text: string(v.Data), Reports: []control.Report{}})
		}
		return json.NewEncoder(out).Encode(map[string]any{"values": rows})
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "KEY\tREVISION\tBYTES")
	for _, v := range all {
		fmt.Fprintf(w, "%s\t%d\t%d\n", v.Key, v.Revision, len(v.Data))
	}
	return w.Flush()
}

func newControlSetCmd() *cobra.Command {
	var flags controlFlags
	var text string
	var revision int64
	var remove, force bool
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "set KEY [FILE]",
		Short: "sets a value that processes take over while they run",
		Long: `Checks the value, writes it, and waits for the processes that follow it to say what they made of
it. FILE - is standard input. Exit code 1 if the value is bad or a process refused it: what
was good before stays in force there.`,
		Example: "  hongyan control set config/entry --text 'log: {level: debug}'\n  hongyan control set jtransit/calls/price price.yaml\n" +
			"  hongyan control set config/entry --remove",
		RunE: func(cmd *cobra.Command, args []string) error {
			data, err := valueToSet(cmd, args, text, remove)
			if err != nil {
				return err
			}
			if !force && data != nil {
				if err := checkValue(args[0], data); err != nil {
					return fmt.Errorf("%s: %w", args[0], oneLine(err))
				}
			}
			return flags.with(cmd, func(ctx context.Context, c *etcd.Center) error {
				return setValue(ctx, cmd.OutOrStdout(), c, args[0], data, revision, wait, flags.asJSON)
			})
		},
	}
	flags.register(cmd)
	f := cmd.Flags()
	f.StringVar(&text, "text", "", "the value, in place of a file")
	f.BoolVar(&remove, "remove", false, "remove the value: defaults are in force again")
	f.Int64Var(&revision, "revision", control.AnyRevision, "only if the value still has this revision; 0 = if it is not set")
	f.BoolVar(&force, "force", false, "write without checking")
	f.DurationVar(&wait, "wait", 5*time.Second, "how long to wait for the processes that follow it")
	return cmd
}

func valueToSet(cmd *cobra.Command, args []string, text string, remove bool) ([]byte, error) {
	asText := cmd.Flags().Changed("text")
	given := 0
	for _, is := range []bool{len(args) == 2, asText, remove} {
		if is {
			given++
		}
	}
	if len(args) < 1 || len(args) > 2 || given != 1 {
		return nil, &usageError{errors.New("set takes a key and one of: a file, --text, --remove")}
	}
	switch {
	case remove:
		return nil, nil
	case asText:
		return []byte(text), nil
	case args[1] == "-":
		return io.ReadAll(io.LimitReader(cmd.InOrStdin(), control.MaxValue+1))
	}
	return os.ReadFile(args[1])
}

// fixedKeys are of one process alone: where it is, and how it finds the control centre.
var fixedKeys = []string{"data", "cluster", "control", "values", "log.dir", "log.admin"}

// checkValue tells what is wrong with a value before anybody sees it.
func checkValue(key string, data []byte) error {
	if err := control.ValidValue(key, data); err != nil {
		return err
	}
	if tier, ok := strings.CutPrefix(key, settings.Key("")); ok {
		if !slices.ContainsFunc(targets(), func(t target) bool { return t.name == tier }) {
			return fmt.Errorf("there is no tier %q", tier)
		}
		cfg := defaultConfig()
		if err := config.Load(&cfg, config.Sources{Overlay: data, OverlayName: "value", OverlayFixed: fixedKeys}); err != nil {
			return err
		}
		return cfg.Validate()
	}
	switch {
	case key == shards.MapKey:
		_, err := shards.ParseMap(data)
		return err
	case strings.HasPrefix(key, jtransit.KeyCalls):
		_, err := jtransit.ParseCall(strings.TrimPrefix(key, jtransit.KeyCalls), data)
		return err
	case strings.HasPrefix(key, jtransit.KeyIDL):
		return nil // only jtransit, with all its calls, can tell
	}
	return errors.New("nobody reads this key: see hongyan control --help, or give --force")
}

func setValue(ctx context.Context, out io.Writer, c *etcd.Center, key string, data []byte, revision int64, wait time.Duration, asJSON bool) error {
	v, err := c.PutValue(ctx, key, data, revision)
	if err != nil {
		return err
	}
	reports, err := awaitReports(ctx, c, key, v.Revision, wait)
	if err != nil {
		return err
	}
	refused := 0
	for _, r := range reports {
		if r.Revision == v.Revision && r.Err != "" {
			refused++
		}
	}
	if asJSON {
		err = json.NewEncoder(out).Encode(valueJSON{key, data != nil, v.Revision, string(data), append([]control.Report{}, reports...)})
	} else {
		fmt.Fprintf(out, "%s is at revision %d\n", key, v.Revision)
		err = printReports(out, reports, v.Revision)
	}
	if err == nil && refused > 0 {
		err = fmt.Errorf("%d of %d processes refused the value; what was good before stays in force there", refused, len(reports))
	}
	return err
}

// awaitReports waits until every process that has reported of the key has seen the revision.
func awaitReports(ctx context.Context, c control.Reports, key string, revision int64, wait time.Duration) ([]control.Report, error) {
	deadline := time.Now().Add(wait)
	for {
		reports, err := c.Reports(ctx, key)
		if err != nil || time.Now().After(deadline) {
			return reports, err
		}
		if !slices.ContainsFunc(reports, func(r control.Report) bool { return r.Revision != revision }) {
			return reports, nil
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return reports, nil
		}
	}
}

func newControlWatchCmd() *cobra.Command {
	var flags controlFlags
	cmd := &cobra.Command{
		Use:     "watch [PREFIX]",
		Short:   "prints values as they change, one JSON object a line, until it is interrupted",
		Example: "  hongyan control watch config/",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return &usageError{errors.New("one prefix, or none")}
			}
			return flags.with(cmd, func(ctx context.Context, c *etcd.Center) error {
				return watchValues(ctx, cmd.OutOrStdout(), c, strings.Join(args, ""))
			})
		},
	}
	flags.register(cmd)
	return cmd
}

func watchValues(ctx context.Context, out io.Writer, c control.Values, prefix string) error {
	shown := map[string]int64{}
	enc := json.NewEncoder(out)
	var failed error
	err := c.WatchValues(ctx, prefix, func(set []control.Value) {
		now := map[string]int64{}
		for _, v := range set {
			now[v.Key] = v.Revision
			if shown[v.Key] != v.Revision {
				failed = errors.Join(failed, enc.Encode(map[string]any{"key": v.Key, "set": true, "revision": v.Revision, "text": string(v.Data)}))
			}
		}
		for key := range shown {
			if now[key] == 0 {
				failed = errors.Join(failed, enc.Encode(map[string]any{"key": key, "set": false}))
			}
		}
		shown = now
	})
	return errors.Join(err, failed)
}

func newControlForgetCmd() *cobra.Command {
	var flags controlFlags
	var tier string
	var slot int
	cmd := &cobra.Command{
		Use:   "forget --tier T --slot N",
		Short: "releases the last slot of a tier whose instance is gone for good",
		Long: `A dead instance keeps its slot, so that keys do not move while it restarts. To make a tier
smaller, stop its last instance and forget its slot.`,
		Example: "  hongyan control forget --tier logic --slot 3",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if tier == "" || slot < 0 {
				return &usageError{errors.New("forget needs --tier and --slot")}
			}
			return flags.with(cmd, func(ctx context.Context, c *etcd.Center) error {
				if err := c.Forget(ctx, tier, slot); err != nil {
					return err
				}
				m, err := c.Members(ctx, tier)
				if err != nil {
					return err
				}
				if flags.asJSON {
					return json.NewEncoder(cmd.OutOrStdout()).Encode(map[string]any{"tier": tier, "forgotten": slot, "slots": m.Slots})
				}
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s has %d slots\n", tier, m.Slots)
				return err
			})
		},
	}
	flags.register(cmd)
	cmd.Flags().StringVar(&tier, "tier", "", "the tier")
	cmd.Flags().IntVar(&slot, "slot", -1, "its last slot")
	return cmd
}
