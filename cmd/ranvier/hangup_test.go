package main

import (
	"bufio"
	"bytes"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// beginning starts cmd and reads its output up to a line with mark.
func beginning(t *testing.T, cmd *exec.Cmd, mark string) (io.ReadCloser, *bytes.Buffer) {
	t.Helper()
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(out)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			t.Fatalf("no %q came: %v; %s", mark, err, errs.String())
		}
		if strings.Contains(line, mark) {
			return out, &errs
		}
	}
}

func leftIn(t *testing.T, dir string) []string {
	t.Helper()
	left, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	return left
}

// TestNothingStaysWhenNobodyIsLeft: a worker whose reader or terminal goes leaves
// no directory with keys and passwords behind.
func TestNothingStaysWhenNobodyIsLeft(t *testing.T) {
	t.Parallel()
	if signal.Ignored(syscall.SIGHUP) {
		t.Skip("SIGHUP is ignored here, and so by what this starts")
	}
	dir := privateDataDir(t, map[string]string{"env/ssh_pass": "secret", "args": `sh -c 'echo begun; while sleep 0.1; do echo more; done'`})
	silent := privateDataDir(t, map[string]string{"args": `sh -c 'echo begun; setsid sleep 600'`})
	jobs := make(map[string]string)
	for _, d := range []string{dir, silent} {
		job := named(t, "ranvier").run(t, "", "transmit", d)
		if job.code != 0 {
			t.Fatalf("%+v", job)
		}
		jobs[d] = job.out
	}
	for name, c := range map[string]struct {
		goes func(*exec.Cmd, io.Closer) error
		code int
		says string
		dir  string
	}{
		"the reader":                            {func(_ *exec.Cmd, out io.Closer) error { return out.Close() }, 1, "broken pipe", dir},
		"the reader of a job that says nothing": {func(_ *exec.Cmd, out io.Closer) error { return out.Close() }, 1, "broken pipe", silent},
		"the terminal":                          {func(cmd *exec.Cmd, _ io.Closer) error { return cmd.Process.Signal(syscall.SIGHUP) }, 254, "canceled", silent},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tmp := t.TempDir()
			cmd := named(t, "ranvier", "TMPDIR="+tmp).command(t, "worker")
			cmd.Stdin = strings.NewReader(jobs[c.dir])
			out, errs := beginning(t, cmd, "begun")
			if len(leftIn(t, tmp)) == 0 {
				t.Error("the worker's directory is not where this looks for it")
			}
			if err := c.goes(cmd, out); err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, out)
			_ = cmd.Wait()
			if code := cmd.ProcessState.ExitCode(); code != c.code || !strings.Contains(errs.String(), c.says) {
				t.Errorf("exit code %d, want %d: %s", code, c.code, errs.String())
			}
			if left := leftIn(t, tmp); len(left) > 0 {
				t.Errorf("left: %q", left)
			}
		})
	}
}

// TestRunEndsWithItsTerminal: the job is canceled, as by Ctrl-C.
func TestRunEndsWithItsTerminal(t *testing.T) {
	t.Parallel()
	if signal.Ignored(syscall.SIGHUP) {
		t.Skip("SIGHUP is ignored here, and so by what this starts")
	}
	dir := privateDataDir(t, map[string]string{"args": `sh -c 'echo begun; sleep 600'`})
	cmd := named(t, "ranvier").command(t, "run", dir, "-i", "id1")
	out, errs := beginning(t, cmd, "begun")
	if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, out)
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 254 {
		t.Errorf("exit code %d: %s", code, errs.String())
	}
	artifacts := filepath.Join(dir, "artifacts", "id1")
	for name, want := range map[string]string{"rc": "254", "status": "canceled"} {
		if got, err := os.ReadFile(filepath.Join(artifacts, name)); string(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	for _, name := range []string{"callback", "events", "tmp"} {
		if _, err := os.Lstat(filepath.Join(artifacts, name)); err == nil {
			t.Errorf("%s is left", name)
		}
	}
}

// TestInterruptedPipeline: Ctrl-C reaches all of it, and what the worker tells of
// that arrives.
func TestInterruptedPipeline(t *testing.T) {
	t.Parallel()
	to := t.TempDir()
	own := named(t, "ranvier", setGrace+"=1h")
	job := own.run(t, "", "transmit", privateDataDir(t, map[string]string{"args": `sh -c 'echo begun; sleep 600'`}), "-i", "id1")
	worker, process := own.command(t, "worker"), own.command(t, "process", to, "-i", "id1")
	worker.Stdin = strings.NewReader(job.out)
	said, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	worker.Stdout, process.Stdin = w, said
	worker.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := worker.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	process.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pgid: worker.Process.Pid}
	out, errs := beginning(t, process, "begun")
	said.Close()
	if err := syscall.Kill(-worker.Process.Pid, syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, out)
	_, _ = worker.Wait(), process.Wait()
	if first, last := worker.ProcessState.ExitCode(), process.ProcessState.ExitCode(); first != 254 || last != 254 || !strings.Contains(errs.String(), "ranvier: the job was canceled\n") {
		t.Errorf("exit codes %d and %d: %s", first, last, errs.String())
	}
	artifacts := filepath.Join(to, "artifacts", "id1")
	for name, want := range map[string]string{"rc": "254", "status": "canceled"} {
		if got, err := os.ReadFile(filepath.Join(artifacts, name)); string(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	for _, name := range []string{"command", "stdout", "stderr"} {
		if _, err := os.Lstat(filepath.Join(artifacts, name)); err != nil {
			t.Error(err)
		}
	}
}

// TestProcessEndsWithItsTerminal, also while its worker says nothing: after a
// grace, and at the second signal without one.
func TestProcessEndsWithItsTerminal(t *testing.T) {
	t.Parallel()
	if signal.Ignored(syscall.SIGHUP) {
		t.Skip("SIGHUP is ignored here, and so by what this starts")
	}
	for _, c := range []struct {
		grace   string
		signals []syscall.Signal
	}{
		{"10ms", []syscall.Signal{syscall.SIGHUP}},
		{"10ms", []syscall.Signal{syscall.SIGINT}},
		{"1h", []syscall.Signal{syscall.SIGINT, syscall.SIGTERM}},
	} {
		cmd := named(t, "ranvier", setGrace+"="+c.grace).command(t, "process", t.TempDir())
		in, worker, err := os.Pipe() // which, unlike a socket, waits in read(2)
		if err != nil {
			t.Fatal(err)
		}
		defer worker.Close()
		defer in.Close()
		cmd.Stdin = in
		if _, err := worker.WriteString(`{"uuid": "u", "counter": 1, "stdout": "begun", "event": "verbose"}` + "\n"); err != nil {
			t.Fatal(err)
		}
		out, errs := beginning(t, cmd, "begun")
		for _, sig := range c.signals {
			if err := cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
		}
		_, _ = io.Copy(io.Discard, out)
		_ = cmd.Wait()
		if code := cmd.ProcessState.ExitCode(); code != 254 || !strings.Contains(errs.String(), "canceled") {
			t.Errorf("%v: exit code %d: %s", c.signals, code, errs.String())
		}
	}
}

// TestNohup: what was started to outlive its terminal does.
func TestNohup(t *testing.T) {
	t.Parallel()
	gate := filepath.Join(t.TempDir(), "gate")
	dir := privateDataDir(t, map[string]string{"args": `sh -c 'echo begun; read x < ` + gate + `; echo went on'`})
	if err := syscall.Mkfifo(gate, 0o600); err != nil {
		t.Fatal(err)
	}
	job := named(t, "ranvier").command(t, "run", dir, "-i", "id1")
	job.Args = append([]string{"sh", "-c", `trap "" HUP; exec "$@"`, "sh"}, job.Args...)
	job.Path = "/bin/sh"
	out, errs := beginning(t, job, "begun")
	if err := job.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(gate, []byte("x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	said, _ := io.ReadAll(out)
	if err := job.Wait(); err != nil {
		t.Errorf("%v: %s%s", err, said, errs.String())
	}
}

// gate is a pipe that a job holds open: the returned function waits until nobody
// of the job is left.
func gate(t *testing.T, dir string) (path string, wait func()) {
	t.Helper()
	path = filepath.Join(dir, "gate")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return path, func() {
		if _, err := io.Copy(io.Discard, f); err != nil {
			t.Error(err)
		}
	}
}

// TestImpatience: the second signal gives a job no time, but leaves nothing
// behind, not even of one that is deaf and has moved to a session of its own.
func TestImpatience(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"run", "worker"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			held, gone := gate(t, t.TempDir())
			dir := privateDataDir(t, map[string]string{"args": `sh -c 'exec 3>` + held + `; trap "" INT TERM HUP; setsid sleep 600 & echo begun; wait'`})
			tmp := t.TempDir()
			own := named(t, "ranvier", "TMPDIR="+tmp)
			cmd := own.command(t, "run", dir, "-i", "id1")
			if name == "worker" {
				cmd = own.command(t, "worker")
				cmd.Stdin = strings.NewReader(own.run(t, "", "transmit", dir).out)
			}
			out, errs := beginning(t, cmd, "begun")
			for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
				if err := cmd.Process.Signal(sig); err != nil {
					t.Fatal(err)
				}
			}
			_, _ = io.Copy(io.Discard, out)
			_ = cmd.Wait()
			gone()
			if code := cmd.ProcessState.ExitCode(); code != 254 {
				t.Errorf("exit code %d: %s", code, errs.String())
			}
			if name == "worker" {
				if left := leftIn(t, tmp); len(left) > 0 {
					t.Errorf("left: %q", left)
				}
				return
			}
			for file, want := range map[string]string{"rc": "254", "status": "canceled"} {
				if got, err := os.ReadFile(filepath.Join(dir, "artifacts", "id1", file)); string(got) != want {
					t.Errorf("%s: %q, %v", file, got, err)
				}
			}
		})
	}
}

// TestNobodyReads: a reader that is there and takes nothing keeps no time limit
// from ending the job, and no signal from ending the program.
func TestNobodyReads(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"run", "worker"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			held, gone := gate(t, t.TempDir())
			dir := privateDataDir(t, map[string]string{"env/settings": "job_timeout: 1",
				"args": `sh -c 'exec 3>` + held + `; echo begun; while :; do printf %01000d 0; echo; done'`})
			tmp := t.TempDir()
			own := named(t, "ranvier", "TMPDIR="+tmp)
			cmd := own.command(t, "run", dir, "-i", "id1")
			if name == "worker" {
				cmd = own.command(t, "worker")
				cmd.Stdin = strings.NewReader(own.run(t, "", "transmit", dir).out)
			}
			_, errs := beginning(t, cmd, "begun")
			gone()
			for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
				if err := cmd.Process.Signal(sig); err != nil {
					t.Fatal(err)
				}
			}
			_ = cmd.Wait()
			if code := cmd.ProcessState.ExitCode(); code != 254 || len(leftIn(t, tmp)) > 0 {
				t.Errorf("exit code %d, left %q: %s", code, leftIn(t, tmp), errs.String())
			}
			if got, err := os.ReadFile(filepath.Join(dir, "artifacts", "id1", "status")); name == "run" && string(got) != "timeout" {
				t.Errorf("status: %q, %v", got, err)
			}
		})
	}
}

// TestProcessWithoutAReader: the results are stored to the end, and the exit code
// says that not all was shown.
func TestProcessWithoutAReader(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cmd := named(t, "ranvier").command(t, "process", dir, "-i", "id1")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	event := func(n int) string {
		return `{"uuid": "u", "counter": ` + strconv.Itoa(n) + `, "stdout": "begun", "event": "verbose"}` + "\n"
	}
	if _, err := io.WriteString(in, event(1)); err != nil {
		t.Fatal(err)
	}
	out, errs := beginning(t, cmd, "begun")
	out.Close()
	if _, err := io.WriteString(in, event(2)+event(3)+`{"status": "successful"}`+"\n"+`{"eof": true}`+"\n"); err != nil {
		t.Fatal(err)
	}
	in.Close()
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 1 || !strings.Contains(errs.String(), "broken pipe") || len(leftIn(t, filepath.Join(dir, "artifacts", "id1", "job_events"))) != 3 {
		t.Errorf("exit code %d: %s", code, errs.String())
	}
}
