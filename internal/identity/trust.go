package identity

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Usage is what a certificate is shown for.
type Usage uint8

// The usages.
const (
	AsServer Usage = iota + 1 // the end that was dialled
	AsClient                  // the end that dialled
	AsSigner                  // of an advert or an attachment: either will do
)

// Member is who a verified certificate is for.
type Member struct {
	Claims
	Key      crypto.PublicKey
	KeyID    KeyID
	NotAfter time.Time

	issuers []KeyID // of the chain that was verified, the root's last
}

// ErrRevoked is wrapped by the error of a certificate whose key was revoked.
var ErrRevoked = errors.New("its key was revoked")

// ErrOtherMesh is wrapped by the error of a certificate that another CA signed,
// or that is of another mesh.
var ErrOtherMesh = errors.New("it is not of this mesh")

// Trust is whom a node believes: the mesh's roots, what was revoked, and the
// time. It may be used from several goroutines.
type Trust struct {
	mesh  string
	clock *Clock

	mu      sync.RWMutex
	roots   []*x509.Certificate
	pool    *x509.CertPool
	revoked revocations
	issuers map[[32]byte]*issuer // of verified chains, by the sum of their DER; at most maxIssuers
	changed chan struct{}        // closed when roots or revocations change

	watcher atomic.Pointer[watcher]
}

const maxIssuers = 64

// issuer is one that all members have in common and that was verified: only
// the member's own certificate remains to be checked, and that once. All but signed is not changed.
type issuer struct {
	cert     *x509.Certificate
	pool     *x509.CertPool      // it alone
	way      []*x509.Certificate // from it to a root
	from, to time.Time           // when all of way holds
	signed   map[shown]struct{}  // what was seen to be signed by it and to be for that use; at most maxSigned; Trust.mu guards it
}

// shown is a certificate, by the sum of its DER, and what it is shown for.
type shown struct {
	sum [32]byte
	use Usage
}

const maxSigned = 1024

// NewTrust returns the trust in a mesh's roots.
func NewTrust(mesh string, roots []*x509.Certificate, clock *Clock) *Trust {
	t := &Trust{mesh: mesh, clock: clock, issuers: map[[32]byte]*issuer{}, changed: make(chan struct{})}
	t.setRoots(roots)
	return t
}

// Mesh returns the mesh's name.
func (t *Trust) Mesh() string { return t.mesh }

// Clock returns the clock that certificates are judged by.
func (t *Trust) Clock() *Clock { return t.clock }

// Changed returns a channel that is closed at the next change of what is
// trusted: who has verified somebody before then asks again (Still).
func (t *Trust) Changed() <-chan struct{} {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.changed
}

func (t *Trust) setRoots(roots []*x509.Certificate) {
	clear(t.issuers) // they may hang on a root that is gone
	t.roots, t.pool = roots, x509.NewCertPool()
	for _, r := range roots {
		t.pool.AddCert(r)
	}
}

func (t *Trust) signal() {
	close(t.changed)
	t.changed = make(chan struct{})
}

// Roots returns the certificates of the roots that are trusted.
func (t *Trust) Roots() []*x509.Certificate {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return slices.Clone(t.roots)
}

// VerifyRaw is Verify for a chain in DER.
func (t *Trust) VerifyRaw(ders [][]byte, use Usage) (Member, error) {
	if len(ders) == 0 || len(ders) > maxChain {
		return Member{}, fmt.Errorf("a chain of %d certificates, 1 to %d are allowed", len(ders), maxChain)
	}
	chain := make([]*x509.Certificate, len(ders))
	for i, der := range ders {
		c, err := t.parse(der, i > 0)
		if err != nil {
			return Member{}, err
		}
		chain[i] = c
	}
	return t.Verify(chain, use)
}

// parse parses a certificate; those of issuers, which all members have in
// common, once.
func (t *Trust) parse(der []byte, above bool) (*x509.Certificate, error) {
	if len(der) > maxCertLen {
		return nil, fmt.Errorf("a certificate of %d bytes, at most %d are allowed", len(der), maxCertLen)
	}
	if above {
		if known := t.issuer(der); known != nil {
			return known.cert, nil
		}
	}
	return x509.ParseCertificate(der)
}

func (t *Trust) issuer(der []byte) *issuer {
	sum := sha256.Sum256(der)
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.issuers[sum]
}

// remember keeps the issuer of a chain that was verified, and the way from it
// to a root, unless the roots have changed meanwhile.
func (t *Trust) remember(way []*x509.Certificate, pool *x509.CertPool) {
	if len(way) == 0 {
		return
	}
	k := &issuer{cert: way[0], pool: x509.NewCertPool(), way: way, from: way[0].NotBefore, to: way[0].NotAfter, signed: map[shown]struct{}{}}
	k.pool.AddCert(way[0])
	for _, c := range way[1:] {
		if c.NotBefore.After(k.from) {
			k.from = c.NotBefore
		}
		if c.NotAfter.Before(k.to) {
			k.to = c.NotAfter
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.pool != pool {
		return
	}
	if len(t.issuers) >= maxIssuers {
		clear(t.issuers)
	}
	t.issuers[sha256.Sum256(way[0].Raw)] = k
}

// Verify returns who a chain is for, the node's own certificate first: a member
// of this mesh, now, for this use, and not revoked. Errors wrap ErrRevoked,
// ErrOtherMesh or are a *ClockError where these are the reason.
func (t *Trust) Verify(chain []*x509.Certificate, use Usage) (Member, error) {
	if err := checkShape(chain); err != nil {
		return Member{}, err
	}
	claims, err := claimsOf(chain[0])
	if err != nil {
		return Member{}, err
	}
	if claims.Mesh != t.mesh {
		return Member{}, fmt.Errorf("the certificate of node %s: %w: it is of mesh %s, this is mesh %s", claims.ID, ErrOtherMesh, claims.Mesh, t.mesh)
	}
	verified, err := t.verifyChain(chain, use)
	if err != nil {
		return Member{}, fmt.Errorf("the certificate of node %s: %w", claims.ID, err)
	}
	m := Member{Claims: claims, Key: chain[0].PublicKey, KeyID: keyIDOfCert(chain[0]), NotAfter: chain[0].NotAfter}
	for _, c := range verified[1:] {
		m.issuers = append(m.issuers, keyIDOfCert(c))
	}
	if w := t.watcher.Load(); w != nil {
		w.member(m)
	}
	return m, nil
}

func checkShape(chain []*x509.Certificate) error {
	if len(chain) == 0 || len(chain) > maxChain {
		return fmt.Errorf("a chain of %d certificates, 1 to %d are allowed", len(chain), maxChain)
	}
	for _, c := range chain {
		if len(c.Raw) > maxCertLen {
			return fmt.Errorf("a certificate of %d bytes, at most %d are allowed", len(c.Raw), maxCertLen)
		}
	}
	leaf := chain[0]
	if life := leaf.NotAfter.Sub(leaf.NotBefore); life > MaxLife+2*skew {
		return fmt.Errorf("the certificate lives %v, at most %v is allowed", life, MaxLife)
	}
	if leaf.IsCA {
		return errors.New("the certificate is a CA's, not a node's")
	}
	return nil
}

// verifyChain returns the way to a root that holds now and has no revoked key.
func (t *Trust) verifyChain(chain []*x509.Certificate, use Usage) ([]*x509.Certificate, error) {
	t.mu.RLock()
	pool := t.pool
	t.mu.RUnlock()
	now, err := t.timeFor(chain[0])
	if err != nil {
		return nil, err
	}
	if way := t.verifyBelow(chain, use, now); way != nil {
		t.clock.Observe(chain[0].NotBefore)
		return way, nil
	}
	intermediates := x509.NewCertPool()
	for _, c := range chain[1:] {
		intermediates.AddCert(c)
	}
	ways, err := chain[0].Verify(x509.VerifyOptions{
		Roots: pool, Intermediates: intermediates, CurrentTime: now, KeyUsages: use.extended(),
	})
	if err != nil {
		return nil, explain(err)
	}
	for _, way := range ways {
		if err = t.checkRevoked(way); err == nil {
			t.remember(way[1:], pool)
			t.clock.Observe(chain[0].NotBefore)
			return way, nil
		}
	}
	return nil, err
}

// verifyBelow is verifyChain where the issuer is known. It returns nil where
// that does not do, for whatever reason.
func (t *Trust) verifyBelow(chain []*x509.Certificate, use Usage, now time.Time) []*x509.Certificate {
	if len(chain) < 2 {
		return nil
	}
	known := t.issuer(chain[1].Raw)
	if known == nil || now.Before(known.from) || now.After(known.to) {
		return nil
	}
	if !t.signedBy(known, chain[0], use, now) {
		return nil
	}
	way := append([]*x509.Certificate{chain[0]}, known.way...)
	if t.checkRevoked(way) != nil {
		return nil
	}
	return way
}

// signedBy verifies a member's certificate: its signature and use once, its time always.
func (t *Trust) signedBy(k *issuer, leaf *x509.Certificate, use Usage, now time.Time) bool {
	it := shown{sha256.Sum256(leaf.Raw), use}
	t.mu.RLock()
	_, seen := k.signed[it]
	t.mu.RUnlock()
	if seen {
		return !now.Before(leaf.NotBefore) && !now.After(leaf.NotAfter)
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: k.pool, CurrentTime: now, KeyUsages: use.extended()}); err != nil {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(k.signed) >= maxSigned {
		clear(k.signed)
	}
	k.signed[it] = struct{}{}
	return true
}

// maxSlow is how much a clock may be slow before what its CA signs just now
// counts as not yet valid.
const maxSlow = 24 * time.Hour

// timeFor is when a certificate is judged: now, unless the certificate is newer
// than what this node knew to have passed. Once its signature holds, that is time
// the CA has signed: the clock is a little slow, or known to be wrong.
func (t *Trust) timeFor(leaf *x509.Certificate) (time.Time, error) {
	now := t.clock.Now()
	ahead, allowed := leaf.NotBefore.Sub(now), maxSlow
	if t.clock.Behind() {
		allowed = MaxLife
	}
	switch {
	case now.After(leaf.NotAfter), ahead > allowed:
		return now, &ClockError{What: "the certificate", Now: now, NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter}
	case ahead > 0:
		return leaf.NotBefore, nil
	}
	return now, nil
}

func (u Usage) extended() []x509.ExtKeyUsage {
	switch u {
	case AsServer:
		return []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	case AsClient:
		return []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	}
	return []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
}

// explain says in our words what x509 found.
func explain(err error) error {
	var unknown x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &unknown):
		return fmt.Errorf("%w: no CA that this node trusts has signed it", ErrOtherMesh)
	case errors.As(err, &invalid) && invalid.Reason == x509.IncompatibleUsage:
		return fmt.Errorf("it is not for this use: %w", err)
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired && invalid.Cert.IsCA:
		return &ClockError{What: "the certificate of its CA", Now: invalid.Cert.NotAfter.Add(time.Second), NotBefore: invalid.Cert.NotBefore, NotAfter: invalid.Cert.NotAfter}
	}
	return err
}

// Still returns nil as long as a member that was verified before is one now.
func (t *Trust) Still(m Member) error {
	if now := t.clock.Now(); now.After(m.NotAfter) {
		return &ClockError{What: "the certificate of node " + string(m.ID), Now: now, NotAfter: m.NotAfter}
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	if t.revoked.has(m.KeyID) {
		return fmt.Errorf("node %s: %w", m.ID, ErrRevoked)
	}
	for i, k := range m.issuers {
		last := i == len(m.issuers)-1
		if t.revoked.has(k) || last && !slices.ContainsFunc(t.roots, func(r *x509.Certificate) bool { return keyIDOfCert(r) == k }) {
			return fmt.Errorf("node %s: its CA: %w", m.ID, ErrRevoked)
		}
	}
	return nil
}

func (t *Trust) checkRevoked(way []*x509.Certificate) error {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for i, c := range way {
		if t.revoked.has(keyIDOfCert(c)) {
			if i > 0 {
				return fmt.Errorf("its CA: %w", ErrRevoked)
			}
			return errKeyRevoked
		}
	}
	return nil
}

// AddRoots takes new roots into the trust, each of which a root that is trusted
// has to have signed (crosses, which chains carry while both are in use). It
// tells whether anything is new.
func (t *Trust) AddRoots(roots, crosses []*x509.Certificate) (bool, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	added := slices.Clone(t.roots)
	for _, r := range roots {
		if slices.ContainsFunc(added, r.Equal) || t.revoked.has(keyIDOfCert(r)) {
			continue
		}
		if err := t.vouched(r, crosses); err != nil {
			return false, err
		}
		added = append(added, r)
	}
	if len(added) == len(t.roots) {
		return false, nil
	}
	t.setRoots(added)
	t.signal()
	return true, nil
}

func (t *Trust) vouched(root *x509.Certificate, crosses []*x509.Certificate) error {
	if !root.IsCA || root.CheckSignatureFrom(root) != nil || !isCAOf(root, t.mesh) {
		return fmt.Errorf("a new root is not one of mesh %s", t.mesh)
	}
	for _, x := range crosses {
		if keyIDOfCert(x) != keyIDOfCert(root) {
			continue
		}
		for _, old := range t.roots {
			if x.CheckSignatureFrom(old) == nil {
				return nil
			}
		}
	}
	return fmt.Errorf("the new root %s is not signed by one that this node trusts", keyIDOfCert(root))
}

func isCAOf(c *x509.Certificate, mesh string) bool {
	return len(c.URIs) == 1 && c.URIs[0].Scheme == uriScheme && c.URIs[0].Host == mesh &&
		(c.URIs[0].Path == caPath || len(c.URIs[0].Path) > len(caPath) && c.URIs[0].Path[:len(caPath)+1] == caPath+"/")
}
