package worktypes

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// shell is a work type that runs its "script".
type shell struct{}

func (shell) Name() string { return "shell" }

func (shell) Plan(s Spec, scratch string) (Plan, error) {
	if s.Params["script"] == "" {
		return Plan{}, fmt.Errorf("%w: no script", ErrForbiddenParams)
	}
	p := Plan{Argv: []string{"sh", "-c", s.Params["script"]}, SeparateStderr: s.Params["separate"] != ""}
	if s.Params["scratch"] != "" {
		p.Scratch, p.Dir = true, scratch
	}
	return p, nil
}

// absent is a work type whose program is not there.
type absent struct{}

func (absent) Name() string                    { return "absent" }
func (absent) Plan(Spec, string) (Plan, error) { return Plan{Argv: []string{"/no/such/program"}}, nil }

func registry(t testing.TB) *Registry {
	t.Helper()
	r, err := NewRegistry(shell{}, absent{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func open(t testing.TB, dir string) *Manager {
	t.Helper()
	m, err := Open(dir, registry(t), Options{Grace: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeNow(t, m) })
	return m
}

func closeNow(t testing.TB, m *Manager) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := m.Close(ctx); err != nil {
		t.Error(err)
	}
}

func submit(t testing.TB, m *Manager, script string) (id string) {
	t.Helper()
	id = NewID()
	if _, err := m.Submit(Spec{ID: id, Type: "shell", Params: map[string]string{"script": script}, Owner: "me"}); err != nil {
		t.Fatal(err)
	}
	return id
}

func run(t testing.TB, m *Manager, script string) (id string) {
	t.Helper()
	id = submit(t, m, script)
	if err := m.Start(id); err != nil {
		t.Fatal(err)
	}
	return id
}

func wait(t testing.TB, m *Manager, id string) Status {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	ch, err := m.Watch(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	var st Status
	for st = range ch {
	}
	if !st.State.Terminal() {
		t.Fatalf("unit %s has not ended: %+v", id, st)
	}
	return st
}

func output(t testing.TB, m *Manager, id string, offset int64) io.ReadCloser {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	r, err := m.Results(ctx, id, offset)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// expectNext reads exactly the text from r.
func expectNext(t testing.TB, r io.Reader, text string) {
	t.Helper()
	b := make([]byte, len(text))
	if n, err := io.ReadFull(r, b); err != nil || string(b) != text {
		t.Fatalf("read %q, %v, want %q", b[:n], err, text)
	}
}

func TestStatesOfAJob(t *testing.T) {
	t.Parallel()
	m := open(t, t.TempDir())
	id := submit(t, m, "echo hello; exit 3")
	watch, err := m.Watch(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	if st := <-watch; st.State != Pending || st.ExitCode != -1 || st.Created.IsZero() || !st.Started.IsZero() {
		t.Errorf("before the start: %+v", st)
	}
	if err := m.Start(id); err != nil {
		t.Fatal(err)
	}
	st := wait(t, m, id)
	if st.State != Failed || st.ExitCode != 3 || st.Detail != "exit status 3" || st.StdoutSize != 6 ||
		st.Owner != "me" || st.Job != id || st.Started.Before(st.Created) || st.Finished.Before(st.Started) {
		t.Errorf("at the end: %+v", st)
	}
	var last Status
	for last = range watch {
	}
	if last != st {
		t.Errorf("the watcher's last is %+v, the status %+v", last, st)
	}
	if err := m.Cancel(id); err != nil {
		t.Errorf("cancel after the end: %v", err)
	}
	if list := m.List(); len(list) != 1 || list[0] != st {
		t.Errorf("list %+v", list)
	}
	// What is told of it after a restart is the same.
	closeNow(t, m)
	again, err := open(t, filepath.Dir(m.store.units)).Status(id)
	again.Created, again.Started, again.Finished = st.Created, st.Started, st.Finished
	if err != nil || again != st {
		t.Errorf("after a restart %+v, %v", again, err)
	}
}

func TestSubmitIsIdempotent(t *testing.T) {
	t.Parallel()
	m := open(t, t.TempDir())
	spec := Spec{ID: NewID(), Type: "shell", Params: map[string]string{"script": "echo x"}, Owner: "me"}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := m.Submit(spec); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if err := m.Start(spec.ID); err != nil {
		t.Fatal(err)
	}
	end := wait(t, m, spec.ID)
	if st, err := m.Submit(spec); err != nil || st != end {
		t.Errorf("after the end: %+v, %v", st, err)
	}
	if err := m.Start(spec.ID); !errors.Is(err, ErrNotPending) {
		t.Errorf("a second start: %v", err)
	}
	for _, change := range []func(*Spec){
		func(s *Spec) { s.Owner = "somebody else" },
		func(s *Spec) { s.Params = map[string]string{"script": "echo y"} },
		func(s *Spec) { s.Type = "absent" },
		func(s *Spec) { s.Grants = []string{"me too"} },
	} {
		other := spec
		change(&other)
		if _, err := m.Submit(other); !errors.Is(err, ErrConflict) {
			t.Errorf("%+v: %v, want ErrConflict", other, err)
		}
	}
}

func TestSubmitRefusals(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	m := open(t, dir)
	for _, id := range []string{"", "../..", "..", "/etc/passwd", "01ARZ3NDEKTSV4RRFFQ69G5FA", "01arz3ndektsv4rrffq69g5fav",
		"01ARZ3NDEKTSV4RRFFQ69G5FA/", "81ARZ3NDEKTSV4RRFFQ69G5FAV", strings.Repeat("A", 1<<16)} {
		spec := Spec{ID: id, Type: "shell", Params: map[string]string{"script": "true"}}
		if _, err := m.Submit(spec); !errors.Is(err, ErrBadSpec) {
			t.Errorf("submit under %.40q: %v, want ErrBadSpec", id, err)
		}
		if _, err := m.Status(id); !errors.Is(err, ErrBadSpec) {
			t.Errorf("status of %.40q: %v, want ErrBadSpec", id, err)
		}
		if err := m.Release(t.Context(), id); !errors.Is(err, ErrBadSpec) {
			t.Errorf("release of %.40q: %v, want ErrBadSpec", id, err)
		}
	}
	_, err := m.Submit(Spec{ID: NewID(), Type: "nope"})
	if !errors.Is(err, ErrUnknownType) || !strings.Contains(err.Error(), `"nope": it has absent, shell`) {
		t.Errorf("unknown type: %v", err)
	}
	if _, err := m.Submit(Spec{ID: NewID(), Type: "shell"}); !errors.Is(err, ErrForbiddenParams) {
		t.Errorf("bad params: %v", err)
	}
	big := Spec{ID: NewID(), Type: "shell", Params: map[string]string{"script": strings.Repeat("x", MaxSpecSize)}}
	if _, err := m.Submit(big); !errors.Is(err, ErrBadSpec) {
		t.Errorf("oversized: %v", err)
	}
	for _, f := range []func(id string) error{
		m.Start, m.Cancel,
		func(id string) error { return m.Release(t.Context(), id) },
		func(id string) error { _, err := m.Payload(id); return err },
		func(id string) error { _, err := m.Results(t.Context(), id, 0); return err },
		func(id string) error { _, err := m.Watch(t.Context(), id); return err },
		func(id string) error { _, err := m.Spec(id); return err },
	} {
		if err := f(NewID()); !errors.Is(err, ErrUnknownUnit) {
			t.Errorf("unknown unit: %v", err)
		}
	}
	if left, _ := os.ReadDir(filepath.Join(dir, "units")); len(left) != 0 {
		t.Errorf("refused submits left %v", left)
	}
}

func TestResultsFollowTheJob(t *testing.T) {
	t.Parallel()
	m := open(t, t.TempDir())
	fifo := filepath.Join(t.TempDir(), "fifo")
	id := run(t, m, "mkfifo "+fifo+"; echo one; cat "+fifo+"; echo three")
	var readers []io.ReadCloser
	for range 20 {
		readers = append(readers, output(t, m, id, 0))
	}
	for _, r := range readers {
		expectNext(t, r, "one\n")
	}
	tail := output(t, m, id, 2)
	expectNext(t, tail, "e\n")
	if st, _ := m.Status(id); st.State != Running || st.StdoutSize != 4 {
		t.Errorf("while it runs: %+v", st)
	}
	if err := os.WriteFile(fifo, []byte("two\n"), 0); err != nil {
		t.Fatal(err)
	}
	for _, r := range append(readers, tail) {
		if rest, err := io.ReadAll(r); err != nil || string(rest) != "two\nthree\n" {
			t.Errorf("the rest is %q, %v", rest, err)
		}
	}
	for _, offset := range []int64{-1, 15, 1 << 40} {
		if _, err := m.Results(t.Context(), id, offset); !errors.Is(err, ErrBadOffset) {
			t.Errorf("offset %d: %v", offset, err)
		}
	}
}

func TestResultsOfAPendingUnitWait(t *testing.T) {
	t.Parallel()
	m := open(t, t.TempDir())
	id := submit(t, m, "echo x")
	ctx, cancel := context.WithCancel(t.Context())
	r, err := m.Results(ctx, id, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cancel()
	if _, err := r.Read(make([]byte, 1)); !errors.Is(err, context.Canceled) {
		t.Errorf("after the context's end: %v", err)
	}
	r2 := output(t, m, id, 0)
	if err := m.Start(id); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(r2); string(b) != "x\n" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
}

func TestResultsWithoutInotify(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	m, err := Open(t.TempDir(), registry(t), Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	m.follower.newWatcher = func() (*fsnotify.Watcher, error) { return nil, errors.New("too many open files") }
	fifo := filepath.Join(t.TempDir(), "fifo")
	id := run(t, m, "mkfifo "+fifo+"; echo one; cat "+fifo)
	r, r2 := output(t, m, id, 0), output(t, m, submit(t, m, "true"), 0)
	expectNext(t, r, "one\n")
	if err := os.WriteFile(fifo, []byte("two\n"), 0); err != nil {
		t.Fatal(err)
	}
	expectNext(t, r, "two\n")
	r.Close()
	r2.Close()
	closeNow(t, m)
	if n := strings.Count(log.String(), "refuses to watch"); n != 1 {
		t.Errorf("%d warnings, want 1:\n%s", n, &log)
	}
}

func TestOneInotifyInstanceAndNoWatchLeft(t *testing.T) {
	t.Parallel()
	m := open(t, t.TempDir())
	made := 0
	m.follower.newWatcher = func() (*fsnotify.Watcher, error) { made++; return fsnotify.NewWatcher() }
	var ids []string
	for range 10 {
		id := run(t, m, "read x; sleep 600")
		ids = append(ids, id)
		one, two := output(t, m, id, 0), output(t, m, id, 0)
		one.Close()
		if len(m.follower.watcher.WatchList()) == 0 {
			t.Error("the file is not watched while one reader is left")
		}
		two.Close()
	}
	if made != 1 || len(m.follower.watcher.WatchList()) != 0 || len(m.follower.files) != 0 {
		t.Errorf("%d instances, watched %v, followed %v", made, m.follower.watcher.WatchList(), m.follower.files)
	}
	for _, id := range ids {
		if err := m.Release(t.Context(), id); err != nil {
			t.Error(err)
		}
	}
}

func TestPayload(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	m := open(t, dir)
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	id := submit(t, m, "cat")
	p, err := m.Payload(id)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Payload(id); !errors.Is(err, ErrBusy) {
		t.Errorf("a second writer: %v", err)
	}
	if _, err := p.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := m.Start(id); !errors.Is(err, ErrBusy) {
		t.Errorf("start before the commit: %v", err)
	}
	if err := p.Commit(int64(len(data)), sha256.Sum256(data)); err != nil {
		t.Fatal(err)
	}
	if err := p.Close(); err != nil {
		t.Errorf("close after commit: %v", err)
	}
	if err := m.Start(id); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "units", id, stdinFile)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the payload is still there: %v", err)
	}
	got, err := io.ReadAll(output(t, m, id, 0))
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes came back of %d, %v", len(got), len(data), err)
	}
	if _, err := m.Payload(id); !errors.Is(err, ErrNotPending) {
		t.Errorf("a payload after the end: %v", err)
	}
}

func TestPayloadThatIsNotWhole(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	m := open(t, dir)
	sum := sha256.Sum256([]byte("abc"))
	for name, c := range map[string]struct {
		end    func(id string, p *Payload) error
		err    error
		state  State
		detail string
	}{
		"closed":   {func(_ string, p *Payload) error { return p.Close() }, nil, Failed, "after 3 bytes"},
		"aborted":  {func(_ string, p *Payload) error { return p.Abort("because") }, nil, Failed, "because"},
		"short":    {func(_ string, p *Payload) error { return p.Commit(4, sum) }, ErrBadPayload, Failed, "3 bytes came of 4"},
		"changed":  {func(_ string, p *Payload) error { return p.Commit(3, sha256.Sum256([]byte("abd"))) }, ErrBadPayload, Failed, "SHA-256"},
		"canceled": {func(id string, p *Payload) error { m.Cancel(id); return p.Commit(3, sum) }, ErrNotPending, Canceled, "Canceled"},
		"canceled, then written": {func(id string, p *Payload) error {
			m.Cancel(id)
			_, err := p.Write([]byte("x"))
			p.Close()
			return err
		}, ErrNotPending, Canceled, "Canceled"},
		"released": {func(id string, p *Payload) error { m.Release(t.Context(), id); return p.Commit(3, sum) }, ErrNotPending, 0, ""},
	} {
		id := submit(t, m, "echo it was started")
		p, err := m.Payload(id)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.Write([]byte("abc")); err != nil {
			t.Fatal(err)
		}
		if err := c.end(id, p); !errors.Is(err, c.err) {
			t.Errorf("%s: %v, want %v", name, err, c.err)
		}
		if c.state == 0 {
			continue
		}
		if err := m.Start(id); !errors.Is(err, ErrNotPending) {
			t.Errorf("%s: start: %v", name, err)
		}
		st, err := m.Status(id)
		if err != nil || st.State != c.state || !strings.Contains(st.Detail, c.detail) || st.StdoutSize != 0 {
			t.Errorf("%s: %+v, %v", name, st, err)
		}
		if left, _ := filepath.Glob(filepath.Join(dir, "units", id, "stdin*")); len(left) != 0 {
			t.Errorf("%s: left %v", name, left)
		}
	}
}

func TestCancelKillsWhatDoesNotObey(t *testing.T) {
	t.Parallel()
	m := open(t, t.TempDir())
	id := run(t, m, `trap '' INT TERM; setsid sleep 600 & echo on; while :; do sleep 600; done`)
	r := output(t, m, id, 0)
	expectNext(t, r, "on\n")
	for range 3 {
		if err := m.Cancel(id); err != nil {
			t.Fatal(err)
		}
	}
	if st := wait(t, m, id); st.State != Canceled || st.Detail != "Canceled" || st.Signal != 9 {
		t.Errorf("%+v", st)
	}
	if rest, err := io.ReadAll(r); err != nil || len(rest) != 0 {
		t.Errorf("the rest is %q, %v", rest, err)
	}
}

func TestCancelLetsTheJobSpeak(t *testing.T) {
	t.Parallel()
	m := open(t, t.TempDir())
	id := run(t, m, `trap 'echo interrupted; exit 0' INT; sleep 600 & echo on; wait`)
	r := output(t, m, id, 0)
	expectNext(t, r, "on\n")
	if err := m.Cancel(id); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(r); err != nil || string(rest) != "interrupted\n" {
		t.Errorf("the rest is %q, %v", rest, err)
	}
	if st := wait(t, m, id); st.State != Canceled || st.ExitCode != 0 {
		t.Errorf("%+v", st)
	}
}
