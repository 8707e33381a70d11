package worktypes

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/ranvier-mesh/ranvier/internal/process"
)

func TestJobRecord(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
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
	if err := AppendStarted(f, want.ID, want.Boot); err != nil {
		t.Fatal(err)
	}
	exit := Exit{Code: 3, Size: 9}
	if err := AppendExit(f, exit); err != nil {
		t.Fatal(err)
	}
	if s, claimed := ReadStarted(dir); !claimed || s != want {
		t.Errorf("started: %+v, %v", s, claimed)
	}
	if e, ok := ReadExit(dir); !ok || e != exit {
		t.Errorf("exit: %+v, %v", e, ok)
	}
	// A machine that goes down may leave any part of it.
	path := filepath.Join(dir, jobFile)
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
