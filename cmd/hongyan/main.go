// Command hongyan is the whole system: a subcommand a tier, dev for all of them in one
// process, and the tools around them. docs of the command line: hongyan help.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// Exit codes, a contract with scripts.
const (
	exitDone      = 0
	exitFailed    = 1 // refused or failed: one clear line on stderr
	exitUsage     = 2
	exitViolation = 3 // it ran and found a violation
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the first signal drains; a second one ends the process at once
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRootCmd()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitDone
	}
	fmt.Fprintf(stderr, "hongyan: %v\n", err)
	var usage *usageError
	var violation *violationError
	switch {
	case errors.As(err, &usage):
		fmt.Fprintln(stderr, "run 'hongyan help' for the commands, 'hongyan COMMAND --help' for one")
		return exitUsage
	case errors.As(err, &violation):
		return exitViolation
	}
	return exitFailed
}

// usageError is a mistake in the command line itself.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// violationError: the command did its work and found something wrong.
type violationError struct{ err error }

func (e *violationError) Error() string { return e.err.Error() }
func (e *violationError) Unwrap() error { return e.err }

func newRootCmd() *cobra.Command {
	root := &cobra.Command{
		Use:   "hongyan",
		Short: "an instant-messaging system for e-commerce platforms",
		Long: `Hongyan carries the messages of buyers, sellers, service agents and the platform itself.
'hongyan dev' runs all of it in one process; the tier commands run one tier each.`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &usageError{err} })
	root.AddGroup(
		&cobra.Group{ID: "run", Title: "Run:"},
		&cobra.Group{ID: "use", Title: "Use:"},
		&cobra.Group{ID: "operate", Title: "Operate:"},
	)
	add := func(group string, cmds ...*cobra.Command) {
		for _, c := range cmds {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add("run", newDevCmd())
	for _, t := range targets() {
		add("run", newTargetCmd(t))
	}
	add("use", newTokenCmd(), newChatCmd(), newBenchCmd())
	add("operate", newConfigCmd(), newDBCmd(), newDoctorCmd(), newMQCmd(), newControlCmd(), newVersionCmd())
	return root
}

// noArgs is cobra.NoArgs with the exit code of a usage error.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return &usageError{fmt.Errorf("unknown command or argument %q for %q", args[0], cmd.CommandPath())}
	}
	return nil
}
