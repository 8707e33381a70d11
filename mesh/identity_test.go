package mesh

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/identity"
	"github.com/ranvier-mesh/ranvier/internal/wire"
	"github.com/ranvier-mesh/ranvier/mesh/link"
	"github.com/ranvier-mesh/ranvier/mesh/secure"
	"github.com/ranvier-mesh/ranvier/mesh/tcplink"
	"github.com/ranvier-mesh/ranvier/routing"
)

// society is a mesh with identities, over TLS on loopback.
type society struct {
	t  *testing.T
	ca *identity.CA
}

func newSociety(t *testing.T) *society {
	t.Helper()
	ca, err := identity.InitCA(t.TempDir(), "test", "ca1", identity.CAOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return &society{t, ca}
}

func (s *society) self(id routing.NodeID, role identity.Role) *identity.Self {
	s.t.Helper()
	self, err := identity.Begin(s.ca, identity.Claims{ID: id, Role: role, Work: []string{"*"}}, filepath.Join(s.t.TempDir(), "identity"))
	if err != nil {
		s.t.Fatal(err)
	}
	return self
}

func over(self *identity.Self) map[string]link.Transport {
	return map[string]link.Transport{"tcp": tcplink.Transport{ServerTLS: self.ServerTLS(), ClientTLS: self.ClientTLS()}}
}

// node runs a node with an identity until the test ends.
func (s *society) node(self *identity.Self, id routing.NodeID, role Role, peers ...*Mesh) *Mesh {
	s.t.Helper()
	cfg := Config{ID: id, Role: role, Epoch: 1, Self: self, Transports: over(self)}
	if role == Router {
		cfg.Listeners = []ListenerConfig{{Address: "tcp://127.0.0.1:0"}}
	}
	for _, p := range peers {
		cfg.Peers = append(cfg.Peers, PeerConfig{Address: p.Addrs()[0]})
	}
	m, _ := s.start(cfg)
	return m
}

// run runs a router of some configuration until the test ends or stop is called.
func (s *society) run(cfg Config, peers ...*Mesh) (m *Mesh, stop func()) {
	s.t.Helper()
	if cfg.Transports == nil {
		cfg.Transports = over(cfg.Self)
	}
	cfg.Listeners = []ListenerConfig{{Address: "tcp://127.0.0.1:0"}}
	for _, p := range peers {
		cfg.Peers = append(cfg.Peers, PeerConfig{Address: p.Addrs()[0]})
	}
	return s.start(cfg)
}

func (s *society) start(cfg Config) (*Mesh, func()) {
	s.t.Helper()
	m, err := New(s.t.Context(), cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	return m, s.launch(m)
}

func (s *society) launch(m *Mesh) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	end := make(chan struct{})
	go func() { m.Run(ctx); close(end) }()
	stop = func() { cancel(); <-end }
	s.t.Cleanup(stop)
	return stop
}

func (s *society) router(id routing.NodeID, peers ...*Mesh) *Mesh {
	s.t.Helper()
	return s.node(s.self(id, identity.Router), id, Router, peers...)
}

// eventually waits for what other goroutines bring about.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not so after 10 s: %s", what)
		}
	}
}

func reaches(m *Mesh, id routing.NodeID) func() bool {
	return func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, _, err := m.Ping(ctx, id)
		return err == nil
	}
}

func TestMeshWithIdentities(t *testing.T) {
	t.Parallel()
	s := newSociety(t)
	a := s.router("a")
	b := s.router("b", a)
	c := s.router("c", b)
	leaf := s.node(s.self("leaf", identity.Leaf), "leaf", Leaf, c)
	alice := s.self("alice", identity.Client)
	one, two := s.node(alice, "alice/1", Ephemeral, c), s.node(alice, "alice/2", Ephemeral, c)
	eventually(t, "c reaches a", reaches(c, "a"))
	eventually(t, "a reaches the leaf, whose home is two links away", reaches(a, "leaf"))
	eventually(t, "the leaf reaches a", reaches(leaf, "a"))
	eventually(t, "one user's two nodes reach a", func() bool { return reaches(one, "a")() && reaches(two, "a")() })
	late := s.router("late", b) // learns all from digests, and needs all certificates
	eventually(t, "a late one reaches the leaf", reaches(late, "leaf"))
	if down := a.Status().Down; len(down) != 0 {
		t.Error(down)
	}
}

// dialAs has a member say any Hello to a node, and returns the answer.
func dialAs(t *testing.T, self *identity.Self, to *Mesh, hello wire.Hello) any {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	l, err := over(self)["tcp"].Dial(ctx, strings.TrimPrefix(to.Addrs()[0], "tcp://"))
	if err != nil {
		return err
	}
	defer l.Close()
	control, err := l.Open(ctx)
	if err != nil {
		return err
	}
	control.SetDeadline(time.Now().Add(5 * time.Second))
	frame, err := hello.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	control.Write(frame)
	typ, body, err := wire.ReadFrame(control, nil, wire.MaxFrame)
	if err != nil {
		return err
	}
	msg, err := wire.ParseControl(typ, body)
	if err != nil {
		return err
	}
	return msg
}

func TestHelloOfAnother(t *testing.T) {
	t.Parallel()
	s := newSociety(t)
	a := s.router("a")
	eve, leaf, alice := s.self("eve", identity.Router), s.self("leaf", identity.Leaf), s.self("alice", identity.Client)
	nonce := make([]byte, wire.NonceLen)
	for name, tc := range map[string]struct {
		self *identity.Self
		id   routing.NodeID
		role Role
		ok   bool
	}{
		"itself":                   {eve, "eve", Router, true},
		"another's id":             {eve, "victim", Router, false},
		"the node's own id":        {eve, "a", Router, false},
		"another's ephemeral id":   {eve, "alice/1", Ephemeral, false},
		"a leaf as a router":       {leaf, "leaf", Router, false},
		"a client as a leaf":       {alice, "alice", Leaf, false},
		"a client as a router":     {alice, "alice", Router, false},
		"a router below its id":    {eve, "eve/1", Router, false},
		"a client as an ephemeral": {alice, "alice/1", Ephemeral, true},
	} {
		answer := dialAs(t, tc.self, a, wire.Hello{Protocol: 1, ID: tc.id, Epoch: 1, Nonce: nonce, Role: tc.role})
		_, ok := answer.(wire.Hello)
		if refusal, is := answer.(wire.GoAway); ok != tc.ok || !ok && (!is || refusal.Code != wire.CodeForbidden) {
			t.Errorf("%s: answer %+v", name, answer)
		}
	}
	plain, err := (tcplink.Transport{}).Dial(t.Context(), strings.TrimPrefix(a.Addrs()[0], "tcp://"))
	if err == nil {
		defer plain.Close()
		if control, err := plain.Open(t.Context()); err == nil {
			control.SetDeadline(time.Now().Add(5 * time.Second))
			if _, _, err := wire.ReadFrame(control, nil, wire.MaxFrame); err == nil {
				t.Error("a node without TLS gets an answer")
			}
		}
	}
}

// A hostile router floods what others should have said.
func TestForgedAdverts(t *testing.T) {
	t.Parallel()
	s := newSociety(t)
	a := s.router("a")
	victim := s.router("victim", a)
	eventually(t, "the victim is known", reaches(a, "victim"))
	eve := s.self("eve", identity.Router)
	ad := func(origin routing.NodeID, epoch uint64) *routing.Advert {
		return &routing.Advert{Key: routing.Key{Origin: origin}, Version: routing.Version{Epoch: epoch, Seq: 1},
			Links: []routing.Adjacency{{To: "a", Cost: 1}, {To: "eve", Cost: 1}}}
	}
	for name, forge := range map[string]func(*routing.Advert) error{
		"signed by eve": eve.Seal,
		"unsigned":      wire.SealUnsigned,
		"of a key that nobody introduced": func(x *routing.Advert) error {
			body, err := wire.EncodeAdvert(x)
			if err != nil {
				return err
			}
			x.Raw, err = wire.Envelope{Body: body, Sig: make([]byte, 64), KeyID: make([]byte, 16)}.Encode()
			return err
		},
		"with the victim's key id": func(x *routing.Advert) error {
			body, err := wire.EncodeAdvert(x)
			if err != nil {
				return err
			}
			key := victim.members.self.KeyID()
			x.Raw, err = wire.Envelope{Body: body, Sig: make([]byte, 64), KeyID: key[:]}.Encode()
			return err
		},
	} {
		for _, epoch := range []uint64{2, 1<<64 - 1} {
			x := ad("victim", epoch)
			if err := forge(x); err != nil {
				t.Fatal(err)
			}
			sendAs(t, eve, "eve", a, wire.AppendAdvert(nil, x.Raw))
		}
		if !reaches(a, "victim")() {
			t.Errorf("%s: the victim is gone", name)
		}
		for _, info := range a.Status().Nodes {
			if info.ID == "victim" && len(info.Links) != 1 {
				t.Errorf("%s: the victim is said to have the links %v", name, info.Links)
			}
		}
	}
}

// sendAs makes a link as a member, sends frames on the control stream, and
// waits until the node has read them: it answers a heartbeat, or ends the link.
func sendAs(t *testing.T, self *identity.Self, id routing.NodeID, to *Mesh, frames []byte) (ended bool) {
	t.Helper()
	ended, _ = sendAll(t, self, id, to, frames, 30*time.Second)
	return ended
}

// sendAll is sendAs with a bound of its own; why is what the node says of the end.
func sendAll(t *testing.T, self *identity.Self, id routing.NodeID, to *Mesh, frames []byte, bound time.Duration) (ended bool, why wire.GoAway) {
	t.Helper()
	l, err := over(self)["tcp"].Dial(t.Context(), strings.TrimPrefix(to.Addrs()[0], "tcp://"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	control, err := l.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	control.SetDeadline(time.Now().Add(bound))
	nonce := make([]byte, wire.NonceLen)
	copy(nonce, fmt.Sprint(time.Now().UnixNano()))
	role := map[identity.Role]Role{identity.Router: Router, identity.Leaf: Leaf, identity.Client: Ephemeral}[self.Role]
	hello, err := wire.Hello{Protocol: 1, ID: id, Epoch: 1, Nonce: nonce, Role: role}.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	beat, err := wire.Heartbeat{Ask: true}.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	control.Write(hello)
	typ, _, err := wire.ReadFrame(control, nil, wire.MaxFrame)
	if err == nil && typ == wire.TypeRevoked {
		typ, _, err = wire.ReadFrame(control, nil, wire.MaxFrame)
	}
	if err != nil || typ != wire.TypeHello {
		t.Fatalf("no Hello: %v, %v", typ, err)
	}
	link.Known(l)
	sent := append(append(append([]byte(nil), beat...), frames...), beat...)
	if role != Router {
		sent = append(sent, beat...) // a router is sent a heartbeat of its own, at the beginning
	}
	go control.Write(sent)       // until the link is closed
	for beats := 0; beats < 2; { // of the second one: a confirmation is not answered
		typ, body, err := wire.ReadFrame(control, nil, wire.MaxFrame)
		if err != nil {
			return true, why
		}
		if msg, err := wire.ParseControl(typ, body); err == nil {
			if bye, ok := msg.(wire.GoAway); ok {
				return true, bye
			}
		}
		if typ == wire.TypeHeartbeat {
			beats++
		}
	}
	return false, why
}

func TestRevokedEverywhere(t *testing.T) {
	t.Parallel()
	s := newSociety(t)
	const n = 10
	ring := []*Mesh{s.router("n0")}
	for i := 1; i < n; i++ {
		peers := []*Mesh{ring[i-1]}
		if i == n-1 {
			peers = append(peers, ring[0])
		}
		ring = append(ring, s.router(routing.NodeID(fmt.Sprint("n", i)), peers...))
	}
	bad := s.router("bad", ring[5])
	eventually(t, "all reach the bad one", func() bool {
		for _, m := range ring {
			if !reaches(m, "bad")() {
				return false
			}
		}
		return true
	})
	list, err := s.ca.Revoke("bad")
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if newer, err := ring[0].Revoke(list.Raw); !newer || err != nil {
		t.Fatal(err)
	}
	eventually(t, "the bad one is cut off everywhere", func() bool {
		for _, m := range ring {
			if number(m.members.self.Trust().Revocations()) == 0 || m.neighbour("bad") != nil || reaches(m, "bad")() {
				return false
			}
		}
		return true
	})
	t.Logf("cut off everywhere after %v", time.Since(start))
	for _, m := range ring {
		if m.neighbour("bad") != nil {
			t.Error("it has a link again")
		}
	}
	if reaches(bad, "n5")() {
		t.Error("the bad one still reaches its neighbour")
	}
	// One that comes later hears of it before it believes anybody.
	late := s.router("late", ring[2])
	eventually(t, "a late one is there", reaches(late, "n7"))
	if number(late.members.self.Trust().Revocations()) != list.Number {
		t.Error("a late one has not heard of it")
	}
}

func TestRenewedStaysKnown(t *testing.T) {
	t.Parallel()
	s := newSociety(t)
	a := s.router("a")
	b := s.router("b", a)
	c := s.router("c", b)
	eventually(t, "c reaches a", reaches(c, "a"))
	self := a.members.self
	m, err := self.Trust().VerifyRaw(self.Certificate().Certificate, identity.AsSigner)
	if err != nil {
		t.Fatal(err)
	}
	before := c.members.id("a").signer.NotAfter
	eventually(t, "the second has changed", func() bool { return time.Now().Unix() > before.Add(-identity.MaxLife).Unix() })
	g, err := s.ca.Renew(m)
	if err != nil {
		t.Fatal(err)
	}
	if err := self.Renewed(g); err != nil {
		t.Fatal(err)
	}
	a.Renewed()
	eventually(t, "c knows a's new certificate", func() bool { return c.members.id("a").signer.NotAfter.After(before) })
}

// A router opens a stream to a and says that it comes from the victim.
func TestStreamAsAnother(t *testing.T) {
	t.Parallel()
	s := newSociety(t)
	a := s.router("a")
	victim := s.router("victim", a)
	eve := s.router("eve", a)
	eventually(t, "eve reaches a", reaches(eve, "a"))
	l, err := a.Listen("svc")
	if err != nil {
		t.Fatal(err)
	}
	accepted := make(chan *Conn)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				close(accepted)
				return
			}
			accepted <- c.(*Conn)
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	o := &opening{open: func(early []byte) (net.Conn, wire.Answer, error) {
		var answer wire.Answer
		stream, err := eve.neighbour("a").open(ctx, wire.Open{
			To: "a", From: "victim", Service: "svc", Path: []routing.NodeID{"victim", "eve"}, Attempts: 1, Early: early,
		}, &answer)
		return stream, answer, err
	}}
	if k, err := secure.Client(ctx, o, eve.ends, "a"); err == nil {
		if _, err := k.Read(make([]byte, 1)); err == nil {
			t.Error("a speaks to eve as if she were the victim")
		}
		k.Close()
	}
	eventually(t, "the victim reaches a", reaches(victim, "a"))
	conn, err := victim.Dial(ctx, "a", "svc") // the first that a accepts is the real one
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c := <-accepted
	if m, ok := c.Member(); !ok || m.ID != "victim" || c.PeerIdentity() != "victim" {
		t.Errorf("accepted %+v", m)
	}
	if path := c.Path(); path[0] != "victim" || len(path) != 2 {
		t.Errorf("the stream that was accepted came by %v", path)
	}
	c.Close()
	l.Close()
}

// A stream that outlives a certificate goes on if its end shows a newer one.
func TestStreamOutlivesACertificate(t *testing.T) {
	t.Parallel()
	s := newSociety(t)
	a := s.router("a")
	b := s.router("b", a)
	l, err := a.Listen("svc")
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "b reaches a", reaches(b, "a"))
	near, err := b.Dial(t.Context(), "a", "svc")
	if err != nil {
		t.Fatal(err)
	}
	defer near.Close()
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	for _, end := range []struct {
		at   *Mesh
		conn *Conn
	}{{a, far.(*Conn)}, {b, near}} {
		ended := end.conn.member
		ended.NotAfter = time.Now().Add(-time.Second)
		end.conn.proof.Store(&ended)
		end.at.sweep(end.at.members.self.Trust())
		if _, err := near.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := far.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		eventually(t, "a newer certificate was shown", func() bool { return end.conn.proof.Load().NotAfter.After(time.Now()) })
	}
}

// A stream of who is revoked ends at once, whichever way it goes.
func TestRevokedStream(t *testing.T) {
	t.Parallel()
	s := newSociety(t)
	a := s.router("a")
	relay := s.router("relay", a)
	alice := s.node(s.self("alice", identity.Client), "alice/1", Ephemeral, relay)
	l, err := a.Listen("svc")
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "alice reaches a", reaches(alice, "a"))
	near, err := alice.Dial(t.Context(), "a", "svc")
	if err != nil {
		t.Fatal(err)
	}
	defer near.Close()
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	list, err := s.ca.Revoke("alice")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Revoke(list.Raw); err != nil { // a has no link to alice
		t.Fatal(err)
	}
	far.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := far.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the stream goes on: %v", err)
	}
}
