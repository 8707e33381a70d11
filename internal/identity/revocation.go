package identity

import (
	"crypto/ed25519"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/wire"
)

const (
	// MaxRevocations is the longest signed list in bytes: it fits one frame.
	MaxRevocations = wire.MaxListLen
	// maxRevoked is how many keys a list can hold beside the longest chain.
	maxRevoked = 2000
	maxRetired = 16
)

// Revocations is a list of revoked keys as its CA signed it. A list replaces
// every one of a lower number as a whole.
type Revocations struct {
	Number uint64
	Issued time.Time
	Keys   []KeyID
	// Roots are the roots that are not in use any more.
	Roots []KeyID
	// Raw is the list as it travels.
	Raw []byte

	chain []*x509.Certificate
}

// signedList is what travels.
//
//	key  field      type     limits
//	 1   body       bytes    revocationBody, deterministic CBOR
//	 2   signature  bytes    ed25519, 64
//	 3   chain      [bytes]  the issuer's certificate, and what leads to a root
type signedList struct {
	Body  []byte   `cbor:"1,keyasint"`
	Sig   []byte   `cbor:"2,keyasint"`
	Chain [][]byte `cbor:"3,keyasint"`
}

// revocationBody is what is signed.
//
//	key  field    type     limits
//	 1   mesh     text
//	 2   number   uint     64 bits, at least 1
//	 3   issued   uint     seconds since 1970
//	 4   keys     [bytes]  key ids of 16 bytes, at most 2000
//	 5   retired  [bytes]  key ids of roots, at most 16
type revocationBody struct {
	Mesh    string   `cbor:"1,keyasint"`
	Number  uint64   `cbor:"2,keyasint"`
	Issued  int64    `cbor:"3,keyasint"`
	Keys    [][]byte `cbor:"4,keyasint,omitempty"`
	Retired [][]byte `cbor:"5,keyasint,omitempty"`
}

func signRevocations(key ed25519.PrivateKey, chain []*x509.Certificate, mesh string, r Revocations) (*Revocations, error) {
	if len(r.Keys) > maxRevoked || len(r.Roots) > maxRetired {
		return nil, fmt.Errorf("%d keys are revoked at a time, at most %d can be: roll the CA over", len(r.Keys), maxRevoked)
	}
	body, err := marshal(revocationBody{Mesh: mesh, Number: r.Number, Issued: r.Issued.Unix(), Keys: keyBytes(r.Keys), Retired: keyBytes(r.Roots)})
	if err != nil {
		return nil, err
	}
	r.Raw, err = marshal(signedList{Body: body, Sig: ed25519.Sign(key, signed(domainRevoke, mesh, body)), Chain: rawCerts(chain)})
	if err != nil {
		return nil, err
	}
	r.chain = chain
	return &r, nil
}

func keyBytes(ids []KeyID) [][]byte {
	out := make([][]byte, len(ids))
	for i := range ids {
		out[i] = ids[i][:]
	}
	return out
}

func keyIDs(raw [][]byte) ([]KeyID, error) {
	ids := make([]KeyID, len(raw))
	for i, b := range raw {
		if len(b) != len(KeyID{}) {
			return nil, fmt.Errorf("a key id of %d bytes, exactly %d are allowed", len(b), len(KeyID{}))
		}
		ids[i] = KeyID(b)
	}
	return ids, nil
}

// ParseRevocations decodes a signed list; its signature is not verified.
// Errors wrap wire.ErrMalformed.
func ParseRevocations(raw []byte) (*Revocations, error) {
	r, _, err := parseRevocations(raw)
	return r, err
}

func parseRevocations(raw []byte) (*Revocations, *signedList, error) {
	fail := func(err error) (*Revocations, *signedList, error) {
		return nil, nil, fmt.Errorf("%w: revocations: %w", wire.ErrMalformed, err)
	}
	if len(raw) > MaxRevocations {
		return fail(fmt.Errorf("%d bytes, at most %d are allowed", len(raw), MaxRevocations))
	}
	var s signedList
	if err := wire.Unmarshal(raw, &s); err != nil {
		return fail(err)
	}
	var b revocationBody
	if err := wire.Unmarshal(s.Body, &b); err != nil {
		return fail(err)
	}
	r := &Revocations{Number: b.Number, Issued: time.Unix(b.Issued, 0), Raw: raw}
	var err1, err2, err3 error
	r.Keys, err1 = keyIDs(b.Keys)
	r.Roots, err2 = keyIDs(b.Retired)
	r.chain, err3 = parseChain(s.Chain)
	switch {
	case err1 != nil || err2 != nil || err3 != nil:
		return fail(errors.Join(err1, err2, err3))
	case b.Number == 0 || len(b.Keys) > maxRevoked || len(b.Retired) > maxRetired || b.Issued < 0:
		return fail(errors.New("number, time or lengths are out of their limits"))
	case CheckMesh(b.Mesh) != nil:
		return fail(CheckMesh(b.Mesh))
	}
	return r, &s, nil
}

// revocations is the list that holds.
type revocations struct {
	list *Revocations // nil: none yet
	keys map[KeyID]struct{}
}

func (r revocations) has(k KeyID) bool {
	_, ok := r.keys[k]
	return ok
}

func (r revocations) hasAll(keys []KeyID) bool {
	return !slices.ContainsFunc(keys, func(k KeyID) bool { return !r.has(k) })
}

// Revocations returns the newest list that was verified, nil when there is none.
func (t *Trust) Revocations() *Revocations {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.revoked.list
}

// Revoke applies a signed list: it tells whether that is newer than what was
// known, so that it is kept and passed on. The error says why the list is not one of
// this mesh's CA; it wraps wire.ErrMalformed where it is none at all.
func (t *Trust) Revoke(raw []byte) (newer bool, err error) {
	return t.revoke(raw, t.clock.Now())
}

func (t *Trust) revoke(raw []byte, now time.Time) (bool, error) {
	r, s, err := parseRevocations(raw)
	if err != nil {
		return false, err
	}
	newer, ours, err := t.take(r, s, now)
	if err != nil {
		return false, fmt.Errorf("revocations, number %d: %w", r.Number, err)
	}
	if ours {
		t.tell(r)
	}
	return newer, nil
}

// take applies a list if it is newer than the one that holds; ours is that it was verified.
func (t *Trust) take(r *Revocations, s *signedList, now time.Time) (newer, ours bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	newer = t.revoked.list == nil || r.Number > t.revoked.list.Number
	if !newer && (t.watcher.Load() == nil || t.revoked.hasAll(r.Keys)) {
		return false, false, nil
	}
	if t.clock.Behind() && r.Issued.After(now) {
		now = r.Issued
	}
	way, err := t.verifyList(r, s, now)
	if err != nil {
		return false, false, err
	}
	if !newer {
		return false, true, nil
	}
	t.clock.Observe(r.Issued)
	t.revoked = revocations{list: r, keys: make(map[KeyID]struct{}, len(r.Keys))}
	for _, k := range r.Keys {
		t.revoked.keys[k] = struct{}{}
	}
	t.retire(r.Roots, way)
	t.signal()
	return true, true, nil
}

// verifyList returns the way from the list's signer to a root.
func (t *Trust) verifyList(r *Revocations, s *signedList, now time.Time) ([]*x509.Certificate, error) {
	signer := r.chain[0]
	key, ok := signer.PublicKey.(ed25519.PublicKey)
	switch {
	case r.Issued.After(now.Add(skew)):
		return nil, &ClockError{What: "the list", Now: now, NotBefore: r.Issued, NotAfter: r.Issued.Add(10 * 365 * 24 * time.Hour)}
	case !ok || !signer.IsCA || signer.KeyUsage&x509.KeyUsageCRLSign == 0 || !isCAOf(signer, t.mesh):
		return nil, errors.New("its signer is not a CA of this mesh")
	case !ed25519.Verify(key, signed(domainRevoke, t.mesh, s.Body), s.Sig):
		return nil, errors.New("the signature is wrong")
	}
	intermediates := x509.NewCertPool()
	for _, c := range r.chain[1:] {
		intermediates.AddCert(c)
	}
	ways, err := signer.Verify(x509.VerifyOptions{
		Roots: t.pool, Intermediates: intermediates, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		return nil, explain(err)
	}
	for _, way := range ways {
		if !t.anyRevoked(way) {
			return way, nil
		}
	}
	return nil, ErrRevoked
}

func (t *Trust) anyRevoked(way []*x509.Certificate) bool {
	for _, c := range way {
		if t.revoked.has(keyIDOfCert(c)) {
			return true
		}
	}
	return false
}

// retire drops roots, but never the one that the list itself stands on: nobody
// can be talked into trusting nobody.
func (t *Trust) retire(roots []KeyID, way []*x509.Certificate) {
	gone := map[KeyID]bool{}
	for _, k := range roots {
		gone[k] = k != keyIDOfCert(way[len(way)-1])
	}
	var kept []*x509.Certificate
	for _, r := range t.roots {
		if !gone[keyIDOfCert(r)] {
			kept = append(kept, r)
		}
	}
	t.setRoots(kept)
}
