package remote_test

import (
	"errors"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ranvier-mesh/ranvier/worktypes"
	"github.com/ranvier-mesh/ranvier/worktypes/remote"
)

// A node that was set up anew gets a submit that was meant for the one before, which
// may have done the job: it is refused, and nothing is started.
func TestReimagedTarget(t *testing.T) {
	before, after := newNode(t, "tcp"), newNode(t, "tcp")
	mark := filepath.Join(t.TempDir(), "mark")
	spec, store := shell("echo once >>"+mark+"; cat "+mark), ""
	spec.ID = worktypes.NewID()
	input := remote.Input{Payload: func(remote.Takes) io.Reader { return strings.NewReader("") }, Accepted: func(s string) error { store = s; return nil }}
	job, err := before.client().SubmitInput(deadline(t), spec, input)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := io.ReadAll(job.Results); string(out) != "once\n" || err != nil {
		t.Errorf("%q, %v", out, err)
	}
	input.Store = store
	if _, err := after.client().SubmitInput(deadline(t), spec, input); !errors.Is(err, worktypes.ErrOtherStore) {
		t.Errorf("the old submit: %v", err)
	}
	if units := after.m.List(); len(units) != 0 {
		t.Errorf("units %+v", units)
	}
	input.Store = ""
	spec.ID = worktypes.NewID()
	if job, err = after.client().SubmitInput(deadline(t), spec, input); err != nil || store == input.Store {
		t.Fatalf("a new submit: %v, store %q", err, store)
	}
	if out, err := io.ReadAll(job.Results); string(out) != "once\nonce\n" || err != nil {
		t.Errorf("%q, %v", out, err)
	}
}

// A unit that the node before cannot have had goes to the one that was set up anew,
// also where the forwarding node is restarted while it waits.
func TestNewUnitForReimagedTarget(t *testing.T) {
	before, after := newNode(t, "tcp"), newNode(t, "tcp")
	h := newHome(t, before)
	after.server.Park = before.server.Park
	first, _ := counted(t, "")
	if st := h.wait(h.submit(first, nil)); st.State != worktypes.Succeeded {
		t.Fatalf("before: %+v", st)
	}
	h.cut()
	h.to = after
	waiting, starts := counted(t, "cat")
	waits := h.submit(waiting, []byte("work"))
	h.restart()
	h.mend()
	if st := h.wait(waits); st.State != worktypes.Succeeded || starts() != 1 {
		t.Errorf("stored while the node was away: %+v, %d starts", st, starts())
	}
}

// The first unit for a node that was set up anew unseen is not refused.
func TestFirstUnitForReimagedTarget(t *testing.T) {
	before, after := newNode(t, "tcp"), newNode(t, "tcp")
	h := newHome(t, before)
	after.server.Park = before.server.Park
	first, _ := counted(t, "")
	if st := h.wait(h.submit(first, nil)); st.State != worktypes.Succeeded {
		t.Fatalf("before: %+v", st)
	}
	h.cut()
	h.to = after
	h.mend()
	next, starts := counted(t, "cat")
	if st := h.wait(h.submit(next, []byte("work"))); st.State != worktypes.Succeeded || starts() != 1 || st.StdoutSize != 4 {
		t.Errorf("%+v, %d starts", st, starts())
	}
}
