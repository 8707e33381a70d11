package identity

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/ranvier-mesh/ranvier/routing"
)

// CA issues the certificates of a mesh. It works on a directory, which it
// shares with other processes. Its methods may be called from several
// goroutines.
type CA struct {
	dir   string
	mesh  string
	node  routing.NodeID
	clock *Clock
	mu    sync.Mutex // one user of the directory in this process
	met   sync.Map   // KeyID of members whom Readmit was asked for

	scrypt int // see seal; tests spend less
}

// The files of a CA's directory beside its state. A process that serves a CA
// watches the exported ones.
const (
	rootKeyFile     = "root.key"    // PKCS#8, or the same encrypted with a passphrase (age)
	rootsFile       = "roots.crt"   // the roots in use, the newest first
	issuerKeyFile   = "issuer.key"  // PKCS#8
	IssuerFile      = "issuer.crt"  // the issuer's certificate, and old roots' signatures of the root
	RevocationsFile = "revocations" // the newest signed list
)

const (
	rootLife   = 20 * 365 * 24 * time.Hour
	issuerLife = 2 * 365 * 24 * time.Hour
)

// CAOptions are what InitCA may be told.
type CAOptions struct {
	// Passphrase encrypts the root's key where it is not empty.
	Passphrase string
	// Addresses are where the node listens, host:port: tokens carry them.
	Addresses []string
	// Now is the host's clock; nil: time.Now.
	Now func() time.Time
}

// InitCA makes a CA for a mesh in dir, which must not have one: a root, and an
// issuer on a node.
func InitCA(dir, mesh string, node routing.NodeID, opt CAOptions) (*CA, error) {
	if err := (Claims{Mesh: mesh, ID: node, Role: Router}).check(); err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(dir, stateFile)); err == nil {
		return nil, fmt.Errorf("%s has a CA already", dir)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	c := &CA{dir: dir, mesh: mesh, node: node, clock: NewClock(opt.Now, time.Time{})}
	err := c.locked(func() error {
		root, rootKey, err := c.newRoot()
		if err != nil {
			return err
		}
		if err := c.writeRootKey(rootKey, opt.Passphrase); err != nil {
			return err
		}
		if err := writeFile(filepath.Join(dir, rootsFile), encodeCerts(root.Raw), 0o644); err != nil {
			return err
		}
		if err := c.newIssuer(root, rootKey, nil); err != nil {
			return err
		}
		return c.writeState(&caState{Mesh: mesh, Node: node, Addresses: opt.Addresses, Members: map[routing.NodeID]*member{}, Tokens: map[string]*grantable{}})
	})
	if err != nil {
		return nil, fmt.Errorf("make the CA: %w", err)
	}
	return c, nil
}

// OpenCA opens the CA in dir; now nil is time.Now.
func OpenCA(dir string, now func() time.Time) (*CA, error) {
	if _, err := os.Stat(filepath.Join(dir, stateFile)); err != nil {
		return nil, fmt.Errorf("there is no CA in %s: make one with `ranvier ca init --mesh NAME`", dir)
	}
	c := &CA{dir: dir, clock: NewClock(now, time.Time{})}
	err := c.view(func(s *caState) error {
		c.mesh, c.node = s.Mesh, s.Node
		return nil
	})
	if err != nil {
		return nil, err
	}
	chain, _, err := c.issuer()
	if err != nil {
		return nil, err
	}
	c.clock.Observe(chain[0].NotBefore)
	return c, nil
}

// Dir returns the CA's directory.
func (c *CA) Dir() string { return c.dir }

// Mesh returns the mesh's name.
func (c *CA) Mesh() string { return c.mesh }

// Node returns the node that the CA is on.
func (c *CA) Node() routing.NodeID { return c.node }

// Issuer returns the issuer's certificate: when it ends, everybody's does.
func (c *CA) Issuer() (*x509.Certificate, error) {
	chain, _, err := c.issuer()
	if err != nil {
		return nil, err
	}
	return chain[0], nil
}

func serial() (*big.Int, error) { return rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 126)) }

func (c *CA) authority(name string, uri *url.URL, life time.Duration) (*x509.Certificate, error) {
	n, err := serial()
	if err != nil {
		return nil, err
	}
	now := c.clock.Now()
	return &x509.Certificate{
		SerialNumber: n, Subject: pkix.Name{CommonName: name, Organization: []string{c.mesh}},
		NotBefore: now.Add(-skew), NotAfter: now.Add(life), URIs: []*url.URL{uri},
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true, IsCA: true,
	}, nil
}

func create(template, parent *x509.Certificate, public crypto.PublicKey, key crypto.Signer) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

func (c *CA) newRoot() (*x509.Certificate, ed25519.PrivateKey, error) {
	key, err := NewKey()
	if err != nil {
		return nil, nil, err
	}
	id, err := KeyIDOf(key.Public())
	if err != nil {
		return nil, nil, err
	}
	// The name has the key's id: after a rollover there are two.
	t, err := c.authority(fmt.Sprintf("%s root %.8s", c.mesh, id), caURI(c.mesh, ""), rootLife)
	if err != nil {
		return nil, nil, err
	}
	t.MaxPathLen = 2
	root, err := create(t, t, key.Public(), key)
	return root, key, err
}

// newIssuer makes the issuer's key and certificate. crosses are other roots'
// signatures of the root, which its chains carry.
func (c *CA) newIssuer(root *x509.Certificate, rootKey ed25519.PrivateKey, crosses []*x509.Certificate) error {
	key, err := NewKey()
	if err != nil {
		return err
	}
	id, err := KeyIDOf(key.Public())
	if err != nil {
		return err
	}
	t, err := c.authority(fmt.Sprintf("%s issuer %.8s", c.mesh, id), caURI(c.mesh, c.node), issuerLife)
	if err != nil {
		return err
	}
	t.MaxPathLenZero = true
	if t.NotAfter.After(root.NotAfter) {
		t.NotAfter = root.NotAfter
	}
	cert, err := create(t, root, key.Public(), rootKey)
	if err != nil {
		return err
	}
	text, err := encodeKey(key)
	if err != nil {
		return err
	}
	if err := writeFile(filepath.Join(c.dir, issuerKeyFile), text, 0o600); err != nil {
		return err
	}
	return writeFile(filepath.Join(c.dir, IssuerFile), encodeCerts(append([][]byte{cert.Raw}, rawCerts(crosses)...)...), 0o644)
}

// issuer returns the issuer's chain without the root, and its key.
func (c *CA) issuer() ([]*x509.Certificate, ed25519.PrivateKey, error) {
	chain, err := readCerts(filepath.Join(c.dir, IssuerFile))
	if err != nil {
		return nil, nil, fmt.Errorf("read the CA's issuer: %w", err)
	}
	key, err := readKey(filepath.Join(c.dir, issuerKeyFile))
	if err != nil {
		return nil, nil, fmt.Errorf("read the CA's issuer: %w", err)
	}
	return chain, key, nil
}

// Roots returns the roots in use, the newest first.
func (c *CA) Roots() ([]*x509.Certificate, error) {
	roots, err := readCerts(filepath.Join(c.dir, rootsFile))
	if err != nil {
		return nil, fmt.Errorf("read the CA's roots: %w", err)
	}
	return roots, nil
}

// issue signs a certificate.
func (c *CA) issue(claims Claims, key crypto.PublicKey) ([]*x509.Certificate, error) {
	if err := claims.check(); err != nil {
		return nil, err
	}
	chain, issuerKey, err := c.issuer()
	if err != nil {
		return nil, err
	}
	value, err := encodeClaims(claims)
	if err != nil {
		return nil, err
	}
	n, err := serial()
	if err != nil {
		return nil, err
	}
	now := c.clock.Now()
	t := &x509.Certificate{
		SerialNumber: n, Subject: pkix.Name{CommonName: shortName(claims.ID), Organization: []string{c.mesh}},
		NotBefore: now.Add(-skew), NotAfter: now.Add(MaxLife), URIs: []*url.URL{nodeURI(claims.Mesh, claims.ID)},
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
		ExtraExtensions:       []pkix.Extension{{Id: claimsOID(), Value: value}},
	}
	if claims.Role != Client { // a client dials and is never dialled
		t.ExtKeyUsage = append(t.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	if t.NotAfter.After(chain[0].NotAfter) {
		t.NotAfter = chain[0].NotAfter
	}
	if !now.Before(t.NotAfter) {
		return nil, fmt.Errorf("the CA's issuer ended at %s, and this host's clock says %s: set the clock if that is wrong, else make a new issuer with `ranvier ca issuer`",
			chain[0].NotAfter.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	cert, err := create(t, chain[0], key, issuerKey)
	if err != nil {
		return nil, err
	}
	return append([]*x509.Certificate{cert}, chain...), nil
}

// shortName fits an id into a common name (RFC 5280: at most 64 characters).
func shortName(id routing.NodeID) string { return string(id[:min(len(id), 64)]) }

// Grant is what the CA gives to a member.
type Grant struct {
	Claims
	CA          routing.NodeID
	Chain       [][]byte // DER, the member's certificate first
	Roots       [][]byte // DER
	Revocations []byte   // the newest signed list; empty: none
}

func (c *CA) grant(s *caState, claims Claims, key crypto.PublicKey) (*Grant, error) {
	id, err := KeyIDOf(key)
	if err != nil {
		return nil, err
	}
	chain, err := c.issue(claims, key)
	if err != nil {
		return nil, err
	}
	roots, err := c.Roots()
	if err != nil {
		return nil, err
	}
	list, err := c.Revocations()
	if err != nil {
		return nil, err
	}
	now := c.clock.Now()
	m := s.Members[claims.ID]
	if m == nil {
		m = &member{Key: id, Role: claims.Role, Work: claims.Work, Joined: now}
		s.Members[claims.ID] = m
	}
	m.Renewed, m.NotAfter = now, chain[0].NotAfter
	return &Grant{Claims: claims, CA: c.node, Chain: rawCerts(chain), Roots: rawCerts(roots), Revocations: list}, nil
}

// Renew gives a member that has proven its key a new certificate: for the id,
// role and work that it joined with.
func (c *CA) Renew(m Member) (g *Grant, err error) {
	err = c.update(func(s *caState) error {
		s.readmit(m, c)
		known := s.Members[m.ID]
		if known == nil || known.Key != m.KeyID {
			return fmt.Errorf("node %s is not a member with this key: let it join again", m.ID)
		}
		g, err = c.grant(s, Claims{Mesh: c.mesh, ID: m.ID, Role: known.Role, Work: known.Work}, m.Key)
		return err
	})
	return g, err
}

// Enrol gives a key of this host a certificate without a token, as the CA's
// own node has.
func (c *CA) Enrol(claims Claims, key ed25519.PublicKey) (g *Grant, err error) {
	claims.Mesh = c.mesh
	keyID, err := KeyIDOf(key)
	if err != nil {
		return nil, err
	}
	err = c.update(func(s *caState) error {
		if err := s.claim(claims.ID, keyID); err != nil {
			return err
		}
		g, err = c.grant(s, claims, key)
		return err
	})
	return g, err
}

// Reenrol gives the CA's own node a certificate for a key of this host, whatever
// key it had: that one is revoked. Role and work stay.
func (c *CA) Reenrol(key ed25519.PublicKey) (g *Grant, err error) {
	keyID, err := KeyIDOf(key)
	if err != nil {
		return nil, err
	}
	err = c.update(func(s *caState) error {
		claims := Claims{Mesh: c.mesh, ID: c.node, Role: Router, Work: []string{"*"}}
		if own := s.Members[c.node]; own != nil {
			claims.Role, claims.Work = own.Role, own.Work
			if own.Key != keyID {
				delete(s.Members, c.node)
				s.Revoked = append(s.Revoked, revokedKey{Key: own.Key, ID: c.node, At: c.clock.Now(), Ends: own.NotAfter})
				if _, err := c.publish(s); err != nil {
					return err
				}
			}
		}
		g, err = c.grant(s, claims, key)
		return err
	})
	return g, err
}

// Revoke takes an id from its member: the key is on the next signed list, and
// the id is free for another one. It returns that list.
func (c *CA) Revoke(id routing.NodeID) (list *Revocations, err error) {
	if id == c.node {
		return nil, fmt.Errorf("node %s has the CA: it is not revoked but rolled over", id)
	}
	err = c.update(func(s *caState) error {
		m := s.Members[id]
		if m == nil {
			return fmt.Errorf("there is no member %s: the members are %v", id, slices.Sorted(maps.Keys(s.Members)))
		}
		delete(s.Members, id)
		s.Revoked = append(s.Revoked, revokedKey{Key: m.Key, ID: id, At: c.clock.Now(), Ends: m.NotAfter})
		list, err = c.publish(s)
		return err
	})
	return list, err
}

// publish signs the next list.
func (c *CA) publish(s *caState) (*Revocations, error) {
	chain, key, err := c.issuer()
	if err != nil {
		return nil, err
	}
	s.Number++
	r := Revocations{Number: s.Number, Issued: c.clock.Now(), Roots: s.Retired}
	for _, k := range s.Revoked {
		r.Keys = append(r.Keys, k.Key)
	}
	list, err := signRevocations(key, chain, c.mesh, r)
	if err != nil {
		return nil, err
	}
	return list, writeFile(filepath.Join(c.dir, RevocationsFile), list.Raw, 0o644)
}

// Revocations returns the newest signed list, nil when nobody was ever revoked.
func (c *CA) Revocations() ([]byte, error) {
	raw, err := os.ReadFile(filepath.Join(c.dir, RevocationsFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return raw, err
}
