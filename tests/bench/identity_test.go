package bench

import (
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/identity"
	"github.com/ranvier-mesh/ranvier/internal/wire"
	"github.com/ranvier-mesh/ranvier/routing"
)

func newCA(b *testing.B) *identity.CA {
	b.Helper()
	ca, err := identity.InitCA(b.TempDir(), "bench", "ca", identity.CAOptions{})
	if err != nil {
		b.Fatal(err)
	}
	return ca
}

// BenchmarkHandshake connects two members again and again: ours, with all that
// the mesh checks, and crypto/tls alone with the same certificates.
func BenchmarkHandshake(b *testing.B) {
	ca := newCA(b)
	self, err := identity.Begin(ca, identity.Claims{ID: "a", Role: identity.Router}, filepath.Join(b.TempDir(), "i"))
	if err != nil {
		b.Fatal(err)
	}
	roots, err := ca.Roots()
	if err != nil {
		b.Fatal(err)
	}
	pool := x509.NewCertPool()
	for _, r := range roots {
		pool.AddCert(r)
	}
	// The reference checks the chains as crypto/tls does. It does not do so by
	// itself here because it would want a host's name in them.
	bare := func(c *tls.Config, use x509.ExtKeyUsage) *tls.Config {
		c = c.Clone()
		c.VerifyConnection = func(s tls.ConnectionState) error {
			between := x509.NewCertPool()
			for _, i := range s.PeerCertificates[1:] {
				between.AddCert(i)
			}
			_, err := s.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: pool, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{use}})
			return err
		}
		return c
	}
	rate := func(server, client *tls.Config) float64 {
		const n = 200
		start := time.Now()
		for range n {
			if err := handshake(server, client); err != nil {
				b.Fatal(err)
			}
		}
		return n / time.Since(start).Seconds()
	}
	var ours, reference float64
	for b.Loop() {
		// In turns, and the best of each: the machine has other things to do.
		reference = max(reference, rate(bare(self.ServerTLS(), x509.ExtKeyUsageClientAuth), bare(self.ClientTLS(), x509.ExtKeyUsageServerAuth)))
		ours = max(ours, rate(self.ServerTLS(), self.ClientTLS()))
	}
	b.ReportMetric(ours, "handshakes/s")
	b.ReportMetric(reference, "crypto/tls/s")
	b.ReportMetric(ours/reference, "ratio")
}

func handshake(server, client *tls.Config) error {
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	done := make(chan error, 1)
	go func() { done <- tls.Server(far, server).Handshake() }()
	if err := tls.Client(near, client).Handshake(); err != nil {
		return err
	}
	return <-done
}

// BenchmarkVerifiedFlood takes in certificates and adverts of many origins as
// a fresh node does, and beside it only checks chains and signatures.
func BenchmarkVerifiedFlood(b *testing.B) {
	const origins = 1000
	ca := newCA(b)
	type said struct {
		cert  []byte // the body of its Cert
		raw   []byte // its advert
		chain [][]byte
	}
	all := make([]said, origins)
	for i := range all {
		key, err := identity.NewKey()
		if err != nil {
			b.Fatal(err)
		}
		id := routing.NodeID(fmt.Sprint("n", i))
		s, err := identity.Volatile(ca, identity.Claims{ID: id, Role: identity.Router}, key)
		if err != nil {
			b.Fatal(err)
		}
		ad := &routing.Advert{Key: routing.Key{Origin: id}, Version: routing.Version{Epoch: 1, Seq: 1}, Links: []routing.Adjacency{{To: "x", Cost: 1000}}}
		if err := s.Seal(ad); err != nil {
			b.Fatal(err)
		}
		frame, err := s.Cert().Append(nil)
		if err != nil {
			b.Fatal(err)
		}
		all[i] = said{frame[wire.HeaderLen:], ad.Raw, s.Certificate().Certificate}
	}
	roots, err := ca.Roots()
	if err != nil {
		b.Fatal(err)
	}
	trust := identity.NewTrust("bench", roots, identity.NewClock(nil, time.Time{}))
	whole := func() time.Duration {
		start := time.Now()
		for _, s := range all {
			c, err := wire.ParseCert(s.cert)
			if err != nil {
				b.Fatal(err)
			}
			signer, err := trust.Introduce(c)
			if err != nil {
				b.Fatal(err)
			}
			ad, e, err := wire.ParseAdvert(s.raw)
			if err != nil {
				b.Fatal(err)
			}
			if err := trust.VerifyAdvert(signer, ad, e); err != nil {
				b.Fatal(err)
			}
		}
		return time.Since(start)
	}
	checks := func() time.Duration {
		start := time.Now()
		for _, s := range all {
			if err := bareCheck(s.chain, roots, s.raw); err != nil {
				b.Fatal(err)
			}
		}
		return time.Since(start)
	}
	ours, reference := time.Hour, time.Hour
	for b.Loop() {
		reference = min(reference, checks())
		ours = min(ours, whole())
	}
	b.ReportMetric(float64(ours.Microseconds())/origins, "µs/origin")
	b.ReportMetric(float64(reference.Microseconds())/origins, "bare-µs/origin")
	b.ReportMetric(float64(ours)/float64(reference), "ratio")
}

// bareCheck is the reference: the chain by crypto/x509, and a signature of the
// advert's length by crypto/ed25519.
func bareCheck(ders [][]byte, roots []*x509.Certificate, advert []byte) error {
	pool, between := x509.NewCertPool(), x509.NewCertPool()
	for _, r := range roots {
		pool.AddCert(r)
	}
	leaf, err := x509.ParseCertificate(ders[0])
	if err != nil {
		return err
	}
	for _, der := range ders[1:] {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return err
		}
		between.AddCert(c)
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: pool, Intermediates: between}); err != nil {
		return err
	}
	ed25519.Verify(leaf.PublicKey.(ed25519.PublicKey), advert, make([]byte, ed25519.SignatureSize))
	return nil
}
