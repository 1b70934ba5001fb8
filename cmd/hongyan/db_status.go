package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/spf13/cobra"

	"hongyan/das/store/shards"
	sqlstore "hongyan/das/store/sql"
)

// dbFlags say which databases a command is about: those of the configuration, or one.
type dbFlags struct {
	load loadFlags
	dsn  string
}

func (f *dbFlags) register(cmd *cobra.Command) {
	f.load.register(cmd)
	cmd.Flags().StringVar(&f.dsn, "dsn", "", "one database, user:password@tcp(host:port)/database, instead of those of the configuration")
}

// databases are the configuration with the shards that are meant.
func (f *dbFlags) databases() (*Config, error) {
	cfg, err := f.load.load(defaultConfig())
	if err != nil {
		return nil, err
	}
	if f.dsn != "" {
		cfg.Databases.Shards = []shards.ShardConfig{{Name: "-", Members: []string{f.dsn}}}
	}
	if !cfg.usesDatabases() {
		return nil, &usageError{errors.New("databases.shards names no database, and --dsn is not given")}
	}
	return cfg, nil
}

// sqlConfig is how to connect to a member.
func (c *Config) sqlConfig(dsn string) sqlstore.Config {
	member := c.SQL
	member.DSN = dsn
	return member
}

func newDBStatusCmd() *cobra.Command {
	var flags dbFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "every server of every database: its role, its tables, its buckets",
		Long: `Asks every member of every shard what it is: primary or replica, whether its commits wait for a replica,
which migrations it lacks, how many of the 1,024 buckets are open there and at which epoch.
It ends with status 3 where a shard has not exactly one primary, or a migration is pending.`,
		Example: "  hongyan db status --config hongyan.yaml\n  hongyan db status --dsn 'hongyan:hongyan@tcp(127.0.0.1:13306)/hongyan' --json",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := flags.databases()
			if err != nil {
				return err
			}
			report := askDatabases(cmd.Context(), cfg)
			if asJSON {
				err = json.NewEncoder(cmd.OutOrStdout()).Encode(report)
			} else {
				err = report.write(cmd.OutOrStdout())
			}
			if err == nil && len(report.Problems) > 0 {
				err = &violationError{errors.New(strings.Join(report.Problems, "; "))}
			}
			return err
		},
	}
	flags.register(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "one JSON object")
	return cmd
}

// dbReport is the result of db status, a contract with scripts.
type dbReport struct {
	Servers     []dbServer `json:"servers"`
	Problems    []string   `json:"problems"`
	Interrupted bool       `json:"interrupted,omitempty"`
}

// dbServer is one member of a shard.
type dbServer struct {
	Shard       string   `json:"shard"`
	Member      int      `json:"member"`
	Address     string   `json:"address"`
	Database    string   `json:"database"`
	Role        string   `json:"role"` // primary, replica, outdated, read-only, unreachable
	Server      string   `json:"server,omitempty"`
	Version     string   `json:"version,omitempty"`
	Epoch       uint64   `json:"epoch"`
	Open        int      `json:"buckets_open"`
	Closed      int      `json:"buckets_closed"`
	SemiSync    bool     `json:"semi_sync"` // commits wait for a replica
	Replicas    int      `json:"replicas"`
	Replicating bool     `json:"replicating"`
	Applied     int      `json:"migrations_applied"`
	Pending     []string `json:"migrations_pending"`
	Error       string   `json:"error,omitempty"`
}

const (
	rolePrimary     = "primary"
	roleReplica     = "replica"
	roleOutdated    = "outdated"
	roleReadOnly    = "read-only"
	roleUnreachable = "unreachable"
)

// askDatabases asks all members at once.
func askDatabases(ctx context.Context, cfg *Config) dbReport {
	report := dbReport{Problems: []string{}}
	for _, shard := range cfg.Databases.Shards {
		list := make([]dbServer, len(shard.Members))
		var asked sync.WaitGroup
		for n, dsn := range shard.Members {
			asked.Go(func() { list[n] = askServer(ctx, cfg.sqlConfig(dsn), shard.Name, n) })
		}
		asked.Wait()
		report.Problems = append(report.Problems, judge(shard.Name, list)...)
		report.Servers = append(report.Servers, list...)
	}
	report.Interrupted = ctx.Err() != nil
	return report
}

func askServer(ctx context.Context, cfg sqlstore.Config, shard string, member int) dbServer {
	s := dbServer{Shard: shard, Member: member, Role: roleUnreachable, Pending: []string{}}
	if d, err := mysql.ParseDSN(cfg.DSN); err == nil {
		s.Address, s.Database = d.Addr, d.DBName
	}
	ctx, cancel := context.WithTimeout(ctx, max(cfg.DialTimeout, time.Second)+cfg.ReadTimeout)
	defer cancel()
	st, err := sqlstore.StatusOf(ctx, cfg)
	if err != nil {
		s.Error = joinLines(err)
		return s
	}
	s.Server, s.Version, s.Epoch, s.Open, s.Closed = st.Server, st.Version, st.Role.Epoch, st.Open, st.Closed
	s.SemiSync, s.Replicas, s.Replicating = st.SemiSync, st.Replicas, st.Replicating
	switch {
	case st.Role.Writable:
		s.Role = rolePrimary
	case st.Replica:
		s.Role = roleReplica
	default:
		s.Role = roleReadOnly
	}
	for _, m := range st.Pending() {
		s.Pending = append(s.Pending, m.Name)
	}
	s.Applied = len(st.Migrations) - len(s.Pending)
	return s
}

// judge tells what is wrong with a shard. A member that takes writes at a lower epoch than
// another has was left behind by a promotion (R18).
func judge(shard string, list []dbServer) (problems []string) {
	var epoch uint64
	for _, s := range list {
		epoch = max(epoch, s.Epoch)
	}
	primaries := 0
	for i := range list {
		s := &list[i]
		tell := func(what string) {
			problems = append(problems, fmt.Sprintf("shard %s, %s: %s", shard, s.Address, what))
		}
		switch {
		case s.Role == roleUnreachable:
			tell("cannot be asked: " + s.Error)
			continue
		case s.Role == rolePrimary && s.Epoch < epoch:
			s.Role = roleOutdated
			tell(fmt.Sprintf("takes writes at epoch %d, %d is reached: fence it", s.Epoch, epoch))
		case s.Role == rolePrimary:
			primaries++
		case s.Role == roleReplica && !s.Replicating:
			tell("its replication has stopped")
		}
		if len(s.Pending) > 0 && s.Role != roleReplica { // which gets them from its source
			tell("lacks migrations, run hongyan db migrate: " + strings.Join(s.Pending, ", "))
		}
	}
	if primaries != 1 {
		problems = append(problems, fmt.Sprintf("shard %s has %d primaries, it must have one", shard, primaries))
	}
	return problems
}

func (r *dbReport) write(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "SHARD\tADDRESS\tDATABASE\tROLE\tSERVER\tEPOCH\tBUCKETS\tSEMI-SYNC\tMIGRATIONS")
	for _, s := range r.Servers {
		if s.Role == roleUnreachable {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t-\t-\t-\t-\t-\n", s.Shard, s.Address, s.Database, s.Role)
			continue
		}
		semiSync := "off"
		if s.SemiSync {
			semiSync = fmt.Sprintf("on, %d replicas", s.Replicas)
		}
		if s.Server == "TiDB" {
			semiSync = "majority"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s %s\t%d\t%d open, %d closed\t%s\t%d, %d pending\n",
			s.Shard, s.Address, s.Database, s.Role, s.Server, s.Version, s.Epoch, s.Open, s.Closed, semiSync, s.Applied, len(s.Pending))
	}
	return w.Flush()
}
