package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestClient(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	c, err := Dial(ctx, serve(t, fakeNode{}))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if c.NodeID() != "a" {
		t.Errorf("node %q", c.NodeID())
	}
	want, _ := fakeNode{}.Status(ctx, nil)
	want.Links, want.Suspects = []LinkStatus{}, []Suspect{}
	if got, err := c.Status(ctx, AllFields()...); err != nil || !cmp.Equal(got, want) {
		t.Errorf("status: %v\n%s", err, cmp.Diff(want, got))
	}
	want.Software, want.Insecure, want.Nodes, want.Links, want.Suspects = "", false, nil, nil, nil
	if got, err := c.Status(ctx); err != nil || !cmp.Equal(got, want) {
		t.Errorf("status: %v\n%s", err, cmp.Diff(want, got))
	}
	if got, err := c.Ping(ctx, "c"); err != nil || got != (PingResult{"c", 1234567}) {
		t.Errorf("ping: %v, %v", got, err)
	}
	var refused *ServerError
	if _, err := c.Ping(ctx, "nobody"); !errors.As(err, &refused) || err.Error() != "node a: no route to node nobody: known are a, b, c" {
		t.Errorf("ping nobody: %v", err)
	}
	hops, err := c.Traceroute(ctx, "nobody")
	if err != nil || len(hops) != 3 || hops[1] != (TraceHop{From: "b", Time: 200 * time.Microsecond}) || hops[2].From != "b" || !strings.HasPrefix(hops[2].Error, "no route") {
		t.Errorf("traceroute: %v, %v", hops, err)
	}
	if _, err := c.Connect(ctx, "c", "nothing"); !errors.As(err, &refused) {
		t.Errorf("connect: %v", err)
	}
	if err := c.Call(ctx, map[string]any{"command": "reload"}, nil); !errors.As(err, &refused) {
		t.Errorf("reload: %v", err)
	}
	stream, err := c.Connect(ctx, "c", "echo")
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(stream, "over and back")
	stream.CloseWrite()
	if got, err := io.ReadAll(stream); string(got) != "over and back" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := c.Ping(ctx, "c"); err == nil || errors.As(err, &refused) {
		t.Errorf("a client that has become a stream: %v", err)
	}
}

// TestClientOfReceptor reads replies with the keys in Receptor's order.
func TestClientOfReceptor(t *testing.T) {
	t.Parallel()
	var trace strings.Builder
	for _, n := range []int{0, 1, 10, 11, 2, 3, 4, 5, 6, 7, 8, 9} {
		fmt.Fprintf(&trace, `,"%d":{"From":"n%d","Time":%d,"TimeStr":"x"}`, n, n, n)
	}
	c := scripted(t, "Receptor Control, node r\n", "{"+trace.String()[1:]+"}\n",
		`{"Error":"timeout","From":"","Success":false,"Time":0,"TimeStr":""}`+"\n", "ERROR: no\n")
	hops, err := c.Traceroute(t.Context(), "n11")
	if err != nil || len(hops) != 12 {
		t.Fatal(hops, err)
	}
	for i, h := range hops {
		if h.From != fmt.Sprint("n", i) || h.Time != time.Duration(i) {
			t.Errorf("hop %d is %v", i, h)
		}
	}
	if _, err := c.Ping(t.Context(), "x"); err == nil || err.Error() != "node r: timeout" {
		t.Errorf("ping: %v", err)
	}
	if _, err := c.Status(t.Context()); err == nil || err.Error() != "node r: no" {
		t.Errorf("status: %v", err)
	}
	if _, err := c.Status(t.Context()); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("after the server's end: %v", err)
	}
}

// scripted returns a client of a server that sends the lines, one for each
// request after the first, and closes.
func scripted(t *testing.T, lines ...string) *Client {
	t.Helper()
	near, far := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer far.Close()
		buf := make([]byte, 4096)
		for i, line := range lines {
			if i > 0 {
				far.Read(buf)
			}
			io.WriteString(far, line)
		}
		far.Read(buf)
	}()
	t.Cleanup(func() { near.Close(); <-done })
	c, err := NewClient(t.Context(), near)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestClientRefusesOtherServers(t *testing.T) {
	t.Parallel()
	for greeting, want := range map[string]string{
		"SSH-2.0-x\n":             `begins with "SSH-2.0-x"`,
		"":                        "the server closed the connection",
		strings.Repeat("x", 5000): "a line of more than 1024 bytes",
	} {
		near, far := net.Pipe()
		done := make(chan struct{})
		go func() {
			defer close(done)
			io.WriteString(far, greeting)
			far.Close()
		}()
		if _, err := NewClient(t.Context(), near); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.20q: %v", greeting, err)
		}
		<-done
	}
	path := filepath.Join(t.TempDir(), "none")
	if _, err := Dial(t.Context(), path); !errors.Is(err, fs.ErrNotExist) || strings.Count(err.Error(), path) != 1 {
		t.Errorf("no socket: %v", err)
	}
}

func TestClientGivesUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := scripted(t, "Receptor Control, node r\n", "") // no reply
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		start := time.Now()
		_, err := c.Ping(ctx, "x")
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 5*time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		if _, again := c.Ping(t.Context(), "x"); again != err {
			t.Errorf("a connection whose reply may still come is used again: %v", again)
		}
	})
}
