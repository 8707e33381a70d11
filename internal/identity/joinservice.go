package identity

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/admission"
)

// JoinService lets nodes join over the listeners of the CA's node. Its methods
// may be called from several goroutines.
type JoinService struct {
	ca       *CA
	log      *slog.Logger
	places   *admission.Places
	partings chan struct{}
	patience time.Duration // tokenTime; tests have more of it

	mu     sync.Mutex
	cfg    *tls.Config
	made   time.Time
	issuer fs.FileInfo // of the file that cfg was made with
}

// NewJoinService returns the join service of a CA.
func NewJoinService(ca *CA, log *slog.Logger) *JoinService {
	return &JoinService{
		ca: ca, log: log, places: admission.New(maxJoins, joinsOfHost), partings: make(chan struct{}, maxPartings),
		patience: tokenTime,
	}
}

// Config answers a client that wants to join with the CA's certificate, and nil
// to all others. It is a tls.Config's GetConfigForClient.
func (s *JoinService) Config(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	if !slices.Contains(hello.SupportedProtos, JoinProtocol) {
		return nil, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	// A token that was printed a moment ago may name a root of a moment ago.
	issuer, err := os.Stat(filepath.Join(s.ca.Dir(), IssuerFile))
	if err != nil {
		s.log.Error("nobody can join: the CA's issuer cannot be read", "err", err)
		return nil, err
	}
	if now := time.Now(); s.cfg == nil || now.Sub(s.made) > time.Minute || !os.SameFile(issuer, s.issuer) || !issuer.ModTime().Equal(s.issuer.ModTime()) {
		cfg, err := s.ca.JoinTLS()
		if err != nil {
			s.log.Error("nobody can join: the CA cannot make a certificate", "err", err)
			return nil, err
		}
		s.cfg, s.made, s.issuer = cfg, now, issuer
	}
	return s.cfg, nil
}

// Serve lets one node join over a connection with Config, which it closes. It
// may lose its place to later ones until it has shown its token, and is told so.
func (s *JoinService) Serve(conn *tls.Conn) {
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(s.patience))
	place := s.places.Enter(conn.RemoteAddr(), func() { conn.SetReadDeadline(time.Now()) })
	r, err := readJoin(conn)
	if lost := s.places.Leave(place); lost && err != nil {
		s.log.Warn("too many nodes ask to join at once; one that has not shown a token is turned away", "from", conn.RemoteAddr())
		s.turnAway(conn)
		return
	}
	s.ca.answerJoin(conn, r, err, s.log)
}

// turnAway tells a node that it may come again. What it sends meanwhile is read,
// or the system would take the answer back.
func (s *JoinService) turnAway(conn *tls.Conn) {
	select {
	case s.partings <- struct{}{}:
		defer func() { <-s.partings }()
	default:
		return
	}
	conn.SetDeadline(time.Now().Add(partingTime))
	if answer(conn, nil, errCrowded) == nil && conn.CloseWrite() == nil {
		io.CopyN(io.Discard, conn.NetConn(), maxJoinFrame)
	}
}

// JoinTLS returns the settings of the join service: its certificate is the
// CA's, which no member has, so no member can take a token's secret.
func (c *CA) JoinTLS() (*tls.Config, error) {
	key, err := NewKey()
	if err != nil {
		return nil, err
	}
	chain, issuerKey, err := c.issuer()
	if err != nil {
		return nil, err
	}
	roots, err := c.Roots()
	if err != nil {
		return nil, err
	}
	n, err := serial()
	if err != nil {
		return nil, err
	}
	now := c.clock.Now()
	cert, err := create(&x509.Certificate{
		SerialNumber: n, Subject: pkix.Name{CommonName: c.mesh + " join", Organization: []string{c.mesh}},
		NotBefore: now.Add(-skew), NotAfter: now.Add(MaxLife), URIs: []*url.URL{caURI(c.mesh, "")},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, BasicConstraintsValid: true,
	}, chain[0], key.Public(), issuerKey)
	if err != nil {
		return nil, err
	}
	ders := append([][]byte{cert.Raw}, rawCerts(chain)...)
	ders = append(ders, rawCerts(roots)...)
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{JoinProtocol}, SessionTicketsDisabled: true,
		Certificates: []tls.Certificate{{Certificate: ders, PrivateKey: key, Leaf: cert}},
	}, nil
}
