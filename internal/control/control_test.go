package control

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var testTime = time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)

// fakeNode is the node a of a - b - c. Its service echo is open at once and
// sends back what it gets; connected, if set, takes the place of it.
type fakeNode struct {
	connected func() Stream
}

func (fakeNode) Status(_ context.Context, _ Fields) (Status, error) {
	work := []WorkCommand{{WorkType: "ansible-runner"}}
	return Status{
		Version: "1.4.9", SystemCPUCount: 2, SystemMemoryMiB: 3910, NodeID: "a",
		Connections:  []Connection{{"b", 1.5}},
		RoutingTable: map[string]string{"b": "b", "c": "b"},
		Advertisements: []Advertisement{{
			NodeID: "c", Service: "control", Time: testTime, ConnType: 1,
			Tags: map[string]string{"type": "Control Service"}, WorkCommands: work,
		}},
		KnownConnectionCosts: map[string]map[string]float64{"a": {"b": 1.5}, "b": {"a": 1.5}},
		Software:             "ranvier test",
		Insecure:             true,
		Nodes:                []NodeStatus{{ID: "c", Reachable: true, Since: testTime, Cost: 2.5, NextHops: []string{"b"}, Insecure: true, WorkTypes: work}},
	}, nil
}

func (fakeNode) known(target string) error {
	if strings.Contains("abc", target) {
		return nil
	}
	return fmt.Errorf("no route to node %s: known are a, b, c", target)
}

func (n fakeNode) Ping(_ context.Context, target string) (PingResult, error) {
	return PingResult{target, 1234567}, n.known(target)
}

func (n fakeNode) Traceroute(_ context.Context, target string) ([]TraceHop, error) {
	hops := []TraceHop{{From: "a", Time: 100 * time.Microsecond}, {From: "b", Time: 200 * time.Microsecond}}
	if err := n.known(target); err != nil {
		return hops, err
	}
	return append(hops, TraceHop{From: target, Time: 300 * time.Microsecond}), nil
}

func (n fakeNode) Connect(_ context.Context, node, service, tls string) (Stream, error) {
	if tls != "" {
		return nil, fmt.Errorf("there is no tls-client %q", tls)
	}
	if service != "echo" {
		return nil, fmt.Errorf("node %s has no service %q", node, service)
	}
	if n.connected != nil {
		return n.connected(), nil
	}
	r, w := io.Pipe()
	return echo{r, w}, nil
}

type echo struct {
	*io.PipeReader
	w *io.PipeWriter
}

func (e echo) Write(p []byte) (int, error) { return e.w.Write(p) }
func (e echo) CloseWrite() error           { return e.w.Close() }
func (e echo) Close() error                { return errors.Join(e.w.Close(), e.PipeReader.Close()) }

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// serve starts a server on a unix socket and returns its path.
func serve(t *testing.T, b Backend) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	ln, err := ListenUnix(path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- NewServer("a", b, quiet()).Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return path
}

func dialRaw(t *testing.T, path string) *net.UnixConn {
	t.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(20 * time.Second)) // a lost reply fails the test
	return conn.(*net.UnixConn)
}

// TestTranscripts plays testdata/*.txt against a real socket. A line that
// begins with "> " is sent, with "< " is expected, ">cut " is sent without its
// end, ">eof" ends what the client sends and "<eof" expects the server's end.
func TestTranscripts(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			script, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			conn := dialRaw(t, serve(t, fakeNode{}))
			in := bufio.NewReader(conn)
			for i, line := range strings.Split(strings.TrimSuffix(string(script), "\n"), "\n") {
				if text, ok := strings.CutPrefix(line, "> "); ok {
					fmt.Fprintf(conn, "%s\n", text)
				} else if text, ok := strings.CutPrefix(line, ">cut "); ok {
					fmt.Fprint(conn, text)
				} else if line == ">eof" {
					conn.CloseWrite()
				} else if text, ok := strings.CutPrefix(line, "< "); ok {
					got, err := in.ReadString('\n')
					if d := cmp.Diff(text+"\n", got); err != nil || d != "" {
						t.Fatalf("%s:%d: %v\n%s", file, i+1, err, d)
					}
				} else if line == "<eof" {
					if rest, err := io.ReadAll(in); err != nil || len(rest) > 0 {
						t.Fatalf("%s:%d: %q, %v instead of the end", file, i+1, rest, err)
					}
				} else if !strings.HasPrefix(line, "#") {
					t.Fatalf("%s:%d: what is %q?", file, i+1, line)
				}
			}
		})
	}
}

// TestStatusFields holds the reply without requested_fields to Receptor's
// fields, also when there is nothing in them.
func TestStatusFields(t *testing.T) {
	t.Parallel()
	b, err := json.Marshal(statusReply{Status{}, nil})
	if err != nil {
		t.Fatal(err)
	}
	want := `{"Version":"","SystemCPUCount":0,"SystemMemoryMiB":0,"NodeID":"","Connections":[],"RoutingTable":{},"Advertisements":[],"KnownConnectionCosts":{}}`
	if string(b) != want {
		t.Errorf("got %s", b)
	}
	b, err = json.Marshal(statusReply{Status{}, AllFields()})
	if err != nil {
		t.Fatal(err)
	}
	if want := want[:len(want)-1] + `,"Software":"","Insecure":false,"Nodes":[],"Links":[],"Refused":{"Work":0,"Services":0,"Commands":0,"Units":0,"Streams":0,"Adverts":0},"Open":false,"Suspects":[]}`; string(b) != want {
		t.Errorf("got %s", b)
	}
}

// tape is a connection whose input is there from the start and whose output is
// kept.
type tape struct {
	io.Reader
	out bytes.Buffer
}

func (t *tape) Write(p []byte) (int, error)      { return t.out.Write(p) }
func (t *tape) String() string                   { return t.out.String() }
func (*tape) Close() error                       { return nil }
func (*tape) CloseWrite() error                  { return nil }
func (*tape) LocalAddr() net.Addr                { return nil }
func (*tape) RemoteAddr() net.Addr               { return nil }
func (*tape) SetDeadline(time.Time) error        { return nil }
func (*tape) SetReadDeadline(t time.Time) error  { return nil }
func (*tape) SetWriteDeadline(t time.Time) error { return nil }

// checkOneReplyEach sends bytes to a server and checks that each line but the
// empty ones gets exactly one line: JSON, or ERROR with a text.
func checkOneReplyEach(t interface {
	Helper()
	Fatalf(string, ...any)
}, input []byte) {
	t.Helper()
	conn := &tape{Reader: bytes.NewReader(input)}
	s := NewServer("a", fakeNode{}, quiet())
	s.ServeConn(context.Background(), conn)
	if left := s.budget.Load(); left != lineBudget {
		t.Fatalf("%q: %d bytes of the budget are left, not %d", input, left, lineBudget)
	}
	requests := 0
	for _, line := range bytes.Split(input, []byte("\n")) {
		if len(bytes.TrimSpace(line)) > 0 {
			requests++
		}
	}
	out, ok := strings.CutPrefix(conn.String(), "Receptor Control, node a\n")
	if !ok || !strings.HasSuffix(conn.String(), "\n") && !strings.Contains(out, "Connecting\n") {
		t.Fatalf("%q: the answer is %q", input, out)
	}
	replies := strings.SplitAfter(out, "\n")
	for i, reply := range replies[:len(replies)-1] {
		if reply == "Connecting\n" {
			return // the rest is raw
		}
		if text, isError := strings.CutPrefix(reply, "ERROR: "); !json.Valid([]byte(reply)) && (!isError || len(text) < 2) {
			t.Fatalf("%q: reply %d is %q", input, i, reply)
		}
	}
	if len(replies)-1 != requests {
		t.Fatalf("%q: %d requests, %d replies: %q", input, requests, len(replies)-1, out)
	}
}

func TestOneReplyEach(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		word := rapid.SampledFrom([]string{
			"status", "ping", "traceroute", "work", "reload", "c", "nobody", "localhost", "{", "}", `"command"`, `"ping"`, `"target"`,
			`"c"`, ":", ",", "null", "7", "[", "]", `"requested_fields"`, `"NodeID"`, "\r", "\x00", "\xff", strings.Repeat("x", readBuffer-3),
		})
		request := rapid.Map(rapid.SliceOfN(word, 0, 8), func(w []string) string { return strings.Join(w, " ") })
		object := rapid.Custom(func(t *rapid.T) string {
			value := rapid.SampledFrom([]any{"status", "ping", "c", nil, 1, true, []string{"NodeID"}, []int{1}, map[string]int{"x": 1}})
			b, err := json.Marshal(rapid.MapOf(rapid.SampledFrom([]string{"command", "target", "requested_fields", "node", "service"}), value).Draw(t, "object"))
			if err != nil {
				t.Fatal(err)
			}
			return string(b)
		})
		lines := rapid.SliceOf(rapid.OneOf(request, object)).Draw(t, "lines")
		checkOneReplyEach(t, []byte(strings.Join(lines, "\n")))
	})
}

func FuzzServeConn(f *testing.F) {
	f.Add([]byte("status\nping c\n"))
	f.Add([]byte(`{"command": "status", "requested_fields": "x"}` + "\n"))
	f.Add([]byte("connect c echo\nabc\n"))
	f.Add([]byte("traceroute c\r\n\n{}\n[]\nwork submit"))
	f.Fuzz(func(t *testing.T, input []byte) { checkOneReplyEach(t, input) })
}
