package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"hongyan/das/store"
	"hongyan/das/store/shards"
	sqlstore "hongyan/das/store/sql"
	"hongyan/internal/control"
	"hongyan/internal/control/etcd"
)

// moveFlags are those of db move-buckets.
type moveFlags struct {
	load     loadFlags
	from, to string
	buckets  string
	dryRun   bool
	resume   bool
	undo     bool
	purge    bool
	force    bool
	json     bool
}

func newDBMoveCmd() *cobra.Command {
	var f moveFlags
	cmd := &cobra.Command{
		Use:   "move-buckets --from A --to B --buckets 0-127",
		Short: "moves buckets to another database while they are used",
		Long: `Copies each bucket while it is used, closes it, copies what changed since, opens it in the other database
and says so in the control centre. A bucket is closed for as long as its tail takes; writes to it wait or are refused
as retryable meanwhile. There is one move at a time. One that died is run again with --resume, or taken back with
--undo; nothing is lost by either.

Every das that runs must have been started with the target in its databases.shards, or the move is refused.

What the old database still holds is purged by the same command with --purge, once every das follows the new map.`,
		Example: "  hongyan db move-buckets --config hongyan.yaml --from a --to b --buckets 0-127 --dry-run\n" +
			"  hongyan db move-buckets --config hongyan.yaml --from a --to b --buckets 0-127\n" +
			"  hongyan db move-buckets --config hongyan.yaml --from a --to b --buckets 0-127 --purge",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := parseBuckets(f.buckets)
			if err != nil {
				return &usageError{fmt.Errorf("--buckets: %w", err)}
			}
			if n := count(f.dryRun, f.undo, f.purge); n > 1 || n == 1 && f.resume {
				return &usageError{errors.New("--dry-run, --resume, --undo and --purge exclude each other")}
			}
			cfg, err := f.load.load(defaultConfig())
			if err != nil {
				return err
			}
			return f.run(cmd, cfg, list)
		},
	}
	f.load.register(cmd)
	flags := cmd.Flags()
	flags.StringVar(&f.from, "from", "", "the shard that has the buckets, by its name in databases.shards")
	flags.StringVar(&f.to, "to", "", "the shard that gets them")
	flags.StringVar(&f.buckets, "buckets", "", "which, as 0-127,512")
	flags.BoolVar(&f.dryRun, "dry-run", false, "only count what would be copied")
	flags.BoolVar(&f.resume, "resume", false, "go on with a move that died")
	flags.BoolVar(&f.undo, "undo", false, "take back a move that died: the buckets are used again where they were")
	flags.BoolVar(&f.purge, "purge", false, "delete what --from still holds of buckets that were moved away")
	flags.BoolVar(&f.force, "force", false, "move although a das that runs does not know --to: what moves cannot be used through it")
	flags.BoolVar(&f.json, "json", false, "one JSON object")
	return cmd
}

func count(flags ...bool) (n int) {
	for _, on := range flags {
		if on {
			n++
		}
	}
	return n
}

// parseBuckets reads a list of numbers and ranges.
func parseBuckets(s string) (list []uint32, err error) {
	for part := range strings.SplitSeq(s, ",") {
		first, last, ranged := strings.Cut(strings.TrimSpace(part), "-")
		if !ranged {
			last = first
		}
		from, err1 := strconv.ParseUint(first, 10, 32)
		to, err2 := strconv.ParseUint(last, 10, 32)
		if err := errors.Join(err1, err2); err != nil || from > to || to >= store.Buckets {
			return nil, fmt.Errorf("%q is no range within 0-%d", part, store.Buckets-1)
		}
		for b := from; b <= to; b++ {
			list = append(list, uint32(b))
		}
	}
	slices.Sort(list)
	return slices.Compact(list), nil
}

// moved is the result, a contract with scripts.
type moved struct {
	From        string  `json:"from"`
	To          string  `json:"to"`
	Buckets     int     `json:"buckets"` // asked for
	Done        int     `json:"done"`
	Rows        int     `json:"rows"`
	ClosedMaxMS float64 `json:"closed_max_ms"` // the longest for which a bucket took no writes
	DryRun      bool    `json:"dry_run,omitempty"`
	Interrupted bool    `json:"interrupted,omitempty"`
}

func (f *moveFlags) run(cmd *cobra.Command, cfg *Config, list []uint32) error {
	ctx := cmd.Context()
	from, err := openPrimary(ctx, cfg, f.from)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := openPrimary(ctx, cfg, f.to)
	if err != nil {
		return err
	}
	defer to.Close()
	result := moved{From: f.from, To: f.to, Buckets: len(list), DryRun: f.dryRun}
	if f.dryRun {
		err = result.count(ctx, from, list)
	} else {
		err = f.move(cmd, cfg, from, to, list, &result)
	}
	result.Interrupted = ctx.Err() != nil
	if told := f.tell(cmd.OutOrStdout(), result); err == nil {
		err = told
	}
	return err
}

func (f *moveFlags) tell(out io.Writer, r moved) error {
	if f.json {
		return json.NewEncoder(out).Encode(r)
	}
	what := fmt.Sprintf("moved from %s to %s, %d rows; closed for %.0f ms at most", r.From, r.To, r.Rows, r.ClosedMaxMS)
	switch {
	case r.DryRun:
		what = fmt.Sprintf("would be moved from %s to %s, %d rows", r.From, r.To, r.Rows)
	case f.undo:
		what = "taken back to " + r.From
	case f.purge:
		what = "purged from " + r.From
	}
	_, err := fmt.Fprintf(out, "%d of %d buckets %s\n", r.Done, r.Buckets, what)
	return err
}

// count tells what a move would copy.
func (r *moved) count(ctx context.Context, from *sqlstore.Store, list []uint32) error {
	for _, b := range list {
		n, err := from.BucketCount(ctx, b)
		if err != nil {
			return err
		}
		r.Rows += n.Convs + n.Messages + n.Users + n.Members + n.Devices + n.Sessions + n.Pushes
		r.Done++
	}
	return nil
}

// move does what the flags say, and notes in r how far it came.
func (f *moveFlags) move(cmd *cobra.Command, cfg *Config, from, to *sqlstore.Store, list []uint32, r *moved) error {
	if !cfg.usesEtcd() {
		return errors.New("a move needs a control centre that every das follows: control.endpoints names no etcd")
	}
	ctx := cmd.Context()
	log := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))
	center, err := etcd.Open(ctx, cfg.Control, etcd.Deps{Log: log})
	if err != nil {
		return err
	}
	defer center.Close()
	m := shards.Mover{
		From: from, To: to, FromName: f.from, ToName: f.to, Values: center, Resume: f.resume, Log: log,
		Parallel: movesAtOnce,
		Progress: func(p shards.MoveProgress) {
			if p.Step == "done" {
				r.Done++
				r.Rows += p.Rows
				r.ClosedMaxMS = max(r.ClosedMaxMS, float64(p.Closed)/float64(time.Millisecond))
			}
		},
	}
	switch {
	case f.undo:
		err = m.Undo(ctx, list...)
	case f.purge:
		err = m.Purge(ctx, list...)
	default:
		if err := f.followed(ctx, center); err != nil {
			return err
		}
		return m.Move(ctx, list...)
	}
	if err == nil {
		r.Done = len(list)
	}
	return err
}

// followed tells an error where a das that runs could not follow the move.
func (f *moveFlags) followed(ctx context.Context, center control.Center) error {
	if f.force {
		return nil
	}
	dases, err := center.Members(ctx, tierDas)
	if err != nil {
		return err
	}
	if err := shards.Known(dases, f.to); err != nil {
		return fmt.Errorf("%w, or move all the same with --force", err)
	}
	return nil
}

// movesAtOnce is how many buckets are moved at the same time: enough that their commits share
// the waits for replicas, few enough that each is closed for a short time only.
const movesAtOnce = 4

// openPrimary opens the primary of a shard.
func openPrimary(ctx context.Context, cfg *Config, name string) (*sqlstore.Store, error) {
	at := slices.IndexFunc(cfg.Databases.Shards, func(s shards.ShardConfig) bool { return s.Name == name })
	if at < 0 {
		return nil, &usageError{fmt.Errorf("databases.shards has no %q, it has %s", name, strings.Join(cfg.Databases.Names(), ", "))}
	}
	primary, err := primaryOf(ctx, cfg, cfg.Databases.Shards[at])
	if err != nil {
		return nil, err
	}
	return sqlstore.Open(ctx, primary, sqlstore.Deps{})
}
