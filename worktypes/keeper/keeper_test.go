package keeper

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ranvier-mesh/ranvier/internal/process"
	"github.com/ranvier-mesh/ranvier/worktypes"
)

// TestMain is the keeper too: the tests start this program with "keep".
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "keep" {
		err := Serve(os.Args[4], os.Args[2], func() { os.NewFile(3, "ready").Write([]byte{'\n'}) })
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

type shell struct{}

func (shell) Name() string { return "shell" }
func (shell) Plan(s worktypes.Spec, _ string) (worktypes.Plan, error) {
	return worktypes.Plan{Argv: []string{"sh", "-c", s.Params["script"]}}, nil
}

func client(t *testing.T, dir, version string) *Client {
	t.Helper()
	c, err := Open(dir, Options{Command: []string{os.Args[0], "keep", version}, Version: version})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// node is a Manager whose jobs outlive it.
func node(t *testing.T, dir string) *worktypes.Manager { t.Helper(); return nodeOf(t, dir, "1") }

// nodeOf is a node of a version.
func nodeOf(t *testing.T, dir, version string) *worktypes.Manager {
	t.Helper()
	types, err := worktypes.NewRegistry(shell{})
	if err != nil {
		t.Fatal(err)
	}
	open := func() (worktypes.Keeper, error) { return client(t, dir, version), nil }
	m, err := worktypes.Open(dir, types, worktypes.Options{Keeper: open, Grace: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close(context.Background()) })
	return m
}

func run(t *testing.T, m *worktypes.Manager, script string) string {
	t.Helper()
	id := worktypes.NewID()
	if _, err := m.Submit(worktypes.Spec{ID: id, Type: "shell", Params: map[string]string{"script": script}}); err != nil {
		t.Fatal(err)
	}
	if err := m.Start(id); err != nil {
		t.Fatal(err)
	}
	return id
}

func wait(t *testing.T, m *worktypes.Manager, id string) (worktypes.Status, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	states, err := m.Watch(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	var st worktypes.Status
	for st = range states {
	}
	r, err := m.Results(ctx, id, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	out, err := io.ReadAll(r)
	if err != nil {
		t.Errorf("results of %+v: %v", st, err)
	}
	return st, string(out)
}

// gate is a job's script that waits for open in the middle.
func gate(t *testing.T) (script string, started, open func()) {
	t.Helper()
	dir := t.TempDir()
	one, two := filepath.Join(dir, "one"), filepath.Join(dir, "two")
	for _, f := range []string{one, two} {
		if err := syscall.Mkfifo(f, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return fmt.Sprintf("echo first; echo >%s; cat %s; echo second; exit 3", one, two),
		func() { os.ReadFile(one) },
		func() { os.WriteFile(two, []byte("x\n"), 0) }
}

func pidOf(t *testing.T, dir string) int {
	t.Helper()
	// The lock's owner is the keeper.
	procs, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, p := range procs {
		b, _ := os.ReadFile(p)
		if strings.Contains(string(b), "keep\x00") && strings.Contains(string(b), dir+"\x00") {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(p)))
			return pid
		}
	}
	t.Fatal("there is no keeper")
	return 0
}

func TestAJobDoesNotNoticeItsNode(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	m := node(t, dir)
	script, started, open := gate(t)
	id := run(t, m, script)
	started()
	m.Close(t.Context())

	m = node(t, dir)
	if st, err := m.Status(id); err != nil || st.State != worktypes.Running {
		t.Fatalf("%+v, %v", st, err)
	}
	open()
	if st, out := wait(t, m, id); st.State != worktypes.Failed || st.ExitCode != 3 || out != "first\nx\nsecond\n" {
		t.Errorf("%+v, %q", st, out)
	}
	// Ends while nobody is there.
	script, started, open = gate(t)
	id = run(t, m, script)
	started()
	keeper := pidOf(t, dir)
	m.Close(t.Context())
	open()
	kept, err := process.Identify(keeper)
	if err != nil {
		t.Fatal(err)
	}
	if err := kept.Wait(t.Context()); err != nil { // it has nothing to do any more
		t.Fatal(err)
	}
	m = node(t, dir)
	if st, out := wait(t, m, id); st.State != worktypes.Failed || st.ExitCode != 3 || out != "first\nx\nsecond\n" {
		t.Errorf("%+v, %q", st, out)
	}
}

func TestAKilledKeeper(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	m := node(t, dir)
	script, started, open := gate(t)
	id := run(t, m, script)
	started()
	syscall.Kill(pidOf(t, dir), syscall.SIGKILL)
	if st, out := wait(t, m, run(t, m, "echo by a new one")); st.State != worktypes.Succeeded || out != "by a new one\n" {
		t.Errorf("%+v, %q", st, out)
	}
	if st, _ := m.Status(id); st.State != worktypes.Running {
		t.Errorf("the job goes on, but it is %+v", st)
	}
	m.Close(t.Context())
	m = node(t, dir)
	open()
	if st, out := wait(t, m, id); st.State != worktypes.Failed || !strings.HasPrefix(st.Detail, "LOST: ") || out != "first\nx\nsecond\n" {
		t.Errorf("%+v, %q", st, out)
	}
}

func TestCancelOfAnOrphan(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	m := node(t, dir)
	script, started, _ := gate(t)
	id := run(t, m, "trap '' INT; (setsid sh -c 'sleep 600' &); "+script)
	started()
	syscall.Kill(pidOf(t, dir), syscall.SIGKILL)
	if err := m.Cancel(id); err != nil {
		t.Fatal(err)
	}
	if st, _ := wait(t, m, id); st.State != worktypes.Canceled {
		t.Errorf("%+v", st)
	}
	if left, ok := process.FindMarked(id); ok {
		t.Errorf("process %d is still there", left.PID)
	}
}

func TestAllKilledTogether(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	m := node(t, dir)
	script, started, _ := gate(t)
	id := run(t, m, script)
	started()
	m.Close(t.Context())
	syscall.Kill(pidOf(t, dir), syscall.SIGKILL)
	root, ok := process.FindMarked(id)
	if !ok {
		t.Fatal("no job")
	}
	process.NewFamily(root, id).Kill(t.Context())
	begin := time.Now()
	m = node(t, dir)
	st, out := wait(t, m, id)
	if st.State != worktypes.Failed || !strings.HasPrefix(st.Detail, "LOST: ") || out != "first\n" {
		t.Errorf("%+v, %q", st, out)
	}
	if took := time.Since(begin); took > time.Second {
		t.Errorf("it was told %v after the restart", took)
	}
}

func TestCancelKillsEverything(t *testing.T) {
	t.Parallel()
	m := node(t, t.TempDir())
	script, started, _ := gate(t)
	id := run(t, m, "trap '' INT; setsid sleep 600 & "+script)
	started()
	if err := m.Cancel(id); err != nil {
		t.Fatal(err)
	}
	if st, _ := wait(t, m, id); st.State != worktypes.Canceled || st.Signal != 9 {
		t.Errorf("%+v", st)
	}
	if left, ok := process.FindMarked(id); ok {
		t.Errorf("process %d is still there", left.PID)
	}
}

// A job has a cgroup of its own where that can be; a cancel ends also what has left it.
func TestCancelReachesOtherCgroups(t *testing.T) {
	t.Parallel()
	base := openCgroups(t.TempDir()).base
	if base == "" {
		t.Skip("no cgroup can be made here")
	}
	other := filepath.Join(base, "elsewhere-"+worktypes.NewID())
	if err := os.Mkdir(other, 0o755); err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { os.Remove(other) })
	m := node(t, t.TempDir())
	script, started, _ := gate(t)
	id := run(t, m, fmt.Sprintf("trap '' INT; sleep 600 & echo $! >%s/cgroup.procs; cat /proc/self/cgroup; %s", other, script))
	started()
	if err := m.Cancel(id); err != nil {
		t.Fatal(err)
	}
	if st, out := wait(t, m, id); st.State != worktypes.Canceled || !strings.Contains(out, cgroupPrefix+id) {
		t.Errorf("%+v, cgroups %q", st, out)
	}
	if b, err := os.ReadFile(filepath.Join(other, "cgroup.procs")); len(b) > 0 || err != nil {
		t.Errorf("processes %q are still there, %v", b, err)
	}
}

func TestAJobHasTheSignalsOfAnyProgram(t *testing.T) {
	t.Parallel()
	m := node(t, t.TempDir())
	_, out := wait(t, m, run(t, m, "grep Sig[BI] /proc/self/status"))
	var blocked, ignored uint64
	if _, err := fmt.Sscanf(out, "SigBlk:\t%x\nSigIgn:\t%x\n", &blocked, &ignored); err != nil {
		t.Fatalf("%q: %v", out, err)
	}
	// Those above 31 are the C library's, and pass through from whoever started us.
	const signals = 1<<31 - 1
	if blocked&signals != 0 || ignored&signals != 0 {
		t.Errorf("blocked and ignored: %q", out)
	}
}

// A command with a relative path is found where its node was started, as with
// Receptor, although the keeper is elsewhere.
func TestAJobRunsInTheDirectoryOfItsNode(t *testing.T) {
	t.Parallel()
	m := node(t, t.TempDir())
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	if st, out := wait(t, m, run(t, m, "pwd -P")); st.State != worktypes.Succeeded || out != here+"\n" {
		t.Errorf("%+v, in %q, want %q", st, out, here)
	}
}

// What the environment was at the start before is not sent again, and what has
// changed of it is.
func TestEachJobHasItsOwnEnvironment(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := client(t, dir, "1")
	os.Mkdir(filepath.Join(dir, "units"), 0o700)
	for i, colour := range []string{"red", "red", "green", "green", "red"} {
		id := worktypes.NewID()
		unit := filepath.Join(dir, "units", id)
		task, err := c.Start(worktypes.Launch{Unit: id, Dir: unit, Argv: []string{"sh", "-c", "echo $COLOUR"},
			Env: []string{"PATH=" + os.Getenv("PATH"), "COLOUR=" + colour}})
		if err != nil {
			t.Fatal(err)
		}
		<-task.Done()
		if out, err := os.ReadFile(unit + ".stdout"); string(out) != colour+"\n" {
			t.Errorf("job %d has %q, %v", i, out, err)
		}
		task.Forget()
	}
}

func TestErrorsOfAStart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := client(t, dir, "1")
	id := worktypes.NewID()
	unit := filepath.Join(dir, "units", id)
	os.Mkdir(filepath.Dir(unit), 0o700)
	l := worktypes.Launch{Unit: id, Dir: unit, Argv: []string{"no-such-program"}, Env: []string{"PATH=/bin"}}
	if _, err := c.Start(l); err == nil || !strings.Contains(err.Error(), "no-such-program") {
		t.Errorf("start: %v", err)
	}
	l.Argv = []string{"true"}
	if _, err := c.Start(l); !errors.Is(err, worktypes.ErrStarted) {
		t.Errorf("a second start: %v", err)
	}
	if task := c.Find(l.Unit, unit); task.Exit().Lost == "" {
		t.Errorf("%+v", task.Exit())
	}
	if err := Serve(dir, "1", func() {}); !errors.Is(err, worktypes.ErrInUse) {
		t.Errorf("a second keeper: %v", err)
	}
}

// leave ends a node's connection as its death would.
func leave(c *Client) {
	c.mu.Lock()
	c.closed = true
	c.conn.Close()
	c.mu.Unlock()
	c.cancel()
	c.readers.Wait()
}

func TestAnOldKeeperIsReplacedWhenItIsEmpty(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := client(t, dir, "1")
	first := pidOf(t, dir)
	leave(c)
	c = client(t, dir, "1")
	if again := pidOf(t, dir); again != first {
		t.Errorf("the same version: keeper %d became %d", first, again)
	}
	leave(c)
	client(t, dir, "2")
	if second := pidOf(t, dir); second == first {
		t.Error("the old keeper is still there")
	}
}

// A node is upgraded while a job runs: the old keeper goes on with it, and is replaced
// when it has none.
func TestUpgradeUnderARunningJob(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	m := node(t, dir)
	script, started, open := gate(t)
	id := run(t, m, script)
	started()
	old := pidOf(t, dir)
	m.Close(context.Background())
	m = nodeOf(t, dir, "2")
	if now := pidOf(t, dir); now != old {
		t.Errorf("keeper %d became %d under a running job", old, now)
	}
	if st, out := wait(t, m, run(t, m, "echo new")); st.State != worktypes.Succeeded || out != "new\n" {
		t.Errorf("a job of the new node: %+v, %q", st, out)
	}
	open()
	if st, out := wait(t, m, id); st.ExitCode != 3 || out != "first\nx\nsecond\n" {
		t.Errorf("%+v, %q", st, out)
	}
	m.Close(context.Background())
	m = nodeOf(t, dir, "2")
	if now := pidOf(t, dir); now == old {
		t.Error("the old keeper is still there")
	}
	if st, _ := wait(t, m, run(t, m, "true")); st.State != worktypes.Succeeded {
		t.Errorf("%+v", st)
	}
}

func TestMemory(t *testing.T) {
	if underRace {
		t.Skip("the race detector has its own memory")
	}
	dir := t.TempDir()
	m := node(t, dir)
	pid := pidOf(t, dir)
	before := rss(t, pid)
	const jobs = 100
	var ids []string
	for range jobs {
		ids = append(ids, run(t, m, "exec sleep 600"))
	}
	after := rss(t, pid)
	t.Logf("keeper: %d KiB once, %d KiB for each of %d jobs", before, (after-before)/jobs, jobs)
	if before > 16<<10 || after-before > 64*jobs {
		t.Errorf("keeper: %d KiB, then %d KiB with %d jobs", before, after, jobs)
	}
	for _, id := range ids {
		m.Release(t.Context(), id)
	}
}

func rss(t *testing.T, pid int) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "VmRSS:")
	kib, _ := strconv.Atoi(strings.Fields(rest)[0])
	return kib
}
