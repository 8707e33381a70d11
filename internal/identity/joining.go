package identity

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"

	"github.com/ranvier-mesh/ranvier/routing"
)

const (
	// joinPatience is how long a CA is asked again that is not there yet, as when
	// its node has just been started, or has too much to do.
	joinPatience = 5 * time.Second
	joinEvery    = 250 * time.Millisecond
)

// Join makes a key, has it certified with a token, and keeps the identity in
// dir, which must not have one. It also returns which of the token's addresses
// has answered. system is the host's clock, nil for time.Now. Where nobody listens
// yet, or too many ask, it asks again for five seconds; again, where it is not
// nil, is told why each time. The error is a *RefusedError where the CA refused.
func Join(ctx context.Context, t Token, id routing.NodeID, dir string, system func() time.Time, again func(why error)) (_ *Self, address string, err error) {
	ctx, cancel := context.WithTimeout(ctx, JoinTime)
	defer cancel()
	key, err := pendingKey(dir)
	if err != nil {
		return nil, "", err
	}
	clock := NewClock(system, t.Issued)
	for until := time.Now().Add(joinPatience); ; {
		g, root, address, err := joinOnce(ctx, t, id, key, clock)
		if err == nil {
			s, err := begin(dir, key, g, root, clock)
			return s, address, err
		}
		if !passing(err) || time.Now().After(until) {
			return nil, "", err
		}
		if again != nil {
			again(err)
		}
		select {
		case <-time.After(joinEvery):
		case <-ctx.Done():
			return nil, "", err
		}
	}
}

// notCAError says why somebody who answered is not the CA.
type notCAError struct{ error }

func (e *notCAError) Unwrap() error { return e.error }

// passing tells whether the same may do in a moment: nobody listens, or the CA's
// node has ended the connection or was busy. A token holds until a grant has come.
func passing(err error) bool {
	if other := (*notCAError)(nil); errors.As(err, &other) {
		return false
	}
	if refused := (*RefusedError)(nil); errors.As(err, &refused) {
		return refused.Busy
	}
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, io.EOF)
}

func joinOnce(ctx context.Context, t Token, id routing.NodeID, key ed25519.PrivateKey, clock *Clock) (*Grant, *x509.Certificate, string, error) {
	conn, root, address, err := dialCA(ctx, t, clock)
	if err != nil {
		return nil, nil, "", err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	g, err := askToJoin(conn, t, id, key)
	return g, root, address, err
}

// dialCA connects to the first address of a token that answers, and makes sure
// that it is the CA. It returns the root that the token names.
func dialCA(ctx context.Context, t Token, clock *Clock) (net.Conn, *x509.Certificate, string, error) {
	var errs []error
	for i, address := range t.Addresses {
		// Not all of the time for one address that swallows what it is sent.
		left := len(t.Addresses) - i
		deadline, _ := ctx.Deadline()
		one, cancel := context.WithTimeout(ctx, time.Until(deadline)/time.Duration(left))
		conn, root, err := dialOne(one, t, address, clock)
		cancel()
		if err == nil {
			return conn, root, address, nil
		}
		errs = append(errs, fmt.Errorf("reach the CA at %s: %w", address, err))
	}
	return nil, nil, "", errors.Join(errs...)
}

func dialOne(ctx context.Context, t Token, address string, clock *Clock) (net.Conn, *x509.Certificate, error) {
	var root *x509.Certificate
	d := tls.Dialer{Config: &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{JoinProtocol}, ServerName: "ranvier",
		InsecureSkipVerify: true, // VerifyConnection checks
		VerifyConnection: func(s tls.ConnectionState) (err error) {
			if s.NegotiatedProtocol != JoinProtocol {
				return &notCAError{errors.New("it does not let nodes join: is it the CA's node?")}
			}
			if root, err = verifyCA(s.PeerCertificates, t, clock); err != nil {
				err = &notCAError{err}
			}
			return err
		},
	}}
	conn, err := d.DialContext(ctx, "tcp", address)
	return conn, root, err
}

// verifyCA checks that a chain is the join service's of the token's mesh.
func verifyCA(chain []*x509.Certificate, t Token, clock *Clock) (*x509.Certificate, error) {
	var root *x509.Certificate
	intermediates := x509.NewCertPool()
	for _, c := range chain[1:] {
		if keyIDOfCert(c) == t.Pin && c.CheckSignatureFrom(c) == nil {
			root = c
			continue
		}
		intermediates.AddCert(c)
	}
	if root == nil {
		return nil, fmt.Errorf("%w: it does not have the root that the token names", ErrOtherMesh)
	}
	leaf := chain[0]
	if len(leaf.URIs) != 1 || leaf.URIs[0].String() != caURI(t.Mesh, "").String() || leaf.IsCA {
		return nil, errors.New("it is a member of the mesh and not its CA")
	}
	now := clock.Now()
	if clock.Behind() && leaf.NotBefore.After(now) {
		now = leaf.NotBefore
	}
	if now.Before(leaf.NotBefore) || now.After(leaf.NotAfter) {
		return nil, &ClockError{What: "the certificate of the CA's node", Now: now, NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter}
	}
	pool := x509.NewCertPool()
	pool.AddCert(root)
	_, err := leaf.Verify(x509.VerifyOptions{Roots: pool, Intermediates: intermediates, CurrentTime: now})
	if err != nil {
		return nil, explain(err)
	}
	return root, nil
}
