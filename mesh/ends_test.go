package mesh

import (
	"errors"
	"io"
	"testing"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/identity"
	"github.com/ranvier-mesh/ranvier/mesh/secure"
)

func TestStreamsBetweenMembers(t *testing.T) {
	t.Parallel()
	s := newSociety(t)
	hub := s.router("hub")
	far := s.router("far", hub)
	alice := s.node(s.self("alice", identity.Client), "alice/1", Ephemeral, hub)
	for _, m := range []*Mesh{alice, hub} {
		eventually(t, "far is reached", reaches(m, "far"))
	}
	open := func(from *Mesh) (near, back *Conn) {
		near, back = stream(t, &running{Mesh: from}, &running{Mesh: far})
		go near.Write([]byte("hello"))
		if _, err := io.ReadFull(back, make([]byte, 5)); err != nil {
			t.Fatal(err)
		}
		return near, back
	}
	near, back := open(alice)
	other, otherBack := open(hub)
	if back.PeerIdentity() != "alice/1" || back.member.ID != "alice" || near.member.ID != "far" {
		t.Errorf("at the ends are %s (%s) and %s", back.PeerIdentity(), back.member.ID, near.member.ID)
	}

	// far believes the hub whatever it says on the link, but not at the end of a stream.
	hub.ends.Certificate, alice.ends.Certificate = alice.ends.Certificate, hub.ends.Certificate
	var wrong *secure.PeerError
	eventually(t, "who shows another's certificate is refused", func() bool {
		l, err := hub.Listen("trap")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		_, err = far.Dial(t.Context(), "hub", "trap")
		return errors.As(err, &wrong) && wrong.Peer == "hub"
	})
	hub.ends.Certificate, alice.ends.Certificate = alice.ends.Certificate, hub.ends.Certificate

	list, err := s.ca.Revoke("alice")
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if newer, err := far.Revoke(list.Raw); !newer || err != nil {
		t.Fatal(err)
	}
	if _, err := back.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) || time.Since(start) > 5*time.Second {
		t.Errorf("a stream of who is revoked: %v after %v", err, time.Since(start))
	}
	for _, c := range []*Conn{near, back} {
		c.Close()
	}
	transfer(t, other, otherBack, randomBytes(10_000), nil) // of others it is not harmed
}
