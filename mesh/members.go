package mesh

import (
	"errors"
	"fmt"
	"sync"

	"github.com/ranvier-mesh/ranvier/internal/identity"
	"github.com/ranvier-mesh/ranvier/internal/wire"
	"github.com/ranvier-mesh/ranvier/mesh/link"
	"github.com/ranvier-mesh/ranvier/routing"
)

const (
	// maxMembers bounds the certificates that are kept. The CA bounds how many
	// there are: a stranger cannot make one.
	maxMembers = 1 << 16
	// maxFaults is how many certificates and adverts that do not hold a
	// neighbour may send in a minute: a few can be of nodes of whose end it has
	// not heard.
	maxFaults = 256
)

// members are the keys that adverts are checked with (docs/protocol.md
// section 8.3).
type members struct {
	self *identity.Self

	mu    sync.Mutex
	byKey map[identity.KeyID]*introduced
	byID  map[routing.NodeID]*introduced // the one whose certificate ends last
}

// introduced is a member whose certificate was checked. It is not changed.
type introduced struct {
	signer *identity.Signer
	frame  []byte // its Cert message
}

func newMembers(self *identity.Self) (*members, error) {
	s := &members{self: self, byKey: map[identity.KeyID]*introduced{}, byID: map[routing.NodeID]*introduced{}}
	_, _, err := s.introduce(self.Cert())
	return s, err
}

// introduce checks a certificate. newer tells that it was not known, or ends
// later than what was known of its key.
func (s *members) introduce(c wire.Cert) (in *introduced, newer bool, err error) {
	frame, err := c.Append(nil)
	if err != nil {
		return nil, false, err
	}
	if len(c.KeyID) == len(identity.KeyID{}) {
		if known := s.key(identity.KeyID(c.KeyID)); known != nil && string(known.frame) == string(frame) {
			return known, false, s.self.Trust().Still(known.signer.Member)
		}
	}
	signer, err := s.self.Trust().Introduce(c)
	if err != nil {
		return nil, false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	key := signer.SignKeyID()
	if known := s.byKey[key]; known != nil && !signer.NotAfter.After(known.signer.NotAfter) {
		return known, false, nil
	}
	if len(s.byKey) >= maxMembers {
		s.forgetEnded()
	}
	if len(s.byKey) >= maxMembers {
		return nil, false, fmt.Errorf("node %s: more than %d members are known", signer.ID, maxMembers)
	}
	in = &introduced{signer: signer, frame: frame}
	s.byKey[key] = in
	if known := s.byID[signer.ID]; known == nil || signer.NotAfter.After(known.signer.NotAfter) {
		s.byID[signer.ID] = in
	}
	return in, true, nil
}

// forgetRevoked takes out who is revoked, so that an id is its next owner's alone.
func (s *members) forgetRevoked() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, in := range s.byKey {
		if errors.Is(s.self.Trust().Still(in.signer.Member), identity.ErrRevoked) {
			s.forget(k, in)
		}
	}
}

// forget takes out one key. The caller holds mu.
func (s *members) forget(k identity.KeyID, in *introduced) {
	delete(s.byKey, k)
	if s.byID[in.signer.ID] == in {
		delete(s.byID, in.signer.ID)
	}
}

// forgetEnded makes room. The caller holds mu.
func (s *members) forgetEnded() {
	for k, in := range s.byKey {
		if s.self.Trust().Still(in.signer.Member) != nil {
			s.forget(k, in)
		}
	}
}

func (s *members) key(k identity.KeyID) *introduced {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.byKey[k]
}

func (s *members) id(id routing.NodeID) *introduced {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.byID[id]
}

// of returns the members whose keys an advert's signatures are of.
func (s *members) of(a *routing.Advert) []*introduced {
	var all []*introduced
	if e, err := wire.ParseEnvelope(a.Raw); err == nil && len(e.KeyID) == len(identity.KeyID{}) {
		if in := s.key(identity.KeyID(e.KeyID)); in != nil {
			all = append(all, in)
		}
	}
	for _, l := range a.Leaves {
		if in := s.id(l.Leaf); in != nil {
			all = append(all, in)
		}
	}
	return all
}

// errDrop is wrapped by the error of an advert that is of no use and yet not
// the fault of who passed it on.
var errDrop = errors.New("dropped")

// verify checks an advert, and takes out of it the leaves that have not
// signed. An error that does not wrap errDrop is the neighbour's fault: it
// should have checked as well.
func (s *members) verify(a *routing.Advert, e wire.Envelope) error {
	if len(e.KeyID) != len(identity.KeyID{}) {
		return fmt.Errorf("advert of %s is not signed", a.Origin)
	}
	in := s.key(identity.KeyID(e.KeyID))
	if in == nil {
		return fmt.Errorf("%w: the key of the advert of %s was not introduced", errDrop, a.Origin)
	}
	trust := s.self.Trust()
	if err := trust.Still(in.signer.Member); err != nil {
		return fmt.Errorf("%w: advert of %s: %w", errDrop, a.Origin, err)
	}
	if err := trust.VerifyAdvert(in.signer, a, e); err != nil {
		return err
	}
	signed := a.Leaves[:0]
	for _, l := range a.Leaves {
		leaf := s.id(l.Leaf)
		if leaf != nil && trust.Still(leaf.signer.Member) == nil && trust.VerifyAttach(leaf.signer, a.Origin, a.Epoch, l.Sig) == nil {
			signed = append(signed, l)
		}
	}
	a.Leaves = signed
	return nil
}

// attachAnew lets the leaves of this home come again, since what they have
// signed is of an epoch that is over.
func (m *Mesh) attachAnew() {
	if m.members == nil {
		return
	}
	for _, n := range m.allNeighbours() {
		if n.hello.Role == Leaf {
			n.push(wire.GoAway{Code: wire.CodeShutdown, Node: m.cfg.ID, Reason: "the epoch has changed: attach again"})
		}
	}
}

// identify finds out who is at the other end of a link, and that this is who
// may say such a Hello.
func (m *Mesh) identify(l link.Link, hello wire.Hello, admit wanted, dialled bool) (identity.Member, error) {
	secured, ok := l.(link.Authenticated)
	switch {
	case m.members != nil:
	case ok && admit.check != nil:
		return identity.Member{}, admit.check(hello.ID, secured.PeerCertificates())
	default:
		return identity.Member{}, nil
	}
	if !ok {
		return identity.Member{}, errors.New("the link has no TLS, and this node has an identity")
	}
	chain := secured.PeerCertificates()
	member, err := m.members.self.Trust().Peer(chain, dialled)
	if err != nil {
		return member, err
	}
	if err := member.MayBe(hello.ID, hello.Role); err != nil {
		return member, err
	}
	ders := make([][]byte, len(chain))
	for i, c := range chain {
		ders[i] = c.Raw
	}
	if hello.Role != Ephemeral {
		// Its adverts, or this node's of it as a leaf, are checked with this key.
		if _, _, err := m.members.introduce(wire.Cert{Origin: member.ID, KeyID: member.KeyID[:], Chain: ders}); err != nil {
			return member, err
		}
	}
	return member, nil
}
