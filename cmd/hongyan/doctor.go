package main

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"hongyan/internal/doctor"
)

func newDoctorCmd() *cobra.Command {
	var load loadFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "checks the configuration, every server it names and this machine for what breaks a promise",
		Long: `Asks the databases, RocketMQ, Redis, etcd and this machine for the settings that promises stand on, and
says what to do about those that break one. Nothing is changed. What cannot be asked is said to be not checked.
It ends with status 3 when there is a violation.`,
		Example: "  hongyan doctor --config hongyan.yaml\n  hongyan doctor --config hongyan.yaml --json | jq '.checks[] | select(.verdict == \"violation\")'",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := load.load(defaultConfig())
			findings := []doctor.Finding{usable(err)}
			if cfg != nil {
				findings = append(findings, examineSettings(cfg)...)
				findings = append(findings, doctor.Run(cmd.Context(), doctorTarget(cmd.Context(), cfg))...)
			}
			if asJSON {
				err = json.NewEncoder(cmd.OutOrStdout()).Encode(newDoctorReport(findings, cmd.Context().Err() != nil))
			} else {
				err = doctor.Write(cmd.OutOrStdout(), findings)
			}
			if err != nil {
				return err
			}
			if n := doctor.Count(findings, doctor.Violation); n > 0 {
				return &violationError{fmt.Errorf("%d settings break a promise", n)}
			}
			return nil
		},
	}
	load.register(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "one JSON object")
	return cmd
}

// doctorReport is the result as JSON, a contract with scripts.
type doctorReport struct {
	OK          int              `json:"ok"`
	Warnings    int              `json:"warnings"`
	Violations  int              `json:"violations"`
	NotChecked  int              `json:"not_checked"`
	Interrupted bool             `json:"interrupted,omitempty"`
	Checks      []doctor.Finding `json:"checks"`
}

func newDoctorReport(findings []doctor.Finding, interrupted bool) doctorReport {
	return doctorReport{
		OK: doctor.Count(findings, doctor.OK), Warnings: doctor.Count(findings, doctor.Warning),
		Violations: doctor.Count(findings, doctor.Violation), NotChecked: doctor.Count(findings, doctor.NotChecked),
		Interrupted: interrupted, Checks: findings,
	}
}
