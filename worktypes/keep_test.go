package worktypes

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/ranvier-mesh/ranvier/internal/process"
)

func TestJobRecord(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	dir := filepath.Join(data, "units", "unit")
	if err := os.Mkdir(filepath.Dir(dir), 0o700); err != nil {
		t.Fatal(err)
	}
	r, err := OpenRecords(data)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, claimed := ReadStarted(dir); claimed {
		t.Error("claimed before anybody did")
	}
	f, err := ClaimStart(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := ClaimStart(dir); !errors.Is(err, ErrStarted) {
		t.Errorf("second claim: %v", err)
	}
	if s, claimed := ReadStarted(dir); !claimed || s != (Started{}) {
		t.Errorf("claimed only: %+v, %v", s, claimed)
	}
	want := Started{process.ID{PID: 7, Start: 8}, "boot"}
	if err := r.Started("unit", want); err != nil {
		t.Fatal(err)
	}
	exit := Exit{Code: 3, Size: 9}
	if err := r.Exited("unit", exit); err != nil {
		t.Fatal(err)
	}
	if s, claimed := ReadStarted(dir); !claimed || s != want {
		t.Errorf("started: %+v, %v", s, claimed)
	}
	if e, ok := ReadExit(dir); !ok || e != exit {
		t.Errorf("exit: %+v, %v", e, ok)
	}
	// A machine that goes down may leave any part of it.
	path := filepath.Join(data, recordsFile)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for n := range whole {
		if err := os.Truncate(path, 0); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		if s, claimed := ReadStarted(dir); !claimed || (s != Started{} && s != want) {
			t.Errorf("%d bytes: started: %+v, %v", n, s, claimed)
		}
		if e, ok := ReadExit(dir); ok && e != exit {
			t.Errorf("%d bytes: exit: %+v", n, e)
		}
	}
}

// Of what is forgotten little is left; of what is not, all.
func TestRecordsAreForgotten(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	r, err := OpenRecords(data)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3000 {
		unit := fmt.Sprintf("unit-%d-", i)
		if err := errors.Join(r.Started(unit, Started{process.ID{PID: i, Start: 1}, "boot"}), r.Exited(unit, Exit{Code: i})); err != nil {
			t.Fatal(err)
		}
		if i%100 > 0 {
			r.Forget(unit)
		}
	}
	r.Close()
	if r, err = OpenRecords(data); err != nil || len(r.jobs) > 100 || r.size > 2*recordsFrom {
		t.Errorf("%d records in %d bytes, %v", len(r.jobs), r.size, err)
	}
	defer r.Close()
	for i := 0; i < 3000; i += 100 {
		if e, ok := ReadExit(filepath.Join(data, "units", fmt.Sprintf("unit-%d-", i))); !ok || e.Code != i {
			t.Errorf("unit %d: %+v, %v", i, e, ok)
		}
	}
}

// A keeper that was killed within a line does not take the next one with it.
func TestRecordAfterATornOne(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	if err := os.WriteFile(filepath.Join(data, recordsFile), []byte(`{"Unit":"a","Exit":{"Co`), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := OpenRecords(data)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := r.Exited("b", Exit{Code: 3}); err != nil {
		t.Fatal(err)
	}
	if e, ok := ReadExit(filepath.Join(data, "units", "b")); !ok || e.Code != 3 {
		t.Errorf("%+v, %v", e, ok)
	}
}

func TestEmptyPayloadHasNoFile(t *testing.T) {
	t.Parallel()
	m := open(t, t.TempDir())
	st, err := m.Submit(Spec{ID: NewID(), Type: "shell", Params: map[string]string{"script": "wc -c"}})
	if err != nil {
		t.Fatal(err)
	}
	p, err := m.Payload(st.ID)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Commit(p.Size(), p.Sum()); err != nil {
		t.Fatal(err)
	}
	if left, err := filepath.Glob(unitFile(m, st.ID, "stdin*")); len(left) > 0 || err != nil {
		t.Errorf("there are %v, %v", left, err)
	}
}
