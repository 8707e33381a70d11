package remote_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/ranvier-mesh/ranvier/worktypes"
)

// A large payload is at one node only once the job has begun there, and is not missed
// by who forwards it, not after a restart either.
func TestForwardedPayloadIsNotKept(t *testing.T) {
	t.Parallel()
	h := newHome(t, newNode(t, "tcp"))
	wait, open := gate(t)
	spec, starts := counted(t, "wc -c; read x <"+wait)
	payload := bytes.Repeat([]byte("a secret"), 1<<17)
	h.cut()
	id := h.submit(spec, payload)
	stdin := filepath.Join(h.dir, "units", id, "stdin")
	if fi, err := os.Stat(stdin); err != nil || fi.Size() != int64(len(payload)) {
		t.Fatalf("before it is sent: %v, %v", fi, err)
	}
	running := func() {
		t.Helper()
		reaches(t, h.m, id, func(st worktypes.Status) bool { return st.State == worktypes.Running })
		if _, err := os.Stat(stdin); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the payload while the job runs: %v", err)
		}
	}
	h.mend()
	running()
	h.stop()
	if err := os.WriteFile(stdin, payload, 0o600); err != nil { // killed before it was removed
		t.Fatal(err)
	}
	h.start()
	running()
	open()
	if st := h.wait(id); st.State != worktypes.Succeeded || starts() != 1 {
		t.Errorf("%+v, started %d times", st, starts())
	}
	if b, err := os.ReadFile(h.stdout(id)); string(bytes.TrimSpace(b)) != "1048576" {
		t.Errorf("%q, %v", b, err)
	}
}
