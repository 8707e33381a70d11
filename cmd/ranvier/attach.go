package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/ranvier-mesh/ranvier/runner"
	"github.com/ranvier-mesh/ranvier/runner/remote"
	"github.com/ranvier-mesh/ranvier/worktypes"
	work "github.com/ranvier-mesh/ranvier/worktypes/remote"
)

func newAttach() *cobra.Command {
	var a access
	var dir, ident string
	var patience time.Duration
	var p runner.ProcessOptions
	cmd := &cobra.Command{
		Use:   "attach NODE/UNIT",
		Short: "Watch a play that runs on a node of the mesh, or has run there",
		Long: `Show a play from its beginning, as if one had been there all the time, to its end.
Several may watch one at once, from any node. Ctrl-C leaves the play alone. The exit
code is the play's; the unit stays on its node until it is released.`,
		Example: `  ranvier attach node1/01ARZ3NDEKTSV4RRFFQ69G5FAV --receptor-peer host:1234 --private-data-dir demo`,
		Args:    exactArgs("node/unit"),
		RunE: func(cmd *cobra.Command, args []string) error {
			node, unit, err := splitUnit(args[0])
			if err != nil {
				return err
			}
			c, done, err := a.workOf(cmd.Context(), node)
			if err != nil {
				return err
			}
			defer done()
			c.Patience = patience
			p.Output, p.OmitEmpty, p.PrivateDataDir, p.Ident = os.Stdout, true, dir, ident
			return attach(cmd.Context(), c, unit, p)
		},
	}
	a.flags(cmd)
	f := cmd.Flags()
	f.StringVar(&dir, "private-data-dir", "", "bring events and artifacts into artifacts/ of this directory (default: only show the play)")
	f.StringVarP(&ident, "ident", "i", "", "name of the run below artifacts/ (default: the unit's id)")
	f.BoolVarP(&p.JSONMode, "json", "j", false, "the play's events as JSON, one a line, instead of its output")
	f.BoolVarP(&p.Quiet, "quiet", "q", false, "no output of the play")
	f.DurationVar(&patience, "reattach-time", 2*time.Minute, "how long to look for the play when the way to it breaks; 0: not at all")
	return cmd
}

// attach follows a unit's stream from its beginning.
func attach(ctx context.Context, c *work.Client, unit string, p runner.ProcessOptions) error {
	if p.PrivateDataDir == "" {
		tmp, err := os.MkdirTemp("", "ranvier-attach-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(tmp)
		p.PrivateDataDir = tmp
	}
	if p.Ident == "" {
		p.Ident = unit
	}
	job, err := c.Follow(ctx, unit, 0)
	if err != nil {
		return workError(err)
	}
	defer job.Close()
	defer context.AfterFunc(ctx, func() { job.Close() })()
	var hosts runner.Monitor
	result, err := runner.Process(ctx, job.Results, hosts.Watch(p))
	if ctx.Err() != nil {
		return leftUnit(c.Node, unit)
	}
	if progress := hosts.Progress(); term.IsTerminal(int(os.Stderr.Fd())) && !p.JSONMode && len(progress.Hosts) > 0 {
		fmt.Fprintln(os.Stderr)
		summary(os.Stderr, progress.Hosts, colours())
	}
	var refused *work.Refusal
	switch st := job.Status(); {
	case errors.As(err, &refused):
		return workError(err)
	case st.State == worktypes.Canceled:
		return &codeError{exitCanceled, fmt.Errorf("unit %s/%s was canceled", c.Node, unit)}
	case st.State == worktypes.Failed && (err != nil || result.Status == "canceled"): // the stream does not say why
		err = &remote.WorkError{Node: c.Node, Status: st, Stream: err}
		return &codeError{streamExit(result, err), err}
	case err != nil:
		return &codeError{streamExit(result, err), err}
	case result.RC != 0:
		return jobEnd(fmt.Sprintf("unit %s/%s", c.Node, unit), result, false)
	}
	return nil
}
