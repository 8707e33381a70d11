package bench

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/identity"
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
	var ours, reference []float64
	for b.Loop() {
		for range 5 { // in turns: the machine has other things to do
			reference = append(reference, rate(bare(self.ServerTLS(), x509.ExtKeyUsageClientAuth), bare(self.ClientTLS(), x509.ExtKeyUsageServerAuth)))
			ours = append(ours, rate(self.ServerTLS(), self.ClientTLS()))
		}
	}
	report(b, "handshakes, against crypto/tls alone", "per_s", ours, reference)
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
