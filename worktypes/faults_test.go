package worktypes

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func unitFile(m *Manager, id, name string) string { return filepath.Join(m.store.path(id), name) }

func TestCannotStart(t *testing.T) {
	t.Parallel()
	m := open(t, t.TempDir())
	id := NewID()
	if _, err := m.Submit(Spec{ID: id, Type: "absent"}); err != nil {
		t.Fatal(err)
	}
	if err := m.Start(id); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("start: %v", err)
	}
	if st := wait(t, m, id); st.State != Failed || !strings.Contains(st.Detail, "/no/such/program") {
		t.Errorf("%+v", st)
	}
	if b, err := io.ReadAll(output(t, m, id, 0)); len(b) != 0 || err != nil {
		t.Errorf("results %q, %v", b, err)
	}
}

func TestUnitDirectoryVanishes(t *testing.T) {
	t.Parallel()
	m := open(t, t.TempDir())
	before := submit(t, m, "true")
	if err := os.RemoveAll(m.store.path(before)); err != nil {
		t.Fatal(err)
	}
	if err := m.Start(before); err == nil {
		t.Error("a unit without a directory was started")
	}
	if st := wait(t, m, before); st.State != Failed || !strings.Contains(st.Detail, "no such file") {
		t.Errorf("%+v", st)
	}
	during := run(t, m, "rm -rf "+m.store.units+"; echo gone")
	if st := wait(t, m, during); st.State != Succeeded || st.StdoutSize != 5 {
		t.Errorf("%+v", st)
	}
	for _, id := range []string{before, during} {
		if err := m.Release(t.Context(), id); err != nil {
			t.Errorf("release: %v", err)
		}
	}
	if _, err := m.Submit(Spec{ID: NewID(), Type: "absent"}); err == nil {
		t.Error("submit into a directory that is gone: no error")
	}
	if list := m.List(); len(list) != 0 {
		t.Errorf("a unit that could not be made is listed: %+v", list)
	}
}

func TestJobTruncatesItsOutput(t *testing.T) {
	t.Parallel()
	m := open(t, t.TempDir())
	fifo := filepath.Join(t.TempDir(), "fifo")
	id := run(t, m, "mkfifo "+fifo+"; echo a long line of output; cat "+fifo+"; : > /proc/self/fd/1; cat "+fifo+"; echo end")
	reader := output(t, m, id, 0)
	expectNext(t, reader, "a long line of output\n")
	goOn := func() {
		if err := os.WriteFile(fifo, nil, 0); err != nil {
			t.Fatal(err)
		}
	}
	goOn()
	if b, err := io.ReadAll(reader); !errors.Is(err, ErrTruncated) {
		t.Errorf("the reader got %q, %v, want ErrTruncated", b, err)
	}
	goOn()
	if st := wait(t, m, id); st.State != Succeeded || st.StdoutSize != 4 {
		t.Errorf("%+v", st)
	}
	if b, err := io.ReadAll(output(t, m, id, 0)); string(b) != "end\n" || err != nil {
		t.Errorf("a new reader got %q, %v", b, err)
	}
}

func TestOutputAfterTheEndIsNotPartOfIt(t *testing.T) {
	t.Parallel()
	m := open(t, t.TempDir())
	fifo := filepath.Join(t.TempDir(), "fifo")
	id := run(t, m, "mkfifo "+fifo+" "+fifo+".done; (setsid sh -c 'cat "+fifo+"; echo > "+fifo+".done' &); echo end")
	st := wait(t, m, id)
	if err := os.WriteFile(fifo, []byte("too late\n"), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := os.ReadFile(fifo + ".done"); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(output(t, m, id, 0))
	if err != nil || string(b) != "end\n" || st.StdoutSize != 4 {
		t.Errorf("results %q, %v, status %+v", b, err, st)
	}
}

func TestSeparateStderrAndScratch(t *testing.T) {
	t.Parallel()
	m := open(t, t.TempDir())
	id := NewID()
	_, err := m.Submit(Spec{ID: id, Type: "shell", Params: map[string]string{
		"separate": "1", "scratch": "1",
		"script": `echo secret > file; pwd; stat -c %a .; printf 'Traceback:\n\n  File x\n\033[31mValueError: no\377\n' >&2; exit 2`,
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Start(id); err != nil {
		t.Fatal(err)
	}
	scratch := unitFile(m, id, scratchDir)
	b, err := io.ReadAll(output(t, m, id, 0))
	if err != nil || string(b) != scratch+"\n700\n" {
		t.Errorf("results %q, %v", b, err)
	}
	if st := wait(t, m, id); st.Detail != "exit status 2: Traceback: | File x | [31mValueError: no?" {
		t.Errorf("detail %q", st.Detail)
	}
	if _, err := os.Stat(scratch); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("scratch: %v", err)
	}
}

func TestRestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	m := open(t, dir)
	pending, done := submit(t, m, "echo later"), run(t, m, "echo done")
	wait(t, m, done)
	running, noSpec, noStatus, empty := run(t, m, "echo out"), run(t, m, "true"), run(t, m, "true"), run(t, m, "true")
	for _, id := range []string{running, noSpec, noStatus, empty} {
		wait(t, m, id)
	}
	closeNow(t, m)

	status, err := os.ReadFile(unitFile(m, running, statusFile))
	if err != nil {
		t.Fatal(err)
	}
	write := func(id, name, content string) {
		if err := os.WriteFile(unitFile(m, id, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(running, statusFile, strings.Replace(string(status), `"Succeeded"`, `"Running"`, 1))
	write(running, stdinFile, "password")
	write(pending, stdinPartFile, "half")
	write(noSpec, specFile, `{"ID": "`)
	write(noStatus, statusFile, `{"State": "Sleeping"}`)
	if err := os.Remove(unitFile(m, empty, specFile)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{newPrefix + NewID(), releasePrefix + NewID(), "lost+found"} {
		if err := os.MkdirAll(filepath.Join(dir, "units", name, "x"), 0o700); err != nil {
			t.Fatal(err)
		}
	}

	m = open(t, dir)
	expect := func(id string, state State, detail string) {
		t.Helper()
		st, err := m.Status(id)
		if err != nil || st.State != state || !strings.HasPrefix(st.Detail, detail) {
			t.Errorf("%+v, %v; want %v %q", st, err, state, detail)
		}
	}
	expect(done, Succeeded, "exit status 0")
	expect(running, Failed, "LOST: ")
	expect(noSpec, Failed, "DAMAGED: spec.json: ")
	expect(noStatus, Failed, "DAMAGED: status.json: ")
	expect(empty, Failed, "DAMAGED: ")
	expect(pending, Pending, "")
	if b, err := io.ReadAll(output(t, m, running, 0)); string(b) != "out\n" || err != nil {
		t.Errorf("the lost unit's output is %q, %v", b, err)
	}
	if err := m.Start(running); !errors.Is(err, ErrNotPending) {
		t.Errorf("start of a lost unit: %v", err)
	}
	if err := m.Start(pending); err != nil {
		t.Error(err)
	}
	if b, err := io.ReadAll(output(t, m, pending, 0)); string(b) != "later\n" || err != nil {
		t.Errorf("the pending unit's output is %q, %v", b, err)
	}
	for _, st := range m.List() {
		if err := m.Release(t.Context(), st.ID); err != nil {
			t.Error(err)
		}
	}
	left, _ := os.ReadDir(filepath.Join(dir, "units"))
	if len(left) != 1 || left[0].Name() != "lost+found" {
		t.Errorf("left: %v", left)
	}
}

func TestDataDirectoryIsTakenOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	m := open(t, dir)
	if _, err := Open(dir, registry(t), Options{}); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), dir) {
		t.Errorf("second: %v", err)
	}
	closeNow(t, m)
	closeNow(t, open(t, dir))
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(file, registry(t), Options{}); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("data directory that is a file: %v", err)
	}
}

func TestClose(t *testing.T) {
	t.Parallel()
	m := open(t, t.TempDir())
	pending := submit(t, m, "true")
	polite := run(t, m, `trap 'echo bye; exit 0' INT; sleep 600 & echo on; wait`)
	r := output(t, m, polite, 0)
	expectNext(t, r, "on\n")
	waiting := output(t, m, pending, 0)
	watch, err := m.Watch(context.Background(), pending)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(r); string(b) != "bye\n" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	if st, err := m.Status(polite); err != nil || st.State != Failed || !strings.Contains(st.Detail, "node was stopped") {
		t.Errorf("%+v, %v", st, err)
	}
	if _, err := waiting.Read(make([]byte, 1)); !errors.Is(err, ErrClosed) {
		t.Errorf("results of a pending unit: %v", err)
	}
	for range watch {
	}
	if err := m.Start(pending); !errors.Is(err, ErrClosed) {
		t.Errorf("start: %v", err)
	}
	if _, err := m.Submit(Spec{ID: NewID(), Type: "absent"}); !errors.Is(err, ErrClosed) {
		t.Errorf("submit: %v", err)
	}
}

func TestReleaseOfARunningJob(t *testing.T) {
	t.Parallel()
	m := open(t, t.TempDir())
	id := run(t, m, `trap '' INT; echo on; while :; do sleep 600; done`)
	r := output(t, m, id, 0)
	expectNext(t, r, "on\n")
	now, cancel := context.WithCancel(t.Context())
	cancel()
	if err := m.Release(now, id); !errors.Is(err, context.Canceled) {
		t.Errorf("release without time: %v", err)
	}
	if err := m.Release(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Status(id); !errors.Is(err, ErrUnknownUnit) {
		t.Errorf("status after release: %v", err)
	}
	if b, err := io.ReadAll(r); len(b) != 0 || err != nil {
		t.Errorf("a reader that was there: %q, %v", b, err)
	}
}

func TestLatencyOfALine(t *testing.T) {
	m := open(t, t.TempDir())
	fifo := filepath.Join(t.TempDir(), "fifo")
	id := run(t, m, "mkfifo "+fifo+"; echo on; exec cat <>"+fifo)
	r := output(t, m, id, 0)
	expectNext(t, r, "on\n")
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
		expectNext(t, r, "x\n")
	}
	each := time.Since(start) / lines
	t.Logf("a line takes %v through the job to its reader", each)
	if each > 5*time.Millisecond {
		t.Errorf("a line takes %v, 5 ms are allowed", each)
	}
}

func TestRegistry(t *testing.T) {
	t.Parallel()
	if _, err := NewRegistry(shell{}, shell{}); err == nil {
		t.Error("the same name twice: no error")
	}
	var none Registry
	if _, err := none.Lookup("x"); !errors.Is(err, ErrUnknownType) || !strings.Contains(err.Error(), "none") {
		t.Errorf("nothing there: %v", err)
	}
}

func TestStateText(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := State(rapid.IntRange(-2, 7).Draw(t, "state"))
		text, err := s.MarshalText()
		if ok := s >= Pending && s <= Canceled; ok != (err == nil) {
			t.Fatalf("%d: %v", s, err)
		}
		var back State
		if err == nil && (back.UnmarshalText(text) != nil || back != s || s.String() != string(text)) {
			t.Fatalf("%d became %q became %d", s, text, back)
		}
	})
}

// An id that passes is a plain file name.
func FuzzValidateID(f *testing.F) {
	f.Add("01ARZ3NDEKTSV4RRFFQ69G5FAV")
	f.Add("../../../../../../../../..")
	f.Fuzz(func(t *testing.T, id string) {
		if ValidateID(id) == nil && (len(id) != 26 || strings.ContainsAny(id, "./\\\x00") || filepath.Base(id) != id) {
			t.Errorf("%q passes", id)
		}
	})
}

// Whatever is in a unit's files, the unit is told of and can be released.
func FuzzLoad(f *testing.F) {
	f.Add([]byte(`{"ID": "01ARZ3NDEKTSV4RRFFQ69G5FAV", "Type": "shell"}`), []byte(`{"ID": "01ARZ3NDEKTSV4RRFFQ69G5FAV", "State": "Running"}`))
	f.Add([]byte(`{"ID": "../..", "Type": "x"}`), []byte(`null`))
	f.Fuzz(func(t *testing.T, spec, status []byte) {
		const id = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
		dir := t.TempDir()
		s := store{units: dir}
		if err := os.Mkdir(s.path(id), 0o700); err != nil {
			t.Fatal(err)
		}
		os.WriteFile(filepath.Join(s.path(id), specFile), spec, 0o600)
		os.WriteFile(filepath.Join(s.path(id), statusFile), status, 0o600)
		rec, st, err := s.load(id)
		if err == nil && (rec.ID != id || st == nil || st.ID != id) {
			t.Errorf("loaded %+v, %+v", rec, st)
		}
	})
}
