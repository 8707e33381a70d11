package identity

import (
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ranvier-mesh/ranvier/routing"
)

// The files of an identity's directory.
const (
	keyFile     = "node.key"      // PKCS#8, ed25519; mode 0600
	certFile    = "node.crt"      // the node's certificate and what leads to a root
	trustFile   = "trust.crt"     // the roots
	revokedFile = "revoked"       // the newest signed list
	infoFile    = "identity.json" // the mesh, the CA, the time that is known to have passed
)

// Self is what a node is: its key and its certificate. Its methods may be
// called from several goroutines.
type Self struct {
	Claims
	// CA is the node that issues and renews certificates.
	CA routing.NodeID

	dir         string // empty: in memory only
	key         ed25519.PrivateKey
	trust       *Trust
	cert        atomic.Pointer[tls.Certificate]
	signKey     ed25519.PrivateKey // that adverts are signed with
	signKeyID   KeyID
	endorsement []byte

	mu sync.Mutex // of the files
}

// info is the file identity.json.
type info struct {
	Mesh   string         `json:"mesh"`
	ID     routing.NodeID `json:"id"`
	CA     routing.NodeID `json:"ca"`
	Passed time.Time      `json:"passed"` // a time that has passed
}

// ErrNone is wrapped by Load's error where the directory holds no identity.
var ErrNone = errors.New("there is no identity")

// Load reads the identity in dir. system is the host's clock, nil for
// time.Now. The error names the file; it wraps ErrNone where there is no
// identity, and is a *ClockError where the certificate is out of its time.
func Load(dir string, system func() time.Time) (*Self, error) {
	text, err := os.ReadFile(filepath.Join(dir, infoFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w in %s: make one with `ranvier ca init` or `ranvier join`", ErrNone, dir)
	}
	if err != nil {
		return nil, fmt.Errorf("read the node's identity: %w", err)
	}
	var in info
	if err := json.Unmarshal(text, &in); err != nil {
		return nil, fmt.Errorf("read the node's identity: %s: %w", filepath.Join(dir, infoFile), err)
	}
	key, err := readKey(filepath.Join(dir, keyFile))
	if err != nil {
		return nil, fmt.Errorf("read the node's key: %w", err)
	}
	chain, err := readCerts(filepath.Join(dir, certFile))
	if err != nil {
		return nil, fmt.Errorf("read the node's certificate: %w", err)
	}
	roots, err := readCerts(filepath.Join(dir, trustFile))
	if err != nil {
		return nil, fmt.Errorf("read the mesh's roots: %w", err)
	}
	clock := NewClock(system, in.Passed)
	clock.Observe(chain[0].NotBefore)
	trust := NewTrust(in.Mesh, roots, clock)
	if err := trust.loadRevocations(filepath.Join(dir, revokedFile)); err != nil {
		return nil, err
	}
	s, err := newSelf(key, chain, trust)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, certFile), err)
	}
	s.dir, s.CA = dir, in.CA
	return s, nil
}

// loadRevocations applies the list that was kept, by the time at which it was
// signed: that its CA's certificate has ended since revives nobody.
func (t *Trust) loadRevocations(file string) error {
	raw, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read who is revoked: %w", err)
	}
	r, err := ParseRevocations(raw)
	if err == nil {
		_, err = t.revoke(raw, r.Issued)
	}
	if err != nil {
		return fmt.Errorf("read who is revoked: %s: %w", file, err)
	}
	return nil
}

// newSelf checks that the certificate is the key's, holds now, and makes a Self.
func newSelf(key ed25519.PrivateKey, chain []*x509.Certificate, trust *Trust) (*Self, error) {
	s := &Self{key: key, trust: trust, signKey: key}
	m, err := s.accept(chain)
	if err != nil {
		return nil, err
	}
	s.Claims, s.signKeyID = m.Claims, m.KeyID
	return s, nil
}

func (s *Self) accept(chain []*x509.Certificate) (Member, error) {
	if public, ok := chain[0].PublicKey.(ed25519.PublicKey); !ok || !public.Equal(s.key.Public()) {
		return Member{}, errors.New("the certificate is not that of the node's key")
	}
	m, err := s.trust.Verify(chain, AsSigner)
	if late := (*ClockError)(nil); errors.As(err, &late) {
		late.What, late.Own = "this node's own certificate", true
		return Member{}, late
	}
	if err != nil {
		return Member{}, cutOff(err, chain[0])
	}
	if s.ID != "" && m.ID != s.ID {
		return Member{}, fmt.Errorf("the certificate is for node %s, this node is %s", m.ID, s.ID)
	}
	s.cert.Store(&tls.Certificate{Certificate: rawCerts(chain), PrivateKey: s.key, Leaf: chain[0]})
	return m, nil
}

// Trust returns whom the node believes.
func (s *Self) Trust() *Trust { return s.trust }

// Certificate returns the node's certificate as it is now.
func (s *Self) Certificate() *tls.Certificate { return s.cert.Load() }

// KeyID is the id of the node's key.
func (s *Self) KeyID() KeyID { return keyIDOfCert(s.Certificate().Leaf) }

// RenewAt is when the certificate should be renewed: at half its life.
func (s *Self) RenewAt() time.Time {
	leaf := s.Certificate().Leaf
	return leaf.NotBefore.Add(leaf.NotAfter.Sub(leaf.NotBefore) / 2)
}

// Renewed takes what the CA has granted and keeps it on disk: the certificate,
// the roots, who is revoked. It is refused where it is not for this node's key
// and id, or changes what the node may do: nobody is talked into another role.
func (s *Self) Renewed(g *Grant) error {
	chain, err := parseChain(g.Chain)
	if err != nil {
		return fmt.Errorf("renewal: %w", err)
	}
	roots, err := parseRoots(g.Roots)
	if err != nil {
		return fmt.Errorf("renewal: %w", err)
	}
	claims, err := claimsOf(chain[0])
	if err != nil {
		return fmt.Errorf("renewal: %w", err)
	}
	if claims.ID != s.ID || claims.Role != s.Role {
		return fmt.Errorf("renewal: it is for the %s %s, this is the %s %s", claims.Role, claims.ID, s.Role, s.ID)
	}
	if _, err := s.trust.AddRoots(roots, chain[1:]); err != nil {
		return fmt.Errorf("renewal: %w", err)
	}
	if len(g.Revocations) > 0 {
		if _, err := s.trust.Revoke(g.Revocations); err != nil {
			return fmt.Errorf("renewal: %w", err)
		}
	}
	if _, err := s.accept(chain); err != nil {
		return fmt.Errorf("renewal: %w", err)
	}
	return s.Save()
}

func parseRoots(ders [][]byte) ([]*x509.Certificate, error) {
	if len(ders) > maxRetired {
		return nil, fmt.Errorf("%d roots, at most %d are allowed", len(ders), maxRetired)
	}
	roots := make([]*x509.Certificate, len(ders))
	for i, der := range ders {
		if len(der) > maxCertLen {
			return nil, fmt.Errorf("a root of %d bytes, at most %d are allowed", len(der), maxCertLen)
		}
		var err error
		if roots[i], err = x509.ParseCertificate(der); err != nil {
			return nil, err
		}
	}
	return roots, nil
}

// Reload reads the certificate and the roots from disk again.
func (s *Self) Reload() error {
	if s.dir == "" {
		return nil
	}
	fresh, err := Load(s.dir, s.trust.clock.system)
	if err != nil {
		return err
	}
	if fresh.ID != s.ID || fresh.Role != s.Role || fresh.Mesh != s.Mesh || !fresh.key.Equal(s.key) {
		return fmt.Errorf("the identity in %s is another one now: restart the node", s.dir)
	}
	if list := fresh.trust.Revocations(); list != nil {
		if _, err := s.trust.Revoke(list.Raw); err != nil {
			return err
		}
	}
	s.trust.mu.Lock()
	s.trust.setRoots(fresh.trust.roots)
	s.trust.signal()
	s.trust.mu.Unlock()
	s.cert.Store(fresh.Certificate())
	return nil
}

// Save keeps the identity on disk, the key first and what names it last, so
// that a directory with identity.json is whole.
func (s *Self) Save() error {
	if s.dir == "" {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	key, err := encodeKey(s.key)
	if err != nil {
		return err
	}
	text, err := json.MarshalIndent(info{Mesh: s.Mesh, ID: s.ID, CA: s.CA, Passed: s.trust.clock.Floor().UTC()}, "", "  ")
	if err != nil {
		return err
	}
	files := []struct {
		name string
		data []byte
		mode fs.FileMode
	}{
		{keyFile, key, 0o600},
		{certFile, encodeCerts(s.Certificate().Certificate...), 0o644},
		{trustFile, encodeCerts(rawCerts(s.trust.Roots())...), 0o644},
		{infoFile, append(text, '\n'), 0o644},
	}
	if err := s.saveRevocations(); err != nil {
		return err
	}
	for _, f := range files {
		if err := writeFile(filepath.Join(s.dir, f.name), f.data, f.mode); err != nil {
			return fmt.Errorf("keep the node's identity: %w", err)
		}
	}
	return nil
}

// SaveRevocations keeps the newest list on disk.
func (s *Self) SaveRevocations() error {
	if s.dir == "" {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.saveRevocations()
}

func (s *Self) saveRevocations() error {
	list := s.trust.Revocations()
	if list == nil {
		return nil
	}
	if err := writeFile(filepath.Join(s.dir, revokedFile), list.Raw, 0o644); err != nil {
		return fmt.Errorf("keep who is revoked: %w", err)
	}
	return nil
}
