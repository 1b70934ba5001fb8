package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	sqlstore "hongyan/das/store/sql"
)

func newDBResetCmd() *cobra.Command {
	var flags dbFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "reset-devices",
		Short: "after a database has lost commits: every device compares what it holds",
		Long: `Raises the epoch of all buckets in every database, beyond the highest of any. Each device is told RESET when it next
syncs: it fetches its list anew, and drops what the server does not have.

It is needed where a database went back to an earlier moment: restored from a backup, or failed over to a replica that
did not have all that was acknowledged. One database is enough to need it for all: the members of its conversations
live in the others too. A promotion that lost nothing needs nothing.

It can be run while the system is used, and again at any time. Expect the load of a login of every device that is online.`,
		Example: "  hongyan db reset-devices --config hongyan.yaml",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := flags.databases()
			if err != nil {
				return err
			}
			epoch, err := resetDevices(cmd.Context(), cfg)
			if err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(map[string]any{"epoch": epoch})
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "all buckets are at epoch %d\n", epoch)
			return err
		},
	}
	flags.register(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "one JSON object")
	return cmd
}

// resetDevices raises the epochs of all databases to one that none has had. Every primary must
// be there before any is touched.
func resetDevices(ctx context.Context, cfg *Config) (epoch uint64, err error) {
	var primaries []*sqlstore.Store
	defer func() {
		for _, p := range primaries {
			err = errors.Join(err, p.Close())
		}
	}()
	names := cfg.Databases.Names()
	for _, name := range names {
		p, err := openPrimary(ctx, cfg, name)
		if err != nil {
			return 0, err
		}
		primaries = append(primaries, p)
		role, err := p.Role(ctx)
		if err != nil {
			return 0, fmt.Errorf("shard %s: %w", name, err)
		}
		epoch = max(epoch, role.Epoch+1)
	}
	for i, p := range primaries {
		if err := p.RaiseEpochs(ctx, epoch); err != nil {
			return 0, fmt.Errorf("shard %s: %w", names[i], err)
		}
	}
	return epoch, nil
}
