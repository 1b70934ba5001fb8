package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
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
	cmd.AddCommand(newDBMigrateCmd(), newDBStatusCmd(), newDBPromoteCmd(), newDBMoveCmd(), newDBResetCmd())
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

// primaryOf finds the member of a shard that takes writes and has not been left behind by a
// promotion (R18). Before there are any tables, all are at the same epoch.
func primaryOf(ctx context.Context, cfg *Config, shard shards.ShardConfig) (sqlstore.Config, error) {
	one := *cfg
	one.Databases.Shards = []shards.ShardConfig{shard}
	report := askDatabases(ctx, &one)
	for _, s := range report.Servers {
		if s.Role == rolePrimary {
			return cfg.sqlConfig(shard.Members[s.Member]), nil
		}
	}
	return sqlstore.Config{}, errors.New(strings.Join(report.Problems, "; "))
}

// placeBuckets gives every bucket its place: before the map is published each is closed
// wherever it does not belong, so that it never is open in two databases (R17). Where the
// buckets are already, the databases say; the control centre may have lost it.
func placeBuckets(ctx context.Context, cfg *Config, primaries []sqlstore.Config, tell func(string, ...any)) error {
	var values control.Values
	var published []byte
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
		values, published = center, v.Data
	}
	found := make([]bucketsOf, len(primaries))
	for i, shard := range cfg.Databases.Shards {
		var err error
		if found[i], err = lookAtBuckets(ctx, shard.Name, primaries[i]); err != nil {
			return fmt.Errorf("shard %s: %w", shard.Name, err)
		}
	}
	m, err := mapOf(found, published)
	if err != nil {
		return err
	}
	first := published == nil && allEmpty(found)
	for i := range found { // what is in use is left alone: its buckets may be on the move
		if first || found[i].fresh {
			if err := setBuckets(ctx, primaries[i], &found[i], m, false); err != nil {
				return fmt.Errorf("shard %s: %w", found[i].shard, err)
			}
		}
	}
	for i := range found { // closed everywhere else before any is opened
		if first {
			if err := setBuckets(ctx, primaries[i], &found[i], m, true); err != nil {
				return fmt.Errorf("shard %s: %w", found[i].shard, err)
			}
		}
	}
	if err := agrees(m, cfg); err != nil {
		return err
	}
	if published != nil {
		tell("the map of the shards is there already")
		return nil
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

// mapOf is the published map, or else what the databases say.
func mapOf(found []bucketsOf, published []byte) (shards.Map, error) {
	if published != nil {
		return shards.ParseMap(published)
	}
	return placesNow(found, uint64(time.Now().Unix()))
}
