package identity

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/ranvier-mesh/ranvier/routing"
)

// receptorOID is the type of the otherName by which Receptor's certificates
// name a node.
func receptorOID() asn1.ObjectIdentifier {
	return asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 2312, 19, 1}
}

func sanOID() asn1.ObjectIdentifier { return asn1.ObjectIdentifier{2, 5, 29, 17} }

const maxReceptorIDs = 256

// ReceptorIDs returns the node ids that a certificate has in the way of
// Receptor: SAN otherNames 1.3.6.1.4.1.2312.19.1 with a UTF8String. A
// certificate without any gives none; one whose names cannot be read is an error.
func ReceptorIDs(c *x509.Certificate) ([]routing.NodeID, error) {
	var ids []routing.NodeID
	for _, e := range c.Extensions {
		if !e.Id.Equal(sanOID()) {
			continue
		}
		more, err := parseOtherNames(e.Value)
		if err != nil {
			return nil, fmt.Errorf("the certificate's alternative names: %w", err)
		}
		ids = append(ids, more...)
	}
	return ids, nil
}

// parseOtherNames reads a SubjectAltName (RFC 5280 section 4.2.1.6).
func parseOtherNames(san []byte) ([]routing.NodeID, error) {
	var names asn1.RawValue
	if rest, err := asn1.Unmarshal(san, &names); err != nil || len(rest) > 0 || names.Tag != asn1.TagSequence || !names.IsCompound {
		return nil, errors.New("they are not a sequence of names")
	}
	var ids []routing.NodeID
	for rest := names.Bytes; len(rest) > 0; {
		var name asn1.RawValue
		var err error
		if rest, err = asn1.Unmarshal(rest, &name); err != nil {
			return nil, errors.New("they are not a sequence of names")
		}
		if name.Class != asn1.ClassContextSpecific || name.Tag != 0 || !name.IsCompound {
			continue // no otherName
		}
		id, ok, err := parseOtherName(name.Bytes)
		if err != nil {
			return nil, err
		}
		if ok {
			ids = append(ids, id)
		}
		if len(ids) > maxReceptorIDs {
			return nil, fmt.Errorf("more than %d node ids", maxReceptorIDs)
		}
	}
	return ids, nil
}

// parseOtherName reads OtherName ::= SEQUENCE { type-id, value [0] EXPLICIT }.
func parseOtherName(der []byte) (routing.NodeID, bool, error) {
	var oid asn1.ObjectIdentifier
	rest, err := asn1.Unmarshal(der, &oid)
	if err != nil || !oid.Equal(receptorOID()) {
		return "", false, nil // somebody else's
	}
	var outer asn1.RawValue
	if _, err := asn1.Unmarshal(rest, &outer); err != nil || outer.Class != asn1.ClassContextSpecific || outer.Tag != 0 {
		return "", false, errors.New("a node id is not encoded as it should be")
	}
	var text string
	if tail, err := asn1.UnmarshalWithParams(outer.Bytes, &text, "utf8"); err != nil || len(tail) > 0 {
		return "", false, errors.New("a node id is not a UTF8String")
	}
	id := routing.NodeID(text)
	return id, true, id.Validate()
}

// ReceptorSAN returns a SubjectAltName that names nodes in Receptor's way, to
// be put among a certificate's extra extensions.
func ReceptorSAN(dns []string, ids []routing.NodeID) ([]byte, error) {
	var names []asn1.RawValue
	for _, d := range dns {
		names = append(names, asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 2, Bytes: []byte(d)})
	}
	for _, id := range ids {
		oid, err := asn1.Marshal(receptorOID())
		if err != nil {
			return nil, err
		}
		text, err := asn1.MarshalWithParams(string(id), "utf8")
		if err != nil {
			return nil, err
		}
		value, err := asn1.Marshal(asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: text})
		if err != nil {
			return nil, err
		}
		names = append(names, asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: append(oid, value...)})
	}
	return asn1.Marshal(names)
}

// TLSItem is an item tls-server or tls-client of the configuration file.
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

func (i TLSItem) base() (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS13, SessionTicketsDisabled: true}
	if i.MinTLS12 {
		c.MinVersion = tls.VersionTLS12
	}
	if i.Cert != "" || i.Key != "" {
		cert, err := tls.LoadX509KeyPair(i.Cert, i.Key)
		if err != nil {
			return nil, fmt.Errorf("read the certificate %s and its key: %w", i.Cert, err)
		}
		c.Certificates = []tls.Certificate{cert}
	}
	pins, err := parsePins(i.Pinned)
	if err != nil {
		return nil, err
	}
	c.VerifyConnection = func(s tls.ConnectionState) error { return checkPeer(s, pins, i.SkipNames) }
	return c, nil
}

func (i TLSItem) pool() (*x509.CertPool, error) {
	if i.CAs == "" {
		return nil, nil
	}
	text, err := os.ReadFile(i.CAs)
	if err != nil {
		return nil, fmt.Errorf("read the CAs: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("read the CAs: %s has no PEM block CERTIFICATE", i.CAs)
	}
	return pool, nil
}

// Server returns the settings of a listener. The error names the file.
func (i TLSItem) Server() (*tls.Config, error) {
	c, err := i.base()
	if err != nil {
		return nil, err
	}
	if len(c.Certificates) == 0 {
		return nil, errors.New("a server needs a certificate and a key")
	}
	if c.ClientCAs, err = i.pool(); err != nil {
		return nil, err
	}
	c.ClientAuth = tls.VerifyClientCertIfGiven
	if i.RequireCert {
		c.ClientAuth = tls.RequireAndVerifyClientCert
	}
	return c, nil
}

// Client returns the settings of a dialler. The error names the file.
func (i TLSItem) Client() (*tls.Config, error) {
	c, err := i.base()
	if err != nil {
		return nil, err
	}
	c.InsecureSkipVerify = i.SkipVerify
	c.RootCAs, err = i.pool()
	return c, err
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

// checkPeer holds what the chain alone does not tell.
func checkPeer(s tls.ConnectionState, pins [][]byte, skipNames bool) error {
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
	if len(pins) > 0 && !pinned(leaf.Raw, pins) {
		return errors.New("the peer's certificate is not among the pinned ones")
	}
	if skipNames {
		return nil
	}
	_, err := ReceptorIDs(leaf)
	return err
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
