package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"hongyan/das"
	pebblestore "hongyan/das/store/pebble"
	"hongyan/das/store/shards"
	sqlstore "hongyan/das/store/sql"
	"hongyan/entry"
	"hongyan/extlogic"
	"hongyan/httpentry"
	"hongyan/imui"
	"hongyan/internal/config"
	"hongyan/internal/control/etcd"
	"hongyan/internal/control/local"
	"hongyan/internal/control/settings"
	"hongyan/internal/mq/rocketmq"
	"hongyan/internal/presence/redis"
	"hongyan/internal/telemetry"
	"hongyan/jtransit"
	"hongyan/logic"
)

// Config is everything a process can be told. A tier reads its own section.
type Config struct {
	// Data is the directory of the embedded store, the embedded queue and the demo keys.
	Data string `koanf:"data"`
	// Tenant is the demo tenant, whose keys are made on the first run.
	Tenant string `koanf:"tenant"`
	// Keys is the file of the tenants' keys; empty = keys.json in Data.
	Keys string `koanf:"keys"`

	Log     telemetry.Config `koanf:"log"`
	Cluster ClusterConfig    `koanf:"cluster"`

	Entry     entry.Config     `koanf:"entry"`
	HTTPEntry httpentry.Config `koanf:"httpentry"`
	Logic     logic.Config     `koanf:"logic"`
	ExtLogic  extlogic.Config  `koanf:"extlogic"`
	Das       das.Config       `koanf:"das"`
	IMUI      imui.Config      `koanf:"imui"`
	Jtransit  jtransit.Config  `koanf:"jtransit"`

	// Store is the embedded store of a das, where no databases are named.
	Store pebblestore.Config `koanf:"store"`
	// Databases are those of every das of a cluster; SQL is about connections to them.
	Databases shards.Config   `koanf:"databases"`
	SQL       sqlstore.Config `koanf:"sql"`
	// Queue is RocketMQ; without name servers it is embedded, in extlogic.
	Queue rocketmq.Config `koanf:"queue"`
	// Presence is Redis; without addresses every logic remembers for itself.
	Presence redis.Config `koanf:"presence"`
	// Control is etcd; without endpoints the instances are those that cluster lists, and live
	// values are in a file (values.yaml in Data).
	Control etcd.Config        `koanf:"control"`
	Values  local.ValuesConfig `koanf:"values"`
}

func (c *Config) usesEtcd() bool      { return len(c.Control.Endpoints) > 0 }
func (c *Config) usesRocketMQ() bool  { return len(c.Queue.NameServers) > 0 }
func (c *Config) usesDatabases() bool { return len(c.Databases.Shards) > 0 }

// ClusterConfig says where the processes of a cluster are.
type ClusterConfig struct {
	// Listen is the host:port where other tiers reach this process; port 0 = any free one.
	Listen string `koanf:"listen"`
	// Advertise is how they name it; empty = the address it listens on. It must be the one
	// in the list of its tier, where there is a list.
	Advertise string `koanf:"advertise"`
	// Slot of this process among the instances of its tier, from 0. -1: the one that the
	// control centre gives it; without one, 0.
	Slot int `koanf:"slot"`
	// Logic, Das and ExtLogic are the addresses of these tiers, in slot order, where no control
	// centre lists them. Jtransit may be left out: then CALL is answered as unsupported. Where
	// logics have different duties (logic.serve), their entries say so: address=session+open.
	Logic    []string `koanf:"logic"`
	Das      []string `koanf:"das"`
	ExtLogic []string `koanf:"extlogic"`
	Jtransit []string `koanf:"jtransit"`
}

func defaultConfig() Config {
	embedded := pebblestore.DefaultConfig()
	embedded.Dir = "" // in the data directory
	return Config{
		Data:      "data",
		Tenant:    "demo",
		Log:       telemetry.DefaultConfig(),
		Cluster:   ClusterConfig{Listen: "127.0.0.1:0", Slot: -1},
		Entry:     entry.DefaultConfig(),
		HTTPEntry: httpentry.DefaultConfig(),
		Logic:     logic.DefaultConfig(),
		ExtLogic:  extlogic.DefaultConfig(),
		Das:       das.DefaultConfig(),
		IMUI:      imui.DefaultConfig(),
		Jtransit:  jtransit.DefaultConfig(),
		Store:     embedded,
		Databases: shards.DefaultConfig(),
		SQL:       sqlstore.DefaultConfig(),
		Queue:     rocketmq.DefaultConfig(),
		Presence:  redis.DefaultConfig(),
		Control:   etcd.DefaultConfig(),
		Values:    local.ValuesConfig{Interval: time.Second},
	}
}

// Validate checks every section, so that a mistake shows at the start of any tier.
func (c *Config) Validate() error {
	var errs []error
	for _, s := range []struct {
		name string
		err  error
	}{
		{"log", c.Log.Validate()},
		{"entry", c.Entry.Validate()},
		{"httpentry", c.HTTPEntry.Validate()},
		{"logic", c.Logic.Validate()},
		{"extlogic", c.ExtLogic.Validate()},
		{"das", c.Das.Validate()},
		{"imui", c.IMUI.Validate()},
		{"jtransit", c.Jtransit.Validate()},
		{"databases", checked(c.usesDatabases(), c.Databases.Validate)},
		{"sql", checked(c.usesDatabases(), c.validateSQL)},
		{"queue", checked(c.usesRocketMQ(), c.Queue.Validate)},
		{"presence", checked(len(c.Presence.Addrs) > 0, c.Presence.Validate)},
		{"control", c.Control.Validate()},
	} {
		if s.err != nil {
			errs = append(errs, fmt.Errorf("configuration: %s: %s", s.name, joinLines(s.err)))
		}
	}
	if c.Data == "" {
		errs = append(errs, errors.New("configuration: data must name a directory"))
	}
	if c.Tenant == "" {
		errs = append(errs, errors.New("configuration: tenant must not be empty"))
	}
	return errors.Join(errs...)
}

// checked is what a part says that is only looked at where it is used.
func checked(used bool, validate func() error) error {
	if !used {
		return nil
	}
	return validate()
}

// validateSQL checks what all connections share, with each member's DSN.
func (c *Config) validateSQL() error {
	for _, shard := range c.Databases.Shards {
		for n, dsn := range shard.Members {
			if err := c.sqlConfig(dsn).Validate(); err != nil {
				return fmt.Errorf("member %d of %s: %w", n, shard.Name, err)
			}
		}
	}
	return nil
}

// storeConfig places the store in the data directory unless it has one of its own.
func (c *Config) storeConfig() pebblestore.Config {
	cfg := c.Store
	if cfg.Dir == "" {
		cfg.Dir = filepath.Join(c.Data, "store")
	}
	return cfg
}

// keysFile is where the tenants' keys are.
func (c *Config) keysFile() string {
	if c.Keys != "" {
		return c.Keys
	}
	return filepath.Join(c.Data, "keys.json")
}

// loadFlags are on every command that reads the configuration.
type loadFlags struct {
	file  string
	flags map[string]any // configuration keys that were given as flags
}

func (f *loadFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.file, "config", "", "configuration file (YAML); its keys: hongyan config print")
}

// set remembers that a flag speaks for a configuration key, where it was given.
func (f *loadFlags) set(cmd *cobra.Command, flag, key string, value any) {
	if cmd.Flags().Changed(flag) {
		if f.flags == nil {
			f.flags = map[string]any{}
		}
		f.flags[key] = value
	}
}

func (f *loadFlags) load(base Config) (*Config, error) { return f.loadOver(base, "", nil) }

// loadOver is load with what the control centre lays over the file for a tier.
func (f *loadFlags) loadOver(base Config, tierName string, overlay []byte) (*Config, error) {
	cfg := base
	err := config.Load(&cfg, config.Sources{
		File:         f.file,
		Overlay:      overlay,
		OverlayName:  settings.Key(tierName),
		OverlayFixed: fixedKeys,
		Env:          os.Environ(),
		Flags:        f.flags,
		EnvIgnored:   []string{"HONGYAN_SIM_", "HONGYAN_TEST_", "HONGYAN_BIN", "HONGYAN_REQUIRE_BROWSER"},
	})
	if err != nil {
		return nil, err
	}
	return &cfg, cfg.Validate()
}

// loader makes the configuration of a process anew, with what the control centre lays over it.
type loader func(overlay []byte) (*Config, error)

func newConfigCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "print the effective configuration, or check a file",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	var shown, checked loadFlags
	show := &cobra.Command{
		Use:     "print",
		Short:   "the effective configuration as YAML, secrets hidden; without a file: every key with its default",
		Example: "  hongyan config print --config hongyan.yaml",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := shown.load(defaultConfig())
			if err != nil {
				return err
			}
			out, err := config.YAML(cfg)
			if err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(out)
			return err
		},
	}
	shown.register(show)
	check := &cobra.Command{
		Use:     "check",
		Short:   "says whether a configuration can be used",
		Example: "  hongyan config check --config hongyan.yaml",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if _, err := checked.load(defaultConfig()); err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), "the configuration can be used")
			return nil
		},
	}
	checked.register(check)
	cmd.AddCommand(show, check)
	return cmd
}

// joinLines folds joined errors into one line.
func joinLines(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }
