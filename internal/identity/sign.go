package identity

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/wire"
	"github.com/ranvier-mesh/ranvier/routing"
)

// What is signed begins with what it is: a signature for one purpose is none
// for another (docs/protocol.md section 8.3).
const (
	domainAdvert  = "ranvier advert 1"
	domainAttach  = "ranvier attach 1"
	domainRevoke  = "ranvier revocations 1"
	domainEndorse = "ranvier endorsement 1"
	domainJoin    = "ranvier join 1"
	domainRenew   = "ranvier renewal 1"
)

// ErrSignature is wrapped by the error of a signature that does not hold.
var ErrSignature = errors.New("the signature is wrong")

// signed returns the bytes that are signed: the domain and each part, with its
// length in front, so that no two lists of parts give the same bytes.
func signed(domain, mesh string, parts ...[]byte) []byte {
	n := 8 + len(domain) + len(mesh)
	for _, p := range parts {
		n += 4 + len(p)
	}
	out := make([]byte, 0, n)
	out = appendPart(out, []byte(domain))
	out = appendPart(out, []byte(mesh))
	for _, p := range parts {
		out = appendPart(out, p)
	}
	return out
}

func appendPart(dst, p []byte) []byte {
	return append(binary.BigEndian.AppendUint32(dst, uint32(len(p))), p...)
}

// attachParts is what a leaf signs: it may be said to be attached to this home,
// for as long as the home's epoch lasts.
func attachParts(leaf, home routing.NodeID, epoch uint64) [][]byte {
	return [][]byte{[]byte(leaf), []byte(home), binary.BigEndian.AppendUint64(nil, epoch)}
}

// Seal signs an advert of this node and sets its Raw. Errors are those of
// wire.EncodeAdvert.
func (s *Self) Seal(a *routing.Advert) error {
	body, err := wire.EncodeAdvert(a)
	if err != nil {
		return err
	}
	a.Raw, err = s.SealBody(body)
	return err
}

// SealBody returns the signed form of an advert's encoded body, whatever that says.
func (s *Self) SealBody(body []byte) ([]byte, error) {
	keyID := s.signKeyID
	return wire.Envelope{
		Body: body, Sig: ed25519.Sign(s.signKey, signed(domainAdvert, s.trust.mesh, body)), KeyID: keyID[:],
	}.Encode()
}

// SignAttach signs that this leaf is attached to a home.
func (s *Self) SignAttach(home routing.NodeID, epoch uint64) []byte {
	return ed25519.Sign(s.signKey, signed(domainAttach, s.trust.mesh, attachParts(s.ID, home, epoch)...))
}

// Cert returns the message that introduces the key of this node's signatures.
func (s *Self) Cert() wire.Cert {
	keyID := s.signKeyID
	return wire.Cert{Origin: s.ID, KeyID: keyID[:], Chain: s.Certificate().Certificate, Endorsement: s.endorsement}
}

// Signer is a member whose signatures can be checked.
type Signer struct {
	Member
	key   ed25519.PublicKey
	keyID KeyID // of key; that of the certificate unless that endorses another
	until time.Time
}

// SignKeyID is the id of the key that the signer signs with.
func (s *Signer) SignKeyID() KeyID { return s.keyID }

// Introduce verifies a Cert message. Its error is a reason to close the link
// that it came on, but for one that wraps ErrRevoked or is a *ClockError: the
// neighbour may not have heard of it yet.
func (t *Trust) Introduce(c wire.Cert) (*Signer, error) {
	m, err := t.VerifyRaw(c.Chain, AsSigner)
	if err != nil {
		return nil, err
	}
	if m.ID != c.Origin {
		return nil, fmt.Errorf("a certificate of node %s is shown for node %s", m.ID, c.Origin)
	}
	s := &Signer{Member: m, keyID: m.KeyID, until: m.NotAfter}
	var ok bool
	if len(c.Endorsement) > 0 {
		if s.key, s.until, err = t.endorsed(m, c.Endorsement); err != nil {
			return nil, fmt.Errorf("node %s: %w", m.ID, err)
		}
		if s.keyID, err = KeyIDOf(s.key); err != nil {
			return nil, err
		}
	} else if s.key, ok = m.Key.(ed25519.PublicKey); !ok {
		return nil, fmt.Errorf("node %s: its certificate's key is not ed25519 and endorses none", m.ID)
	}
	if !bytes.Equal(s.keyID[:], c.KeyID) {
		return nil, fmt.Errorf("node %s: the key id is not that of its key", m.ID)
	}
	return s, nil
}

// VerifyAdvert checks that a signer says what an advert says, as received, and
// that it may: only routers speak of routing, and of themselves. The error wraps
// ErrSignature where the signature is wrong.
func (t *Trust) VerifyAdvert(s *Signer, a *routing.Advert, e wire.Envelope) error {
	switch {
	case a.Origin != s.ID:
		return fmt.Errorf("advert of %s: it is signed with a key of node %s", a.Origin, s.ID)
	case s.Role != Router:
		return fmt.Errorf("advert of %s: its certificate is for a %s, and only routers advertise", a.Origin, s.Role)
	case !bytes.Equal(e.KeyID, s.keyID[:]):
		return fmt.Errorf("advert of %s: it is signed with a key that was not introduced", a.Origin)
	case !ed25519.Verify(s.key, signed(domainAdvert, t.mesh, e.Body), e.Sig):
		return fmt.Errorf("advert of %s, fragment %d: %w", a.Origin, a.Fragment, ErrSignature)
	}
	return nil
}

// VerifyAttach checks that a leaf lets a home say that it is attached there.
func (t *Trust) VerifyAttach(s *Signer, home routing.NodeID, epoch uint64, sig []byte) error {
	if s.Role == Client {
		return fmt.Errorf("leaf %s: its certificate is for a client", s.ID)
	}
	if !ed25519.Verify(s.key, signed(domainAttach, t.mesh, attachParts(s.ID, home, epoch)...), sig) {
		return fmt.Errorf("leaf %s at %s: %w", s.ID, home, ErrSignature)
	}
	return nil
}

// endorsement lets a certificate with another kind of key, as sites have from
// before, sign nothing but the ed25519 key that the node made for itself.
//
//	key  field      type   limits
//	 1   key        bytes  ed25519 public key, 32
//	 2   not after  uint   seconds since 1970
//	 3   signature  bytes  the certificate's key's: RSA-PSS with SHA-256
type endorsement struct {
	Key      []byte `cbor:"1,keyasint"`
	NotAfter int64  `cbor:"2,keyasint"`
	Sig      []byte `cbor:"3,keyasint"`
}

func (e endorsement) signed(mesh string, id routing.NodeID) []byte {
	return signed(domainEndorse, mesh, []byte(id), e.Key, binary.BigEndian.AppendUint64(nil, uint64(e.NotAfter)))
}

func pss() *rsa.PSSOptions {
	return &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256}
}

// Endorse signs a node-made key with the key of a site's RSA certificate.
func Endorse(site crypto.Signer, mesh string, id routing.NodeID, key ed25519.PublicKey, notAfter time.Time) ([]byte, error) {
	if _, ok := site.Public().(*rsa.PublicKey); !ok {
		return nil, fmt.Errorf("node %s: a %T cannot endorse: RSA is expected", id, site.Public())
	}
	e := endorsement{Key: key, NotAfter: notAfter.Unix()}
	sum := sha256.Sum256(e.signed(mesh, id))
	var err error
	if e.Sig, err = site.Sign(rand.Reader, sum[:], pss()); err != nil {
		return nil, fmt.Errorf("node %s: endorse its key: %w", id, err)
	}
	return marshal(e)
}

// endorsed returns the key that a member's certificate endorses.
func (t *Trust) endorsed(m Member, raw []byte) (ed25519.PublicKey, time.Time, error) {
	var e endorsement
	if err := wire.Unmarshal(raw, &e); err != nil {
		return nil, time.Time{}, fmt.Errorf("endorsement: %w", err)
	}
	key, ok := m.Key.(*rsa.PublicKey)
	until := time.Unix(e.NotAfter, 0)
	sum := sha256.Sum256(e.signed(t.mesh, m.ID))
	switch {
	case !ok:
		return nil, until, fmt.Errorf("endorsement: the certificate's key is a %T, RSA is expected", m.Key)
	case len(e.Key) != ed25519.PublicKeySize:
		return nil, until, fmt.Errorf("endorsement: a key of %d bytes, %d are expected", len(e.Key), ed25519.PublicKeySize)
	case t.clock.Now().After(until):
		return nil, until, &ClockError{What: "the endorsement", Now: t.clock.Now(), NotAfter: until}
	case rsa.VerifyPSS(key, crypto.SHA256, sum[:], e.Sig, pss()) != nil:
		return nil, until, fmt.Errorf("endorsement: %w", ErrSignature)
	}
	if until.After(m.NotAfter) {
		until = m.NotAfter
	}
	return ed25519.PublicKey(e.Key), until, nil
}
