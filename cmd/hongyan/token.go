package main

import (
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"hongyan/internal/conv"
	"hongyan/internal/token"
)

func newTokenCmd() *cobra.Command {
	var claims token.Claims
	var load loadFlags
	var data, tenant string
	var life time.Duration
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "token --uid U",
		Short: "a client token for the demo tenant",
		Long: `Prints a client token, signed with the keys in the data directory. They are made here if
'hongyan dev' has not run there yet. On a platform its own backend signs such tokens.`,
		Example: "  hongyan token --uid alice\n  curl -H \"Authorization: Bearer $(hongyan token --uid alice)\" http://127.0.0.1:8000/v1/unread",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			load.set(cmd, "data", "data", data)
			load.set(cmd, "tenant", "tenant", tenant)
			cfg, err := load.load(defaultConfig())
			if err != nil {
				return err
			}
			if err := conv.ValidUID(claims.UID); err != nil {
				return &usageError{fmt.Errorf("--uid: %w", err)}
			}
			if life <= 0 || life > token.MaxLife {
				return &usageError{fmt.Errorf("--life must be above 0 and at most %v", token.MaxLife)}
			}
			keys, err := openKeys(cfg)
			if err != nil {
				return err
			}
			claims.Tenant, claims.Expires = cfg.Tenant, time.Now().Add(life)
			signed, err := keys.Sign(claims)
			if err != nil {
				return err
			}
			if !asJSON {
				_, err = fmt.Fprintln(cmd.OutOrStdout(), signed)
				return err
			}
			return json.NewEncoder(cmd.OutOrStdout()).Encode(map[string]any{
				"token": signed, "tenant": claims.Tenant, "uid": claims.UID, "device": claims.Device, "expires": claims.Expires.UTC().Format(time.RFC3339),
			})
		},
	}
	load.register(cmd)
	f := cmd.Flags()
	f.StringVar(&claims.UID, "uid", "", "the user")
	f.StringVar(&claims.Device, "device", "", "bind the token to this device; empty = any")
	f.StringVar(&tenant, "tenant", "demo", "the tenant")
	f.StringVar(&data, "data", "data", "the data directory of hongyan dev")
	f.DurationVar(&life, "life", 12*time.Hour, "how long it is valid, at most 24h")
	f.BoolVar(&asJSON, "json", false, "one JSON object")
	return cmd
}

// openKeys loads the tenants' keys, and makes the demo tenant's on the first run.
func openKeys(cfg *Config) (*token.Keys, error) {
	if cfg.Keys == "" {
		if err := makeDir(cfg.Data); err != nil {
			return nil, err
		}
	}
	return token.LoadOrGenerate(cfg.keysFile(), cfg.Tenant)
}

// makeDir makes the data directory and proves that it can be written.
func makeDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	probe, err := os.CreateTemp(dir, ".writable-*")
	if err != nil {
		return fmt.Errorf("data directory %s is not writable: %w", dir, err)
	}
	_ = probe.Close()
	return os.Remove(probe.Name())
}
