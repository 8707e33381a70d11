package process

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pipe gives a child something to write to whose reader sees the end only when
// every process that inherited it is gone.
func pipe(t *testing.T) (r *bufio.Reader, w *os.File) {
	t.Helper()
	pr, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pr.Close(); w.Close() })
	if err := pr.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return bufio.NewReader(pr), w
}

func start(t *testing.T, s Spec) *Process {
	t.Helper()
	s.Mark = t.Name()
	p, err := Start(s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Kill(t.Context()); err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		p.Exit()
	})
	return p
}

func shell(script string, w *os.File) Spec {
	return Spec{Argv: []string{"sh", "-c", script}, Stdout: w}
}

// expectLines reads the lines, in any order.
func expectLines(t *testing.T, r *bufio.Reader, lines ...string) {
	t.Helper()
	want := map[string]bool{}
	for _, l := range lines {
		want[l] = true
	}
	for len(want) > 0 {
		got, err := r.ReadString('\n')
		if err != nil {
			t.Fatalf("%v while waiting for %v", err, want)
		}
		delete(want, strings.TrimSpace(got))
	}
}

// expectAllGone fails unless every holder of the pipe has ended.
func expectAllGone(t *testing.T, r io.Reader) {
	t.Helper()
	if rest, err := io.ReadAll(r); err != nil {
		t.Fatalf("some process still holds the pipe (read %q): %v", rest, err)
	}
}

func TestExit(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		script string
		want   Exit
		text   string
	}{
		{"exit 0", Exit{}, "exit status 0"},
		{"exit 3", Exit{Code: 3}, "exit status 3"},
		{"exit 255", Exit{Code: 255}, "exit status 255"},
		{"kill -9 $$", Exit{Code: -1, Signal: syscall.SIGKILL}, "killed by signal 9 (killed)"},
		{"kill -TERM $$", Exit{Code: -1, Signal: syscall.SIGTERM}, "killed by signal 15 (terminated)"},
	} {
		got := start(t, shell(c.script, nil)).Exit()
		if got != c.want || got.String() != c.text || got.Success() != (c.script == "exit 0") {
			t.Errorf("%s: %#v %q, want %#v %q", c.script, got, got, c.want, c.text)
		}
	}
}

func TestStartErrors(t *testing.T) {
	t.Parallel()
	if _, err := Start(Spec{Argv: []string{"no-such-program-anywhere"}, Mark: "x"}); !errors.Is(err, exec.ErrNotFound) ||
		!strings.Contains(err.Error(), "no-such-program-anywhere") {
		t.Errorf("unknown program: %v", err)
	}
	if _, err := Start(Spec{Argv: []string{"/etc/passwd"}, Mark: "x"}); !errors.Is(err, os.ErrPermission) {
		t.Errorf("file that is no program: %v", err)
	}
	if _, err := Start(Spec{Argv: []string{"true"}, Mark: "x", Dir: "/no/such/dir"}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("directory that does not exist: %v", err)
	}
	if _, err := Start(Spec{Mark: "x"}); err == nil {
		t.Error("no program: no error")
	}
}

func TestStreamsEnvironmentAndDirectory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	in := filepath.Join(dir, "in")
	if err := os.WriteFile(in, []byte("from stdin\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	stdin, err := os.Open(in)
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	out, err := os.OpenFile(filepath.Join(dir, "out"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	s := shell(`cat; echo error >&2; echo "$COLOUR"; pwd; echo "$RANVIER_JOB"; ps -o sid=,pgid=,pid= $$`, out)
	s.Stdin, s.Dir, s.Env = stdin, dir, []string{"COLOUR=red", "COLOUR=green"}
	p := start(t, s)
	if e := p.Exit(); !e.Success() {
		t.Fatal(e)
	}
	got, _ := os.ReadFile(out.Name())
	lines := strings.Split(strings.TrimSpace(string(got)), "\n")
	want := []string{"from stdin", "error", "green", dir, t.Name()}
	for i, w := range want {
		if len(lines) != len(want)+1 || lines[i] != w {
			t.Fatalf("output %q, want %q and the ids", lines, want)
		}
	}
	ids := strings.Fields(lines[len(want)])
	if len(ids) != 3 || ids[0] != ids[1] || ids[1] != ids[2] {
		t.Errorf("session, group and pid are %v, want all the same", ids)
	}
}

func TestNilFilesAreDevNull(t *testing.T) {
	t.Parallel()
	if e := start(t, shell(`test "$(cat)" = "" && echo x && echo y >&2`, nil)).Exit(); !e.Success() {
		t.Error(e)
	}
}

func TestInterruptReachesTheWholeGroup(t *testing.T) {
	t.Parallel()
	r, w := pipe(t)
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	p := start(t, shell(`trap 'echo parent; exit 7' INT
		sh -c 'trap "echo child; exit 1" INT; (echo ready; exec cat <>`+fifo+`)'`, w))
	w.Close()
	expectLines(t, r, "ready")
	if err := p.Interrupt(); err != nil {
		t.Fatal(err)
	}
	expectLines(t, r, "child", "parent")
	if e := p.Exit(); e.Code != 7 {
		t.Errorf("%v, want exit status 7", e)
	}
	if err := p.Interrupt(); err != nil {
		t.Errorf("interrupt after the end: %v", err)
	}
	expectAllGone(t, r)
}

func TestKillEndsEveryDescendant(t *testing.T) {
	t.Parallel()
	for name, script := range map[string]string{
		"group":               `sleep 600 & echo a; echo b; sleep 600`,
		"setsid":              `setsid sh -c 'echo a; sleep 600' & setsid sh -c 'echo b; sleep 600' & wait`,
		"setsid in setsid":    `setsid sh -c 'setsid sh -c "echo a; sleep 600" & echo b; sleep 600' & sleep 600`,
		"orphan in a session": `setsid sh -c '(setsid sh -c "echo a; sleep 600; :" &) ; echo b; sleep 600' & sleep 600`,
		"ignores SIGINT":      `trap '' INT TERM HUP; echo a; echo b; while :; do sleep 600; done`,
		"no environment":      `env -i setsid sh -c 'echo a; env -i setsid sh -c "echo b; sleep 600"; :' ; :`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, w := pipe(t)
			p := start(t, shell(script, w))
			w.Close()
			expectLines(t, r, "a", "b")
			if err := p.Kill(t.Context()); err != nil {
				t.Fatal(err)
			}
			expectAllGone(t, r)
			if e := p.Exit(); e.Signal != syscall.SIGKILL {
				t.Errorf("%v, want killed", e)
			}
			if err := p.Kill(t.Context()); err != nil {
				t.Errorf("kill with nothing left: %v", err)
			}
		})
	}
}

// The child has exited and was reaped; what it left behind is in another
// session with init as its parent.
func TestKillFindsOrphansAfterTheChildsEnd(t *testing.T) {
	t.Parallel()
	r, w := pipe(t)
	p := start(t, shell(`setsid sh -c 'echo a; sleep 600; :' & `, w))
	w.Close()
	expectLines(t, r, "a")
	p.Exit()
	if err := p.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	expectAllGone(t, r)
}

// The child obeys SIGINT; its descendant has neither mark nor parents then.
func TestKillRemembersWhomInterruptSaw(t *testing.T) {
	t.Parallel()
	r, w := pipe(t)
	p := start(t, shell(`env -i setsid sh -c 'echo a; sleep 600; :' & wait`, w))
	w.Close()
	expectLines(t, r, "a")
	if err := p.Interrupt(); err != nil {
		t.Fatal(err)
	}
	p.Exit()
	if err := p.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	expectAllGone(t, r)
}

func TestKillWhileForking(t *testing.T) {
	t.Parallel()
	r, w := pipe(t)
	p := start(t, shell(`echo a; n=0; while [ $n -lt 200 ]; do setsid sh -c 'setsid sleep 600 & sleep 600' & n=$((n+1)); done; wait`, w))
	w.Close()
	expectLines(t, r, "a")
	if err := p.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	expectAllGone(t, r)
}

func TestKillLeavesOthersAlone(t *testing.T) {
	t.Parallel()
	r, w := pipe(t)
	other := exec.Command("sleep", "600")
	other.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { other.Process.Kill(); other.Wait() }()
	p := start(t, shell(`echo a; sleep 600`, w))
	w.Close()
	expectLines(t, r, "a")
	if err := p.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s, err := readStat(other.Process.Pid); err != nil || !s.alive() || s.state == 'T' {
		t.Errorf("the neighbour is %+v, %v", s, err)
	}
}

func TestExpandIgnoresReusedPids(t *testing.T) {
	t.Parallel()
	family := members{100: 1, 101: 1}
	procs := []stat{
		{pid: 100, parent: 1, session: 50, start: 9}, // the number was given away
		{pid: 101, parent: 100, session: 101, start: 1},
		{pid: 102, parent: 101, session: 102, start: 3},
		{pid: 103, parent: 1, session: 102, start: 3},
		{pid: 104, parent: 100, session: 50, start: 9},
	}
	got := family.expand(procs, "")
	if len(got) != 3 || got[101] == 0 || got[102] == 0 || got[103] == 0 {
		t.Errorf("family %v, want 101, 102 and 103", got)
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("12 (a) b) (c) S 1 12 13 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 4711 10 11"))
	f.Add([]byte("12 (x) S"))
	f.Add([]byte(")("))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parseStat(b)
		if err != nil && !errors.Is(err, errBadStat) {
			t.Errorf("%v is not errBadStat", err)
		}
		if err != nil && s != (stat{}) {
			t.Errorf("an error and %+v", s)
		}
	})
}

func TestParseStat(t *testing.T) {
	t.Parallel()
	got, err := parseStat([]byte("12 (a) b) (c) S 1 12 13 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 4711 10 11\n"))
	if want := (stat{pid: 12, parent: 1, session: 13, state: 'S', start: 4711}); err != nil || got != want {
		t.Errorf("%+v, %v, want %+v", got, err, want)
	}
	self, err := readStat(os.Getpid())
	if err != nil || self.pid != os.Getpid() || self.parent != os.Getppid() {
		t.Errorf("self %+v, %v", self, err)
	}
}
