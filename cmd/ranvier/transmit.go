package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/ranvier-mesh/ranvier/runner"
)

func newTransmit() *cobra.Command {
	var o runner.Options
	var logs logFlags
	job := jobFlags{o: &o}
	cmd := &cobra.Command{
		Use:   "transmit DIR (-p PLAYBOOK | -m MODULE | -r ROLE)",
		Short: "Write a job as a stream to standard output, for a worker",
		Long: `Write the private data directory DIR and what to run from it as a stream to
standard output: the input of "ansible-runner worker".`,
		Args: exactArgs("dir"),
		RunE: func(cmd *cobra.Command, args []string) error {
			log, logFile, err := logs.open()
			if err != nil {
				return err
			}
			defer logFile.Close()
			if err := job.complete(cmd, args[0]); err != nil {
				return err
			}
			log.Info("transmit", "dir", args[0], "ident", o.Ident)
			out := bufio.NewWriterSize(os.Stdout, 64<<10)
			if err := runner.Transmit(cmd.Context(), out, o); err != nil {
				out.Flush() // a fault is told to the worker too
				log.Error("transmit", "err", err)
				return canceledOr(cmd.Context(), err)
			}
			log.Debug("transmit: the stream is written")
			return out.Flush()
		},
	}
	job.add(cmd)
	logs.add(cmd)
	return cmd
}

func newProcess() *cobra.Command {
	var o runner.ProcessOptions
	var logs logFlags
	cmd := &cobra.Command{
		Use:   "process DIR",
		Short: "Read a worker's stream from standard input: output, events, artifacts",
		Long: `Read what "ansible-runner worker" writes from standard input, show the play's
output, and store events and artifacts in DIR/artifacts. The exit code is the
play's. Canceled (Ctrl-C, SIGTERM) it takes for up to 10 seconds what the worker,
which most often was canceled with it, still sends; a second time ends that.`,
		Args: exactArgs("dir"),
		RunE: func(cmd *cobra.Command, args []string) error {
			log, logFile, err := logs.open()
			if err != nil {
				return err
			}
			defer logFile.Close()
			o.PrivateDataDir = args[0]
			o.Output = os.Stdout
			ctx, stop := whileRunning(cmd.Context())
			defer stop()
			in, err := interruptible(os.Stdin)
			if err != nil {
				return err
			}
			reading, stopReading := lastWords(ctx, hurried(cmd.Context()), func() {
				fmt.Fprintf(os.Stderr, "%s: canceled, waiting for what the worker still sends (press Ctrl-C again to leave without waiting)\n", cmd.Root().Name())
			})
			defer stopReading()
			result, err := runner.Process(reading, in, logJob(log, o))
			return processEnd(ctx, result, err, standsIn(cmd))
		},
	}
	cmd.Flags().StringVarP(&o.Ident, "ident", "i", "", "store below DIR/artifacts/IDENT")
	cmd.Flags().BoolVarP(&o.JSONMode, "json", "j", false, "the events as JSON, one a line, instead of the output")
	cmd.Flags().BoolVarP(&o.Quiet, "quiet", "q", false, "no output of the play")
	cmd.Flags().Var(byteSize{&o.MaxArtifactBytes}, "max-size", "refuse artifacts that unpack to more than SIZE, as 500MB or 2GiB (default 64GiB)")
	logs.add(cmd)
	return cmd
}

// processEnd turns the outcome into a last line and an exit code, as
// runCommand.end.
func processEnd(ctx context.Context, result runner.Result, err error, standsIn bool) error {
	switch {
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		return canceledOr(ctx, err)
	case ctx.Err() != nil && err != nil:
		return &codeError{exitCanceled, fmt.Errorf("canceled; %w", err)}
	case ctx.Err() != nil && result.Status == "canceled":
		return &codeError{exitCanceled, errors.New("the job was canceled")}
	case err != nil:
		return &codeError{streamExit(result, err), err}
	case result.RC != 0:
		return jobEnd("the job", result, standsIn)
	}
	return nil
}
