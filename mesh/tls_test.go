package mesh

import (
	"context"
	"crypto/tls"
	"strings"
	"testing"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/identity"
	"github.com/ranvier-mesh/ranvier/internal/wire"
	"github.com/ranvier-mesh/ranvier/mesh/link"
	"github.com/ranvier-mesh/ranvier/mesh/quiclink"
	"github.com/ranvier-mesh/ranvier/mesh/tcplink"
)

// tlsNode is a node with a listener of TCP and one of QUIC.
func (s *society) tlsNode(self *identity.Self, server *tls.Config) map[string]*Mesh {
	s.t.Helper()
	quic, err := quiclink.New(quiclink.Config{TLSServer: server, TLSClient: self.ClientTLS()})
	if err != nil {
		s.t.Fatal(err)
	}
	m, _ := s.start(Config{ID: self.ID, Epoch: 1, Self: self,
		Transports: map[string]link.Transport{"tcp": tcplink.Transport{ServerTLS: server, ClientTLS: self.ClientTLS()}, "quic": quic},
		Listeners:  []ListenerConfig{{Address: "tcp://127.0.0.1:0"}, {Address: "quic://127.0.0.1:0"}},
	})
	return map[string]*Mesh{"tcp": m, "quic": m}
}

// tlsPeer dials as a member and notes how its links came about.
type tlsPeer struct {
	cfg       *tls.Config
	transport map[string]link.Transport
	last      tls.ConnectionState
	list      []byte // of revocations, the first word of the last answer
}

func newTLSPeer(t *testing.T, self *identity.Self) *tlsPeer {
	t.Helper()
	p := &tlsPeer{cfg: self.ClientTLS()}
	p.cfg.SessionTicketsDisabled = false // it keeps whatever ticket it gets
	p.cfg.ClientSessionCache = tls.NewLRUClientSessionCache(10)
	// It does not look who is there: its own list of revocations is not the test.
	p.cfg.VerifyConnection = func(s tls.ConnectionState) error { p.last = s; return nil }
	quic, err := quiclink.New(quiclink.Config{TLSServer: self.ServerTLS(), TLSClient: p.cfg})
	if err != nil {
		t.Fatal(err)
	}
	p.transport = map[string]link.Transport{"tcp": tcplink.Transport{ServerTLS: self.ServerTLS(), ClientTLS: p.cfg}, "quic": quic}
	return p
}

// hello makes a link, sends frames and a Hello, and returns the first answer.
func (p *tlsPeer) hello(t *testing.T, scheme string, to *Mesh, frames []byte, hello wire.Hello) (answer any, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var addr string
	for _, a := range to.Addrs() {
		if name, ok := strings.CutPrefix(a, scheme+"://"); ok {
			addr = name
		}
	}
	l, err := p.transport[scheme].Dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	control, err := l.Open(ctx)
	if err != nil {
		return nil, err
	}
	control.SetDeadline(time.Now().Add(30 * time.Second))
	hello.Protocol, hello.Epoch, hello.Nonce = wire.Protocol, 1, make([]byte, wire.NonceLen)
	frame, err := hello.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	control.Write(append(append([]byte(nil), frames...), frame...))
	typ, body, err := wire.ReadFrame(control, nil, wire.MaxFrame)
	if p.list = nil; err == nil && typ == wire.TypeRevoked { // comes first where somebody is revoked
		told, err := wire.ParseRevoked(body)
		if err != nil {
			return nil, err
		}
		p.list = told.List
	}
	if p.list != nil {
		typ, body, err = wire.ReadFrame(control, nil, wire.MaxFrame)
	}
	if err != nil {
		return nil, err
	}
	return wire.ParseControl(typ, body)
}

// A session ticket from before a revocation opens nothing after it: nodes give
// none, and where one did, it would be of no use.
func TestNoTicketOutlivesARevocation(t *testing.T) {
	t.Parallel()
	s := newSociety(t)
	ours, lax := s.self("ours", identity.Router), s.self("lax", identity.Router)
	withTickets := lax.ServerTLS()
	withTickets.SessionTicketsDisabled = false
	for name, tc := range map[string]struct {
		nodes   map[string]*Mesh
		resumes bool
	}{
		"as nodes are":        {s.tlsNode(ours, ours.ServerTLS()), false},
		"a node with tickets": {s.tlsNode(lax, withTickets), true},
	} {
		for _, scheme := range []string{"tcp", "quic"} {
			t.Run(name+", "+scheme, func(t *testing.T) {
				node := tc.nodes[scheme]
				eve := s.self("eve", identity.Router)
				p := newTLSPeer(t, eve)
				for try := 0; try < 2 || tc.resumes && !p.last.DidResume && try < 20; try++ { // a ticket of QUIC may come late
					if answer, err := p.hello(t, scheme, node, nil, wire.Hello{ID: "eve", Role: Router}); err != nil {
						t.Fatalf("before: %+v, %v", answer, err)
					}
				}
				if p.last.DidResume != tc.resumes {
					t.Errorf("a session is resumed: %t, want %t", p.last.DidResume, tc.resumes)
				}
				list, err := s.ca.Revoke("eve")
				if err != nil {
					t.Fatal(err)
				}
				if _, err := node.Revoke(list.Raw); err != nil {
					t.Fatal(err)
				}
				if answer, err := p.hello(t, scheme, node, nil, wire.Hello{ID: "eve", Role: Router}); err == nil {
					if refusal, ok := answer.(wire.GoAway); !ok || refusal.Code != wire.CodeForbidden {
						t.Errorf("after its revocation: %+v (resumed: %t)", answer, p.last.DidResume)
					}
				}
			})
		}
	}
}

// Links are TLS 1.3 with the hybrid key exchange, over TCP and over QUIC.
func TestLinksAreHybridTLS13(t *testing.T) {
	t.Parallel()
	s := newSociety(t)
	self := s.self("a", identity.Router)
	nodes := s.tlsNode(self, self.ServerTLS())
	p := newTLSPeer(t, s.self("b", identity.Router))
	for scheme, node := range nodes {
		if answer, err := p.hello(t, scheme, node, nil, wire.Hello{ID: "b", Role: Router}); err != nil {
			t.Fatalf("%s: %+v, %v", scheme, answer, err)
		}
		if p.last.Version != tls.VersionTLS13 || p.last.CurveID != tls.X25519MLKEM768 {
			t.Errorf("%s: version %s with %v", scheme, tls.VersionName(p.last.Version), p.last.CurveID)
		}
	}
	old := p.cfg.Clone()
	old.MaxVersion = tls.VersionTLS12
	p.transport["tcp"] = tcplink.Transport{ClientTLS: old}
	old.MinVersion = tls.VersionTLS12
	if answer, err := p.hello(t, "tcp", nodes["tcp"], nil, wire.Hello{ID: "b", Role: Router}); err == nil {
		t.Errorf("TLS 1.2: %+v", answer)
	}
	classic := p.cfg.Clone()
	classic.CurvePreferences = []tls.CurveID{tls.X25519}
	p.transport["tcp"] = tcplink.Transport{ClientTLS: classic}
	if answer, err := p.hello(t, "tcp", nodes["tcp"], nil, wire.Hello{ID: "b", Role: Router}); err != nil || p.last.CurveID != tls.X25519 {
		t.Errorf("one without the hybrid: %+v, %v", answer, err)
	}
}

// Who is revoked is told before a Hello and is heard before the Hello is
// judged: a list that names its own bringer shuts it out.
func TestRevocationsComeFirst(t *testing.T) {
	t.Parallel()
	s := newSociety(t)
	self := s.self("a", identity.Router)
	nodes := s.tlsNode(self, self.ServerTLS())
	bringer := newTLSPeer(t, s.self("bringer", identity.Router))
	other := newTLSPeer(t, s.self("other", identity.Router))
	if answer, err := bringer.hello(t, "tcp", nodes["tcp"], nil, wire.Hello{ID: "bringer", Role: Router}); err != nil {
		t.Fatalf("before: %+v, %v", answer, err)
	} else if _, ok := answer.(wire.Hello); !ok {
		t.Errorf("the first word of a node that has heard of no revocation: %+v", answer)
	}
	list, err := s.ca.Revoke("bringer")
	if err != nil {
		t.Fatal(err)
	}
	frame, err := wire.Revoked{List: list.Raw}.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := bringer.hello(t, "tcp", nodes["tcp"], frame, wire.Hello{ID: "bringer", Role: Router})
	if refusal, ok := answer.(wire.GoAway); err == nil && (!ok || refusal.Code != wire.CodeForbidden) {
		t.Errorf("who brings its own revocation: %+v", answer)
	}
	for scheme, node := range nodes {
		answer, err := other.hello(t, scheme, node, nil, wire.Hello{ID: "other", Role: Router})
		if string(other.list) != string(list.Raw) {
			t.Errorf("%s: the first word of a node that has a list: %+v, %v", scheme, answer, err)
		}
	}
}
