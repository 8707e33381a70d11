package remote_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ranvier-mesh/ranvier/worktypes"
	"github.com/ranvier-mesh/ranvier/worktypes/ansiblerunner"
	"github.com/ranvier-mesh/ranvier/worktypes/command"
	"github.com/ranvier-mesh/ranvier/worktypes/remote"
	"github.com/ranvier-mesh/ranvier/worktypes/worktypetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// node is a Manager that is served.
type node struct {
	m       *worktypes.Manager
	dial    func(context.Context) (net.Conn, error)
	server  *remote.Server
	serving *sync.WaitGroup // the connections that are served
}

func (n *node) client() *remote.Client { return &remote.Client{Dial: n.dial, Node: "x"} }

func (n *node) keeper() *remote.Client { return &remote.Client{Dial: n.dial, Node: "x", Keep: true} }

func newNode(t testing.TB, transport string) *node {
	t.Helper()
	return newNodeWith(t, transport, worktypes.Options{})
}

func newNodeWith(t testing.TB, transport string, o worktypes.Options) *node {
	t.Helper()
	o.Grace = 200 * time.Millisecond
	shell, err := command.New(command.Config{WorkType: "shell", Command: "sh", Params: "-c", AllowRuntimeParams: true})
	if err != nil {
		t.Fatal(err)
	}
	fixed, err := command.New(command.Config{WorkType: "fixed", Command: "true"})
	if err != nil {
		t.Fatal(err)
	}
	ansible, err := ansiblerunner.Find("", "n")
	if err != nil {
		t.Fatal(err)
	}
	reg, err := worktypes.NewRegistry(shell, fixed, ansible, planter{})
	if err != nil {
		t.Fatal(err)
	}
	m, err := worktypes.Open(t.TempDir(), reg, o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	n := &node{m: m, serving: &sync.WaitGroup{}}
	server := remote.NewServer(m, nil)
	n.server = server
	serve := func(c net.Conn) { n.serving.Go(func() { server.Serve(ctx, c, "tester") }) }
	stop := func() {}
	if transport == "tcp" {
		n.dial, stop = listen(t, serve)
	} else {
		n.dial = func(context.Context) (net.Conn, error) {
			a, b := net.Pipe()
			serve(b)
			return a, nil
		}
	}
	t.Cleanup(func() {
		stop()
		cancel()
		n.serving.Wait()
		if err := m.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return n
}

func listen(t testing.TB, serve func(net.Conn)) (dial func(context.Context) (net.Conn, error), stop func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serve(c)
		}
	})
	dial = func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", l.Addr().String())
	}
	return dial, func() { l.Close(); wg.Wait() }
}

// overBoth runs a test over TCP and over a pipe without any buffer.
func overBoth(t *testing.T, f func(t *testing.T, n *node)) {
	t.Parallel()
	for _, transport := range []string{"tcp", "pipe"} {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			f(t, newNode(t, transport))
		})
	}
}

func shell(script string) worktypes.Spec {
	return worktypes.Spec{ID: worktypes.NewID(), Type: "shell", Params: map[string]string{"params": "'" + script + "'"}}
}

func deadline(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func submit(t testing.TB, c *remote.Client, spec worktypes.Spec, payload io.Reader) *remote.Job {
	t.Helper()
	job, err := c.Submit(deadline(t), spec, payload)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { job.Close() })
	return job
}

func expectNext(t testing.TB, r io.Reader, text string) {
	t.Helper()
	b := make([]byte, len(text))
	if n, err := io.ReadFull(r, b); err != nil || string(b) != text {
		t.Fatalf("read %q, %v, want %q", b[:n], err, text)
	}
}

func expectRest(t testing.TB, r io.Reader, text string) {
	t.Helper()
	if b, err := io.ReadAll(r); err != nil || string(b) != text {
		t.Fatalf("the rest is %q, %v, want %q", b, err, text)
	}
}

func TestRun(t *testing.T) {
	overBoth(t, func(t *testing.T, n *node) {
		spec := shell("tr a-z A-Z; echo err >&2; exit 3")
		spec.Job = "job-7"
		job := submit(t, n.client(), spec, strings.NewReader("hello\n"))
		expectRest(t, job.Results, "HELLO\nerr\n")
		st := job.Status()
		if st.ID != spec.ID || st.State != worktypes.Failed || st.ExitCode != 3 || st.Detail != "exit status 3" ||
			st.StdoutSize != 10 || st.Owner != "tester" || st.Job != "job-7" || st.WorkType != "shell" || st.Finished.Before(st.Started) {
			t.Errorf("status %+v", st)
		}
		if n, err := job.Results.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Errorf("after the end: %d, %v", n, err)
		}
		if err := job.Cancel(t.Context()); err != nil {
			t.Errorf("cancel after the end: %v", err)
		}
		if list := n.m.List(); len(list) != 0 {
			t.Errorf("not released: %+v", list)
		}
	})
}

func TestKeepFollowListRelease(t *testing.T) {
	overBoth(t, func(t *testing.T, n *node) {
		c := n.keeper()
		one, two := shell("echo 0123456789"), shell("true")
		for _, spec := range []worktypes.Spec{one, two} {
			if _, err := io.ReadAll(submit(t, c, spec, nil).Results); err != nil {
				t.Fatal(err)
			}
		}
		for offset := range int64(12) {
			job, err := c.Follow(deadline(t), one.ID, offset)
			if err != nil {
				t.Fatal(err)
			}
			expectRest(t, job.Results, "0123456789\n"[offset:])
			if job.Status().State != worktypes.Succeeded || job.Offset() != 11 {
				t.Errorf("%+v at %d", job.Status(), job.Offset())
			}
		}
		list, err := c.List(deadline(t))
		if err != nil || len(list) != 2 {
			t.Errorf("list %+v, %v", list, err)
		}
		st, err := c.Status(deadline(t), one.ID)
		if err != nil || st.StdoutSize != 11 {
			t.Errorf("status %+v, %v", st, err)
		}
		for _, spec := range []worktypes.Spec{one, two} {
			if err := c.Release(deadline(t), spec.ID); err != nil {
				t.Error(err)
			}
		}
		if list, err := c.List(deadline(t)); err != nil || len(list) != 0 {
			t.Errorf("list after release %+v, %v", list, err)
		}
	})
}

func TestRefusals(t *testing.T) {
	overBoth(t, func(t *testing.T, n *node) {
		c := n.keeper()
		taken := shell("true")
		if _, err := io.ReadAll(submit(t, c, taken, nil).Results); err != nil {
			t.Fatal(err)
		}
		other := taken
		other.Params = map[string]string{"params": "other"}
		trySubmit := func(spec worktypes.Spec) error {
			_, err := c.Submit(deadline(t), spec, strings.NewReader("payload"))
			return err
		}
		for name, tc := range map[string]struct {
			err  error
			want error
			text string
		}{
			"unknown type":     {trySubmit(worktypes.Spec{Type: "nope"}), worktypes.ErrUnknownType, `node x: no work type "nope": it has ansible-runner, fixed, `},
			"forbidden params": {trySubmit(worktypes.Spec{Type: "fixed", Params: map[string]string{"params": "x"}}), worktypes.ErrForbiddenParams, "allowruntimeparams"},
			"conflict":         {trySubmit(other), worktypes.ErrConflict, taken.ID},
			"local bad spec":   {trySubmit(worktypes.Spec{ID: "../..", Type: "shell"}), worktypes.ErrBadSpec, "ULID"},
			"oversized":        {trySubmit(shell(strings.Repeat("x", 1<<16))), worktypes.ErrBadSpec, "65536"},
			"cancel":           {second(c.Cancel(deadline(t), worktypes.NewID())), worktypes.ErrUnknownUnit, "node x"},
			"status":           {second(c.Status(deadline(t), worktypes.NewID())), worktypes.ErrUnknownUnit, "node x"},
			"status of a path": {second(c.Status(deadline(t), "../..")), worktypes.ErrBadSpec, "ULID"},
			"release":          {c.Release(deadline(t), worktypes.NewID()), worktypes.ErrUnknownUnit, "node x"},
			"follow":           {second(c.Follow(deadline(t), worktypes.NewID(), 0)), worktypes.ErrUnknownUnit, "node x"},
			"offset":           {second(c.Follow(deadline(t), taken.ID, 1)), worktypes.ErrBadOffset, taken.ID},
			"negative offset":  {second(c.Follow(deadline(t), taken.ID, -1)), worktypes.ErrBadOffset, taken.ID},
		} {
			if !errors.Is(tc.err, tc.want) || !strings.Contains(tc.err.Error(), tc.text) {
				t.Errorf("%s: %v, want %v with %q", name, tc.err, tc.want, tc.text)
			}
		}
	})
}

func second[T any](_ T, err error) error { return err }

func TestSubmitTwiceStartsOnce(t *testing.T) {
	overBoth(t, func(t *testing.T, n *node) {
		mark := filepath.Join(t.TempDir(), "mark")
		spec := shell("echo started >> " + mark + "; cat")
		c := n.keeper()
		for range 3 {
			job := submit(t, c, spec, strings.NewReader("payload"))
			expectRest(t, job.Results, "payload")
		}
		if b, err := os.ReadFile(mark); string(b) != "started\n" || err != nil {
			t.Errorf("%q, %v", b, err)
		}
	})
}

func TestCancel(t *testing.T) {
	overBoth(t, func(t *testing.T, n *node) {
		for name, cancel := range map[string]func(job *remote.Job) error{
			"in band": func(job *remote.Job) error { return job.Cancel(deadline(t)) },
			"apart":   func(job *remote.Job) error { return second(n.client().Cancel(deadline(t), job.ID)) },
		} {
			script := `trap "echo interrupted; exit 1" INT; setsid sleep 600 & echo on; wait`
			job := submit(t, n.client(), shell(script), nil)
			expectNext(t, job.Results, "on\n")
			if err := cancel(job); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			expectRest(t, job.Results, "interrupted\n")
			if st := job.Status(); st.State != worktypes.Canceled {
				t.Errorf("%s: %+v", name, st)
			}
			if left := worktypetest.Processes(t, job.ID); len(left) != 0 {
				t.Errorf("%s: processes %v are left", name, left)
			}
		}
	})
}

func TestStatusWhileItRuns(t *testing.T) {
	overBoth(t, func(t *testing.T, n *node) {
		job := submit(t, n.client(), shell("echo on; exec sleep 600"), nil)
		expectNext(t, job.Results, "on\n")
		if st := job.Status(); st.State != worktypes.Running && st.State != worktypes.Pending {
			t.Errorf("%+v", st)
		}
		if err := n.client().Release(deadline(t), job.ID); err != nil {
			t.Fatal(err)
		}
		// Released by somebody else: the output ends either way, not the node.
		if _, err := io.ReadAll(job.Results); err != nil && !errors.Is(err, worktypes.ErrUnknownUnit) {
			t.Error(err)
		}
	})
}

// The real thing: a play by the real runner, over TCP.
func TestAnsibleRunner(t *testing.T) {
	t.Parallel()
	n := newNode(t, "tcp")
	stream := worktypetest.Transmit(t, "- {hosts: all, gather_facts: false, tasks: [{debug: {msg: 'hello over there'}}]}\n", "h1")
	job := submit(t, n.client(), worktypes.Spec{Type: "ansible-runner"}, bytes.NewReader(stream))
	out, err := io.ReadAll(job.Results)
	if err != nil || job.Status().State != worktypes.Succeeded {
		t.Fatalf("%+v, %v", job.Status(), err)
	}
	for _, want := range []string{"hello over there", `{"status": "successful"`, `{"eof": true}`} {
		if !bytes.Contains(out, []byte(want)) {
			t.Errorf("the stream lacks %s:\n%s", want, out)
		}
	}
}

func TestBulkBothWays(t *testing.T) {
	overBoth(t, func(t *testing.T, n *node) {
		data := make([]byte, 8<<20+12345)
		rand.Read(data)
		job := submit(t, n.client(), shell("cat"), bytes.NewReader(data))
		got, err := io.ReadAll(job.Results)
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("%d bytes of %d came back, %v", len(got), len(data), err)
		}
	})
}

func TestLatencyOfALine(t *testing.T) {
	n := newNode(t, "tcp")
	fifo := filepath.Join(t.TempDir(), "fifo")
	job := submit(t, n.client(), shell("mkfifo "+fifo+"; echo on; exec cat <>"+fifo), nil)
	expectNext(t, job.Results, "on\n")
	w, err := os.OpenFile(fifo, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	const lines = 200
	start := time.Now()
	for range lines {
		if _, err := w.WriteString("x\n"); err != nil {
			t.Fatal(err)
		}
		expectNext(t, job.Results, "x\n")
	}
	each := time.Since(start) / lines
	t.Logf("a line takes %v from the job to the client", each)
	if each > 5*time.Millisecond {
		t.Errorf("a line takes %v, 5 ms are allowed", each)
	}
}

func TestManySubmitsLeaveNothing(t *testing.T) {
	n := newNode(t, "tcp")
	before := openFiles(t)
	start := time.Now()
	const atOnce = 20
	total := 1000
	if testing.Short() {
		total = 100
	}
	var wg sync.WaitGroup
	next := make(chan struct{})
	for range atOnce {
		wg.Go(func() {
			for range next {
				job, err := n.client().Submit(deadline(t), worktypes.Spec{Type: "fixed"}, nil)
				if err == nil {
					_, err = io.Copy(io.Discard, job.Results)
				}
				if err != nil || job.Status().State != worktypes.Succeeded {
					t.Errorf("%v", err)
				}
			}
		})
	}
	for range total {
		next <- struct{}{}
	}
	close(next)
	wg.Wait()
	t.Logf("%d jobs, %d at once: %v each", total, atOnce, time.Since(start)/time.Duration(total))
	n.serving.Wait()
	if list := n.m.List(); len(list) != 0 {
		t.Errorf("%d units are left", len(list))
	}
	if after := openFiles(t); after > before+5 {
		t.Errorf("%d open files, %d before", after, before)
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(fds)
}
