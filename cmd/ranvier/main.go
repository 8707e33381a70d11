// Command ranvier is a node of a mesh for remote automation jobs, and the
// commands that use one.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/ranvier-mesh/ranvier/runner"
)

// version is set by the build; a plain `go build` has the module's.
var version string

func main() {
	os.Exit(execute(os.Args[1:]))
}

func execute(args []string) int {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	defer onSignals(stop)()
	// All that is logged goes through slog. What libraries give to the standard
	// logger (quic-go: small UDP buffers) is told there already.
	log.SetOutput(io.Discard)

	root := newRoot()
	root.SetOut(os.Stdout)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if text := message(err); text != "" {
		fmt.Fprintf(os.Stderr, "ranvier: %s\n", text)
	}
	return exitCode(err)
}

// onSignals ends the work in an orderly way at the first SIGINT or SIGTERM, and
// the process at the second. The returned function ends that.
func onSignals(stop func()) func() {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	over := make(chan struct{})
	go func() {
		for _, act := range []func(){stop, func() { os.Exit(exitCanceled) }} {
			select {
			case <-signals:
				act()
			case <-over:
				return
			}
		}
	}()
	return func() {
		signal.Stop(signals)
		close(over)
	}
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "ranvier",
		Short: "A mesh for remote automation jobs, with ansible-runner built in",
		Long: `Ranvier nodes keep links to each other and run jobs for each other, any number
of hops away. "ranvier node" is the long-running node; "ranvier run" sends an
Ansible job to a node and shows the play as it runs there.`,
		Version:                    buildVersion(),
		SilenceUsage:               true,
		SilenceErrors:              true,
		Args:                       unknownCommand,
		SuggestionsMinimumDistance: 2,
		RunE:                       func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return &usageError{fmt.Errorf("%w (see %s --help)", err, cmd.CommandPath())}
	})
	root.AddCommand(newNode(), newRun(), newTransmit(), newProcess(), newPing(), newTraceroute(), newStatus())
	for _, cmd := range root.Commands() {
		markEntry(cmd)
	}
	return root
}

// Exit codes beside Ansible's own (0 to 5, 250): README.md lists them.
const (
	exitFailed      = 1   // bad input, or a failure with no code of its own
	exitUsage       = 2   // the command line is wrong
	exitUnavailable = 69  // a peer, the target or its work type cannot be reached
	exitBroken      = 75  // the way or the job's process broke in the middle
	exitCanceled    = 254 // by Ctrl-C, SIGTERM or somebody else
)

// usageError is a command line that is wrong.
type usageError struct{ error }

// entered is an error of a command's own. Every other one comes from cobra,
// which has no types for them, and is about the command line.
type entered struct{ error }

func (e entered) Unwrap() error { return e.error }

// markEntry makes a command's errors entered ones.
func markEntry(cmd *cobra.Command) {
	run := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := run(cmd, args); err != nil {
			return entered{err}
		}
		return nil
	}
}

// unknownCommand refuses what is no command, and says what may be meant.
func unknownCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	hint := ""
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		hint = ", did you mean " + strings.Join(near, " or ") + "?"
	}
	return fmt.Errorf("unknown command %q%s (see %s --help)", args[0], hint, cmd.CommandPath())
}

// codeError is an end with a certain exit code; its error may be nil when all
// has been said.
type codeError struct {
	code int
	err  error
}

func (e *codeError) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}

func (e *codeError) Unwrap() error { return e.err }

func exitCode(err error) int {
	var usage *usageError
	var code *codeError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &code):
		return code.code
	case errors.As(err, &usage), !errors.As(err, new(entered)), errors.Is(err, runner.ErrOptions):
		return exitUsage
	}
	return exitFailed
}

// message is what is printed of an error: joined ones on a line each.
func message(err error) string {
	if err == nil {
		return ""
	}
	return strings.ReplaceAll(err.Error(), "\n", "\nranvier: ")
}

// exactArgs is cobra.ExactArgs with words for what is missing.
func exactArgs(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < len(names) {
			return &usageError{fmt.Errorf("%s: %s is missing (usage: %s)", cmd.Name(), strings.ToUpper(names[len(args)]), cmd.UseLine())}
		}
		if len(args) > len(names) {
			return &usageError{fmt.Errorf("%s: %q is one argument too many (usage: %s)", cmd.Name(), args[len(names)], cmd.UseLine())}
		}
		return nil
	}
}

func buildVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return strings.TrimPrefix(info.Main.Version, "v")
	}
	return "devel"
}
