package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"hongyan/das/store"
	"hongyan/das/store/shards"
	sqlstore "hongyan/das/store/sql"
	"hongyan/internal/control"
	"hongyan/internal/control/etcd"
)

func newDBCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "db",
		Short: "the databases of a cluster: their tables and what is where",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newDBMigrateCmd(), newDBStatusCmd(), newDBPromoteCmd(), newDBMoveCmd())
	return cmd
}

func newDBMigrateCmd() *cobra.Command {
	var flags dbFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "migrate",
		Short: "brings the tables of every database up to date, and gives the buckets a place",
		Long: `Brings the tables of every shard in databases.shards up to date, where its primary is. On the first
run it also spreads the 1,024 buckets over the shards, opens each in its shard and nowhere else, and
publishes the map in the control centre. It can be run again at any time.`,
		Example: "  hongyan db migrate --config hongyan.yaml\n  hongyan db migrate --dsn 'hongyan:hongyan@tcp(127.0.0.1:13306)/hongyan'",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := flags.databases()
			if err != nil {
				return err
			}
			out, steps := cmd.OutOrStdout(), []string{}
			tell := func(format string, a ...any) { steps = append(steps, fmt.Sprintf(format, a...)) }
			if !asJSON {
				tell = func(format string, a ...any) { fmt.Fprintf(out, format+"\n", a...) }
			}
			err = migrateAll(cmd.Context(), cfg, tell)
			if asJSON {
				return errors.Join(err, json.NewEncoder(out).Encode(map[string]any{"steps": steps, "interrupted": cmd.Context().Err() != nil}))
			}
			return err
		},
	}
	flags.register(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "one JSON object")
	return cmd
}

// migrateAll migrates every shard, and then places the buckets.
func migrateAll(ctx context.Context, cfg *Config, tell func(string, ...any)) error {
	primaries := make([]sqlstore.Config, len(cfg.Databases.Shards))
	for i, shard := range cfg.Databases.Shards {
		primary, err := primaryOf(ctx, cfg, shard)
		if err != nil {
			return err
		}
		steps, err := sqlstore.Migrate(ctx, primary)
		if err != nil {
			return fmt.Errorf("shard %s: %w", shard.Name, err)
		}
		for _, s := range steps {
			tell("%s: applied %d %s", shard.Name, s.Version, s.Name)
		}
		if len(steps) == 0 {
			tell("%s: up to date", shard.Name)
		}
		primaries[i] = primary
	}
	if len(primaries) == 1 {
		return nil
	}
	return placeBuckets(ctx, cfg, primaries, tell)
}

// primaryOf finds the member of a shard that takes writes, before it has any tables.
func primaryOf(ctx context.Context, cfg *Config, shard shards.ShardConfig) (sqlstore.Config, error) {
	var errs []error
	for n, dsn := range shard.Members {
		member := cfg.SQL
		member.DSN = dsn
		switch writable, err := takesWrites(ctx, dsn); {
		case err != nil:
			errs = append(errs, fmt.Errorf("member %d: %w", n, err))
		case writable:
			return member, nil
		}
	}
	return sqlstore.Config{}, fmt.Errorf("shard %s: no member takes writes: %w", shard.Name, errors.Join(errs...))
}

func takesWrites(ctx context.Context, dsn string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	db, err := sql.Open("mysql", dsn)
	if err != nil {
		return false, err
	}
	defer db.Close()
	var readOnly bool
	err = db.QueryRowContext(ctx, "SELECT @@global.read_only").Scan(&readOnly)
	return !readOnly, err
}

// placeBuckets gives every bucket its place, once: before the map is published each is closed
// wherever it does not belong, so that it never is open in two databases (R17).
func placeBuckets(ctx context.Context, cfg *Config, primaries []sqlstore.Config, tell func(string, ...any)) error {
	m := shards.Even(cfg.Databases.Names()...)
	var values control.Values
	if cfg.usesEtcd() {
		center, err := etcd.Open(ctx, cfg.Control, etcd.Deps{})
		if err != nil {
			return err
		}
		defer center.Close()
		v, err := center.Value(ctx, shards.MapKey)
		if err != nil {
			return err
		}
		if v.Data != nil {
			tell("the map of the shards is there already")
			return nil
		}
		values = center
	}
	for i, shard := range cfg.Databases.Shards {
		if err := closeOthers(ctx, primaries[i], m, shard.Name); err != nil {
			return fmt.Errorf("shard %s: %w", shard.Name, err)
		}
	}
	tell("%d buckets are spread over %d shards", store.Buckets, len(primaries))
	if values == nil {
		return nil
	}
	data, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if _, err := values.PutValue(ctx, shards.MapKey, data, 0); err != nil && !errors.Is(err, control.ErrConflict) {
		return fmt.Errorf("publish the map of the shards: %w", err)
	}
	return nil
}

// closeOthers closes the buckets that a shard does not own.
func closeOthers(ctx context.Context, cfg sqlstore.Config, m shards.Map, name string) error {
	st, err := sqlstore.Open(ctx, cfg, sqlstore.Deps{})
	if err != nil {
		return err
	}
	defer st.Close()
	v, err := st.View(ctx)
	if err != nil {
		return err
	}
	defer v.Close()
	for id := range uint32(store.Buckets) {
		if m.Shard(id) == name {
			continue
		}
		state, err := v.Bucket(id)
		if err != nil {
			return err
		}
		if !state.Open {
			continue
		}
		state.Open = false
		if err := st.SetBucket(ctx, id, state); err != nil {
			return err
		}
	}
	return nil
}
