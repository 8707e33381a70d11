package identity

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
)

// LinkProtocol is the ALPN protocol of a link (docs/protocol.md section 4.1).
const LinkProtocol = "ranvier/1"

// ServerTLS returns the settings of the end of a link that was dialled: TLS 1.3,
// both ends show a certificate of the mesh, the certificate is the one that
// holds when a peer connects. No session is ever resumed: a ticket would
// outlive a revocation.
func (s *Self) ServerTLS() *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		NextProtos:             []string{LinkProtocol},
		GetCertificate:         func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return s.Certificate(), nil },
		ClientAuth:             tls.RequireAnyClientCert, // VerifyConnection checks it
		SessionTicketsDisabled: true,
		VerifyConnection:       s.trust.verifyClient,
	}
}

// ClientTLS returns the settings of the end that dials. Which node has to
// answer is settled by the Hello.
func (s *Self) ClientTLS() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{LinkProtocol},
		ServerName: "ranvier", // says nothing; node ids are no host names
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return s.Certificate(), nil
		},
		InsecureSkipVerify:     true, // VerifyConnection checks, and knows node ids
		SessionTicketsDisabled: true,
		VerifyConnection:       s.trust.verifier(AsServer),
	}
}

// verifyClient lets members in whose own key was revoked, and nobody else who is
// not a member: TLS would not tell them why. Who greets a link turns them
// away (RevokedKey), and tells them with the CA's list.
func (t *Trust) verifyClient(state tls.ConnectionState) error {
	_, err := t.Verify(state.PeerCertificates, AsClient)
	if errors.Is(err, errKeyRevoked) {
		return nil
	}
	return err
}

func (t *Trust) verifier(use Usage) func(tls.ConnectionState) error {
	return func(state tls.ConnectionState) error {
		_, err := t.Verify(state.PeerCertificates, use)
		return err
	}
}

// Peer returns who is at the other end of a connection with ServerTLS or
// ClientTLS.
func (t *Trust) Peer(chain []*x509.Certificate, dialled bool) (Member, error) {
	use := AsClient
	if dialled {
		use = AsServer
	}
	m, err := t.Verify(chain, use)
	if err != nil {
		return m, fmt.Errorf("the peer: %w", err)
	}
	return m, nil
}
