package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// transcript is what a process has written so far. Anyone may wait for a text
// to come.
type transcript struct {
	mu      sync.Mutex
	text    []byte
	changed chan struct{} // closed and replaced at each change
	ended   bool
}

func newTranscript() *transcript { return &transcript{changed: make(chan struct{})} }

func (s *transcript) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.text = append(s.text, p...)
	close(s.changed)
	s.changed = make(chan struct{})
	return len(p), nil
}

func (s *transcript) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *transcript) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return string(s.text)
}

// match waits until the text matches pattern and returns the submatches.
func (s *transcript) match(pattern string) ([]string, error) {
	re := regexp.MustCompile(pattern)
	limit := time.After(patience)
	for {
		s.mu.Lock()
		found, changed, ended := re.FindSubmatch(s.text), s.changed, s.ended
		s.mu.Unlock()
		if found != nil {
			words := make([]string, len(found))
			for i := range found {
				words[i] = string(found[i])
			}
			return words, nil
		}
		if ended {
			return nil, fmt.Errorf("the process ended without %q", pattern)
		}
		select {
		case <-changed:
		case <-limit:
			return nil, fmt.Errorf("no %q in %v", pattern, patience)
		}
	}
}

// process is one run of the program.
type process struct {
	t      *testing.T
	cmd    *exec.Cmd
	stdout *transcript
	stderr *transcript
	done   chan struct{} // closed when it has ended
}

// start runs the program; env is added to its environment. It is killed in the
// end if it is still there.
func start(t *testing.T, env []string, args ...string) *process {
	t.Helper()
	return startProgram(t, program(t), env, args...)
}

func startProgram(t *testing.T, bin string, env []string, args ...string) *process {
	t.Helper()
	p := &process{t: t, cmd: exec.Command(bin, args...), stdout: newTranscript(), stderr: newTranscript(), done: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = p.stdout, p.stderr
	p.cmd.WaitDelay = time.Second // who inherited the pipes shall not hold the test up
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.cmd.Wait()
		p.stdout.end()
		p.stderr.end()
		close(p.done)
	}()
	t.Cleanup(func() {
		p.cmd.Process.Kill()
		<-p.done
	})
	return p
}

// ranvier runs the program to its end.
func ranvier(t *testing.T, args ...string) *process {
	t.Helper()
	p := start(t, nil, args...)
	p.wait()
	return p
}

// wait waits for the end of the process and returns its exit code.
func (p *process) wait() int {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(patience):
		p.cmd.Process.Signal(syscall.SIGQUIT) // shows where it hangs
		<-p.done
		p.t.Fatalf("ranvier %q did not end in %v\nstdout: %s\nstderr: %s", p.cmd.Args[1:], patience, last(p.stdout), last(p.stderr))
	}
	return p.cmd.ProcessState.ExitCode()
}

// await waits for a text on one of the process's streams.
func (p *process) await(s *transcript, pattern string) []string {
	p.t.Helper()
	found, err := s.match(pattern)
	if err != nil {
		p.t.Fatalf("ranvier %q: %v\nstdout: %s\nstderr: %s", p.cmd.Args[1:], err, last(p.stdout), last(p.stderr))
	}
	return found
}

func (p *process) signal(sig syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		p.t.Fatal(err)
	}
}

// exits checks the exit code.
func (p *process) exits(code int) {
	p.t.Helper()
	if got := p.wait(); got != code {
		p.t.Fatalf("ranvier %q: exit code %d, want %d\nstdout: %s\nstderr: %s", p.cmd.Args[1:], got, code, last(p.stdout), last(p.stderr))
	}
}

// says checks that what standard error has of our own matches pattern, of as
// many lines: one, but for peers that each have a cause.
func (p *process) says(pattern string) {
	p.t.Helper()
	p.wait()
	var ours []string
	for line := range strings.Lines(p.stderr.String()) {
		if strings.HasPrefix(line, "ranvier: ") {
			ours = append(ours, strings.TrimSuffix(strings.TrimPrefix(line, "ranvier: "), "\n"))
		} else if !regexp.MustCompile(`^(via |artifacts in )`).MatchString(line) {
			p.t.Errorf("ranvier %q: a stray line on standard error: %q", p.cmd.Args[1:], line)
		}
	}
	if text := strings.Join(ours, "\n"); !regexp.MustCompile("^" + pattern + "$").MatchString(text) {
		p.t.Errorf("ranvier %q says %q, want %q", p.cmd.Args[1:], text, pattern)
	} else if testing.Verbose() {
		p.t.Logf("ranvier %q says %q", p.cmd.Args[1:], text)
	}
}

// last is the end of what was written.
func last(s *transcript) string {
	text := s.String()
	if len(text) > 4000 {
		return "[...]" + text[len(text)-4000:]
	}
	return text
}

// A relative is a process that a test has started, or what came of it.
type relative struct {
	pid  int
	argv string // separated by spaces
}

// relatives are the living processes that carry the mark of a test and whose
// command line contains word.
func relatives(t *testing.T, mark, word string) []relative {
	t.Helper()
	procs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	entry := []byte(markName + "=" + mark + "\x00")
	var found []relative
	for _, dir := range procs {
		env, err := os.ReadFile(dir + "/environ")
		if err != nil || !bytes.Contains(env, entry) {
			continue // not ours, or gone by now
		}
		argv, err := os.ReadFile(dir + "/cmdline")
		text := string(bytes.TrimSpace(bytes.ReplaceAll(argv, []byte{0}, []byte{' '})))
		if err != nil || text == "" || !strings.Contains(text, word) {
			continue // a zombie has no command line
		}
		pid, _ := strconv.Atoi(filepath.Base(dir))
		found = append(found, relative{pid, text})
	}
	return found
}

// peakMiB is the most memory that a process has had so far.
func (p *process) peakMiB() int {
	p.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		p.t.Fatal(err)
	}
	found := regexp.MustCompile(`(?m)^VmHWM:\s+(\d+) kB$`).FindSubmatch(status)
	if found == nil {
		p.t.Fatalf("no VmHWM in %s", status)
	}
	kib, _ := strconv.Atoi(string(found[1]))
	return kib >> 10
}

// running tells whether the process has not ended.
func (p *process) running() bool {
	return !errors.Is(p.cmd.Process.Signal(syscall.Signal(0)), os.ErrProcessDone)
}

// peakOfEnded is the most memory in MiB that a process that has ended has had.
func (p *process) peakOfEnded() int {
	return int(p.cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss) >> 10
}
