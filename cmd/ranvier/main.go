// Command ranvier is a node of a mesh for remote automation jobs, and the
// commands that use one. Called by the name ansible-runner or receptor it is that
// tool.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
)

// version is set by the build; a plain `go build` has the module's.
var version string

const (
	// runnerName is the name by which this program is the Python tool:
	// scripts and products call it so, and read what it prints.
	runnerName = "ansible-runner"
	// runnerVersion is the version of the Python tool that this one stands in for.
	runnerVersion = "2.3.1"
)

func main() {
	os.Exit(execute(os.Args))
}

// execute runs a command line, the program's name first, to its exit code.
func execute(args []string) int {
	ctx, done := onSignals(context.Background())
	defer done()
	// All that is logged goes through slog. What libraries give to the standard
	// logger (quic-go: small UDP buffers) is told there already.
	log.SetOutput(io.Discard)

	root := newRoot()
	switch filepath.Base(args[0]) {
	case runnerName:
		root = newRunnerRoot()
	case receptorName:
		root = newReceptorRoot()
	}
	root.SetOut(os.Stdout)
	root.SetArgs(normalize(root, args[1:], standsIn(root)))
	cmd, err := root.ExecuteContextC(ctx)
	code := exitCode(err)
	if text := message(err, root.Name()); text != "" {
		if code == exitUsage && standsIn(root) {
			fmt.Fprintf(os.Stderr, "usage: %s\n%s: error: %s\n", cmd.UseLine(), cmd.CommandPath(), err)
		} else {
			fmt.Fprintf(os.Stderr, "%s: %s\n", root.Name(), text)
		}
	}
	return code
}

// standsIn tells whether a command belongs to the program in its role as the
// Python tool: it then prints what that prints.
func standsIn(cmd *cobra.Command) bool { return cmd.Root().Name() == runnerName }

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "ranvier",
		Short: "A mesh for remote automation jobs, with ansible-runner built in",
		Long: `Ranvier nodes keep links to each other and run jobs for each other, any number
of hops away. "ranvier node" is the long-running node; "ranvier run" sends an
Ansible job to a node and shows the play as it runs there.`,
		Args:                       unknownCommand,
		SuggestionsMinimumDistance: 2,
		RunE:                       func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.AddCommand(newNode(), newKeep(), newPing(), newTraceroute(), newStatus(), newReload(), newDrain(), newCA(), newJoin(), newWork(), newAttach())
	root.AddCommand(runnerCommands()...)
	finishRoot(root, buildVersion())
	return root
}

// newRunnerRoot is the program as the Python tool.
func newRunnerRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   runnerName,
		Short: "Run Ansible jobs",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("argument command: invalid choice: '%s'", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := cmd.Help(); err != nil {
				return err
			}
			return &usageError{errors.New("the following arguments are required: command")}
		},
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	root.AddCommand(runnerCommands()...)
	finishRoot(root, runnerVersion)
	root.SetVersionTemplate("{{.Version}}\n")
	return root
}

// runnerCommands are those that the Python tool has too.
func runnerCommands() []*cobra.Command {
	return []*cobra.Command{newRun(), newStart(), newStop(), newIsAlive(), newTransmit(), newWorker(), newProcess()}
}

// plainFlagError says what a flag's value has to be, where pflag tells of the
// function that did not take it.
func plainFlagError(err error) error {
	text, cause, found := strings.Cut(err.Error(), ": strconv.")
	if !found {
		return err
	}
	want := "a number"
	switch function, _, _ := strings.Cut(cause, ":"); {
	case strings.Contains(cause, "out of range"):
		want = "a smaller number"
	case function == "ParseBool":
		want = "true or false"
	case function == "ParseInt":
		want = "a whole number"
	}
	return fmt.Errorf("%s: it has to be %s", text, want)
}

// finishRoot sets what is the same for all commands.
func finishRoot(root *cobra.Command, version string) {
	root.SilenceUsage, root.SilenceErrors = true, true
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		err = plainFlagError(err)
		if standsIn(cmd) {
			return &usageError{err}
		}
		return &usageError{fmt.Errorf("%w (see %s --help)", err, cmd.CommandPath())}
	})
	var each func(*cobra.Command)
	each = func(cmd *cobra.Command) {
		markEntry(cmd)
		cmd.Version = version
		// Defined here, since cobra's own would take -v for it.
		cmd.Flags().Bool("version", false, "show the version")
		for _, c := range cmd.Commands() {
			each(c)
		}
	}
	each(root)
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

// exitCode is the program's.
func exitCode(err error) int {
	var usage *usageError
	var code *codeError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &code):
		return code.code
	case errors.As(err, &usage), !errors.As(err, new(entered)):
		return exitUsage
	}
	return exitFailed
}

// message is what is printed of an error: joined ones on a line each.
func message(err error, program string) string {
	if err == nil {
		return ""
	}
	return strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", "\n"+program+": ")
}

// exactArgs is cobra.ExactArgs with words for what is missing.
func exactArgs(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch missing := len(names) - len(args); {
		case !standsIn(cmd):
		case missing > 0:
			return &usageError{errors.New("the following arguments are required: private_data_dir")}
		case missing < 0:
			return &usageError{fmt.Errorf("unrecognized arguments: %s", strings.Join(args[len(names):], " "))}
		}
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
