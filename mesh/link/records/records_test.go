package records_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"sync"
	"testing"

	"github.com/ranvier-mesh/ranvier/mesh/link/records"
)

// counter counts the writes to a connection.
type counter struct {
	net.Conn
	mu    sync.Mutex
	sizes []int
}

func (c *counter) Write(p []byte) (int, error) {
	c.mu.Lock()
	c.sizes = append(c.sizes, len(p))
	c.mu.Unlock()
	return c.Conn.Write(p)
}

func (c *counter) take() []int {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.sizes
	c.sizes = nil
	return s
}

func config(t *testing.T) *tls.Config {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: private}}, InsecureSkipVerify: true,
		MinVersion: tls.VersionTLS13, DynamicRecordSizingDisabled: true, SessionTicketsDisabled: true,
	}
}

func TestAWriteIsOneWrite(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	near, far := net.Pipe()
	below := &counter{Conn: near}
	client, server := records.Client(below, cfg), records.Server(far, cfg)
	defer near.Close()
	defer far.Close()
	done := make(chan error, 1)
	go func() { done <- server.Handshake() }()
	if err := client.Handshake(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	below.take()
	for _, c := range []struct {
		n    int
		want int // writes
	}{
		{1, 1}, {records.Plain, 1}, {records.Plain + 1, 1}, {4 * records.Plain, 1}, {4*records.Plain + 1, 2}, {10 * records.Plain, 3},
	} {
		sent := make([]byte, c.n)
		rand.Read(sent)
		go func() {
			_, err := client.Write(sent)
			done <- err
		}()
		got := make([]byte, c.n)
		if _, err := io.ReadFull(server, got); err != nil || !bytes.Equal(got, sent) {
			t.Fatalf("%d bytes: %v", c.n, err)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		sizes, sum := below.take(), 0
		for _, s := range sizes {
			sum += s
		}
		if len(sizes) != c.want || sum != records.Sealed(c.n) {
			t.Errorf("%d bytes left in writes of %v, want %d with %d bytes", c.n, sizes, c.want, records.Sealed(c.n))
		}
	}
	if near.Close(); true {
		if _, err := client.Write(make([]byte, 2*records.Plain)); err == nil {
			t.Error("a write to a closed connection says nothing")
		}
	}
}
