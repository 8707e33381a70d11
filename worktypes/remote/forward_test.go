package remote_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ranvier-mesh/ranvier/worktypes"
	"github.com/ranvier-mesh/ranvier/worktypes/command"
	"github.com/ranvier-mesh/ranvier/worktypes/remote"
)

// home is a node that forwards work to another one, over a way that can be cut.
type home struct {
	t   *testing.T
	to  *node
	dir string
	opt worktypes.Options
	f   *remote.Forwarder
	m   *worktypes.Manager

	mu      sync.Mutex
	away    bool
	wrap    func(net.Conn) net.Conn // nil: as it is
	open    []net.Conn
	back    chan struct{} // closed by mend
	dialled int
}

func newHome(t *testing.T, to *node) *home {
	to.server.Park = time.Minute
	h := &home{t: t, to: to, dir: t.TempDir()}
	h.start()
	t.Cleanup(h.stop)
	return h
}

func (h *home) start() {
	h.t.Helper()
	shell, err := command.New(command.Config{WorkType: "here", Command: "true"})
	if err != nil {
		h.t.Fatal(err)
	}
	types, err := worktypes.NewRegistry(shell)
	if err != nil {
		h.t.Fatal(err)
	}
	h.f = remote.NewForwarder(h.dial, nil)
	h.f.Away = func(string) <-chan struct{} {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.away {
			return h.back
		}
		return nil
	}
	opt := h.opt
	opt.Agent = h.f
	if h.m, err = worktypes.Open(h.dir, types, opt); err != nil {
		h.t.Fatal(err)
	}
	h.f.Start()
}

func (h *home) stop() {
	if h.m == nil {
		return
	}
	if err := h.m.Close(context.Background()); err != nil {
		h.t.Error(err)
	}
	h.f.Close()
	h.m = nil
}

func (h *home) restart() { h.t.Helper(); h.stop(); h.start() }

func (h *home) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.dialled++
	if h.away {
		return nil, errors.New("no route")
	}
	c, err := h.to.dial(ctx)
	if err == nil && h.wrap != nil {
		c = h.wrap(c)
	}
	if err == nil {
		h.open = append(h.open, c)
	}
	return c, err
}

func (h *home) dials() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.dialled
}

// cut takes the way away.
func (h *home) cut() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.away, h.back = true, make(chan struct{})
	for _, c := range h.open {
		c.Close()
	}
	h.open = nil
}

// mend gives it back.
func (h *home) mend() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.away {
		close(h.back)
	}
	h.away, h.wrap = false, nil
}

// submit stores a unit for the other node.
func (h *home) submit(spec worktypes.Spec, payload []byte) string {
	h.t.Helper()
	spec.Node, spec.Owner = "x", "me"
	_, err := h.m.Submit(spec)
	if err == nil {
		var p *worktypes.Payload
		if p, err = h.m.Payload(spec.ID); err == nil {
			_, _ = p.Write(payload)
			err = errors.Join(p.Commit(p.Size(), p.Sum()), h.m.Start(spec.ID))
		}
	}
	if err != nil {
		h.t.Fatal(err)
	}
	return spec.ID
}

func (h *home) wait(id string) worktypes.Status { h.t.Helper(); return waitEnd(h.t, &node{m: h.m}, id) }

// reaches waits for a unit to be told as f wants.
func reaches(t *testing.T, m *worktypes.Manager, id string, f func(worktypes.Status) bool) worktypes.Status {
	t.Helper()
	states, err := m.Watch(deadline(t), id)
	if err != nil {
		t.Fatal(err)
	}
	var st worktypes.Status
	for st = range states {
		if f(st) {
			return st
		}
	}
	t.Fatalf("it came no further than %+v", st)
	return st
}

func (h *home) cancel(id string) {
	h.t.Helper()
	if err := h.m.Cancel(id); err != nil {
		h.t.Fatal(err)
	}
}

// counted is a job that counts its starts in a file.
func counted(t *testing.T, more string) (worktypes.Spec, func() int) {
	mark := filepath.Join(t.TempDir(), "starts")
	return shell("echo started >>" + mark + "; " + more), func() int {
		b, _ := os.ReadFile(mark)
		return strings.Count(string(b), "started")
	}
}

// stalled is a connection that takes so many bytes and then no more.
type stalled struct {
	net.Conn
	left    int
	full    chan<- struct{}
	closing sync.Once
	closed  chan struct{}
}

func (s *stalled) Write(b []byte) (int, error) {
	if len(b) <= s.left {
		s.left -= len(b)
		return s.Conn.Write(b)
	}
	select {
	case s.full <- struct{}{}:
	default:
	}
	<-s.closed
	return 0, net.ErrClosed
}

func (s *stalled) Close() error {
	s.closing.Do(func() { close(s.closed) })
	return s.Conn.Close()
}

// stall lets all ways take so many bytes; it is told when one is full.
func (h *home) stall(bytes int) <-chan struct{} {
	full := make(chan struct{}, 1)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.wrap = func(c net.Conn) net.Conn {
		return &stalled{Conn: c, left: bytes, full: full, closed: make(chan struct{})}
	}
	return full
}

// A job that is canceled before it has begun is never started, wherever it is.
func TestCanceledBeforeItBegan(t *testing.T) {
	t.Parallel()
	big := bytes.Repeat([]byte("x"), 1<<20)
	for name, until := range map[string]func(h *home, spec worktypes.Spec){
		"the node is away": func(h *home, spec worktypes.Spec) {
			h.wait(h.submit(shell("true"), nil)) // its store is known from now on
			h.cut()
			h.submit(spec, nil)
			h.restart()
			h.cancel(spec.ID)
			h.mend()
		},
		"the node goes away within the payload": func(h *home, spec worktypes.Spec) {
			full := h.stall(100 << 10)
			h.submit(spec, big)
			<-full
			h.cut()
			h.cancel(spec.ID)
			h.mend()
		},
		"within the payload": func(h *home, spec worktypes.Spec) {
			full := h.stall(100 << 10)
			h.submit(spec, big)
			<-full
			h.mend() // for new connections
			h.cancel(spec.ID)
		},
		"never sent": func(h *home, spec worktypes.Spec) {
			h.cut()
			h.submit(spec, nil)
			h.cancel(spec.ID)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t, "tcp")
			h := newHome(t, n)
			spec, starts := counted(t, "cat >/dev/null")
			until(h, spec)
			if st := h.wait(spec.ID); st.State != worktypes.Canceled || !st.Started.IsZero() {
				t.Errorf("%+v", st)
			}
			for _, st := range n.m.List() {
				if st.ID == spec.ID {
					waitEnd(t, n, st.ID)
				}
			}
			if got := starts(); got != 0 {
				t.Errorf("started %d times", got)
			}
		})
	}
}

// deaf is a connection on which nothing more is heard after the first word.
type deaf struct {
	net.Conn
	heard   int
	asked   chan struct{} // closed after it
	closing sync.Once
	closed  chan struct{}
}

func (d *deaf) Read(b []byte) (int, error) {
	if d.heard++; d.heard == 2 {
		close(d.asked)
	}
	if d.heard > 1 {
		<-d.closed
		return 0, net.ErrClosed
	}
	return d.Conn.Read(b)
}

func (d *deaf) Close() error {
	d.closing.Do(func() { close(d.closed) })
	return d.Conn.Close()
}

// A unit whose node does not come back in its time is Failed, and not started when
// that comes.
func TestExpiresWhileItsNodeIsAway(t *testing.T) {
	t.Parallel()
	h := newHome(t, newNode(t, "tcp"))
	h.cut()
	spec, starts := counted(t, "")
	spec.Expires = time.Now().Add(20 * time.Millisecond)
	other, _ := counted(t, "")
	other.Expires = time.Now().Add(time.Hour)
	h.submit(spec, nil)
	h.submit(other, nil)
	if st := h.wait(spec.ID); st.State != worktypes.Failed || !strings.HasPrefix(st.Detail, "expired: ") {
		t.Errorf("%+v", st)
	}
	h.opt.Now = func() time.Time { return time.Now().Add(2 * time.Hour) }
	h.restart() // the other's time is over meanwhile
	if st := h.wait(other.ID); st.State != worktypes.Failed || !strings.HasPrefix(st.Detail, "expired: ") {
		t.Errorf("%+v", st)
	}
	h.mend()
	if st := h.wait(h.submit(shell("true"), nil)); st.State != worktypes.Succeeded || starts() != 0 {
		t.Errorf("%+v, started %d times", st, starts())
	}
}

// A unit that does not say how long it may wait waits as long as its node says.
func TestTimeToStartOfTheNode(t *testing.T) {
	t.Parallel()
	h := newHome(t, newNode(t, "tcp"))
	h.opt.TTL = 20 * time.Millisecond
	h.restart()
	h.cut()
	if st := h.wait(h.submit(shell("true"), nil)); st.State != worktypes.Failed || !strings.HasPrefix(st.Detail, "expired: ") {
		t.Errorf("%+v", st)
	}
}

// A unit may have begun in its time without a word of it coming through: then that
// time says nothing of it any more.
func TestBeganInTimeUnheard(t *testing.T) {
	t.Parallel()
	n := newNode(t, "tcp")
	h := newHome(t, n)
	asked := make(chan struct{})
	h.wrap = func(c net.Conn) net.Conn { return &deaf{Conn: c, asked: asked, closed: make(chan struct{})} }
	spec, starts := counted(t, "echo done")
	spec.Expires = time.Now().Add(time.Hour)
	h.submit(spec, []byte("x"))
	<-asked
	waitEnd(t, n, spec.ID)
	h.cut()
	h.opt.Now = func() time.Time { return time.Now().Add(2 * time.Hour) }
	h.restart()
	h.mend()
	if st := h.wait(spec.ID); st.State != worktypes.Succeeded || st.StdoutSize != 5 || starts() != 1 {
		t.Errorf("%+v, started %d times", st, starts())
	}
}

// The clocks of two nodes need not agree.
func TestTimeToStartWithoutOneClock(t *testing.T) {
	t.Parallel()
	for _, skew := range []time.Duration{-24 * time.Hour, 24 * time.Hour} {
		h := newHome(t, newNodeWith(t, "tcp", worktypes.Options{Now: func() time.Time { return time.Now().Add(skew) }}))
		spec := shell("true")
		spec.Expires = time.Now().Add(time.Minute)
		if st := h.wait(h.submit(spec, nil)); st.State != worktypes.Succeeded {
			t.Errorf("a target whose clock is %v ahead: %+v", skew, st)
		}
		// What has waited for its whole time there is not started.
		spec = shell("true")
		spec.Expires = time.Now().Add(-time.Minute)
		if _, err := h.to.client().Submit(deadline(t), spec, nil); err != nil {
			t.Error(err)
		}
		if st := waitEnd(t, h.to, spec.ID); st.State != worktypes.Failed || !strings.HasPrefix(st.Detail, "expired: ") {
			t.Errorf("a target whose clock is %v ahead: %+v", skew, st)
		}
	}
}

// gate is a fifo that a job reads a line from.
func gate(t *testing.T) (path string, open func()) {
	path = filepath.Join(t.TempDir(), "gate")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	return path, func() { _ = os.WriteFile(path, []byte("\n"), 0) }
}

func (h *home) stdout(id string) string { return filepath.Join(h.dir, "units", id+".stdout") }

// A job that truncates its output is not ended by that, and its end is not lost.
func TestForwardedJobTruncatesItsOutput(t *testing.T) {
	t.Parallel()
	n := newNode(t, "tcp")
	h := newHome(t, n)
	first, truncate := gate(t)
	second, end := gate(t)
	spec, starts := counted(t, "echo some words; read x <"+first+"; : >/proc/self/fd/1; read x <"+second+"; exit 3")
	h.submit(spec, nil)
	r, err := h.m.Results(deadline(t), spec.ID, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := io.ReadFull(r, make([]byte, len("some words\n"))); err != nil {
		t.Fatal(err)
	}
	truncate()
	end()
	st := h.wait(spec.ID)
	if st.State != worktypes.Failed || st.ExitCode != 3 || !strings.Contains(st.Detail, "output is missing: node x: ") || st.StdoutSize != 11 || starts() != 1 {
		t.Errorf("%+v, started %d times", st, starts())
	}
	for ctx := deadline(t); ctx.Err() == nil; runtime.Gosched() { // nobody is told of a release
		if _, err = n.m.Status(spec.ID); err != nil {
			break
		}
	}
	if !errors.Is(err, worktypes.ErrUnknownUnit) {
		t.Errorf("the unit at its node: %v", err)
	}
}

// A node whose disk is full does not end the jobs that it forwarded: their output
// waits.
func TestForwarderWithAFullDisk(t *testing.T) {
	t.Parallel()
	h := newHome(t, newNode(t, "tcp"))
	wait, open := gate(t)
	spec, starts := counted(t, "read x <"+wait+"; echo some words")
	id := h.submit(spec, nil)
	st := reaches(t, h.m, id, func(st worktypes.Status) bool { return st.State == worktypes.Running })
	h.cut()
	replace := func(f func(path string) error) {
		_ = os.Remove(h.stdout(id))
		if err := errors.Join(os.MkdirAll(filepath.Dir(h.stdout(id)), 0o700), f(h.stdout(id))); err != nil {
			t.Fatal(err)
		}
	}
	replace(func(path string) error { return os.Symlink("/dev/full", path) })
	open()
	h.mend()
	st = reaches(t, h.m, id, func(st worktypes.Status) bool {
		return st.State.Terminal() || strings.Contains(st.Detail, "no space left")
	})
	if st.State != worktypes.Running {
		t.Errorf("%+v", st)
	}
	replace(func(path string) error { return os.WriteFile(path, nil, 0o600) })
	if st := h.wait(id); st.State != worktypes.Succeeded || starts() != 1 {
		t.Errorf("%+v, started %d times", st, starts())
	}
	if b, err := os.ReadFile(h.stdout(id)); string(b) != "some words\n" {
		t.Errorf("%q, %v", b, err)
	}
}

// A unit for a node that is away does not look for it again and again: it starts when
// that is back.
func TestWaitingDoesNotPoll(t *testing.T) {
	n := newNode(t, "tcp")
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		h := &home{t: t, to: n, dir: dir}
		h.cut()
		h.start()
		id := h.submit(shell("true"), nil)
		time.Sleep(time.Minute)
		before := h.dials()
		time.Sleep(24 * time.Hour)
		if now := h.dials(); now != before || before == 0 || before > 3 {
			t.Errorf("dialled %d times, then %d", before, now)
		}
		h.cancel(id)
		if st := h.wait(id); st.State != worktypes.Canceled {
			t.Errorf("%+v", st)
		}
		h.stop()
	})
	h := &home{t: t, to: n, dir: dir}
	h.cut()
	h.start()
	t.Cleanup(h.stop)
	id := h.submit(shell("true"), nil)
	reaches(t, h.m, id, func(st worktypes.Status) bool { return strings.Contains(st.Detail, "no route") })
	h.mend()
	if st := h.wait(id); st.State != worktypes.Succeeded {
		t.Errorf("%+v", st)
	}
}

// A cancel is answered by the node that does the job, or at once where that is away.
func TestCancelTaken(t *testing.T) {
	t.Parallel()
	h := newHome(t, newNode(t, "tcp"))
	fifo, _ := gate(t)
	var ids []string
	for range 2 {
		id := h.submit(shell("echo runs; read x <"+fifo), nil)
		reaches(t, h.m, id, func(st worktypes.Status) bool { return st.State == worktypes.Running })
		ids = append(ids, id)
	}
	h.cancel(ids[0])
	if !h.m.CancelTaken(deadline(t), ids[0]) {
		t.Error("a cancel was not taken by a node that is there")
	}
	h.cut()
	h.cancel(ids[1])
	if ctx := deadline(t); h.m.CancelTaken(ctx, ids[1]) || ctx.Err() != nil {
		t.Error("a cancel was taken by a node that is away, or not answered")
	}
	h.restart() // it is not forgotten
	h.mend()
	for _, id := range ids {
		if st := h.wait(id); st.State != worktypes.Canceled {
			t.Errorf("%+v", st)
		}
	}
}

// What is owed to a node that is away is not forgotten by a restart, and not tried
// for ever.
func TestOwedRelease(t *testing.T) {
	t.Parallel()
	n := newNode(t, "tcp")
	h := newHome(t, n)
	fifo, _ := gate(t)
	id := h.submit(shell("echo runs; read x <"+fifo), nil)
	reaches(t, h.m, id, func(st worktypes.Status) bool { return st.State == worktypes.Running })
	h.cut()
	if err := h.m.Release(deadline(t), id); err != nil {
		t.Fatal(err)
	}
	if _, err := h.m.Status(id); !errors.Is(err, worktypes.ErrUnknownUnit) {
		t.Errorf("the unit here: %v", err)
	}
	paid := make(chan struct{})
	h.f.Owes(worktypes.Owed{ID: worktypes.NewID(), Node: "x", Until: time.Now().Add(-time.Second)}, func() { close(paid) })
	<-paid
	h.restart()
	states, err := n.m.Watch(deadline(t), id)
	if err != nil {
		t.Fatal(err)
	}
	h.mend()
	var last worktypes.Status
	for last = range states {
	}
	if last.State != worktypes.Canceled {
		t.Errorf("the job: %+v", last)
	}
}
