// Package worktypetest holds work types to one suite of rules, with real
// processes. Only tests import it.
package worktypetest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/ranvier-mesh/ranvier/worktypes"
)

// Case is a type under test and jobs for it.
type Case struct {
	// Type is what is tested.
	Type worktypes.Type
	// Good is a job that succeeds; CheckGood looks at its results.
	Good      Job
	CheckGood func(t *testing.T, results []byte)
	// Long is a job that does not end by itself. Its results contain Started
	// once all its processes run.
	Long    Job
	Started string
	// CheckCanceled looks at the results of Long after its cancel.
	CheckCanceled func(t *testing.T, results []byte)
	// KilledDetail is the Detail of Long after kill -9 of its main process.
	KilledDetail string
	// Forbidden are params that the type refuses.
	Forbidden []map[string]string
}

// Job is the params and the payload of a job.
type Job struct {
	Params  map[string]string
	Payload []byte
}

// Run is the suite.
func Run(t *testing.T, c Case) {
	t.Run("plan", func(t *testing.T) { testPlan(t, c) })
	t.Run("good", func(t *testing.T) { testGood(t, c) })
	t.Run("cancel", func(t *testing.T) { testCancel(t, c) })
	t.Run("killed", func(t *testing.T) { testKilled(t, c) })
	t.Run("half a payload", func(t *testing.T) { testHalfPayload(t, c) })
}

func testPlan(t *testing.T, c Case) {
	dir := t.TempDir()
	spec := worktypes.Spec{ID: worktypes.NewID(), Type: c.Type.Name(), Params: c.Good.Params}
	one, err := c.Type.Plan(spec, dir)
	if err != nil {
		t.Fatal(err)
	}
	two, err := c.Type.Plan(spec, dir)
	if err != nil || !reflect.DeepEqual(one, two) {
		t.Errorf("a second plan is %+v, %v; the first was %+v", two, err, one)
	}
	if made, _ := os.ReadDir(dir); len(made) != 0 {
		t.Errorf("planning left %v", made)
	}
	for _, params := range c.Forbidden {
		spec.Params = params
		if _, err := c.Type.Plan(spec, dir); !errors.Is(err, worktypes.ErrForbiddenParams) {
			t.Errorf("params %v: %v, want ErrForbiddenParams", params, err)
		}
	}
}

func testGood(t *testing.T, c Case) {
	dir, m := open(t, c)
	id := Submit(t, m, c.Type.Name(), c.Good)
	early := follow(t, m, id)
	if err := m.Start(id); err != nil {
		t.Fatal(err)
	}
	if err := m.Start(id); !errors.Is(err, worktypes.ErrNotPending) {
		t.Errorf("a second start: %v, want ErrNotPending", err)
	}
	results := <-early
	st := Wait(t, m, id)
	if st.State != worktypes.Succeeded || st.Detail != "exit status 0" || st.ExitCode != 0 {
		t.Fatalf("status %+v; results:\n%s", st, results)
	}
	if st.StdoutSize != int64(len(results)) {
		t.Errorf("StdoutSize %d, %d bytes of results", st.StdoutSize, len(results))
	}
	c.CheckGood(t, results)
	for _, offset := range []int64{1, st.StdoutSize / 2, st.StdoutSize} {
		r, err := m.Results(t.Context(), id, offset)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		if err != nil || !bytes.Equal(got, results[offset:]) {
			t.Errorf("results from %d: %d bytes, %v", offset, len(got), err)
		}
		r.Close()
	}
	expectClean(t, filepath.Join(dir, "units", id))
	if err := m.Release(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(filepath.Join(dir, "units")); len(left) != 0 {
		t.Errorf("after release there is %v", left)
	}
}

func testCancel(t *testing.T, c Case) {
	dir, m := open(t, c)
	id := startLong(t, m, c)
	results := follow(t, m, id)
	if len(Processes(t, id)) == 0 {
		t.Fatal("no process carries the job's mark")
	}
	if err := m.Cancel(id); err != nil {
		t.Fatal(err)
	}
	st := Wait(t, m, id)
	if st.State != worktypes.Canceled || st.Detail != "Canceled" {
		t.Errorf("status %+v", st)
	}
	if left := Processes(t, id); len(left) != 0 {
		t.Errorf("processes %v are left of the job", left)
	}
	got := <-results
	if int64(len(got)) != st.StdoutSize {
		t.Errorf("%d bytes of results, StdoutSize %d", len(got), st.StdoutSize)
	}
	c.CheckCanceled(t, got)
	expectClean(t, filepath.Join(dir, "units", id))
}

func testKilled(t *testing.T, c Case) {
	dir, m := open(t, c)
	id := startLong(t, m, c)
	killMain(t, id)
	st := Wait(t, m, id)
	if st.State != worktypes.Failed || st.Detail != c.KilledDetail || st.ExitCode != -1 || st.Signal != 9 {
		t.Errorf("status %+v, want Detail %q", st, c.KilledDetail)
	}
	if left := Processes(t, id); len(left) != 0 {
		t.Errorf("processes %v are left of the killed job", left)
	}
	expectClean(t, filepath.Join(dir, "units", id))
}

func testHalfPayload(t *testing.T, c Case) {
	dir, m := open(t, c)
	id := worktypes.NewID()
	if _, err := m.Submit(worktypes.Spec{ID: id, Type: c.Type.Name(), Params: c.Good.Params}); err != nil {
		t.Fatal(err)
	}
	p, err := m.Payload(id)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Write([]byte("half of someth")); err != nil {
		t.Fatal(err)
	}
	p.Close()
	if err := m.Start(id); !errors.Is(err, worktypes.ErrNotPending) {
		t.Errorf("start after half a payload: %v", err)
	}
	if st := Wait(t, m, id); st.State != worktypes.Failed || !st.Started.IsZero() || !strings.Contains(st.Detail, "14 bytes") {
		t.Errorf("status %+v", st)
	}
	expectClean(t, filepath.Join(dir, "units", id))
}

// expectClean fails if something is left that may hold secrets, or that others
// may read.
func expectClean(t *testing.T, unit string) {
	t.Helper()
	err := filepath.WalkDir(unit, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		switch d.Name() {
		case "stdin", "stdin.part", "scratch":
			t.Errorf("%s is left", path)
		}
		if fi, err := d.Info(); err != nil || fi.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v, %v", path, fi.Mode(), err)
		}
		return nil
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // many units never need one
		t.Error(err)
	}
}

func startLong(t *testing.T, m *worktypes.Manager, c Case) (id string) {
	t.Helper()
	id = Submit(t, m, c.Type.Name(), c.Long)
	if err := m.Start(id); err != nil {
		t.Fatal(err)
	}
	r, err := m.Results(t.Context(), id, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var seen []byte
	buf := make([]byte, 4096)
	for !bytes.Contains(seen, []byte(c.Started)) {
		n, err := r.Read(buf)
		seen = append(seen, buf[:n]...)
		if err != nil {
			st, _ := m.Status(id)
			t.Fatalf("%v before %q; status %+v, results:\n%s", err, c.Started, st, seen)
		}
	}
	return id
}

func open(t *testing.T, c Case) (string, *worktypes.Manager) {
	t.Helper()
	dir := t.TempDir()
	reg, err := worktypes.NewRegistry(c.Type)
	if err != nil {
		t.Fatal(err)
	}
	return dir, Open(t, dir, reg, worktypes.Options{})
}

// Open opens a Manager that is closed, and its jobs killed, at the test's end.
func Open(t *testing.T, dir string, reg *worktypes.Registry, opt worktypes.Options) *worktypes.Manager {
	t.Helper()
	m, err := worktypes.Open(dir, reg, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		now, cancel := context.WithCancel(context.Background())
		cancel()
		if err := m.Close(now); err != nil {
			t.Error(err)
		}
	})
	return m
}

// Submit makes a unit with its payload and does not start it.
func Submit(t *testing.T, m *worktypes.Manager, workType string, job Job) (id string) {
	t.Helper()
	id = worktypes.NewID()
	if _, err := m.Submit(worktypes.Spec{ID: id, Type: workType, Params: job.Params, Owner: "tester"}); err != nil {
		t.Fatal(err)
	}
	p, err := m.Payload(id)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Write(job.Payload); err != nil {
		t.Fatal(err)
	}
	if err := p.Commit(int64(len(job.Payload)), sha256.Sum256(job.Payload)); err != nil {
		t.Fatal(err)
	}
	return id
}

// Wait waits for a unit's end, for at most a minute.
func Wait(t *testing.T, m *worktypes.Manager, id string) worktypes.Status {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	watch, err := m.Watch(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	var st worktypes.Status
	for st = range watch {
	}
	if !st.State.Terminal() {
		t.Fatalf("unit %s has not ended: %+v", id, st)
	}
	return st
}

// follow reads a unit's results to their end.
func follow(t *testing.T, m *worktypes.Manager, id string) <-chan []byte {
	t.Helper()
	r, err := m.Results(t.Context(), id, 0)
	if err != nil {
		t.Fatal(err)
	}
	ch := make(chan []byte, 1)
	go func() {
		defer r.Close()
		b, err := io.ReadAll(r)
		if err != nil {
			t.Errorf("results: %v after %d bytes", err, len(b))
		}
		ch <- b
	}()
	return ch
}
