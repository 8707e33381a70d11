package proxy

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ranvier-mesh/ranvier/mesh"
	"github.com/ranvier-mesh/ranvier/mesh/link"
	"github.com/ranvier-mesh/ranvier/mesh/memlink"
	"github.com/ranvier-mesh/ranvier/routing"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long anything may take that should happen at once.
const patience = 30 * time.Second

// pair is two nodes, a and b, with a link.
type pair struct {
	t    *testing.T
	a, b *mesh.Mesh
	logs *logs
}

// logs is what was logged.
type logs struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func newPair(t *testing.T) *pair {
	p := &pair{t: t, logs: &logs{}}
	network := &memlink.Network{}
	start := func(id routing.NodeID, cfg mesh.Config) *mesh.Mesh {
		cfg.ID, cfg.Epoch = id, 1
		cfg.Transports = map[string]link.Transport{"mem": network}
		m, err := mesh.New(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(context.Background())
		over := make(chan error, 1)
		go func() { over <- m.Run(ctx) }()
		t.Cleanup(func() {
			stop()
			<-over
		})
		return m
	}
	p.b = start("b", mesh.Config{Listeners: []mesh.ListenerConfig{{Address: "mem://b"}}})
	p.a = start("a", mesh.Config{Peers: []mesh.PeerConfig{{Address: "mem://b"}}})
	if err := p.a.Attached(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		_, _, err := p.a.Ping(ctx, "b")
		if err == nil {
			return p
		}
		if !sleep(ctx, 5*time.Millisecond) { // until the routes are there
			t.Fatal(err)
		}
	}
}

func (p *pair) log() *slog.Logger {
	return slog.New(slog.NewTextHandler(p.logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// dial is the Dial of an item at a that leads to b.
func (p *pair) dial(service string) Dial {
	return func(ctx context.Context) (Stream, error) {
		c, err := p.a.Dial(ctx, "b", service)
		if err != nil {
			return nil, err
		}
		return c, nil
	}
}

// serve hands the streams of a service of b to handle.
func (p *pair) serve(service string, handle func(context.Context, Stream)) {
	l, err := p.b.Listen(service)
	if err != nil {
		p.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer c.Close()
				handle(ctx, c.(*mesh.Conn))
			})
		}
	})
	p.t.Cleanup(func() {
		stop()
		l.Close()
		all.Wait()
	})
}

// inbound serves an item at a on loopback, and returns its address.
func (p *pair) inbound(in *Inbound, l net.Listener) net.Addr {
	ctx, stop := context.WithCancel(context.Background())
	over := make(chan error, 1)
	go func() { over <- in.Serve(ctx, l) }()
	p.t.Cleanup(func() {
		stop()
		if err := <-over; err != nil {
			p.t.Error(err)
		}
	})
	return l.Addr()
}

func loopback(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// tunnel leads a listener at a to one of the test's; connect makes a
// connection and returns both of its ends.
func tunnel(t *testing.T, network string) (p *pair, connect func() (near, far net.Conn)) {
	p = newPair(t)
	listen := func(name string) net.Listener {
		if network == "tcp" {
			return loopback(t)
		}
		l, err := net.Listen("unix", filepath.Join(t.TempDir(), name))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		return l
	}
	target := listen("t")
	p.serve("svc", NewOutbound(OutboundConfig{Network: network, Address: target.Addr().String(), Log: p.log()}).Handle)
	addr := p.inbound(&Inbound{Dial: p.dial("svc"), Log: p.log()}, listen("s"))
	return p, func() (near, far net.Conn) {
		t.Helper()
		near, err := net.Dial(network, addr.String())
		if err != nil {
			t.Fatal(err)
		}
		target.(interface{ SetDeadline(time.Time) error }).SetDeadline(time.Now().Add(patience))
		far, err = target.Accept()
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []net.Conn{near, far} {
			c.SetDeadline(time.Now().Add(patience))
			t.Cleanup(func() { c.Close() })
		}
		return near, far
	}
}

func closeWrite(t *testing.T, c net.Conn) {
	t.Helper()
	if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Fatal(err)
	}
}

func TestHalfCloseGoesThroughBothWays(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		for _, first := range []string{"the client", "the server"} {
			t.Run(network+", "+first, func(t *testing.T) {
				_, connect := tunnel(t, network)
				x, y := connect()
				if first == "the server" {
					x, y = y, x
				}
				fmt.Fprint(x, "question")
				closeWrite(t, x)
				if got, err := io.ReadAll(y); err != nil || string(got) != "question" {
					t.Fatalf("%q, %v", got, err)
				}
				fmt.Fprint(y, "answer, although the other direction has ended")
				closeWrite(t, y)
				if got, err := io.ReadAll(x); err != nil || !strings.HasPrefix(string(got), "answer") {
					t.Fatalf("%q, %v", got, err)
				}
			})
		}
	}
}

func TestMuchGoesThroughUnchanged(t *testing.T) {
	_, connect := tunnel(t, "tcp")
	near, far := connect()
	data := bytes.Repeat([]byte("0123456789abcdef!"), 1<<20)
	var sending sync.WaitGroup
	for _, c := range []net.Conn{near, far} {
		sending.Go(func() {
			c.Write(data)
			c.(*net.TCPConn).CloseWrite()
		})
	}
	var sums [2][32]byte
	for i, c := range []net.Conn{near, far} {
		sending.Go(func() {
			h := sha256.New()
			io.Copy(h, c)
			h.Sum(sums[i][:0])
		})
	}
	sending.Wait()
	if want := sha256.Sum256(data); sums[0] != want || sums[1] != want {
		t.Error("what arrived is not what was sent")
	}
}

// TestAResetGoesThrough: a connection that breaks is no clean end at the other side.
func TestAResetGoesThrough(t *testing.T) {
	_, connect := tunnel(t, "tcp")
	near, far := connect()
	near.(*net.TCPConn).SetLinger(0)
	near.Close()
	if _, err := io.ReadAll(far); err == nil {
		t.Error("the other end read a clean end")
	}
}

func TestASlowReaderHoldsNobodyElse(t *testing.T) {
	_, connect := tunnel(t, "tcp")
	near, far := connect()
	var filling sync.WaitGroup
	filling.Go(func() { near.Write(make([]byte, 256<<20)) }) // until it is closed
	near2, far2 := connect()
	fmt.Fprint(near2, "x")
	if _, err := io.ReadFull(far2, make([]byte, 1)); err != nil {
		t.Error(err)
	}
	far.Close()
	near.Close()
	filling.Wait()
}

func TestNobodyAtTheAddress(t *testing.T) {
	p := newPair(t)
	gone := loopback(t)
	gone.Close()
	p.serve("svc", NewOutbound(OutboundConfig{Network: "tcp", Address: gone.Addr().String(), Log: p.log()}).Handle)
	addr := p.inbound(&Inbound{Dial: p.dial("svc"), Log: p.log()}, loopback(t))
	conn, err := net.Dial("tcp", addr.String())
	if err == nil { // else the reset came before the dial had returned
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(patience))
		if _, err := io.ReadAll(conn); err == nil {
			t.Error("the client read a clean end")
		}
	}
	for _, want := range []string{"a stream cannot be led on", "connection refused", gone.Addr().String()} {
		if !strings.Contains(p.logs.String(), want) {
			t.Errorf("the log does not say %q:\n%s", want, p.logs)
		}
	}
}

func TestNoSuchService(t *testing.T) {
	p := newPair(t)
	l := loopback(t)
	ctx, stop := context.WithCancel(context.Background())
	over := make(chan error, 1)
	go func() { over <- (&Inbound{Dial: p.dial("none"), Log: p.log()}).Serve(ctx, l) }()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err == nil {
		conn.SetDeadline(time.Now().Add(patience))
		if _, err := conn.Read(make([]byte, 1)); err == nil {
			t.Error("it was let in")
		}
		conn.Close()
	}
	stop()
	<-over
	if text := p.logs.String(); !strings.Contains(text, "no service") || !strings.Contains(text, "node b refused") {
		t.Errorf("the log says %s", text)
	}
}

// TestAnItemThatEndsCutsItsConnections is what a reload does.
func TestAnItemThatEndsCutsItsConnections(t *testing.T) {
	p := newPair(t)
	target := loopback(t)
	p.serve("svc", NewOutbound(OutboundConfig{Network: "tcp", Address: target.Addr().String(), Log: p.log()}).Handle)
	ctx, stop := context.WithCancel(context.Background())
	over := make(chan error, 1)
	l := loopback(t)
	go func() { over <- (&Inbound{Dial: p.dial("svc"), Log: p.log()}).Serve(ctx, l) }()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	far, err := target.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	stop()
	if err := <-over; err != nil {
		t.Error(err)
	}
	for _, c := range []net.Conn{conn, far} {
		c.SetDeadline(time.Now().Add(patience))
		if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("it goes on: %v", err)
		}
	}
}
