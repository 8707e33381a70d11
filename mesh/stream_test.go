package mesh

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/wire"
	"github.com/ranvier-mesh/ranvier/mesh/link"
	"github.com/ranvier-mesh/ranvier/mesh/memlink"
	"github.com/ranvier-mesh/ranvier/mesh/secure"
	"github.com/ranvier-mesh/ranvier/mesh/session"
	"github.com/ranvier-mesh/ranvier/routing"
)

func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

// ring starts a, d, and two ways between them, by b and by c; in a bubble.
func (n *net1) ring() {
	n.t.Helper()
	n.start("a")
	n.start("b", "a")
	n.start("c", "a")
	n.start("d", "b", "c")
	n.reach("a", "d")
	n.reach("d", "a")
	time.Sleep(10 * time.Second) // in the bubble: all routes are known
}

// cutLinks closes all links of a node at once: no GoAway, no FIN, as after kill -9.
func (n *net1) cutLinks(id routing.NodeID) {
	for _, nb := range n.nodes[id].allNeighbours() {
		nb.link.Close()
	}
}

// freeze makes a node a black hole that still takes what is sent to it.
func (n *net1) freeze(id routing.NodeID) (thaw func()) {
	var all []func()
	for _, nb := range n.nodes[id].allNeighbours() {
		all = append(all, memlink.Freeze(nb.link), memlink.Freeze(n.nodes[nb.id].neighbour(id).link))
	}
	return func() {
		for _, f := range all {
			f()
		}
	}
}

// transfer sends data both ways, calls disturb when a part has arrived, and
// tells the longest pause that the readers saw.
func transfer(t *testing.T, near, far *Conn, data []byte, disturb func()) (pause time.Duration) {
	t.Helper()
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, ends := range [][2]*Conn{{near, far}, {far, near}} {
		wg.Go(func() {
			if _, err := ends[0].Write(data); err != nil {
				t.Errorf("write: %v", err)
			}
			ends[0].CloseWrite()
		})
		wg.Go(func() {
			got := make([]byte, 0, len(data))
			buf := make([]byte, 10_000)
			last := time.Now()
			for once := disturb; ; {
				k, err := ends[1].Read(buf)
				mu.Lock()
				pause = max(pause, time.Since(last))
				mu.Unlock()
				last = time.Now()
				got = append(got, buf[:k]...)
				if once != nil && len(got) > len(data)/3 && ends[1] == far {
					once()
					once = nil
				}
				if err != nil {
					if err != io.EOF || !bytes.Equal(got, data) {
						t.Errorf("%d of %d bytes came, or others: %v", len(got), len(data), err)
					}
					return
				}
			}
		})
	}
	wg.Wait()
	near.Close()
	far.Close()
	return pause
}

func TestATransferSurvivesItsRelay(t *testing.T) {
	data := randomBytes(2 << 20)
	for name, c := range map[string]struct {
		harm  func(n *net1, relay routing.NodeID) (undo func())
		pause time.Duration
	}{
		"killed": {func(n *net1, relay routing.NodeID) func() {
			n.cutLinks(relay)
			go n.nodes[relay].stop()
			return func() {}
		}, 500 * time.Millisecond},
		"its links break": {func(n *net1, relay routing.NodeID) func() { n.cutLinks(relay); return func() {} }, 500 * time.Millisecond},
		"the far one does": {func(n *net1, relay routing.NodeID) func() {
			n.nodes[relay].neighbour("d").link.Close()
			return func() {}
		}, 500 * time.Millisecond},
		"a black hole":     {(*net1).freeze, 4 * time.Second},
		"stopped in order": {func(n *net1, relay routing.NodeID) func() { go n.nodes[relay].stop(); return func() {} }, 500 * time.Millisecond},
		"nothing at all":   {func(*net1, routing.NodeID) func() { return func() {} }, time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNet(t)
				n.ring()
				near, far := stream(t, n.nodes["a"], n.nodes["d"])
				relay := near.Path()[1]
				undo := func() {}
				pause := transfer(t, near, far, data, func() { undo = c.harm(n, relay) })
				if pause > c.pause {
					t.Errorf("a pause of %v, want at most %v", pause, c.pause)
				}
				if now := near.Path(); name != "nothing at all" && (len(now) != 3 || now[1] == relay || !slices.Equal(now, far.Path())) {
					t.Errorf("the path is %v, and %v at the other end", now, far.Path())
				}
				undo()
			})
		})
	}
}

func TestTheOnlyRelayComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet(t)
		near, far := stream(t, first(n.line(1)), n.nodes["n2"])
		transfer(t, near, far, randomBytes(1<<20), func() {
			n.cutLinks("n1")
			n.nodes["n1"].stop()
			time.AfterFunc(40*time.Second, func() {
				n.startWith(Config{ID: "n1", Epoch: 2, Listeners: []ListenerConfig{{Address: n.addrs["n1"]}}}, "n0")
			})
		})
		time.Sleep(time.Minute)
	})
}

func TestTheAccessNodeDies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet(t)
		n.ring()
		e := n.startWith(Config{ID: "user/1", Role: Ephemeral}, "b", "c")
		if err := e.Attached(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		near, far := stream(t, e, n.nodes["d"])
		access := near.Path()[1]
		pause := transfer(t, near, far, randomBytes(1<<20), func() {
			n.cutLinks(access)
			go n.nodes[access].stop()
		})
		if pause > 500*time.Millisecond {
			t.Errorf("a pause of %v", pause)
		}
	})
}

func TestAStreamWithoutAnyWayIsGivenUpAtBothEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet(t)
		near, far := stream(t, first(n.line(1)), n.nodes["n2"])
		go near.Write([]byte("before"))
		if _, err := io.ReadFull(far, make([]byte, 6)); err != nil {
			t.Fatal(err)
		}
		n.cutLinks("n1")
		n.nodes["n1"].stop()
		start := time.Now()
		for _, c := range []*Conn{near, far} {
			var broken *session.BrokenError
			_, err := c.Read(make([]byte, 1))
			if !errors.As(err, &broken) || errors.Is(err, io.EOF) {
				t.Errorf("read: %v", err)
			} else if want := c.RemoteAddr().String() + " (via n0 → n1 → n2)"; broken.Name != want {
				t.Errorf("the error names %q, want %q", broken.Name, want)
			}
			if d := time.Since(start); d < session.GiveUp || d > session.GiveUp+time.Second {
				t.Errorf("told after %v", d)
			}
			c.Close()
		}
	})
}

// TestARestartedTargetHasLostItsStreams: nobody waits for what cannot come back.
func TestARestartedTargetHasLostItsStreams(t *testing.T) {
	for name, restart := range map[string]func(target *running, far *Conn){
		"its memory": func(target *running, far *Conn) { delete(target.accepted, far.token) },
		"its key":    func(target *running, _ *Conn) { target.ends, _ = secure.SelfMade("n2") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNet(t)
				near, far := stream(t, first(n.line(1)), n.nodes["n2"])
				synctest.Wait()
				n.nodes["n2"].mu.Lock()
				restart(n.nodes["n2"], far)
				n.nodes["n2"].mu.Unlock()
				n.cutLinks("n2")
				start := time.Now()
				_, err := near.Read(make([]byte, 1))
				if !errors.Is(err, session.ErrLost) || time.Since(start) > 5*time.Second {
					t.Errorf("read after %v: %v", time.Since(start), err)
				}
				near.Close()
				far.Close()
			})
		})
	}
}

func TestAStoppedNodeResetsItsStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet(t)
		near, far := stream(t, first(n.line(1)), n.nodes["n2"])
		go n.nodes["n2"].stop()
		start := time.Now()
		if _, err := near.Read(make([]byte, 1)); err == nil || time.Since(start) > 3*time.Second {
			t.Errorf("read after %v: %v", time.Since(start), err)
		}
		near.Close()
		far.Close()
	})
}

func TestAnotherCannotResume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet(t)
		near, far := stream(t, first(n.line(1)), n.nodes["n2"])
		try := func(from *running, token sessionToken, service string) error {
			k, _, err := from.connect(t.Context(), wire.Open{To: "n2", Service: service, Resume: true})
			if err != nil {
				return err
			}
			defer k.Close()
			frame, err := wire.Resume{Token: token[:], Number: 9}.Append(nil)
			if err != nil {
				return err
			}
			k.Write(frame)
			typ, _, err := wire.ReadFrame(k, nil, wire.MaxFrame)
			if err == nil && typ == wire.TypeReset {
				err = session.ErrLost
			}
			return err
		}
		if err := try(n.nodes["n1"], near.token, "test"); !errors.Is(err, session.ErrLost) {
			t.Errorf("another node with the token: %v", err)
		}
		if err := try(n.nodes["n0"], sessionToken{}, "test"); !errors.Is(err, session.ErrLost) {
			t.Errorf("another token: %v", err)
		}
		if err := try(n.nodes["n0"], near.token, "other"); !errors.Is(err, session.ErrLost) {
			t.Errorf("another service: %v", err)
		}
		transfer(t, near, far, randomBytes(1000), nil) // it was not harmed
	})
}

// tap is a transport that keeps all that goes over its links, in clear.
type tap struct {
	link.Transport
	mu   sync.Mutex
	kept bytes.Buffer
}

func (p *tap) keep(b []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.kept.Write(b)
}

func (p *tap) Dial(ctx context.Context, addr string) (link.Link, error) {
	l, err := p.Transport.Dial(ctx, addr)
	return &tappedLink{l, p}, err
}

func (p *tap) Listen(ctx context.Context, addr string) (link.Listener, error) {
	l, err := p.Transport.Listen(ctx, addr)
	return &tappedListener{l, p}, err
}

type tappedListener struct {
	link.Listener
	tap *tap
}

func (l *tappedListener) Accept() (link.Link, error) {
	k, err := l.Listener.Accept()
	return &tappedLink{k, l.tap}, err
}

type tappedLink struct {
	link.Link
	tap *tap
}

func (l *tappedLink) Known() { link.Known(l.Link) }

func (l *tappedLink) Open(ctx context.Context) (net.Conn, error) {
	s, err := l.Link.Open(ctx)
	return &tappedStream{s, l.tap}, err
}

func (l *tappedLink) Accept() (net.Conn, error) {
	s, err := l.Link.Accept()
	return &tappedStream{s, l.tap}, err
}

type tappedStream struct {
	net.Conn
	tap *tap
}

func (s *tappedStream) Read(p []byte) (int, error) {
	n, err := s.Conn.Read(p)
	s.tap.keep(p[:n])
	return n, err
}

func (s *tappedStream) Write(p []byte) (int, error) {
	s.tap.keep(p)
	return s.Conn.Write(p)
}

func TestARelayThatRecordsLearnsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet(t)
		plain := n.via
		recorder := &tap{Transport: plain}
		n.start("n0")
		n.via = recorder
		n.start("n1", "n0")
		n.via = plain
		n.start("n2", "n1")
		n.reach("n0", "n2")
		near, far := stream(t, n.nodes["n0"], n.nodes["n2"])
		payload := bytes.Repeat([]byte("project/secret-playbook.yml: top secret\n"), 1000)
		transfer(t, near, far, payload, func() { n.nodes["n1"].neighbour("n2").link.Close() })
		token := near.token
		kept := recorder.kept.Bytes()
		if !bytes.Contains(kept, []byte("test")) || len(kept) < 4*len(payload) {
			t.Fatalf("the recorder heard nothing (%d bytes)", len(kept))
		}
		for _, secret := range []string{"secret", "playbook", "project/", string(token[:])} {
			if bytes.Contains(kept, []byte(secret)) {
				t.Errorf("the relay saw %q", secret)
			}
		}
	})
}

func TestASlowReaderHoldsUpNobodyElse(t *testing.T) {
	for _, scheme := range []string{"mem", "tcp"} {
		t.Run(scheme, func(t *testing.T) {
			n := newNetOver(t, scheme)
			from, to := n.line(1)
			var stuck []*Conn
			for range 20 {
				near, far := stream(t, from, to)
				stuck = append(stuck, near, far)
				go near.Write(make([]byte, 4<<20)) // nobody reads it
			}
			near, far := stream(t, from, to)
			transfer(t, near, far, randomBytes(4<<20), nil)
			if used := from.budget.Used() + to.budget.Used(); used > 8<<20 {
				t.Errorf("%d bytes are lent to streams that nobody reads", used)
			}
			for _, c := range stuck {
				c.Close()
			}
		})
	}
}

func TestTargetThatIsAnotherIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet(t)
		n.start("n0")
		mallory, err := secure.SelfMade("mallory")
		if err != nil {
			t.Fatal(err)
		}
		n.startWith(Config{ID: "n1", Listeners: []ListenerConfig{{Address: "mem://n1"}}}, "n0").ends = mallory
		n.reach("n0", "n1")
		if _, err := n.nodes["n1"].Listen("test"); err != nil {
			t.Fatal(err)
		}
		var wrong *secure.PeerError
		if _, err := n.nodes["n0"].Dial(t.Context(), "n1", "test"); !errors.As(err, &wrong) || wrong.Peer != "n1" {
			t.Errorf("dial: %v", err)
		}
	})
}

// TestManyStreamsLeaveNothing opens and closes streams, some after a break.
func TestManyStreamsLeaveNothing(t *testing.T) {
	n := newNetOver(t, "tcp")
	from, to := n.line(1)
	l, err := to.Listen("echo")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				io.Copy(c, c)
				c.Close()
			}()
		}
	}()
	round := func(i int) {
		c, err := from.Dial(t.Context(), to.ID(), "echo")
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		said := fmt.Appendf(nil, "hello %d", i)
		c.Write(said)
		got := make([]byte, len(said))
		if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, said) {
			t.Errorf("echo %q: %v", got, err)
		}
	}
	round(0)
	before := runtime.NumGoroutine()
	var wg sync.WaitGroup
	for i := range 400 {
		wg.Go(func() { round(i) })
		if i%100 == 99 {
			wg.Wait()
		}
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); ; <-tick.C {
		var left int
		for _, m := range []*running{from, to} {
			m.mu.Lock()
			left += len(m.conns) + len(m.accepted) + int(m.budget.Used())
			m.mu.Unlock()
		}
		now := runtime.NumGoroutine()
		if left == 0 && now <= before+before/10 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines, %d before; %d streams and bytes are kept", now, before, left)
		}
	}
}
