package remote_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/wire"
	"github.com/ranvier-mesh/ranvier/worktypes"
	"github.com/ranvier-mesh/ranvier/worktypes/remote"
)

// scriptConn reads what is given and throws away what is written.
type scriptConn struct {
	net.Conn // nil: what is not defined here is not used
	in       *bytes.Reader
}

func (c *scriptConn) Read(b []byte) (int, error)       { return c.in.Read(b) }
func (c *scriptConn) Write(b []byte) (int, error)      { return len(b), nil }
func (c *scriptConn) Close() error                     { return nil }
func (c *scriptConn) SetDeadline(time.Time) error      { return nil }
func (c *scriptConn) SetReadDeadline(time.Time) error  { return nil }
func (c *scriptConn) SetWriteDeadline(time.Time) error { return nil }

// silent is a work type whose jobs do nothing.
type silent struct{}

func (silent) Name() string { return "silent" }
func (silent) Plan(worktypes.Spec, string) (worktypes.Plan, error) {
	return worktypes.Plan{Argv: []string{"true"}}, nil
}

func frame(t wire.Type, msg any) []byte {
	b, err := wire.AppendMessage(nil, t, msg)
	if err != nil {
		panic(err)
	}
	return b
}

// The server survives any bytes, and starts nothing without a whole payload.
func FuzzServer(f *testing.F) {
	const id = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
	sub := frame(0x40, map[int]any{1: id, 2: "silent"})
	data := append(wire.AppendHeader(nil, wire.TypeData, 3), "abc"...)
	f.Add(sub)
	f.Add(append(append(bytes.Clone(sub), data...), frame(0x46, map[int]any{1: 3, 2: make([]byte, 32)})...))
	f.Add(append(append(bytes.Clone(sub), data...), frame(0x47, map[int]any{1: "no"})...))
	f.Add(append(bytes.Clone(sub), frame(0x43, map[int]any{})...))
	planted := frame(0x40, map[int]any{1: id, 2: "planter", 5: true, 6: key})
	manifest := scan(f, directory(f, 10)).Manifest()
	sum := sha256.Sum256(manifest)
	planted = append(append(wire.AppendHeader(planted, wire.TypeData, len(manifest)), manifest...), frame(0x48, map[int]any{1: len(manifest), 2: sum[:]})...)
	f.Add(append(bytes.Clone(planted), frame(0x49, map[int]any{})...))
	f.Add(append(append(bytes.Clone(planted), data...), frame(0x49, map[int]any{})...))
	f.Add(frame(0x41, map[int]any{1: id, 2: 1}))
	f.Add(frame(0x45, map[int]any{}))
	f.Add([]byte{0, 0, 0, 0})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0x40})
	f.Add([]byte{0, 0})
	reg, err := worktypes.NewRegistry(silent{}, planter{})
	if err != nil {
		f.Fatal(err)
	}
	m, err := worktypes.Open(f.TempDir(), reg, worktypes.Options{})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { m.Close(context.Background()) })
	server := remote.NewServer(m, nil)
	f.Fuzz(func(t *testing.T, b []byte) {
		server.Serve(t.Context(), &scriptConn{in: bytes.NewReader(b)}, "fuzzer")
		for _, st := range m.List() {
			if err := m.Release(t.Context(), st.ID); err != nil {
				t.Error(err)
			}
		}
	})
}

// Whatever a node answers, the end of the results is clean only after a terminal
// status and all the bytes that it speaks of.
func FuzzClient(f *testing.F) {
	accepted := frame(0x50, map[int]any{})
	end := func(state, size int) []byte { return frame(0x51, map[int]any{1: "x", 5: state, 7: 0, 9: size}) }
	data := append(wire.AppendHeader(nil, wire.TypeData, 3), "abc"...)
	f.Add(bytes.Join([][]byte{accepted, end(1, 0), data, end(2, 3)}, nil))
	f.Add(bytes.Join([][]byte{accepted, data, end(2, 4)}, nil))
	f.Add(bytes.Join([][]byte{accepted, data, end(9, 3)}, nil))
	f.Add(bytes.Join([][]byte{accepted, data[:6]}, nil))
	f.Add(frame(0x53, map[int]any{1: 3, 2: "no"}))
	f.Add(accepted)
	f.Fuzz(func(t *testing.T, b []byte) {
		c := &remote.Client{Node: "x", Dial: func(context.Context) (net.Conn, error) {
			return &scriptConn{in: bytes.NewReader(b)}, nil
		}}
		job, err := c.Submit(t.Context(), worktypes.Spec{Type: "silent"}, nil)
		var n int64
		if err == nil {
			n, err = io.Copy(io.Discard, job.Results)
		}
		if err == nil {
			if st := job.Status(); !st.State.Terminal() || st.StdoutSize != n {
				t.Errorf("a clean end after %d bytes with %+v", n, st)
			}
			return
		}
		var broken *remote.BrokenError
		var refusal *remote.Refusal
		if !errors.As(err, &broken) && !errors.As(err, &refusal) {
			t.Errorf("%v is neither broken nor refused", err)
		}
		_, _ = c.List(t.Context())
		_, _ = c.Status(t.Context(), worktypes.NewID())
	})
}
