package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"hongyan/das/store/shards"
	sqlstore "hongyan/das/store/sql"
)

func newDBPromoteCmd() *cobra.Command {
	var flags dbFlags
	var shard, old string
	var member int
	var asJSON bool
	p := sqlstore.Promotion{Wait: 10 * time.Second}
	cmd := &cobra.Command{
		Use:   "promote --shard S | --dsn REPLICA",
		Short: "makes a replica the primary of its database",
		Long: `Fences the old primary, if it answers, and lets the replica apply everything it has received. Then the
replica takes writes, at a higher epoch of all buckets: whoever still writes to the old primary fails. Every das that
has both servers in databases.shards follows by itself.

A primary that hangs is killed first (SIGKILL): a clean stop would answer commits that no replica has. The user of the
DSN needs the rights of an administrator. The new primary's commits wait for a replica of its own from the beginning;
--without-replica lets it go on alone, and then what it confirms can be lost with it.`,
		Example: "  hongyan db promote --config hongyan.yaml --shard a\n" +
			"  hongyan db promote --dsn 'root@tcp(10.0.0.2:3306)/hongyan' --old 'root@tcp(10.0.0.1:3306)/hongyan'",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if (shard == "") == (flags.dsn == "") {
				return &usageError{errors.New("either --shard or --dsn says what is to be promoted")}
			}
			cfg, err := flags.databases()
			if err != nil {
				return err
			}
			p.Replica, p.Old = cfg.sqlConfig(flags.dsn), cfg.sqlConfig(old)
			if shard != "" {
				if err := choose(cmd, cfg, shard, member, &p); err != nil {
					return err
				}
			}
			p.Log = slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))
			done, err := sqlstore.Promote(cmd.Context(), p)
			if err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(map[string]any{"epoch": done.Epoch, "old_fenced": done.Fenced})
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "promoted, all buckets are at epoch %d\n", done.Epoch)
			return err
		},
	}
	flags.register(cmd)
	f := cmd.Flags()
	f.StringVar(&shard, "shard", "", "name of a shard in databases.shards; its replica is promoted")
	f.IntVar(&member, "member", -1, "which member of the shard, from 0, if it has several replicas")
	f.StringVar(&old, "old", "", "with --dsn: the primary so far; without it, it is taken for dead")
	f.BoolVar(&p.WithoutReplica, "without-replica", false, "commits of the new primary do not wait for a replica")
	f.DurationVar(&p.Wait, "wait", p.Wait, "how long to wait for commits under way, and for the replica to catch up")
	f.BoolVar(&asJSON, "json", false, "one JSON object")
	return cmd
}

// choose finds the replica and the old primary of a shard.
func choose(cmd *cobra.Command, cfg *Config, name string, member int, p *sqlstore.Promotion) error {
	at := slices.IndexFunc(cfg.Databases.Shards, func(s shards.ShardConfig) bool { return s.Name == name })
	if at < 0 {
		return &usageError{fmt.Errorf("--shard: databases.shards has no %q", name)}
	}
	shard := cfg.Databases.Shards[at]
	if member >= len(shard.Members) {
		return &usageError{fmt.Errorf("--member: shard %s has members 0 to %d", name, len(shard.Members)-1)}
	}
	one := *cfg
	one.Databases.Shards = []shards.ShardConfig{shard}
	old, replicas := -1, []int(nil)
	for i, s := range askDatabases(cmd.Context(), &one).Servers {
		switch {
		case s.Role == roleReplica:
			replicas = append(replicas, i)
		case i != member && (s.Role == rolePrimary || s.Role == roleUnreachable && old < 0):
			old = i
		}
	}
	switch {
	case member >= 0:
	case len(replicas) == 1:
		member = replicas[0]
	default:
		return fmt.Errorf("shard %s has %d replicas that answer, --member says which to promote", name, len(replicas))
	}
	p.Replica = cfg.sqlConfig(shard.Members[member])
	if old >= 0 {
		p.Old = cfg.sqlConfig(shard.Members[old])
	}
	return nil
}
