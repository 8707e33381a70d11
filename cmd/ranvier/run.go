package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/ranvier-mesh/ranvier/internal/control"
	"github.com/ranvier-mesh/ranvier/internal/identity"
	"github.com/ranvier-mesh/ranvier/mesh"
	"github.com/ranvier-mesh/ranvier/routing"
	"github.com/ranvier-mesh/ranvier/runner"
	"github.com/ranvier-mesh/ranvier/runner/remote"
	work "github.com/ranvier-mesh/ranvier/worktypes/remote"
)

func newRun() *cobra.Command {
	var r runCommand
	cmd := &cobra.Command{
		Use:   "run DIR (-p PLAYBOOK | -m MODULE | -r ROLE) [--via-receptor NODE]",
		Short: "Run an Ansible job, here or on a node of the mesh",
		Long: `Run a job from the private data directory DIR and show the play as it runs. With
--via-receptor the directory is sent to a node of the mesh, and the job runs
there. Artifacts are in DIR/artifacts afterwards. The exit code is the play's.`,
		Example: `  ranvier run demo -p test.yml --via-receptor node1 --receptor-peer host:1234`,
		Args:    exactArgs("dir"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := r.complete(cmd, args[0]); err != nil {
				return err
			}
			return r.run(cmd.Context())
		},
	}
	r.flags(cmd)
	cmd.Flags().BoolVar(&r.o.Detach, "detach", false, "print NODE/UNIT once the job has been started, and leave it (see attach)")
	return cmd
}

// runCommand is a job on the command line: of run and of start.
type runCommand struct {
	o        remote.Options
	job      jobFlags
	socket   string // of the node that passes the job on
	identity userIdentity
	logs     logFlags
	program  string
	standsIn bool
	daemon   bool // in the background: nobody is watching
}

func (r *runCommand) flags(cmd *cobra.Command) {
	r.job.o = &r.o.Options
	r.job.add(cmd)
	f := cmd.Flags()
	f.StringVar(&r.o.ViaReceptor, "via-receptor", "", "node to run the job on (default: here)")
	f.StringArrayVar(&r.o.ReceptorPeer, "receptor-peer", nil, "node to reach the mesh through: host:port, receptor://host:port, or a URL of quic, ws or wss; may be repeated (default "+remote.DefaultPeer+", port "+remote.DefaultPort+")")
	f.StringVar(&r.o.ReceptorNodeID, "receptor-node-id", "", "id of the ephemeral node (default: one that nobody else has)")
	f.DurationVar(&r.o.Reattach, "reattach-time", 2*time.Minute, "how long to look for the job when the way to it breaks or its node restarts; 0: not at all")
	f.BoolVar(&r.o.WholeJob, "whole-job", false, "send all of DIR, whatever the node has of it, and leave nothing of it there for the next time")
	f.StringVarP(&r.socket, "socket", "s", "", "control socket of a running node that has the job done by NODE, also when that is away now (default $"+socketEnv+")")
	cmd.MarkFlagsMutuallyExclusive("socket", "receptor-peer")
	cmd.MarkFlagsMutuallyExclusive("socket", "receptor-node-id")
	_ = cmd.MarkFlagFilename("socket")
	f.DurationVar(&r.o.TTL, "ttl", 0, "do not start the job later than this (default: no limit)")
	f.StringArrayVar(&r.o.Grants, "grant", nil, grantUsage)
	f.BoolVar(&r.o.Sign, "sign", false, "sign the job with the identity: the node may ask for that")
	cmd.MarkFlagsMutuallyExclusive("socket", "sign")
	r.identity.flag(cmd)
	cmd.MarkFlagsMutuallyExclusive("socket", "identity")
	r.logs.add(cmd)
}

// complete checks the command line.
func (r *runCommand) complete(cmd *cobra.Command, dir string) error {
	r.program, r.standsIn = cmd.Root().Name(), standsIn(cmd)
	if err := r.job.complete(cmd, dir); err != nil {
		return err
	}
	if r.o.Reattach == 0 {
		r.o.Reattach = -1
	}
	if err := checkTTL(cmd, r.o.TTL); err != nil {
		return err
	}
	if r.o.ViaReceptor == "" {
		if len(r.o.ReceptorPeer) > 0 || r.o.ReceptorNodeID != "" || r.socket != "" || r.o.Sign || r.o.WholeJob {
			return &usageError{fmt.Errorf("%s: --receptor-peer, --receptor-node-id, --socket, --sign and --whole-job are for a job on another node: name it with --via-receptor NODE", cmd.Name())}
		}
	} else if !slices.ContainsFunc([]string{"socket", "receptor-peer", "receptor-node-id", "sign", "identity"}, cmd.Flags().Changed) {
		r.socket = os.Getenv(socketEnv)
	}
	return nil
}

// checkTTL refuses a time limit that is over at once.
func checkTTL(cmd *cobra.Command, ttl time.Duration) error {
	if cmd.Flags().Changed("ttl") && ttl <= 0 {
		return &usageError{fmt.Errorf("--ttl %v: give a time above zero, or leave it out for no limit", ttl)}
	}
	return nil
}

// run does the job: the play goes to standard output, all else to standard
// error, and progress is shown on a terminal only.
func (r *runCommand) run(ctx context.Context) error {
	log, logFile, err := r.logs.open()
	if err != nil {
		return err
	}
	defer logFile.Close()
	// Who no longer reads the output (a pipe into head) is no reason to lose a
	// job: the write fails instead of the process, and see clearing. Who closes the
	// terminal cancels it, wherever it runs.
	ctx, stop := whileRunning(ctx)
	defer stop()
	o := r.o
	o.Log = log
	p := &progress{on: term.IsTerminal(int(os.Stderr.Fd())) && !r.standsIn}
	o.Process.Output = p.before(os.Stdout)
	o.Process.JSONMode, o.Process.Quiet, o.Process.OmitEmpty = o.JSONMode, o.Quiet, true
	var hosts runner.Monitor
	o.Process = hosts.Watch(logJob(log, o.Process))

	do := r.viaReceptor
	if o.ViaReceptor == "" {
		do = r.here
	}
	result, err := do(ctx, o, p)
	p.clear()
	if o.Detach && err == nil {
		fmt.Printf("%s/%s\n", result.Holder, result.Unit)
		return nil
	}
	if !r.standsIn && !o.Quiet {
		r.sayResult(result, hosts.Progress())
	}
	return r.end(ctx, result, err)
}

// here runs the job on this host.
func (r *runCommand) here(ctx context.Context, o remote.Options, _ *progress) (remote.Result, error) {
	result, err := runner.Run(ctx, runner.RunOptions{Options: o.Options, Process: o.Process, Log: o.Log, Hurry: hurried(ctx)})
	return remote.Result{Result: result}, err
}

// viaReceptor runs the job on another node.
func (r *runCommand) viaReceptor(ctx context.Context, o remote.Options, p *progress) (remote.Result, error) {
	o.Software = "ranvier " + buildVersion()
	o.Attached = func(path remote.Path) { p.say("job %s on node %s", path.Unit, o.ViaReceptor) }
	o.Sent, o.Content = p.sent, p.content
	o.Waiting = r.waiting(p)
	o.Canceling = func() {
		p.clear()
		hint := " (press Ctrl-C again to leave without waiting)"
		if r.daemon {
			hint = ""
		}
		fmt.Fprintf(os.Stderr, "%s: canceling the job on node %s%s\n", r.program, o.ViaReceptor, hint)
	}
	o.Pending = func(detail string) { p.say("%s", detail) }
	o.Whole = func(why string) { fmt.Fprintf(os.Stderr, "%s: all of the job is sent: %s\n", r.program, why) }
	var err error
	if r.socket != "" {
		if o.Broker, err = r.broker(ctx); err != nil {
			return remote.Result{}, err
		}
		return remote.Run(ctx, o)
	}
	if o.Identity, err = r.identity.load(); err != nil {
		return remote.Result{}, unavailable(err)
	}
	if o.Sign && o.Identity == nil {
		return remote.Result{}, &usageError{errNoIdentity}
	}
	if o.Transports, err = transports(o.Log, o.Identity, nil); err != nil {
		return remote.Result{}, err
	}
	result, err := remote.Run(ctx, o)
	return result, wayTo(err, o.ReceptorPeer)
}

// broker is the running node that the job is handed to.
func (r *runCommand) broker(ctx context.Context) (*remote.Broker, error) {
	c, err := control.Dial(ctx, r.socket)
	if err != nil {
		return nil, &codeError{exitUnavailable, err}
	}
	defer c.Close()
	a, node := access{socket: r.socket}, c.NodeID()
	return &remote.Broker{Node: node, Dial: func(ctx context.Context) (net.Conn, error) { return a.connect(ctx, node) }}, nil
}

// waiting says once for each break that the job cannot be reached.
func (r *runCommand) waiting(p *progress) func(error) {
	var last time.Time
	return func(err error) {
		if time.Since(last) > 10*time.Second {
			p.clear()
			fmt.Fprintf(os.Stderr, "%s: the job goes on and is looked for: %v\n", r.program, err)
		}
		last = time.Now()
	}
}

// sayResult tells people what came of it: to standard error, so that the play's
// output stays the play's.
func (r *runCommand) sayResult(result remote.Result, p runner.Progress) {
	if term.IsTerminal(int(os.Stderr.Fd())) && !r.o.JSONMode && len(p.Hosts) > 0 {
		fmt.Fprintln(os.Stderr) // apart from the play's recap
		summary(os.Stderr, p.Hosts, colours())
	}
	if len(result.Nodes) > 1 {
		fmt.Fprintf(os.Stderr, "via %s, round trip %v\n", joinIDs(result.Nodes[1:]), result.RTT.Round(10*time.Microsecond))
	}
	if result.ArtifactDir != "" {
		fmt.Fprintf(os.Stderr, "artifacts in %s\n", result.ArtifactDir)
	}
}

// where names the place of the job in messages.
func (r *runCommand) where() string {
	if r.o.ViaReceptor == "" {
		return "the job"
	}
	return "the job on node " + r.o.ViaReceptor
}

// end turns the outcome into a last line and an exit code.
func (r *runCommand) end(ctx context.Context, result remote.Result, err error) error {
	switch {
	case ctx.Err() != nil && (err != nil || result.Status == "canceled"):
		if err == nil || errors.Is(err, context.Canceled) {
			return &codeError{exitCanceled, fmt.Errorf("%s was canceled", r.where())}
		}
		return &codeError{exitCanceled, err}
	case err != nil:
		return &codeError{streamExit(result.Result, err), leftBehind(err)}
	case result.RC != 0:
		return jobEnd(r.where(), result.Result, r.standsIn)
	}
	return nil
}

// jobEnd is the end of a job that did not succeed. As the Python tool the program
// says nothing of what the play has said; a time limit the play knows nothing of,
// and Python's worker no more than its name.
func jobEnd(job string, r runner.Result, standsIn bool) error {
	switch {
	case r.Explanation != "":
		return &codeError{r.RC, fmt.Errorf("%s ended with exit code %d (%s): %s", job, r.RC, r.Status, r.Explanation)}
	case standsIn && r.Status != "timeout":
		return &codeError{r.RC, nil}
	}
	return &codeError{r.RC, fmt.Errorf("%s ended with exit code %d (%s)", job, r.RC, r.Status)}
}

// leftBehind adds to an error what has become of the job over there.
func leftBehind(err error) error {
	if broken := (*work.BrokenError)(nil); errors.As(err, &broken) && broken.ID != "" {
		return fmt.Errorf("%w; the job may still run on node %s, as unit %s", err, broken.Node, broken.ID)
	}
	return err
}

// streamExit is the exit code of a job that ended with an error.
func streamExit(r runner.Result, err error) int {
	var peer *mesh.PeerError
	var refused *mesh.RefusedError
	var notTaken *work.Refusal
	var died *remote.WorkError
	var broken *work.BrokenError
	var lost *runner.LinkError
	var truncated *runner.TruncatedError
	switch {
	case errors.As(err, &died), errors.As(err, &broken), errors.As(err, &lost), errors.As(err, &truncated):
		return exitBroken
	case errors.As(err, &peer), errors.As(err, &refused), errors.As(err, &notTaken), errors.Is(err, identity.ErrRevoked):
		return exitUnavailable
	}
	return cmp.Or(r.RC, exitFailed)
}

// canceledOr says "canceled" where a signal was the cause.
func canceledOr(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return &codeError{exitCanceled, errors.New("canceled")}
	}
	return err
}

func joinIDs(ids []routing.NodeID) string {
	texts := make([]string, len(ids))
	for i, id := range ids {
		texts[i] = string(id)
	}
	return strings.Join(texts, " → ")
}
