package identity

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/wire"
	"github.com/ranvier-mesh/ranvier/routing"
)

const domainWork = "ranvier work 1"

// The times of a signature of work.
const (
	// WorkLife is how long one counts that SignWork makes.
	WorkLife = time.Hour
	// maxWorkLife is the longest that is taken.
	maxWorkLife = 24 * time.Hour
	// maxWorkSig is the largest, in bytes.
	maxWorkSig = 32 << 10
)

// WorkOrder is what a signature of work is about. It names one unit in one data
// directory of one node: for any other it does not hold, and that unit starts once.
type WorkOrder struct {
	Unit   string
	Node   routing.NodeID // that is to do it
	Store  string         // the incarnation of its data directory
	Type   string
	Params map[string]string
	Size   int64 // of the payload
	SHA256 [sha256.Size]byte
	Tree   []byte // SHA-256 of the tree's manifest; nil: there is none
}

// parts are what is signed, in their order (docs/protocol.md section 8.3).
func (o WorkOrder) parts(issuer routing.NodeID, from, to int64) [][]byte {
	hash := sha256.New()
	for _, key := range slices.Sorted(maps.Keys(o.Params)) {
		hash.Write(appendPart(appendPart(nil, []byte(key)), []byte(o.Params[key])))
	}
	num := func(v int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(v)) }
	return [][]byte{
		[]byte(issuer), []byte(o.Unit), []byte(o.Node), []byte(o.Store), []byte(o.Type), hash.Sum(nil),
		num(o.Size), o.SHA256[:], o.Tree, num(from), num(to),
	}
}

// workSignature is what travels.
//
//	key  field       type   limits
//	 1   not before  uint   seconds since 1970
//	 2   not after   uint   at most a day later
//	 3   signer      Cert   who signs (section 8.3)
//	 4   signature   bytes  64
type workSignature struct {
	NotBefore int64     `cbor:"1,keyasint"`
	NotAfter  int64     `cbor:"2,keyasint"`
	Signer    wire.Cert `cbor:"3,keyasint"`
	Sig       []byte    `cbor:"4,keyasint"`
}

// SignWork signs for WorkLife that this member wants a unit done.
func (s *Self) SignWork(o WorkOrder) ([]byte, error) {
	now := s.trust.clock.Now()
	w := workSignature{NotBefore: now.Unix(), NotAfter: now.Add(WorkLife).Unix(), Signer: s.Cert()}
	w.Sig = ed25519.Sign(s.signKey, signed(domainWork, s.trust.mesh, o.parts(s.ID, w.NotBefore, w.NotAfter)...))
	return marshal(w)
}

// VerifyWork checks a signature of work and tells who made it. early is how far
// its issuer's clock is ahead of this node's, which is tolerated up to some
// minutes. The error wraps ErrSignature where it was made for something else, is a
// *ClockError out of its time, or is Introduce's.
func (t *Trust) VerifyWork(raw []byte, o WorkOrder) (_ *Signer, early time.Duration, err error) {
	if len(raw) > maxWorkSig {
		return nil, 0, fmt.Errorf("a signature of work of %d bytes, at most %d are allowed", len(raw), maxWorkSig)
	}
	var w workSignature
	if err := wire.Unmarshal(raw, &w); err != nil {
		return nil, 0, fmt.Errorf("signature of work: %w", err)
	}
	signer, err := t.Introduce(w.Signer)
	if err != nil {
		return nil, 0, fmt.Errorf("signature of work: %w", err)
	}
	if !ed25519.Verify(signer.key, signed(domainWork, t.mesh, o.parts(signer.ID, w.NotBefore, w.NotAfter)...), w.Sig) {
		return nil, 0, fmt.Errorf("%w: %s has signed nothing like unit %s of node %s", ErrSignature, signer.ID, o.Unit, o.Node)
	}
	now, from, to := t.clock.Now(), time.Unix(w.NotBefore, 0), time.Unix(w.NotAfter, 0)
	switch {
	case to.Sub(from) > maxWorkLife || to.Before(from):
		return nil, 0, fmt.Errorf("signature of work by %s: it is for %v, at most %v are allowed", signer.ID, to.Sub(from), maxWorkLife)
	case now.Before(from.Add(-skew)), now.After(to.Add(skew)):
		return nil, 0, &ClockError{What: fmt.Sprintf("the signature of work by %s", signer.ID), Now: now, NotBefore: from, NotAfter: to}
	}
	return signer, max(0, from.Sub(now)), nil
}
