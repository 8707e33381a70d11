package remote_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/ranvier-mesh/ranvier/worktypes"
	"github.com/ranvier-mesh/ranvier/worktypes/remote"
)

// waitEnd waits for the end of a unit at its node.
func waitEnd(t *testing.T, n *node, id string) worktypes.Status {
	t.Helper()
	watch, err := n.m.Watch(deadline(t), id)
	if err != nil {
		t.Fatal(err)
	}
	var st worktypes.Status
	for st = range watch {
	}
	if !st.State.Terminal() {
		t.Fatalf("unit has not ended: %+v", st)
	}
	return st
}

// reader gives its text, then calls next for what comes after.
type reader struct {
	text string
	next func() error
}

func (r *reader) Read(b []byte) (int, error) {
	if r.text == "" {
		return 0, r.next()
	}
	n := copy(b, r.text)
	r.text = r.text[n:]
	return n, nil
}

func TestSubmitterDiesWithinThePayload(t *testing.T) {
	overBoth(t, func(t *testing.T, n *node) {
		spec := shell("echo it was started")
		var conn net.Conn
		c := &remote.Client{Node: "x", Dial: func(ctx context.Context) (_ net.Conn, err error) {
			conn, err = n.dial(ctx)
			return conn, err
		}}
		_, err := c.Submit(deadline(t), spec, &reader{text: "half", next: func() error { conn.Close(); return nil }})
		var broken *remote.BrokenError
		if !errors.As(err, &broken) || broken.ID != spec.ID || broken.Node != "x" {
			t.Errorf("%v, want a BrokenError", err)
		}
		st := waitEnd(t, n, spec.ID)
		if st.State != worktypes.Failed || !st.Started.IsZero() || st.StdoutSize != 0 || !strings.Contains(st.Detail, "after 4 bytes") {
			t.Errorf("%+v", st)
		}
	})
}

func TestPayloadThatCannotBeRead(t *testing.T) {
	overBoth(t, func(t *testing.T, n *node) {
		spec := shell("echo it was started")
		bad := errors.New("disk on fire")
		c := n.keeper()
		_, err := c.Submit(deadline(t), spec, &reader{text: "half", next: func() error { return bad }})
		if !errors.Is(err, bad) || !strings.Contains(err.Error(), spec.ID) {
			t.Errorf("%v", err)
		}
		st := waitEnd(t, n, spec.ID)
		if st.State != worktypes.Failed || !st.Started.IsZero() || !strings.Contains(st.Detail, "disk on fire") {
			t.Errorf("%+v", st)
		}
	})
}

func TestContextEndsASubmit(t *testing.T) {
	overBoth(t, func(t *testing.T, n *node) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		spec := shell("echo it was started")
		hold := make(chan struct{})
		defer close(hold)
		_, err := n.client().Submit(ctx, spec, &reader{text: "half", next: func() error { cancel(); <-hold; return io.EOF }})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
		if st := waitEnd(t, n, spec.ID); st.State != worktypes.Failed || !st.Started.IsZero() {
			t.Errorf("%+v", st)
		}
	})
}

func TestCancelWithinThePayload(t *testing.T) {
	overBoth(t, func(t *testing.T, n *node) {
		spec := shell("echo it was started")
		zeros := &reader{text: "half"}
		var once sync.Once
		zeros.next = func() error {
			once.Do(func() {
				if _, err := n.client().Cancel(deadline(t), spec.ID); err != nil {
					t.Error(err)
				}
			})
			zeros.text = "more"
			return nil
		}
		job := submit(t, n.client(), spec, zeros)
		expectRest(t, job.Results, "")
		if st := job.Status(); st.State != worktypes.Canceled || !st.Started.IsZero() {
			t.Errorf("%+v", st)
		}
	})
}

func TestPayloadThatTheNodeCannotStore(t *testing.T) {
	overBoth(t, func(t *testing.T, n *node) {
		spec := shell("true")
		units := unitsDir(t, n)
		payload := &reader{text: "x", next: func() error {
			if err := os.Rename(units, units+".away"); err != nil {
				t.Error(err)
			}
			return io.EOF
		}}
		job, err := n.client().Submit(deadline(t), spec, payload)
		if err == nil {
			_, err = io.ReadAll(job.Results)
		}
		if err == nil || !strings.Contains(err.Error(), "no such file") {
			t.Errorf("%v, want what the disk said", err)
		}
	})
}

// unitsDir asks a job where the node keeps its units.
func unitsDir(t *testing.T, n *node) string {
	t.Helper()
	out, err := io.ReadAll(submit(t, n.client(), shell("readlink /proc/$$/fd/1"), nil).Results)
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Dir(filepath.Dir(strings.TrimSpace(string(out))))
}

// cutConn ends after a number of bytes were read.
type cutConn struct {
	net.Conn
	left int
}

func (c *cutConn) Read(b []byte) (int, error) {
	if c.left == 0 {
		c.Conn.Close()
		return 0, io.EOF // the most treacherous of ends
	}
	n, err := c.Conn.Read(b[:min(len(b), c.left)])
	c.left -= n
	return n, err
}

// Wherever the connection ends, what was read and what Follow gives from there
// is the whole, and no early end looks like the real one.
func TestBrokenResultsGoOnElsewhere(t *testing.T) {
	overBoth(t, func(t *testing.T, n *node) {
		text := strings.Repeat("0123456789\n", 20)
		spec := shell("i=0; while [ $i -lt 20 ]; do echo 0123456789; i=$((i+1)); done")
		spec.Job = "x"
		full := submit(t, n.keeper(), spec, nil)
		expectRest(t, full.Results, text)
		for left := 1; ; left++ {
			c := &remote.Client{Node: "x", Keep: true, Dial: func(ctx context.Context) (net.Conn, error) {
				conn, err := n.dial(ctx)
				return &cutConn{Conn: conn, left: left}, err
			}}
			var got []byte
			var offset int64
			job, err := c.Follow(deadline(t), spec.ID, 0)
			if err == nil {
				got, err = io.ReadAll(job.Results)
				offset = job.Offset()
			}
			if err == nil {
				if string(got) != text || left < len(text) {
					t.Fatalf("cut after %d bytes: a clean end after %q", left, got)
				}
				break
			}
			var broken *remote.BrokenError
			if !errors.As(err, &broken) || errors.Is(err, io.EOF) {
				t.Fatalf("cut after %d bytes: %v, want a BrokenError", left, err)
			}
			if offset != int64(len(got)) || string(got) != text[:offset] || broken.Offset != offset {
				t.Fatalf("cut after %d bytes: read %d, offset %d, error's offset %d", left, len(got), offset, broken.Offset)
			}
			if left%16 == 0 {
				rest, err := n.keeper().Follow(deadline(t), spec.ID, offset)
				if err != nil {
					t.Fatal(err)
				}
				expectRest(t, rest.Results, text[offset:])
			}
		}
	})
}

func TestClientThatNeverReads(t *testing.T) {
	overBoth(t, func(t *testing.T, n *node) {
		// More than all buffers on the way hold.
		job := submit(t, n.client(), shell("head -c 32000000 /dev/zero"), nil)
		if st := waitEnd(t, n, job.ID); st.State != worktypes.Succeeded || st.StdoutSize != 32000000 {
			t.Errorf("the job waited for its reader: %+v", st)
		}
		other := submit(t, n.client(), shell("echo served"), nil)
		expectRest(t, other.Results, "served\n")
		job.Close()
		n.serving.Wait()
		if st, err := n.m.Status(job.ID); err != nil || st.State != worktypes.Succeeded {
			t.Errorf("%+v, %v", st, err)
		}
	})
}

func TestCloseWakesTheReader(t *testing.T) {
	overBoth(t, func(t *testing.T, n *node) {
		job := submit(t, n.client(), shell("echo on; exec sleep 600"), nil)
		expectNext(t, job.Results, "on\n")
		go job.Close()
		var broken *remote.BrokenError
		if _, err := job.Results.Read(make([]byte, 1)); !errors.As(err, &broken) {
			t.Errorf("%v", err)
		}
		n.serving.Wait()
		if st, err := n.m.Status(job.ID); err != nil || st.State != worktypes.Running {
			t.Errorf("a follower's end ended the job: %+v, %v", st, err)
		}
	})
}

func TestDialFails(t *testing.T) {
	t.Parallel()
	no := errors.New("no route to node x")
	c := &remote.Client{Node: "x", Dial: func(context.Context) (net.Conn, error) { return nil, no }}
	if _, err := c.Submit(t.Context(), shell("true"), nil); !errors.Is(err, no) || !strings.Contains(err.Error(), "node x") {
		t.Errorf("%v", err)
	}
	if _, err := c.List(t.Context()); !errors.Is(err, no) {
		t.Errorf("%v", err)
	}
}
