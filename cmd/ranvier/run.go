package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/ranvier-mesh/ranvier/mesh"
	"github.com/ranvier-mesh/ranvier/routing"
	"github.com/ranvier-mesh/ranvier/runner"
	"github.com/ranvier-mesh/ranvier/runner/remote"
	work "github.com/ranvier-mesh/ranvier/worktypes/remote"
)

func newRun() *cobra.Command {
	var o remote.Options
	var debug bool
	cmd := &cobra.Command{
		Use:   "run DIR (-p PLAYBOOK | -m MODULE | -r ROLE) --via-receptor NODE",
		Short: "Run an Ansible job on a node of the mesh",
		Long: `Send the private data directory DIR to a node of the mesh, run it there, and show
the play as it runs. Artifacts come back into DIR/artifacts. The exit code is
the play's.`,
		Example: `  ranvier run demo -p test.yml --via-receptor node1 --receptor-peer host:1234`,
		Args:    exactArgs("dir"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.ViaReceptor == "" {
				return &usageError{errors.New("run: name the node to run on with --via-receptor NODE (running on this host is not built yet: use ansible-runner run)")}
			}
			if err := completeJob(cmd, &o.Options, args[0]); err != nil {
				return err
			}
			if debug {
				o.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
			}
			return run(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.ViaReceptor, "via-receptor", "", "node to run the job on (needed)")
	f.StringArrayVar(&o.ReceptorPeer, "receptor-peer", nil, "node to reach the mesh through: host:port, receptor://host:port, or a URL of quic, ws or wss; may be repeated (default "+remote.DefaultPeer+", port "+remote.DefaultPort+")")
	f.StringVar(&o.ReceptorNodeID, "receptor-node-id", "", "id of the ephemeral node (default: one that nobody else has)")
	f.BoolVar(&debug, "debug", false, "log what the ephemeral node does")
	jobFlags(cmd, &o.Options)
	return cmd
}

// run does the job: the play goes to standard output, all else to standard
// error, and progress is shown on a terminal only.
func run(ctx context.Context, o remote.Options) error {
	p := &progress{on: term.IsTerminal(int(os.Stderr.Fd()))}
	o.Software = "ranvier " + buildVersion()
	o.Process.Output = p.before(os.Stdout)
	o.Process.JSONMode, o.Process.Quiet, o.Process.OmitEmpty = o.JSONMode, o.Quiet, true
	o.Attached = func(path remote.Path) { p.say("job %s on node %s", path.Unit, o.ViaReceptor) }
	o.Sent = p.sent
	o.Canceling = func() {
		p.clear()
		fmt.Fprintf(os.Stderr, "ranvier: canceling the job on node %s (press Ctrl-C again to leave without waiting)\n", o.ViaReceptor)
	}
	var err error
	if o.Transports, err = transports(o.Log); err != nil {
		return err
	}
	result, err := remote.Run(ctx, o)
	p.clear()
	if len(result.Nodes) > 1 {
		fmt.Fprintf(os.Stderr, "via %s, round trip %v\n", joinIDs(result.Nodes[1:]), result.RTT.Round(10*time.Microsecond))
	}
	if result.ArtifactDir != "" {
		fmt.Fprintf(os.Stderr, "artifacts in %s\n", result.ArtifactDir)
	}
	return runEnd(ctx, o, result, err)
}

// runEnd turns the outcome into a last line and an exit code.
func runEnd(ctx context.Context, o remote.Options, r remote.Result, err error) error {
	switch {
	case ctx.Err() != nil && (err != nil || r.Status == "canceled"):
		if err == nil || errors.Is(err, context.Canceled) {
			return &codeError{exitCanceled, fmt.Errorf("the job on node %s was canceled", o.ViaReceptor)}
		}
		return &codeError{exitCanceled, err}
	case err != nil:
		return &codeError{streamExit(r.Result, err), err}
	case r.RC != 0:
		return &codeError{r.RC, fmt.Errorf("the job on node %s ended with exit code %d (%s)", o.ViaReceptor, r.RC, r.Status)}
	}
	return nil
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
	case errors.Is(err, runner.ErrOptions):
		return exitUsage
	case errors.As(err, &died), errors.As(err, &broken), errors.As(err, &lost), errors.As(err, &truncated):
		return exitBroken
	case errors.As(err, &peer), errors.As(err, &refused), errors.As(err, &notTaken):
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

// progress is a line on a terminal that tells what takes longer than a second,
// until the play's output begins.
type progress struct {
	on bool

	mu    sync.Mutex
	start time.Time
	shown time.Time // when the line was last written; zero: there is none
	done  bool
}

func (p *progress) say(format string, args ...any) {
	if p.on {
		fmt.Fprintf(os.Stderr, "\x1b[2m"+format+"\x1b[0m\n", args...)
	}
}

func (p *progress) sent(bytes int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if p.start.IsZero() {
		p.start = now
	}
	if !p.on || p.done || now.Sub(p.start) < time.Second || now.Sub(p.shown) < 100*time.Millisecond {
		return
	}
	p.shown = now
	rate := float64(bytes) / now.Sub(p.start).Seconds()
	fmt.Fprintf(os.Stderr, "\r\x1b[Ksending the job: %s, %s/s", bytesText(uint64(bytes)), bytesText(uint64(rate)))
}

func (p *progress) clear() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.done = true; !p.shown.IsZero() {
		fmt.Fprint(os.Stderr, "\r\x1b[K")
		p.shown = time.Time{}
	}
}

// before returns f with the line cleared before its first byte.
func (p *progress) before(f *os.File) *clearing { return &clearing{f: f, p: p} }

type clearing struct {
	f    *os.File
	p    *progress
	once sync.Once
}

func (c *clearing) Write(b []byte) (int, error) {
	c.once.Do(c.p.clear)
	return c.f.Write(b)
}
