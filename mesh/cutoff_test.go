package mesh

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/ranvier-mesh/ranvier/internal/identity"
	"github.com/ranvier-mesh/ranvier/internal/wire"
	"github.com/ranvier-mesh/ranvier/routing"
)

// lines is a log that is read while it is written.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) has(what string) func() bool {
	return func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return strings.Contains(l.text.String(), what)
	}
}

const noMember = "is no member of mesh"

// Who is revoked learns that from the CA's list, wherever it is told, logs it, and
// ends what it has at once: it does not look for another way.
func TestARevokedNodeIsTold(t *testing.T) {
	t.Parallel()
	s := newSociety(t)
	a := s.router("a")
	log := &lines{}
	self := s.self("alice", identity.Client)
	alice, _ := s.start(Config{
		ID: "alice/1", Role: Ephemeral, Epoch: 1, Self: self, Transports: over(self),
		Peers: []PeerConfig{{Address: a.Addrs()[0]}}, Log: slog.New(slog.NewTextHandler(log, nil)),
	})
	l, err := a.Listen("svc")
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "alice reaches a", reaches(alice, "a"))
	conn, err := alice.Dial(t.Context(), "a", "svc")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	list, err := s.ca.Revoke("alice")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Revoke(list.Raw); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("the stream of who is revoked: %v", err)
	}
	eventually(t, "alice has said why", log.has(noMember))
	var cut *identity.CutOffError
	if _, err := alice.Dial(t.Context(), "a", "svc"); !errors.As(err, &cut) {
		t.Errorf("another stream: %v", err)
	}
	if _, _, err := alice.Ping(t.Context(), "a"); !errors.As(err, &cut) {
		t.Errorf("a ping: %v", err)
	}
	l.Close()
}

// Who was away when it was revoked hears of it when it comes back, and is heard
// no further than its certificate.
func TestARevokedNodeComesBack(t *testing.T) {
	t.Parallel()
	s := newSociety(t)
	a := s.router("a")
	for _, role := range []identity.Role{identity.Router, identity.Client} {
		bad := s.self(routing.NodeID("bad-"+string(role)), role)
		list, err := s.ca.Revoke(bad.ID)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.Revoke(list.Raw); err != nil {
			t.Fatal(err)
		}
		cfg := Config{ID: bad.ID, Epoch: 1, Self: bad, Transports: over(bad), Peers: []PeerConfig{{Address: a.Addrs()[0]}}}
		if role == identity.Client {
			cfg.ID += "/1"
		}
		m, err := Attach(t.Context(), cfg)
		if m != nil {
			m.Close()
		}
		var cut *identity.CutOffError
		if !errors.As(err, &cut) || !strings.Contains(err.Error(), noMember) {
			t.Errorf("a %s that was revoked is told: %v", role, err)
		}
		// It was told with the CA's list, and keeps that.
		if _, err := Attach(t.Context(), cfg); !errors.As(err, &cut) {
			t.Errorf("a %s that was revoked, the next time: %v", role, err)
		}
	}
	p := newTLSPeer(t, s.self("eve", identity.Router))
	list, err := s.ca.Revoke("eve")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Revoke(list.Raw); err != nil {
		t.Fatal(err)
	}
	answer, err := p.hello(t, "tcp", a, nil, wire.Hello{ID: "eve", Role: Router})
	if refusal, ok := answer.(wire.GoAway); !ok || refusal.Code != wire.CodeForbidden || !strings.Contains(refusal.Reason, "revoked") {
		t.Errorf("the answer to a Hello: %+v, %v", answer, err)
	}
	if n := a.neighbour("eve"); n != nil {
		t.Error("it has a link")
	}
}
