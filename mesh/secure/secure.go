// Package secure puts TLS 1.3 between the two ends of a stream, inside the
// carrier that relays pass on, so that they see ids, sizes and times and
// nothing else (docs/protocol.md section 6.4).
package secure

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/ranvier-mesh/ranvier/mesh/link/records"
	"github.com/ranvier-mesh/ranvier/routing"
)

const (
	// Protocol is the ALPN protocol within a stream.
	Protocol = "ranvier-stream/1"
	// exporter is the label that a session's token is derived with (RFC 8446 section 7.5).
	exporter = "EXPORTER-ranvier-session-token"
)

// PeerError says that the other end did not prove to be the node it should be.
type PeerError struct {
	Peer routing.NodeID
	Err  error
}

// Error names the node that was meant.
func (e *PeerError) Error() string {
	return fmt.Sprintf("the other end is not node %s: %v", e.Peer, e.Err)
}

// Unwrap returns the cause.
func (e *PeerError) Unwrap() error { return e.Err }

// Conn is a carrier whose bytes only the two ends can read. One goroutine may
// read and another write at the same time. It has no deadlines: TLS does not
// survive a write that times out.
type Conn struct {
	tls    *records.Conn
	raw    net.Conn
	once   sync.Once
	closed chan struct{}
}

// Client secures a carrier for the end that opened it. The first thing that it
// writes is its whole ClientHello, in one Write. Until the handshake is over the
// end of ctx closes raw, which stays the caller's to close when Client fails.
// The error wraps a *PeerError when the other end is another one.
func Client(ctx context.Context, raw net.Conn, id *Identity, peer routing.NodeID) (*Conn, error) {
	cfg := config(id, peer, true)
	cfg.InsecureSkipVerify = true // VerifyConnection checks, and knows node ids
	cfg.ServerName = "ranvier"    // crypto/tls wants one; the same for all says nothing
	return handshake(ctx, raw, cfg, records.Client)
}

// Server secures a carrier for the end that it was opened to; as Client.
func Server(ctx context.Context, raw net.Conn, id *Identity, peer routing.NodeID) (*Conn, error) {
	cfg := config(id, peer, false)
	cfg.ClientAuth = tls.RequireAnyClientCert
	return handshake(ctx, raw, cfg, records.Server)
}

func config(id *Identity, peer routing.NodeID, dialled bool) *tls.Config {
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{*id.Certificate()},
		NextProtos:   []string{Protocol},
		// The hybrid costs 2.3 KB and a quarter of a millisecond a stream, and what a relay
		// records today stays unread when X25519 alone is broken.
		CurvePreferences: []tls.CurveID{tls.X25519MLKEM768, tls.X25519},
		// A ticket would be one more record from the server on each stream,
		// and would outlive what Verify said.
		SessionTicketsDisabled: true,
		// Bulk goes in records of 16 KiB from the first one on.
		DynamicRecordSizingDisabled: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			err := errors.New("it speaks another protocol")
			if s.NegotiatedProtocol == Protocol {
				err = id.Verify(peer, s.PeerCertificates, dialled)
			}
			if err != nil {
				return &PeerError{peer, err}
			}
			return nil
		},
	}
}

func handshake(ctx context.Context, raw net.Conn, cfg *tls.Config, side func(net.Conn, *tls.Config) *records.Conn) (*Conn, error) {
	c := &Conn{tls: side(raw, cfg), raw: raw, closed: make(chan struct{})}
	if err := c.tls.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("secure the stream: %w", err)
	}
	return c, nil
}

// Read reads what the other end wrote. io.EOF says that the carrier ended, not
// that all arrived.
func (c *Conn) Read(p []byte) (int, error) { return c.tls.Read(p) }

// Write sends p. Its records leave in one write of the carrier, as long as p is
// not longer than MaxWrite.
func (c *Conn) Write(p []byte) (int, error) { return c.tls.Write(p) }

// Close ends the carrier at once, and whoever waits in Read or Write. It says
// no good-bye: that is the session's part.
func (c *Conn) Close() error {
	err := net.ErrClosed
	c.once.Do(func() {
		close(c.closed)
		// Some links would let a read wait for the other end's close.
		c.raw.SetReadDeadline(time.Unix(1, 0))
		err = c.raw.Close()
	})
	return err
}

// Closed is closed when Close has been called.
func (c *Conn) Closed() <-chan struct{} { return c.closed }

// RTT is how long the other end took to answer during the handshake, its
// cryptography included.
func (c *Conn) RTT() time.Duration { return c.tls.RTT() }

// Token is a secret that both ends derive from this carrier's keys, and nobody
// else knows.
func (c *Conn) Token() ([32]byte, error) {
	state := c.tls.ConnectionState()
	secret, err := state.ExportKeyingMaterial(exporter, nil, 32)
	if err != nil {
		return [32]byte{}, fmt.Errorf("derive the stream's token: %w", err)
	}
	return [32]byte(secret), nil
}

// PeerKey is a fingerprint of the other end's public key (SHA-256 of its
// SubjectPublicKeyInfo).
func (c *Conn) PeerKey() [32]byte {
	return sha256.Sum256(c.PeerChain()[0].RawSubjectPublicKeyInfo)
}

// PeerChain is the other end's certificates as it sent them, its own first.
func (c *Conn) PeerChain() []*x509.Certificate { return c.tls.ConnectionState().PeerCertificates }

// MaxWrite is how much goes out as one write of the carrier, in two records,
// that fill two frames of its link.
const MaxWrite = 2 * (records.Framed - records.Overhead)
