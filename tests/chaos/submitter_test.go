package chaos

import (
	"io"
	"os"
	"strings"
	"testing"

	"github.com/ranvier-mesh/ranvier/internal/control"
)

// A cancel that was answered is not forgotten by a node that is killed at once.
func TestCancelIsOnDisk(t *testing.T) {
	t.Parallel()
	m := startMesh(t)
	m.c.kill()
	j := newJob(t, 10)
	id := submit(t, m, j, strings.NewReader("x"))
	m.a.work(t, "cancel", id)
	m.a.kill()
	m.a.start()
	m.c.start()
	m.a.eventually("the cancel", func() bool {
		u, err := m.a.status(id)
		return err == nil && u.StateName == "Canceled"
	})
	// What comes after it has come.
	next := newJob(t, 10)
	submit(t, m, next, strings.NewReader("x"))
	next.atGate()
	next.open()
	if j.starts(t) != 0 {
		t.Errorf("the canceled job was started %d times", j.starts(t))
	}
}

// The node of a client that is in the middle of its job's input is killed: the
// unit ends, and is never started.
func TestNodeDiesWithinTheClientsInput(t *testing.T) {
	t.Parallel()
	a := startNode(t, "a", "")
	j := newJob(t, 10)
	in, out := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		_, err := a.submit("a", j.script, in)
		ended <- err
	}()
	if _, err := out.Write([]byte("half of it")); err != nil {
		t.Fatal(err)
	}
	var id string
	a.eventually("the unit", func() bool {
		for id = range a.list(t) {
		}
		return id != ""
	})
	other := newJob(t, 10) // with it the unit is on disk
	if _, err := a.submit("a", other.script, strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	a.kill()
	out.Close()
	if err := <-ended; err == nil {
		t.Error("the submit has succeeded")
	}
	a.start()
	if u, err := a.status(id); err != nil || u.StateName != "Failed" || !strings.Contains(u.Detail, "not started") {
		t.Errorf("%+v, %v", u, err)
	}
	if j.starts(t) != 0 {
		t.Errorf("started %d times", j.starts(t))
	}
}

// list tells of all units.
func (n *node) list(t *testing.T) map[string]unit {
	t.Helper()
	c, err := control.Dial(t.Context(), n.socket())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	all := map[string]unit{}
	if err := c.Call(t.Context(), map[string]any{"command": "work", "subcommand": "list"}, &all); err != nil {
		t.Fatal(err)
	}
	return all
}

// A job that does not obey is canceled all the same, and its cancel is answered before
// it has ended.
func TestCancelOfAJobThatDoesNotObey(t *testing.T) {
	t.Parallel()
	m := startMesh(t)
	j := newJob(t, 10)
	if err := os.WriteFile(j.script, []byte("trap '' INT\necho started >>"+j.count+"\necho >"+j.arrived+"\ncat "+j.goOn+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	id := submit(t, m, j, strings.NewReader("x"))
	j.atGate()
	if got := m.a.work(t, "cancel", id); got["cancelled"] != id {
		t.Errorf("cancel: %v", got)
	}
	if u, err := m.a.status(id); err != nil || u.StateName != "Running" {
		t.Errorf("%+v, %v", u, err)
	}
	m.a.eventually("the end", func() bool {
		u, err := m.a.status(id)
		return err == nil && u.StateName == "Canceled"
	})
}
