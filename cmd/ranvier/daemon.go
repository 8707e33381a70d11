package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/ranvier-mesh/ranvier/internal/jobdir"
	"github.com/ranvier-mesh/ranvier/internal/process"
	"github.com/ranvier-mesh/ranvier/runner"
)

// daemonEnv tells a start that it is the process in the background: the
// descriptor of its pid file, a colon, and the job's ident.
const daemonEnv = "RANVIER_DAEMON"

// stopTimeout is how long a job may take to end once it was told to: longer than
// a job on another node is waited for.
const stopTimeout = 30 * time.Second

func newStart() *cobra.Command {
	var r runCommand
	cmd := &cobra.Command{
		Use:   "start DIR (-p PLAYBOOK | -m MODULE | -r ROLE)",
		Short: "Run an Ansible job in the background",
		Long: `Do as "run" does, in the background: DIR/pid names the process, and DIR/daemon.log
has what it had to say. "stop" ends it, "is-alive" tells whether it runs.`,
		Args: exactArgs("dir"),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir, err := filepath.Abs(args[0])
			if err != nil {
				return err
			}
			inherited, inBackground := os.LookupEnv(daemonEnv)
			if inBackground {
				return r.background(cmd, dir, inherited)
			}
			if err := r.complete(cmd, dir); err != nil {
				return err
			}
			return r.start(dir)
		},
	}
	r.flags(cmd)
	return cmd
}

// start begins this same command once more, in a session of its own.
func (r *runCommand) start(dir string) error {
	pid, err := jobdir.CreatePID(dir)
	if err != nil {
		return fmt.Errorf("start: %w", err)
	}
	defer pid.Close() // the other process has it too
	err = r.spawn(dir, pid)
	if err != nil {
		return errors.Join(fmt.Errorf("start: %w", err), pid.Remove())
	}
	return nil
}

func (r *runCommand) spawn(dir string, pid *jobdir.PIDFile) error {
	log, err := os.OpenFile(filepath.Join(dir, "daemon.log"), os.O_WRONLY|os.O_CREATE|os.O_APPEND|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	program, err := os.Executable()
	if err != nil {
		return err
	}
	const firstExtra = 3
	cmd := &exec.Cmd{
		Path: program, Args: os.Args, // under the name that this one was called by
		Env:         append(os.Environ(), daemonEnv+"="+strconv.Itoa(firstExtra)+":"+r.o.Ident),
		Stderr:      log,
		ExtraFiles:  []*os.File{pid.File()},
		SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	if err := pid.Write(cmd.Process.Pid, r.artifacts(dir)); err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return err
	}
	return cmd.Process.Release()
}

// artifacts is where this job's will be.
func (r *runCommand) artifacts(dir string) string {
	root := filepath.Join(dir, "artifacts")
	if given := r.o.ArtifactDir; given != "" {
		root = given
	}
	return filepath.Join(root, r.o.Ident)
}

// background is the job in the process that start has begun.
func (r *runCommand) background(cmd *cobra.Command, dir, inherited string) error {
	if err := os.Unsetenv(daemonEnv); err != nil { // not the job's
		return err
	}
	fd, ident, _ := strings.Cut(inherited, ":")
	n, err := strconv.ParseUint(fd, 10, 31)
	if err != nil {
		return fmt.Errorf("%s=%q: %w", daemonEnv, inherited, err)
	}
	pid := jobdir.InheritPID(uintptr(n), dir)
	r.o.Ident, r.daemon = ident, true
	err = r.complete(cmd, dir)
	if err == nil {
		err = r.run(cmd.Context())
	}
	return errors.Join(err, pid.Remove())
}

func newIsAlive() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "is-alive DIR",
		Short: "Tell with the exit code whether a job runs in the background: 0 yes, 1 no",
		Args:  exactArgs("dir"),
		RunE: func(_ *cobra.Command, args []string) error {
			if d, err := jobdir.Find(args[0]); err != nil || !d.Alive {
				return &codeError{exitFailed, nil}
			}
			return nil
		},
	}
	unusedJobFlags(cmd)
	return cmd
}

func newStop() *cobra.Command {
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "stop DIR",
		Short: "End the job that runs in the background, with all that it started",
		Args:  exactArgs("dir"),
		RunE: func(cmd *cobra.Command, args []string) error {
			d, err := jobdir.Find(args[0])
			if err == nil && !d.Alive || errors.Is(err, fs.ErrNotExist) {
				return &codeError{exitFailed, fmt.Errorf("stop: no job is running in the background in %s", args[0])}
			}
			if err != nil {
				return fmt.Errorf("stop: %w", err)
			}
			return stop(cmd.Context(), args[0], d, timeout)
		},
	}
	unusedJobFlags(cmd)
	cmd.Flags().DurationVar(&timeout, "timeout", stopTimeout, "how long the job may take to end before it is killed")
	return cmd
}

// stop cancels a job as Ctrl-C would, and waits for its end. One that does not
// end is killed, and one of the Python tool's is at once: it would leave Ansible
// running.
func stop(ctx context.Context, dir string, d jobdir.Daemon, timeout time.Duration) error {
	obeyed := false
	if d.Artifacts != "" {
		var err error
		if obeyed, err = process.Terminate(ctx, d.PID, timeout); err != nil {
			return fmt.Errorf("stop: %w", err)
		}
	}
	if obeyed {
		return nil
	}
	if err := process.KillSession(ctx, d.PID); err != nil {
		return fmt.Errorf("stop: %w", err)
	}
	if d.Artifacts != "" {
		ctx, stop := context.WithTimeout(ctx, stopTimeout)
		defer stop()
		if err := runner.KillContainer(ctx, d.Artifacts); err != nil { // one that is gone is no fault
			fmt.Fprintf(os.Stderr, "stop: %v\n", err)
		}
		if err := runner.WriteCanceled(d.Artifacts); err != nil {
			return fmt.Errorf("stop: the job was killed: %w", err)
		}
	}
	if err := os.Remove(filepath.Join(dir, jobdir.PIDName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("stop: %w", err)
	}
	return nil
}

// unusedJobFlags are those of run, which the Python tool takes everywhere.
func unusedJobFlags(cmd *cobra.Command) {
	job := jobFlags{o: &runner.Options{}}
	job.add(cmd)
	var logs logFlags
	logs.add(cmd)
	hideFlags(cmd)
}
