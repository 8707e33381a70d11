package worktypes

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/ranvier-mesh/ranvier/internal/journal"
)

func unitFile(m *Manager, id, name string) string { return filepath.Join(m.store.path(id), name) }

func unitOutput(m *Manager, id string) string { return outputFile(m.store.path(id)) }

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
	p, err := m.Payload(before)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Write([]byte("a payload")); err != nil {
		t.Fatal(err)
	}
	if err := p.Commit(p.Size(), p.Sum()); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(m.store.path(before)); err != nil {
		t.Fatal(err)
	}
	if err := m.Start(before); err == nil {
		t.Error("a unit whose payload is gone was started")
	}
	if st := wait(t, m, before); st.State != Failed || !strings.Contains(st.Detail, "its payload is gone") {
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
	after := submit(t, m, "true")
	if err := m.Start(after); err == nil {
		t.Error("start in a directory that is gone: no error")
	}
	if st := wait(t, m, after); st.State != Failed || !strings.Contains(st.Detail, "no such file") {
		t.Errorf("%+v", st)
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
	running, badRecord, other, small := run(t, m, "echo out"), run(t, m, "true"), run(t, m, "true"), run(t, m, "echo small")
	for _, id := range []string{running, badRecord, other, small} {
		wait(t, m, id)
	}
	closeNow(t, m)

	record := func(id, old, new string) {
		t.Helper()
		j, err := journal.Open(filepath.Join(dir, journalFile), journal.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer j.Close()
		b, err := j.Get(unitsBucket, id)
		if err != nil || !strings.Contains(string(b), old) {
			t.Fatalf("record %s, %v", b, err)
		}
		if err := j.Put(journal.Change{Bucket: unitsBucket, Key: id, Value: []byte(strings.Replace(string(b), old, new, 1))}); err != nil {
			t.Fatal(err)
		}
	}
	record(running, `"Succeeded"`, `"Running"`)
	record(badRecord, `"Succeeded"`, `"Sleeping"`)
	record(other, other, NewID())
	for id, file := range map[string]string{running: stdinFile, pending: stdinPartFile} {
		if err := errors.Join(os.Mkdir(m.store.path(id), 0o700), os.WriteFile(unitFile(m, id, file), []byte("password"), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Truncate(unitOutput(m, small), 0); err != nil { // nobody had synced it
		t.Fatal(err)
	}
	unknown := NewID() // nobody was told of its submit
	for _, name := range []string{releasePrefix + NewID(), unknown, "lost+found"} {
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
	wait(t, m, running)
	expect(done, Succeeded, "exit status 0")
	expect(running, Failed, "LOST: ")
	expect(badRecord, Failed, "DAMAGED: its record: ")
	expect(other, Failed, "DAMAGED: its record is that of ")
	expect(pending, Pending, "")
	if _, err := m.Status(unknown); !errors.Is(err, ErrUnknownUnit) {
		t.Errorf("a submit that nobody was told of: %v", err)
	}
	for id, want := range map[string]string{running: "out\n", small: "small\n"} {
		if b, err := io.ReadAll(output(t, m, id, 0)); string(b) != want || err != nil {
			t.Errorf("output %q, %v; want %q", b, err, want)
		}
	}
	if _, err := os.Stat(unitFile(m, running, stdinFile)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the lost unit's payload: %v", err)
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
	closeNow(t, m)
	m = open(t, dir)
	if _, err := m.Submit(Spec{ID: done, Type: "absent"}); !errors.Is(err, ErrReleased) {
		t.Errorf("submit under a released id after a restart: %v", err)
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

// A journal that cannot be read takes no unit with it that has nothing to do with
// it, and the node comes up.
func TestDamagedJournal(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	m := open(t, dir)
	id := run(t, m, "echo kept")
	wait(t, m, id)
	closeNow(t, m)
	if err := os.WriteFile(filepath.Join(dir, journalFile), []byte("not a journal, and rather short"), 0o600); err != nil {
		t.Fatal(err)
	}
	m = open(t, dir)
	if st, err := m.Status(id); err != nil || st.State != Failed || !strings.HasPrefix(st.Detail, "DAMAGED: ") || st.StdoutSize != 5 {
		t.Errorf("%+v, %v", st, err)
	}
	if b, err := io.ReadAll(output(t, m, id, 0)); string(b) != "kept\n" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	if st := wait(t, m, run(t, m, "true")); st.State != Succeeded {
		t.Errorf("a new unit: %+v", st)
	}
	if aside, _ := filepath.Glob(filepath.Join(dir, journalFile+".damaged-*")); len(aside) != 1 {
		t.Errorf("put aside: %v", aside)
	}
	if err := m.Release(t.Context(), id); err != nil {
		t.Error(err)
	}
}

// A place of the journal that is damaged harms the unit alone that it is about.
func TestDamagedPlace(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	m := open(t, dir)
	kept, hurt, gone := run(t, m, "echo kept"), run(t, m, "echo hurt"), run(t, m, "true")
	for _, id := range []string{kept, hurt, gone} {
		wait(t, m, id)
	}
	if err := m.Release(t.Context(), gone); err != nil {
		t.Fatal(err)
	}
	closeNow(t, m)
	path := filepath.Join(dir, journalFile)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, bytes.ReplaceAll(b, []byte(unitsBucket+hurt), []byte(unitsBucket+"?"+hurt[1:])), 0o600); err != nil {
		t.Fatal(err)
	}
	m = open(t, dir)
	if st, err := m.Status(kept); err != nil || st.State != Succeeded {
		t.Errorf("the other unit: %+v, %v", st, err)
	}
	if b, err := io.ReadAll(output(t, m, kept, 0)); string(b) != "kept\n" || err != nil {
		t.Errorf("its output: %q, %v", b, err)
	}
	if st, err := m.Status(hurt); err != nil || st.State != Failed || !strings.HasPrefix(st.Detail, "DAMAGED: ") {
		t.Errorf("the unit itself: %+v, %v", st, err)
	}
	if _, err := m.Submit(Spec{ID: gone, Type: "shell", Params: map[string]string{"script": "true"}, Owner: "me"}); !errors.Is(err, ErrReleased) {
		t.Errorf("a released id again: %v", err)
	}
}

// Whatever is in a unit's record, it is refused or is the unit's.
func FuzzRecord(f *testing.F) {
	const id = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
	f.Add(record{Spec: Spec{ID: id, Type: "shell"}, Status: Status{ID: id, State: Running}}.encode())
	f.Add([]byte(`{"Spec": {"ID": "../..", "Type": "x"}}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decodeRecord(id, b)
		if err != nil {
			return
		}
		if r.Spec.ID != id || r.Status.ID != id {
			t.Errorf("%s became %+v", b, r)
		}
		again, err := decodeRecord(id, r.encode())
		if err != nil || !bytes.Equal(again.encode(), r.encode()) {
			t.Errorf("%s became %s, %v", r.encode(), again.encode(), err)
		}
	})
}
