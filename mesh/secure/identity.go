package secure

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net/url"
	"strings"
	"time"

	"github.com/ranvier-mesh/ranvier/routing"
)

// Identity is how a node proves at the ends of streams who it is, and what it
// believes of others. It is not changed once it is in use, and serves any
// number of streams at the same time.
type Identity struct {
	// Certificate returns this node's as it is now, with its private key; the
	// chain is sent whole.
	Certificate func() *tls.Certificate
	// Verify decides whether chain, the leaf first, speaks for peer; dialled
	// tells that this node opened the stream. That the other end has the leaf's
	// private key is certain when it is called; all else is Verify's to check.
	Verify func(peer routing.NodeID, chain []*x509.Certificate, dialled bool) error
}

// SelfMade makes a key and a certificate in memory for a node without an
// identity. It trusts whoever says the right name: that keeps out who only
// listens, a relay that records included, but not who pretends to be another node.
func SelfMade(id routing.NodeID) (*Identity, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key for node %s: %w", id, err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "ranvier, self-made"},
		// Nobody checks these: a node without identities may be without a clock too.
		NotBefore: time.Unix(0, 0),
		NotAfter:  time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC),
		URIs:      []*url.URL{nodeURI(id)},
		KeyUsage:  x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		return nil, fmt.Errorf("make a certificate for node %s: %w", id, err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("make a certificate for node %s: %w", id, err)
	}
	cert := &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private, Leaf: leaf}
	return &Identity{Certificate: func() *tls.Certificate { return cert }, Verify: verifyName}, nil
}

// nodeURI is a node's name in a certificate. A self-made one is of no mesh in
// particular.
func nodeURI(id routing.NodeID) *url.URL {
	return &url.URL{Scheme: "ranvier", Host: "self-made", Path: "/node/" + string(id)}
}

// verifyName takes any certificate that names the peer.
func verifyName(peer routing.NodeID, chain []*x509.Certificate, _ bool) error {
	var names []string
	for _, u := range chain[0].URIs {
		if name, ok := strings.CutPrefix(u.Path, "/node/"); ok && u.Scheme == "ranvier" {
			if name == string(peer) {
				return nil
			}
			names = append(names, name)
		}
	}
	return fmt.Errorf("its certificate is for %q", strings.Join(names, ", "))
}
