package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/ranvier-mesh/ranvier/internal/control"
	"github.com/ranvier-mesh/ranvier/worktypes"
	work "github.com/ranvier-mesh/ranvier/worktypes/remote"
)

func newWork() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "work",
		Short: "Submit, look at and end work units",
		Long: `Work units are jobs on a node of the mesh. A unit is named NODE/UNIT, as submit and
run --detach print it. With --socket a submit is stored at that node and forwarded: it
may be for a node that is away. Otherwise it goes straight to the node.`,
		Args: unknownCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newWorkSubmit(), newWorkList(), newWorkStatus(), newWorkResults(),
		newWorkEnd("cancel", "End a unit's job; what it has written stays"),
		newWorkEnd("release", "Remove a unit with all that is kept of it; one that runs is canceled"))
	return cmd
}

// unitCommand is a command for one unit.
func unitCommand(use, short string, run func(ctx context.Context, c *work.Client, unit string, asJSON bool) error) *cobra.Command {
	var a access
	var asJSON bool
	cmd := &cobra.Command{
		Use: use + " NODE/UNIT", Short: short, Args: exactArgs("node/unit"),
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
			return workError(run(cmd.Context(), c, unit, asJSON))
		},
	}
	a.flags(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "JSON instead of a table")
	return cmd
}

func newWorkStatus() *cobra.Command {
	return unitCommand("status", "Show how a unit is", func(ctx context.Context, c *work.Client, unit string, asJSON bool) error {
		st, err := c.Status(ctx, unit)
		if err != nil {
			return err
		}
		return showUnits(os.Stdout, c.Node, []worktypes.Status{st}, asJSON)
	})
}

func newWorkResults() *cobra.Command {
	return unitCommand("results", "Write a unit's output as it comes, to its end", func(ctx context.Context, c *work.Client, unit string, _ bool) error {
		return followUnit(ctx, c, unit)
	})
}

// followUnit writes a unit's output; the exit code is 0 when the unit succeeded.
func followUnit(ctx context.Context, c *work.Client, unit string) error {
	c.Patience = 2 * time.Minute
	job, err := c.Follow(ctx, unit, 0)
	switch {
	case err != nil && ctx.Err() != nil:
		return leftUnit(c.Node, unit)
	case err != nil:
		return err
	}
	return unitEnd(ctx, c, job)
}

func unitEnd(ctx context.Context, c *work.Client, job *work.Job) error {
	defer job.Close()
	defer context.AfterFunc(ctx, func() { job.Close() })()
	if _, err := io.Copy(os.Stdout, struct{ io.Reader }{job.Results}); err != nil {
		if ctx.Err() != nil {
			return leftUnit(c.Node, job.ID)
		}
		return err
	}
	st := job.Status()
	if st.State == worktypes.Succeeded {
		return nil
	}
	code := exitFailed
	switch {
	case st.State == worktypes.Canceled:
		code = exitCanceled
	case st.ExitCode > 0:
		code = st.ExitCode
	}
	return &codeError{code, fmt.Errorf("unit %s/%s is %v: %s", c.Node, job.ID, st.State, st.Detail)}
}

// leftUnit is the end of a command that was interrupted while it looked at a unit.
func leftUnit(node, unit string) error {
	return &codeError{exitCanceled, fmt.Errorf("left unit %s/%s, which goes on: see ranvier work results and cancel", node, unit)}
}

// tellWaiting says, each once, what keeps a unit from its start.
func tellWaiting(say func(format string, args ...any)) func(worktypes.Status) {
	last := ""
	return func(st worktypes.Status) {
		if st.State == worktypes.Pending && st.Detail != last {
			last = st.Detail
			say("%s", last)
		}
	}
}

func newWorkEnd(use, short string) *cobra.Command {
	return unitCommand(use, short, func(ctx context.Context, c *work.Client, unit string, asJSON bool) error {
		var err error
		done := "released"
		if use == "release" {
			err = c.Release(ctx, unit)
		} else {
			done = "cancelled"
			_, err = c.Cancel(ctx, unit)
		}
		if err == nil && asJSON {
			err = json.NewEncoder(os.Stdout).Encode(map[string]string{done: c.Node + "/" + unit}) // as the control socket has it
		}
		return err
	})
}

func newWorkList() *cobra.Command {
	var a access
	var asJSON bool
	cmd := &cobra.Command{
		Use: "list NODE", Short: "List the units of a node that are yours", Args: exactArgs("node"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, done, err := a.workOf(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			defer done()
			list, err := c.List(cmd.Context())
			if err != nil {
				return workError(err)
			}
			return showUnits(os.Stdout, args[0], list, asJSON)
		},
	}
	a.flags(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "one JSON object a line instead of a table")
	return cmd
}

// showUnits writes units for people, or for programs one object a line.
func showUnits(w io.Writer, node string, list []worktypes.Status, asJSON bool) error {
	if asJSON {
		enc := json.NewEncoder(w)
		for _, st := range list {
			if err := enc.Encode(st); err != nil {
				return err
			}
		}
		return nil
	}
	now := time.Now()
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "UNIT\tTYPE\tSTATE\tAGE\tOUTPUT\tOWNER\tDETAIL")
	for _, st := range list {
		fmt.Fprintf(t, "%s/%s\t%s\t%v\t%s\t%s\t%s\t%s\n", node, st.ID, st.WorkType, st.State, age(st.Created, now),
			bytesText(uint64(st.StdoutSize)), st.Owner, st.Detail)
	}
	return t.Flush()
}

// grantUsage is of --grant.
const grantUsage = "identity that may also see, follow, cancel and release the unit; may be repeated"

// workSubmit is the command line of submit.
type workSubmit struct {
	access  access
	params  []string
	payload string
	ttl     time.Duration
	detach  bool
	json    bool
	sign    bool
	grants  []string
}

func newWorkSubmit() *cobra.Command {
	var s workSubmit
	cmd := &cobra.Command{
		Use: "submit NODE TYPE", Short: "Submit a unit and follow its output", Args: exactArgs("node", "type"),
		Example: `  ranvier work submit node1 backup --param params="-v /srv" --payload list.txt --socket /run/ranvier.sock`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkTTL(cmd, s.ttl); err != nil {
				return err
			}
			return s.run(cmd.Context(), args[0], args[1])
		},
	}
	s.access.flags(cmd)
	f := cmd.Flags()
	f.StringArrayVar(&s.params, "param", nil, "parameter KEY=VALUE of the work type; may be repeated")
	f.StringVar(&s.payload, "payload", "", "file with the job's standard input; - is standard input (default: empty)")
	f.DurationVar(&s.ttl, "ttl", 0, "do not start the unit later than this (default: no limit)")
	f.BoolVar(&s.sign, "sign", false, "sign the work: with your identity, or with --socket with that of its node")
	f.StringArrayVar(&s.grants, "grant", nil, grantUsage)
	f.BoolVar(&s.detach, "detach", false, "print NODE/UNIT when the unit is started, or stored with --socket, and leave it")
	f.BoolVar(&s.json, "json", false, "with --detach: JSON instead of NODE/UNIT")
	return cmd
}

// left tells of a unit that is left to itself.
func (s *workSubmit) left(node, unit string) error {
	if s.json {
		return json.NewEncoder(os.Stdout).Encode(map[string]string{"node": node, "unit": unit})
	}
	_, err := fmt.Printf("%s/%s\n", node, unit)
	return err
}

func (s *workSubmit) run(ctx context.Context, node, kind string) error {
	if s.json && !s.detach {
		return &usageError{errors.New("--json is for --detach: else the output is the job's")}
	}
	params := map[string]string{}
	for _, p := range s.params {
		key, value, ok := strings.Cut(p, "=")
		if !ok || key == "" {
			return &usageError{fmt.Errorf("--param %q is not KEY=VALUE", p)}
		}
		params[key] = value
	}
	payload, err := s.open()
	if err != nil {
		return err
	}
	defer payload.Close()
	shown := &sending{Reader: payload, p: &progress{on: term.IsTerminal(int(os.Stderr.Fd()))}}
	defer shown.p.clear()
	if s.access.socket != "" && len(s.access.peers) == 0 {
		return s.store(ctx, node, kind, params, shown)
	}
	c, done, err := s.access.workOf(ctx, node)
	if err != nil {
		return err
	}
	defer done()
	spec := worktypes.Spec{ID: worktypes.NewID(), Type: kind, Params: params, Grants: s.grants}
	if s.ttl > 0 {
		spec.Expires = time.Now().Add(s.ttl)
	}
	c.Keep, c.Told = s.detach, tellWaiting(shown.p.say)
	input := work.Input{Payload: func(work.Takes) io.Reader { return shown }}
	if s.sign {
		self, err := s.access.identity.load()
		if err != nil {
			return err
		}
		if self == nil {
			return &usageError{errNoIdentity}
		}
		input.Sign = self.SignWork
	}
	job, err := c.SubmitInput(ctx, spec, input)
	if err != nil {
		return workError(err)
	}
	if s.detach {
		job.Close()
		return s.left(node, spec.ID)
	}
	return workError(unitEnd(ctx, c, job))
}

func (s *workSubmit) open() (io.ReadCloser, error) {
	switch s.payload {
	case "":
		return io.NopCloser(strings.NewReader("")), nil
	case "-":
		return io.NopCloser(os.Stdin), nil
	}
	return os.Open(s.payload)
}

// store leaves the unit with the node of the control socket.
func (s *workSubmit) store(ctx context.Context, node, kind string, params map[string]string, payload *sending) error {
	c, err := control.Dial(ctx, s.access.socket)
	if err != nil {
		return &codeError{exitUnavailable, err}
	}
	defer c.Close()
	request := map[string]any{"command": "work", "subcommand": "submit", "node": node, "worktype": kind}
	for key, value := range params {
		request[key] = value
	}
	if s.sign {
		request["signwork"] = "true"
	}
	if len(s.grants) > 0 {
		request["grants"] = s.grants
	}
	if s.ttl > 0 {
		request["ttl"] = s.ttl.String()
	}
	unit, err := c.Submit(ctx, request, payload)
	if err != nil {
		return err
	}
	if s.detach {
		return s.left(c.NodeID(), unit)
	}
	w, done, err := s.access.workOf(ctx, c.NodeID())
	if err != nil {
		return err
	}
	defer done()
	w.Keep, w.Told = false, tellWaiting(payload.p.say)
	return workError(followUnit(ctx, w, unit))
}
