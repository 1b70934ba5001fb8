package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"hongyan/das"
	pebblestore "hongyan/das/store/pebble"
	"hongyan/entry"
	"hongyan/extlogic"
	"hongyan/httpentry"
	"hongyan/imui"
	"hongyan/internal/config"
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

	// Store is the embedded store of a das.
	Store pebblestore.Config `koanf:"store"`
}

// ClusterConfig says where the processes of a cluster are.
type ClusterConfig struct {
	// Listen is the host:port where other tiers reach this process; port 0 = any free one.
	Listen string `koanf:"listen"`
	// Advertise is how they name it; empty = the address it listens on. It must be the one
	// in the list of its tier.
	Advertise string `koanf:"advertise"`
	// Slot of this process among the instances of its tier, from 0.
	Slot int `koanf:"slot"`
	// Logic, Das and ExtLogic are the addresses of these tiers, in slot order. Jtransit may be
	// left out: then CALL is answered as unsupported.
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
		Cluster:   ClusterConfig{Listen: "127.0.0.1:0"},
		Entry:     entry.DefaultConfig(),
		HTTPEntry: httpentry.DefaultConfig(),
		Logic:     logic.DefaultConfig(),
		ExtLogic:  extlogic.DefaultConfig(),
		Das:       das.DefaultConfig(),
		IMUI:      imui.DefaultConfig(),
		Jtransit:  jtransit.DefaultConfig(),
		Store:     embedded,
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

func (f *loadFlags) load(base Config) (*Config, error) {
	cfg := base
	err := config.Load(&cfg, config.Sources{
		File:       f.file,
		Env:        os.Environ(),
		Flags:      f.flags,
		EnvIgnored: []string{"HONGYAN_SIM_", "HONGYAN_TEST_", "HONGYAN_BIN", "HONGYAN_REQUIRE_BROWSER"},
	})
	if err != nil {
		return nil, err
	}
	return &cfg, cfg.Validate()
}

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
