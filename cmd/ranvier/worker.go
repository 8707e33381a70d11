package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/ranvier-mesh/ranvier/runner"
)

func newWorker() *cobra.Command {
	var o runner.WorkOptions
	var info bool
	var logs logFlags
	keepalive := seconds{&o.Keepalive}
	cmd := &cobra.Command{
		Use:   "worker",
		Short: "Read a job from standard input, run it, write what happens to standard output",
		Long: `Read from standard input what "transmit" writes, run it on this host, and write
what "process" reads to standard output. ansible-core is all that it needs here.`,
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if info {
				version := buildVersion()
				if standsIn(cmd) {
					version = runnerVersion
				}
				_, err := os.Stdout.WriteString(runner.WorkerInfo(version).String() + "\n")
				return err
			}
			if given := os.Getenv("ANSIBLE_RUNNER_KEEPALIVE_SECONDS"); given != "" && !cmd.Flags().Changed("keepalive-seconds") {
				if err := keepalive.Set(given); err != nil {
					return fmt.Errorf("ANSIBLE_RUNNER_KEEPALIVE_SECONDS: %w", err)
				}
			}
			log, logFile, err := logs.open()
			if err != nil {
				return err
			}
			defer logFile.Close()
			o.Log, o.Hurry = log, hurried(cmd.Context())
			ctx, stop := whileRunning(cmd.Context())
			defer stop()
			ctx = whileRead(ctx, os.Stdout)
			in, err := interruptible(os.Stdin)
			if err != nil {
				return err
			}
			var ended runner.Result
			o.FinishedHandler = func(r runner.Result) { ended = r }
			err = runner.Work(ctx, in, os.Stdout, o)
			return workEnd(ctx, ended, err)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.PrivateDataDir, "private-data-dir", "", "where to unpack the job (default: a temporary directory)")
	f.BoolVar(&o.Delete, "delete", false, "remove that directory before the job and after it")
	f.Var(byteSize{&o.MaxBytes}, "max-size", "refuse a job that unpacks to more than SIZE, as 500MB or 2GiB (default 64GiB)")
	f.StringVar(&o.Node, "node", "", "id of this node, for messages (default: the host name)")
	f.Var(keepalive, "keepalive-seconds", "write a keepalive event after so many seconds without output (0: none)")
	f.BoolVar(&info, "worker-info", false, "show what this host has to offer, and end")
	logs.add(cmd)
	cmd.AddCommand(newCleanup())
	return cmd
}

// workEnd is the worker's exit code: that of the job, where it ran.
func workEnd(ctx context.Context, ended runner.Result, err error) error {
	if cause := context.Cause(ctx); err != nil && errors.Is(cause, syscall.EPIPE) {
		return cause
	}
	var fault *runner.WorkError
	if err != nil && ctx.Err() != nil && !errors.As(err, &fault) {
		return &codeError{exitCanceled, errors.New("canceled")}
	}
	if err == nil && ended.RC != 0 {
		return &codeError{ended.RC, nil} // the stream says the rest
	}
	return err
}

// seconds is a flag of whole or broken seconds.
type seconds struct{ to *time.Duration }

func (s seconds) String() string {
	if s.to == nil {
		return "0"
	}
	return strconv.FormatFloat(s.to.Seconds(), 'g', -1, 64)
}
func (s seconds) Type() string { return "seconds" }

// Set takes a number from 0.
func (s seconds) Set(text string) error {
	n, err := strconv.ParseFloat(text, 64)
	if err != nil || n < 0 || n > 1e9 || n != n {
		return fmt.Errorf("%q is no number of seconds", text)
	}
	*s.to = time.Duration(n * float64(time.Second))
	return nil
}
