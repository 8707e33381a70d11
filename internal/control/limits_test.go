package control

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// pipe serves one end of a pipe and returns the other one, after the
// greeting, and a channel that is closed when the server has ended.
func pipe(t *testing.T, s *Server) (net.Conn, *bufio.Reader, <-chan struct{}) {
	t.Helper()
	near, far := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.ServeConn(context.Background(), far)
	}()
	in := bufio.NewReader(near)
	if line, err := in.ReadString('\n'); err != nil || line != "Receptor Control, node a\n" {
		t.Errorf("greeting %q, %v", line, err)
	}
	return near, in, done
}

func TestClientThatNeverReads(t *testing.T) {
	t.Parallel()
	for name, requests := range map[string]string{"reply": "status\n", "greeting": ""} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				near, far := net.Pipe()
				defer near.Close()
				done := make(chan struct{})
				go func() {
					defer close(done)
					NewServer("a", fakeNode{}, quiet()).ServeConn(context.Background(), far)
				}()
				if requests != "" {
					io.ReadFull(near, make([]byte, len("Receptor Control, node a\n")))
					io.WriteString(near, requests)
				}
				start := time.Now()
				<-done
				if d := time.Since(start); d != writeTime {
					t.Errorf("the server gave up after %v, want %v", d, writeTime)
				}
			})
		})
	}
}

// TestSlowReader reads a long reply slower than writeTime, and gets all of it.
func TestSlowReader(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		sess := newSession(far, new(atomic.Int64))
		long := strings.Repeat("x", 5*writeChunk)
		go func() {
			if err := sess.Reply(long); err != nil {
				t.Error(err)
			}
			far.Close()
		}()
		var got int
		buf := make([]byte, writeChunk/2)
		for {
			n, err := io.ReadFull(near, buf)
			got += n
			if err != nil {
				break
			}
			time.Sleep(writeTime / 3)
		}
		if want := len(long) + len(`""`) + 1; got != want {
			t.Errorf("%d bytes arrived, want %d", got, want)
		}
	})
}

func TestIdleConnectionStays(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		conn, in, done := pipe(t, NewServer("a", fakeNode{}, quiet()))
		time.Sleep(7 * 24 * time.Hour)
		io.WriteString(conn, "ping c\n")
		if line, err := in.ReadString('\n'); err != nil || !strings.Contains(line, `"Success":true`) {
			t.Errorf("after a week: %q, %v", line, err)
		}
		conn.Close()
		<-done
	})
}

func TestLongLines(t *testing.T) {
	t.Parallel()
	request := func(n int) string { // of n bytes, its newline included
		const frame = `{"command":"ping","target":"c","pad":""}` + "\n"
		return strings.Replace(frame, `"pad":"`, `"pad":"`+strings.Repeat("x", n-len(frame)), 1)
	}
	for _, tc := range []struct {
		name  string
		input string
		want  string
	}{
		{"below the buffer", request(readBuffer - 1), `{"Success":true`},
		{"as the buffer", request(readBuffer), `{"Success":true`},
		{"above the buffer", request(readBuffer + 1), `{"Success":true`},
		{"the longest", request(MaxLine), `{"Success":true`},
		{"too long", request(MaxLine + 1), "ERROR: a line has more than 1048576 bytes\n"},
		{"without an end", strings.Repeat("x", 3*MaxLine), "ERROR: a line has more than 1048576 bytes\n"},
		{"cut", strings.Repeat("x", 3000), "ERROR: unknown command "},
		{"carriage returns", "\r\npi\rng c\r\n", `{"Success":true`},
		{"without a newline", strings.TrimSuffix(request(3000), "\n"), `{"Success":true`},
		{"JSON that was cut", request(3000)[:2000], "ERROR: the request is not valid JSON"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := NewServer("a", fakeNode{}, quiet())
			conn := &tape{Reader: strings.NewReader(tc.input)}
			s.ServeConn(context.Background(), conn)
			got := strings.TrimPrefix(conn.String(), "Receptor Control, node a\n")
			if !strings.HasPrefix(got, tc.want) || strings.Count(got, "\n") != 1 {
				t.Errorf("%.200q, want %s", got, tc.want)
			}
			if left := s.budget.Load(); left != lineBudget {
				t.Errorf("%d bytes of the budget are left", left)
			}
		})
	}
}

// TestSlowLine sends a long line without an end, and then nothing.
func TestSlowLine(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := NewServer("a", fakeNode{}, quiet())
		conn, in, done := pipe(t, s)
		start := time.Now()
		io.WriteString(conn, strings.Repeat("x", 2000))
		line, err := in.ReadString('\n')
		if err != nil || line != "ERROR: a line took more than 1m0s\n" || time.Since(start) != lineTime {
			t.Errorf("%q, %v after %v", line, err, time.Since(start))
		}
		<-done
		if left := s.budget.Load(); left != lineBudget {
			t.Errorf("%d bytes of the budget are left", left)
		}
	})
}

// TestLineBudget holds many long lines open at once.
func TestLineBudget(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const budget, clients = 100 << 10, 20
		s := NewServer("a", fakeNode{}, quiet())
		s.budget.Store(budget)
		var conns []net.Conn
		var served []<-chan struct{}
		for range clients {
			conn, _, done := pipe(t, s)
			go io.WriteString(conn, strings.Repeat("x", 16<<10)) // and goes on reading nothing
			conns, served = append(conns, conn), append(served, done)
		}
		synctest.Wait()
		if left := s.budget.Load(); left > budget/2 {
			t.Errorf("%d of %d bytes are left although %d clients send", left, budget, clients)
		}
		refused := 0
		for _, conn := range conns {
			conn.SetReadDeadline(time.Now().Add(time.Second))
			if line, _ := bufio.NewReader(conn).ReadString('\n'); line == "ERROR: "+errBusy.Error()+"\n" {
				refused++
			}
		}
		if refused == 0 || refused == clients {
			t.Errorf("%d of %d clients were refused", refused, clients)
		}
		for i, conn := range conns {
			conn.Close()
			<-served[i]
		}
		if left := s.budget.Load(); left != budget {
			t.Errorf("%d bytes are left at the end, want %d", left, budget)
		}
	})
}

// TestManyIdleConnections measures what an idle connection costs the server;
// the pipe's own part is in it. Not parallel, for the measure's sake.
func TestManyIdleConnections(t *testing.T) {
	const n = 10_000
	used := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapInuse + m.StackInuse
	}
	s := NewServer("a", fakeNode{}, quiet())
	before, goroutines := used(), runtime.NumGoroutine()
	conns := make([]net.Conn, n)
	done := make(chan struct{})
	for i := range conns {
		near, far := net.Pipe()
		go func() {
			s.ServeConn(context.Background(), far)
			done <- struct{}{}
		}()
		io.ReadFull(near, make([]byte, len("Receptor Control, node a\n")))
		conns[i] = near
	}
	each := (used() - before) / n
	if g := runtime.NumGoroutine() - goroutines; g > n+10 {
		t.Errorf("%d goroutines for %d connections", g, n)
	}
	t.Logf("%d bytes an idle connection", each)
	if each > 16<<10 {
		t.Errorf("%d bytes an idle connection", each)
	}
	for _, conn := range conns {
		conn.Close()
		<-done
	}
}

// scriptedListener accepts what it is given.
type scriptedListener struct {
	accepts chan any // net.Conn or error
	closed  chan struct{}
}

func (l *scriptedListener) Accept() (net.Conn, error) {
	select {
	case a := <-l.accepts:
		if err, ok := a.(error); ok {
			return nil, err
		}
		return a.(net.Conn), nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *scriptedListener) Addr() net.Addr { return &net.UnixAddr{Name: "/s", Net: "unix"} }
func (l *scriptedListener) Close() error {
	select {
	case <-l.closed:
	default:
		close(l.closed)
	}
	return nil
}

func TestAcceptFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ln := &scriptedListener{make(chan any, 10), make(chan struct{})}
		served := make(chan error)
		go func() { served <- NewServer("a", fakeNode{}, quiet()).Serve(t.Context(), ln) }()
		for range 9 {
			ln.accepts <- fmt.Errorf("accept: %w", syscall.EMFILE)
		}
		near, far := net.Pipe()
		ln.accepts <- far
		start := time.Now()
		if _, err := bufio.NewReader(near).ReadString('\n'); err != nil {
			t.Error(err)
		}
		// 5 ms, 10 ms, ... 640 ms and then 1 s.
		if d := time.Since(start); d != 2275*time.Millisecond {
			t.Errorf("nine shortages took %v", d)
		}
		broken := errors.New("the socket is gone")
		ln.accepts <- broken
		if err := <-served; !errors.Is(err, broken) || !strings.Contains(err.Error(), "/s") {
			t.Errorf("Serve: %v", err)
		}
		if _, err := near.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("a connection is open after Serve: %v", err)
		}
	})
}

// TestServeEnds cancels a server with idle, connected and slow clients.
func TestServeEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ln := &scriptedListener{make(chan any, 10), make(chan struct{})}
		ctx, cancel := context.WithCancel(t.Context())
		served := make(chan error)
		go func() { served <- NewServer("a", fakeNode{}, quiet()).Serve(ctx, ln) }()
		var conns []net.Conn
		for _, input := range []string{"", "connect c echo\n", "status\n", strings.Repeat("x", 1000)} {
			near, far := net.Pipe()
			ln.accepts <- far
			io.ReadFull(near, make([]byte, len("Receptor Control, node a\n")))
			io.WriteString(near, input)
			conns = append(conns, near)
		}
		synctest.Wait()
		start := time.Now()
		cancel()
		if err := <-served; err != nil || time.Since(start) != 0 {
			t.Errorf("Serve: %v after %v", err, time.Since(start))
		}
		for _, conn := range conns {
			conn.Close()
		}
	})
}

// TestHandlerReadsOn is what a work submit will do: the handler reads what
// follows the line until the client's half-close, and replies then.
func TestHandlerReadsOn(t *testing.T) {
	t.Parallel()
	s := NewServer("a", fakeNode{}, quiet())
	s.Handle(Command{
		Name: "work", Args: []string{"subcommand", "node"}, TakesRest: true,
		Run: func(_ context.Context, req *Request, sess *Session) error {
			sub, _ := req.String("subcommand")
			node, _ := req.String("node")
			if err := sess.Say("Send stdin data and EOF."); err != nil {
				return err
			}
			var stdin bytes.Buffer
			if _, err := io.Copy(&stdin, sess); err != nil {
				return err
			}
			return sess.Reply([]any{sub, node, req.Rest, stdin.Len()})
		},
	})
	payload := strings.Repeat("0123456789\n", 1000)
	conn := &tape{Reader: strings.NewReader("work submit c cat  -v\n" + payload)}
	s.ServeConn(context.Background(), conn)
	want := "Receptor Control, node a\nSend stdin data and EOF.\n[\"submit\",\"c\",\"cat  -v\",11000]\n"
	if conn.String() != want {
		t.Errorf("got %.300q", conn)
	}
}
