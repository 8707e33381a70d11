package terminal_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ranvier-mesh/ranvier/runner/internal/terminal"
)

// shell is what to run of a script, with its output in out.
func shell(script string, out *bytes.Buffer) terminal.Spec {
	return terminal.Spec{Argv: []string{"sh", "-c", script}, Env: os.Environ(), Mark: rand.Text(),
		Output: func(p []byte) error { out.Write(p); return nil }}
}

func TestRun(t *testing.T) {
	t.Parallel()
	for script, want := range map[string]struct {
		out  string
		code int
	}{
		"echo out; echo err >&2; exit 7":                   {"out\r\nerr\r\n", 7},
		"test -t 0 && test -t 1 && test -t 2 && stty size": {"24 80\r\n", 0},
		"echo x > /dev/tty":                                {"x\r\n", 0}, // a controlling terminal
		"stty -a | grep -c ' -echo '":                      {"1\r\n", 0},
		"printf 'no end'":                                  {"no end", 0},
		"kill -9 $$":                                       {"", -1},
		`head -c 1000000 /dev/zero | tr '\0' x | wc -c; head -c 100000 /dev/zero | tr '\0' x`: {"1000000\r\n" + strings.Repeat("x", 100000), 0},
	} {
		t.Run(script, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			r, err := terminal.Run(t.Context(), shell(script, &out))
			if err != nil || r.End != terminal.Exited || r.Exit.Code != want.code || out.String() != want.out {
				t.Errorf("%+v, %v: %.100q", r, err, out.String())
			}
			if script == "kill -9 $$" && r.Exit.Signal != 9 {
				t.Errorf("%+v", r)
			}
		})
	}
}

func TestEnvironmentAndDirectory(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	dir := t.TempDir()
	s := shell(`pwd; echo "$ONLY $HOME."`, &out)
	s.Env, s.Dir = []string{"PATH=" + os.Getenv("PATH"), "ONLY=this"}, dir
	if _, err := terminal.Run(t.Context(), s); err != nil || out.String() != dir+"\r\nthis .\r\n" {
		t.Errorf("%v: %q", err, out.String())
	}
}

func TestProgramsThatDoNotStart(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]error{"no-such-program": exec.ErrNotFound, "/nowhere/x": fs.ErrNotExist, file: fs.ErrPermission} {
		var out bytes.Buffer
		s := shell("", &out)
		s.Argv = []string{name}
		if _, err := terminal.Run(t.Context(), s); !errors.Is(err, want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Each prompt is answered once it is asked, in the order in which it is asked.
func TestPrompts(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	s := shell(`printf 'Name: '; read a; printf '\nNa\033]x;1\007me: '; read b; printf "\nSecret of $a?\n"; read c; echo "$a $b $c"`, &out)
	s.Prompts = terminal.Prompts{Hidden: regexp.MustCompile("\x1b\\]x;[0-9]\x07"), List: []terminal.Prompt{
		{Pattern: regexp.MustCompile(`(?m)Name: $`), Answer: "grün"},
		{Pattern: regexp.MustCompile(`(?m)^Secret of (.*)\?`), Answer: "x y"},
	}}
	r, err := terminal.Run(t.Context(), s)
	if err != nil || r.Exit.Code != 0 || !strings.HasSuffix(out.String(), "\r\ngrün grün x y\r\n") {
		t.Errorf("%+v, %v: %q", r, err, out.String())
	}
}

// Who asks and then throws away what was typed is answered all the same.
func TestAnswerAfterAFlush(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	s := shell(`exec python3 -c '
import sys, termios
print("Go on:", flush=True)
termios.tcflush(sys.stdin, termios.TCIFLUSH)
print("got", input())'`, &out)
	s.IdleTimeout = 5 * time.Second
	var r terminal.Result
	var err error
	for range 5 { // on a busy machine it may be thrown away later than that
		out.Reset()
		s.Prompts = terminal.Prompts{List: []terminal.Prompt{{Pattern: regexp.MustCompile(`Go on:`), Answer: "yes"}}}
		if r, err = terminal.Run(t.Context(), s); err != nil || r.End != terminal.IdleTimeout {
			break
		}
	}
	if err != nil || r.End != terminal.Exited || out.String() != "Go on:\r\ngot yes\r\n" {
		t.Errorf("%+v, %v: %q", r, err, out.String())
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		script string
		limit  func(*terminal.Spec)
		want   terminal.End
	}{
		"idle": {"echo a; sleep 600", func(s *terminal.Spec) { s.IdleTimeout = 300 * time.Millisecond }, terminal.IdleTimeout},
		"job":  {"while :; do echo a; sleep 0.01; done", func(s *terminal.Spec) { s.JobTimeout, s.IdleTimeout = 300*time.Millisecond, time.Hour }, terminal.JobTimeout},
		"deaf": {"trap '' INT TERM HUP; while :; do sleep 600; done", func(s *terminal.Spec) { s.JobTimeout = 200 * time.Millisecond }, terminal.JobTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			s := shell(c.script, &out)
			c.limit(&s)
			killed := false
			s.Kill = func(context.Context) { killed = true }
			began := time.Now()
			r, err := terminal.Run(t.Context(), s)
			if err != nil || r.End != c.want || r.Exit.Success() || !killed || time.Since(began) > 30*time.Second {
				t.Errorf("%+v, %v, killed %v after %v", r, err, killed, time.Since(began))
			}
		})
	}
}

// An end by SIGINT leaves time for what has to be said.
func TestCancel(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var out bytes.Buffer
	s := shell(`trap 'echo tidied; exit 3' INT; echo ready; sleep 600 & wait`, &out)
	s.Output = func(p []byte) error {
		out.Write(p)
		cancel()
		return nil
	}
	r, err := terminal.Run(ctx, s)
	if err != nil || r.End != terminal.Canceled || r.Exit.Code != 3 || out.String() != "ready\r\ntidied\r\n" {
		t.Errorf("%+v, %v: %q", r, err, out.String())
	}
}

func TestOutputsErrorEndsIt(t *testing.T) {
	t.Parallel()
	full := errors.New("full")
	var out bytes.Buffer
	s := shell("while :; do echo a; sleep 0.01; done", &out)
	s.Output = func([]byte) error { return full }
	if r, err := terminal.Run(t.Context(), s); !errors.Is(err, full) || r.End != terminal.Canceled {
		t.Errorf("%+v, %v", r, err)
	}
}

// Whoever holds the terminal open after the program's end is not waited for.
func TestLeftBehindIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	began := time.Now()
	var out bytes.Buffer
	s := shell(`trap '' HUP; sleep 600 & echo done $!`, &out)
	r, err := terminal.Run(t.Context(), s)
	if err != nil || r.Exit.Code != 0 || time.Since(began) > time.Minute {
		t.Errorf("%+v, %v: %q after %v", r, err, out.String(), time.Since(began))
	}
	var left int
	if _, err := fmt.Sscanf(out.String(), "done %d\r\n", &left); err != nil || syscall.Kill(left, syscall.SIGKILL) != nil {
		t.Errorf("%v: nobody is left behind: %q", err, out.String())
	}
}
