package remote

import (
	"context"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ranvier-mesh/ranvier/worktypes"
	"github.com/ranvier-mesh/ranvier/worktypes/command"
)

// half is a connection that may know that its way is broken.
type half struct {
	net.Conn
	broken, closed bool
}

func (h *half) Connected() bool { return !h.broken }
func (h *half) Close() error    { h.closed = true; return nil }

func TestIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var i idle
		a, b, other := &half{}, &half{}, &half{}
		i.put("n", a)
		i.put("n", b)
		i.put("o", other)
		if got := i.take("n"); got != b {
			t.Errorf("took %v, not the latest", got)
		}
		i.put("n", b)
		b.broken = true
		if got := i.take("n"); got != a || !b.closed {
			t.Errorf("took %v, the broken one closed %v", got, b.closed)
		}
		if got := i.take("n"); got != nil {
			t.Errorf("took %v", got)
		}
		i.put("n", a)
		i.drop("n")
		if got := i.take("n"); got != nil || !a.closed {
			t.Errorf("took %v after drop, closed %v", got, a.closed)
		}
		time.Sleep(keepIdle + time.Second) // virtual
		if got := i.take("o"); got != nil || !other.closed {
			t.Errorf("took %v after its time, closed %v", got, other.closed)
		}
		i.close()
		late := &half{}
		if i.put("n", late); !late.closed {
			t.Error("a closed set keeps connections")
		}
	})
}

// TestRequestsShareAConnection is what a forwarding node does, unit after unit.
func TestRequestsShareAConnection(t *testing.T) {
	t.Parallel()
	kind, err := command.New(command.Config{WorkType: "upper", Command: "tr", Params: "a-z A-Z"})
	if err != nil {
		t.Fatal(err)
	}
	types, err := worktypes.NewRegistry(kind)
	if err != nil {
		t.Fatal(err)
	}
	m, err := worktypes.Open(t.TempDir(), types, worktypes.Options{})
	if err != nil {
		t.Fatal(err)
	}
	server, dials := NewServer(m, nil), 0
	var serving sync.WaitGroup
	c := &Client{Node: "n", Keep: true, idle: &idle{}, Dial: func(context.Context) (net.Conn, error) {
		dials++
		a, b := net.Pipe()
		serving.Go(func() { server.Serve(t.Context(), b, "me") })
		return a, nil
	}}
	for range 5 {
		job, err := c.Submit(t.Context(), worktypes.Spec{ID: worktypes.NewID(), Type: "upper"}, strings.NewReader("hello"))
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(job.Results); string(b) != "HELLO" || err != nil {
			t.Errorf("results %q, %v", b, err)
		}
		if err := job.dismiss(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if left, err := c.List(t.Context()); len(left) > 0 || err != nil {
		t.Errorf("left: %+v, %v", left, err)
	}
	if dials != 1 {
		t.Errorf("%d connections", dials)
	}
	// A refusal ends the connection, and the next request gets another.
	if _, err := c.Status(t.Context(), worktypes.NewID()); err == nil {
		t.Error("the status of a unit that is not there")
	}
	if _, err := c.List(t.Context()); err != nil || dials != 2 {
		t.Errorf("after a refusal: %v, %d connections", err, dials)
	}
	c.idle.close()
	serving.Wait()
	if err := m.Close(t.Context()); err != nil {
		t.Error(err)
	}
}
