package identity

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ranvier-mesh/ranvier/routing"
)

// TLSItem is an item tls-server or tls-client of the configuration file: a
// site's own certificates, as Receptor's users have them. The settings made of
// it read the files again when they have changed, so a certificate that was
// renewed on disk holds from the next connection on.
type TLSItem struct {
	Cert, Key string // files, PEM
	// CAs is the file with who may have signed the other end's certificate;
	// empty: the host's own list.
	CAs string
	// RequireCert makes a server refuse who shows no certificate.
	RequireCert bool
	// Pinned are SHA-256 or SHA-512 fingerprints of certificates, one of which
	// the other end has to show; empty: any.
	Pinned []string
	// SkipVerify is a client that believes anybody.
	SkipVerify bool
	// SkipNames leaves it open which node a certificate is for.
	SkipNames bool
	// MinTLS12 also speaks to who has no TLS 1.3.
	MinTLS12 bool
}

// ErrNoNode is wrapped by errors about a certificate that names no node.
var ErrNoNode = errors.New("it names no node: it needs the node id as a SAN otherName 1.3.6.1.4.1.2312.19.1 (nodeid of cert-makereq), or the TLS item skipreceptornamescheck")

// Server returns the settings of a listener. The error names the file.
func (i TLSItem) Server() (*tls.Config, error) {
	if i.Cert == "" || i.Key == "" {
		return nil, errors.New("a server needs a certificate and a key (cert, key)")
	}
	files, c, err := i.open(x509.ExtKeyUsageClientAuth)
	if err != nil {
		return nil, err
	}
	c.ClientAuth = tls.RequestClientCert // VerifyConnection checks what comes
	if i.RequireCert {
		c.ClientAuth = tls.RequireAnyClientCert
	}
	c.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		now, err := files.load()
		return now.cert, err
	}
	return c, nil
}

// Client returns the settings of a dialler to a host, whose certificate has to
// be for it. The error of the first call names the file; what is made later
// has read them.
func (i TLSItem) Client() (func(host string) *tls.Config, error) {
	return i.client(func(host string, leaf *x509.Certificate) error { return leaf.VerifyHostname(host) })
}

// ServiceClient is Client for a service of the mesh: the certificate has to
// name the node.
func (i TLSItem) ServiceClient() (func(node string) *tls.Config, error) {
	return i.client(func(node string, leaf *x509.Certificate) error {
		return i.CheckPeer(routing.NodeID(node), []*x509.Certificate{leaf})
	})
}

func (i TLSItem) client(is func(name string, leaf *x509.Certificate) error) (func(name string) *tls.Config, error) {
	files, base, err := i.open(x509.ExtKeyUsageServerAuth)
	if err != nil {
		return nil, err
	}
	base.InsecureSkipVerify = true // VerifyConnection checks
	base.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		now, err := files.load()
		if err != nil || now.cert == nil {
			return new(tls.Certificate), err // none
		}
		return now.cert, nil
	}
	return func(name string) *tls.Config {
		c := base.Clone()
		c.ServerName = name
		c.VerifyConnection = func(s tls.ConnectionState) error {
			if err := base.VerifyConnection(s); err != nil || i.SkipVerify {
				return err
			}
			return is(name, s.PeerCertificates[0])
		}
		return c
	}, nil
}

// CheckOwn tells whether the item's own certificate is one of node id. An item
// without a certificate, or that leaves names open, passes.
func (i TLSItem) CheckOwn(id routing.NodeID) error {
	if i.Cert == "" || i.SkipNames {
		return nil
	}
	cert, err := i.keyPair()
	if err != nil {
		return err
	}
	if err := names(cert.Leaf, id); err != nil {
		return fmt.Errorf("the certificate %s: %w", i.Cert, err)
	}
	return nil
}

// CheckPeer tells whether who has shown chain may be node id. An empty chain
// passes: whether a certificate is needed was settled in the handshake.
func (i TLSItem) CheckPeer(id routing.NodeID, chain []*x509.Certificate) error {
	if i.SkipNames || i.SkipVerify || len(chain) == 0 {
		return nil
	}
	if err := names(chain[0], id); err != nil {
		return fmt.Errorf("the peer's certificate %q: %w", chain[0].Subject.CommonName, err)
	}
	return nil
}

// names checks that a certificate is for a node, or for one that it made for a
// moment ("<id>/<random>").
func names(c *x509.Certificate, id routing.NodeID) error {
	ids, err := ReceptorIDs(c)
	switch {
	case err != nil:
		return err
	case len(ids) == 0:
		return ErrNoNode
	case slices.ContainsFunc(ids, func(n routing.NodeID) bool { return n == id || strings.HasPrefix(string(id), string(n)+"/") }):
		return nil
	}
	return fmt.Errorf("it is of the nodes %q, not of %s", ids, id)
}

// open reads the item's files for the first time.
func (i TLSItem) open(peer x509.ExtKeyUsage) (*siteFiles, *tls.Config, error) {
	pins, err := parsePins(i.Pinned)
	if err != nil {
		return nil, nil, err
	}
	files := &siteFiles{item: i}
	if _, err := files.load(); err != nil {
		return nil, nil, err
	}
	c := &tls.Config{MinVersion: tls.VersionTLS13, SessionTicketsDisabled: true}
	if i.MinTLS12 {
		c.MinVersion = tls.VersionTLS12
	}
	c.VerifyConnection = func(s tls.ConnectionState) error { return i.verify(s, files, pins, peer) }
	return files, c, nil
}

// verify holds the chain that the peer has shown, if any, to the item.
func (i TLSItem) verify(s tls.ConnectionState, files *siteFiles, pins [][]byte, usage x509.ExtKeyUsage) error {
	if len(s.PeerCertificates) == 0 {
		if len(pins) > 0 {
			return errors.New("the peer shows no certificate, and one of the pinned ones is expected")
		}
		return nil
	}
	for _, c := range s.PeerCertificates {
		if len(c.Raw) > maxCertLen {
			return fmt.Errorf("a certificate of %d bytes, at most %d are allowed", len(c.Raw), maxCertLen)
		}
	}
	leaf := s.PeerCertificates[0]
	if !i.SkipVerify {
		now, err := files.load()
		if err != nil {
			return err
		}
		between := x509.NewCertPool()
		for _, c := range s.PeerCertificates[1:] {
			between.AddCert(c)
		}
		if _, err := leaf.Verify(x509.VerifyOptions{Roots: now.pool, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{usage}}); err != nil {
			return fmt.Errorf("the peer's certificate %q: %w (the CAs are %s)", leaf.Subject.CommonName, err, orSystem(i.CAs))
		}
	}
	if len(pins) > 0 && !pinned(leaf.Raw, pins) {
		return fmt.Errorf("the peer's certificate %q is not among the pinned ones: its SHA-256 is %x", leaf.Subject.CommonName, sha256.Sum256(leaf.Raw))
	}
	return nil
}

func orSystem(cas string) string {
	if cas == "" {
		return "the host's own"
	}
	return "in " + cas
}

// siteFiles are the files of an item, read again when one has changed.
type siteFiles struct {
	item TLSItem

	mu    sync.Mutex
	stamp [3]fileStamp
	read  siteKeys
}

type siteKeys struct {
	cert *tls.Certificate // nil: none
	pool *x509.CertPool   // nil: the host's
}

type fileStamp struct {
	size int64
	mod  time.Time
}

// load returns what the files say. Files that cannot be read any more leave
// what was read before: a renewal may be under way.
func (f *siteFiles) load() (siteKeys, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var stamp [3]fileStamp
	for i, name := range []string{f.item.Cert, f.item.Key, f.item.CAs} {
		if info, err := os.Stat(name); name != "" && err == nil {
			stamp[i] = fileStamp{info.Size(), info.ModTime()}
		}
	}
	known := f.stamp != [3]fileStamp{}
	if known && stamp == f.stamp {
		return f.read, nil
	}
	read, err := f.item.load()
	if err != nil && known {
		return f.read, nil
	}
	if err == nil {
		f.stamp, f.read = stamp, read
	}
	return read, err
}

func (i TLSItem) load() (k siteKeys, err error) {
	if i.Cert != "" || i.Key != "" {
		if k.cert, err = i.keyPair(); err != nil {
			return k, err
		}
	}
	if i.CAs == "" {
		return k, nil
	}
	text, err := os.ReadFile(i.CAs)
	if err != nil {
		return k, fmt.Errorf("read the CAs: %w", err)
	}
	k.pool = x509.NewCertPool()
	if !k.pool.AppendCertsFromPEM(text) {
		return k, fmt.Errorf("read the CAs: %s has no PEM block CERTIFICATE", i.CAs)
	}
	return k, nil
}

func (i TLSItem) keyPair() (*tls.Certificate, error) {
	cert, err := tls.LoadX509KeyPair(i.Cert, i.Key)
	if err != nil {
		return nil, fmt.Errorf("read the certificate %s and its key %s: %w", i.Cert, i.Key, err)
	}
	return &cert, nil
}

// CheckPins tells what is wrong with fingerprints as they stand in the file.
func CheckPins(texts []string) error {
	_, err := parsePins(texts)
	return err
}

func parsePins(texts []string) ([][]byte, error) {
	var pins [][]byte
	for _, t := range texts {
		pin, err := hex.DecodeString(strings.ReplaceAll(strings.TrimSpace(t), ":", ""))
		if err != nil || len(pin) != sha256.Size && len(pin) != sha512.Size {
			return nil, fmt.Errorf("%.200q is no fingerprint: SHA-256 or SHA-512 in hexadecimal is expected", t)
		}
		pins = append(pins, pin)
	}
	return pins, nil
}

func pinned(der []byte, pins [][]byte) bool {
	short, long := sha256.Sum256(der), sha512.Sum512(der)
	for _, p := range pins {
		if bytes.Equal(p, short[:]) || bytes.Equal(p, long[:]) {
			return true
		}
	}
	return false
}
