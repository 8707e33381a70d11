package mesh

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/identity"
	"github.com/ranvier-mesh/ranvier/internal/wire"
	"github.com/ranvier-mesh/ranvier/mesh/link"
	"github.com/ranvier-mesh/ranvier/mesh/memlink"
	"github.com/ranvier-mesh/ranvier/mesh/session"
	"github.com/ranvier-mesh/ranvier/routing"
)

// memberNet is a network in memory whose links know the certificates at their
// ends, as if they had TLS. (TLS over yamux cannot be had in a bubble.)
type memberNet struct {
	memlink.Network
	mu        sync.Mutex
	listeners map[string]*memberListener
}

// memberVia is a member's way into it.
type memberVia struct {
	*memberNet
	self *identity.Self
	wrap func(link.Link) link.Link // of the links it dials; nil: none
}

type memberListener struct {
	link.Listener
	self  *identity.Self
	mu    sync.Mutex          // held while a link is handed over
	peers chan *identity.Self // of the links that come, in their order
}

// memberLink is a link whose other end is a member.
type memberLink struct {
	link.Link
	peer *identity.Self
}

func (l memberLink) Known() { link.Known(l.Link) }

func (l memberLink) PeerCertificates() []*x509.Certificate {
	var chain []*x509.Certificate
	for _, der := range l.peer.Certificate().Certificate {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil
		}
		chain = append(chain, c)
	}
	return chain
}

func (v memberVia) Listen(ctx context.Context, name string) (link.Listener, error) {
	inner, err := v.Network.Listen(ctx, name)
	l := &memberListener{Listener: inner, self: v.self, peers: make(chan *identity.Self, 100)}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.listeners[name] = l
	return l, err
}

func (v memberVia) Dial(ctx context.Context, name string) (link.Link, error) {
	v.mu.Lock()
	l := v.listeners[name]
	v.mu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	k, err := v.Network.Dial(ctx, name)
	if err != nil {
		return nil, err
	}
	l.peers <- v.self
	k = memberLink{k, l.self}
	if v.wrap != nil {
		k = v.wrap(k)
	}
	return k, nil
}

func (l *memberListener) Accept() (link.Link, error) {
	k, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return memberLink{k, <-l.peers}, nil
}

// evil is what a relay does to the streams that it opens for others.
type evil struct {
	name   string
	answer wire.Answer // in place of the true one; empty: none
	after  int         // bytes of a stream are passed on before
	read   func(s *evilStream, p []byte) (int, error)
	ends   bool // nothing is lost for long: nobody has to be suspected
}

// evilLink is a link of a relay that was dialled: its first stream is the control
// stream, on which the relay behaves.
type evilLink struct {
	link.Authenticated
	evil evil
	mu   sync.Mutex
	open int
	kept *bytes.Buffer
}

func (l *evilLink) Known() { link.Known(l.Authenticated) }

func (l *evilLink) Open(ctx context.Context) (net.Conn, error) {
	s, err := l.Authenticated.Open(ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open++; err != nil || l.open == 1 {
		return s, err
	}
	return &evilStream{Conn: s, link: l, gone: make(chan struct{})}, nil
}

type evilStream struct {
	net.Conn
	link *evilLink
	n    int
	gone chan struct{}
	once sync.Once
}

func (s *evilStream) Read(p []byte) (int, error) {
	if s.n < s.link.evil.after {
		n, err := s.Conn.Read(p[:min(len(p), s.link.evil.after-s.n)])
		s.n += n
		s.link.keep(p[:n])
		return n, err
	}
	n, err := s.link.evil.read(s, p)
	s.n += max(0, n)
	return n, err
}

func (s *evilStream) Write(p []byte) (int, error) {
	s.link.keep(p)
	return s.Conn.Write(p)
}

func (s *evilStream) Close() error {
	s.once.Do(func() { close(s.gone) })
	return s.Conn.Close()
}

func (l *evilLink) keep(p []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.kept.Write(p)
}

// swallow takes everything and passes nothing on.
func swallow(s *evilStream, _ []byte) (int, error) {
	go io.Copy(io.Discard, s.Conn)
	<-s.gone
	return 0, net.ErrClosed
}

// flip passes on everything, with a bit changed.
func flip(s *evilStream, p []byte) (int, error) {
	n, err := s.Conn.Read(p)
	if n > 0 {
		p[n/2] ^= 1
	}
	return n, err
}

// Accept returns a stream on which the relay answers as it likes.
func (l *evilLink) Accept() (net.Conn, error) {
	s, err := l.Authenticated.Accept()
	if err != nil || l.evil.answer.Node == "" {
		return s, err
	}
	return &evilAnswer{Conn: s, answer: l.evil.answer}, nil
}

type evilAnswer struct {
	net.Conn
	answer wire.Answer
	once   sync.Once
}

func (s *evilAnswer) Write(p []byte) (int, error) {
	s.once.Do(func() {
		if frame, err := s.answer.Append(nil); err == nil {
			s.Conn.Write(frame)
		}
	})
	return len(p), nil
}

// told is a log that can be searched.
type told struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *told) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *told) says(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.text.String(), text)
}

// trap is a mesh in a bubble: between a and d, eve's way is cheap and b's is dear.
// alice is attached to a alone.
type trap struct {
	t     *testing.T
	net   *memberNet
	ca    *identity.CA
	nodes map[routing.NodeID]*running
	logs  map[routing.NodeID]*told
	kept  bytes.Buffer // what eve has seen
}

// newTrap starts a mesh in a bubble, in which eve attracts what goes from a to d.
func newTrap(t *testing.T, e evil) *trap {
	t.Helper()
	dir := t.TempDir()
	ca, err := identity.InitCA(filepath.Join(dir, "ca"), "test", "a", identity.CAOptions{})
	if err != nil {
		t.Fatal(err)
	}
	tr := &trap{t: t, net: &memberNet{listeners: map[string]*memberListener{}}, ca: ca, nodes: map[routing.NodeID]*running{}, logs: map[routing.NodeID]*told{}}
	tr.start("a", Router, 0, nil)
	tr.start("d", Router, 0, nil)
	tr.start("b", Router, 9000, nil, "a", "d")
	tr.start("eve", Router, 1, func(k link.Link) link.Link {
		return &evilLink{Authenticated: k.(link.Authenticated), evil: e, kept: &tr.kept}
	}, "a", "d")
	tr.start("alice/1", Ephemeral, 0, nil, "a")
	time.Sleep(10 * time.Second) // in the bubble: all routes are known
	for _, id := range []routing.NodeID{"a", "alice/1"} {
		if hops := tr.nodes["a"].table.Load().NextHops("d"); !slices.Equal(hops, []routing.NodeID{"eve"}) {
			t.Fatalf("%s: eve does not attract the traffic: the way is by %v", id, hops)
		}
	}
	return tr
}

func (tr *trap) start(id routing.NodeID, role Role, cost routing.Cost, wrap func(link.Link) link.Link, peers ...string) {
	tr.t.Helper()
	owner, _, _ := strings.Cut(string(id), "/")
	claims := identity.Claims{ID: routing.NodeID(owner), Role: identity.Router}
	if role == Ephemeral {
		claims.Role = identity.Client
	}
	self, err := identity.Begin(tr.ca, claims, filepath.Join(tr.t.TempDir(), "i"))
	if err != nil {
		tr.t.Fatal(err)
	}
	log := &told{}
	cfg := Config{ID: id, Role: role, Epoch: 1, Self: self, Log: slog.New(slog.NewTextHandler(log, nil)),
		Transports: map[string]link.Transport{"mem": memberVia{tr.net, self, wrap}}}
	if role == Router {
		cfg.Listeners = []ListenerConfig{{Address: "mem://" + string(id)}}
	}
	for _, p := range peers {
		cfg.Peers = append(cfg.Peers, PeerConfig{Address: "mem://" + p, Cost: cost})
	}
	m, err := New(tr.t.Context(), cfg)
	if err != nil {
		tr.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	over := make(chan error, 1)
	go func() { over <- m.Run(ctx) }()
	tr.t.Cleanup(func() { cancel(); <-over })
	tr.nodes[id], tr.logs[id] = &running{Mesh: m}, log
}

// A relay that makes its way the cheapest and then harms what it attracts is
// noticed: streams begin or go on by the other way, and who noticed says so. Not a
// byte is lost or changed.
func TestHostileRelay(t *testing.T) {
	ok := wire.Answer{Node: "d", Path: []wire.Hop{{Node: "eve"}, {Node: "d"}}}
	refusal := wire.Answer{Node: "d", Code: wire.CodeNoService, Reason: "no such thing", Path: []wire.Hop{{Node: "eve"}, {Node: "d"}}}
	hidden := wire.Answer{Node: "d", Path: []wire.Hop{{Node: "d"}}}
	for _, e := range []evil{
		{name: "answers nothing", read: swallow},
		{name: "takes a stream in its own name", answer: ok, after: 1 << 40},
		{name: "leaves itself out of the path", answer: hidden, after: 1 << 40},
		{name: "refuses in the target's name", answer: refusal, after: 1 << 40},
		{name: "drops everything after the handshake", after: 6000, read: swallow},
		{name: "drops everything after a while", after: 200_000, read: swallow},
		{name: "flips bits in the handshake", after: 300, read: flip},
		{name: "flips bits", after: 50_000, read: flip},
		{name: "closes after a while", after: 50_000, read: func(*evilStream, []byte) (int, error) { return 0, io.EOF }, ends: true},
	} {
		for _, from := range []routing.NodeID{"a", "alice/1"} {
			t.Run(fmt.Sprintf("%s, to %s", e.name, from), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { hostileRelay(t, e, from) })
			})
		}
	}
}

func hostileRelay(t *testing.T, e evil, from routing.NodeID) {
	tr := newTrap(t, e)
	payload := bytes.Repeat([]byte("a secret of the playbook "), 40_000)
	l, err := tr.nodes["d"].Listen("test")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for round := range 3 {
		start := time.Now()
		near, err := tr.nodes[from].Dial(t.Context(), "d", "test")
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		began := time.Since(start)
		var far *Conn
		for far == nil || far.token != near.token { // those that began in vain are here too
			c, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			far = c.(*Conn)
		}
		pause := transfer(t, near, far, payload, nil)
		t.Logf("round %d: began after %v, longest pause %v, by %v", round, began, pause, near.Path())
		if round == 2 && !e.ends && (slices.Contains(near.Path(), "eve") || began+pause > 2*time.Second) {
			t.Errorf("streams still go by eve, or wait for her: %v, %v", near.Path(), began+pause)
		}
	}
	if bytes.Contains(tr.kept.Bytes(), []byte("secret")) {
		t.Error("eve has read the payload")
	}
	if e.ends {
		return
	}
	noticed := false
	for _, id := range []routing.NodeID{"a", "alice/1"} {
		for _, s := range tr.nodes[id].Status().Suspects {
			noticed = noticed || s.Node == "eve" && tr.logs[id].says("traffic is lost on its way")
			if s.Node != "eve" {
				t.Errorf("%s suspects %+v", id, s)
			}
		}
	}
	if !noticed {
		t.Error("nobody says that eve harms the traffic")
	}
}

// Without another way a hostile relay can stop a stream, and no more: the ends
// get an error.
func TestHostileRelayIsTheOnlyWay(t *testing.T) {
	for _, e := range []evil{{name: "drops", after: 6000, read: swallow}, {name: "flips bits", after: 6000, read: flip}} {
		t.Run(e.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr := newTrap(t, e)
				l, err := tr.nodes["d"].Listen("test")
				if err != nil {
					t.Fatal(err)
				}
				defer l.Close()
				near, err := tr.nodes["a"].Dial(t.Context(), "d", "test")
				if err != nil {
					t.Fatal(err)
				}
				defer near.Close()
				for _, nb := range tr.nodes["b"].allNeighbours() {
					tr.nodes["b"].RemovePeer(t.Context(), "mem://"+string(nb.id))
				}
				c, err := l.Accept()
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				payload := randomBytes(1 << 20)
				go c.Write(payload)
				got, err := io.ReadAll(near)
				var broken *session.BrokenError
				if !errors.As(err, &broken) {
					t.Errorf("the stream has ended as if all had arrived, or otherwise: %v", err)
				}
				if !bytes.Equal(got, payload[:len(got)]) {
					t.Error("other bytes have arrived than were sent")
				}
			})
		})
	}
}
