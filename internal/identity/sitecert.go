package identity

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"time"

	"github.com/ranvier-mesh/ranvier/routing"
)

// The functions of this file make certificates as Receptor's own commands
// (cert-init, cert-makereq, cert-signreq) do: RSA keys, and node ids in SAN
// otherNames. A mesh of Ranvier nodes has a better CA (CA, "ranvier ca").

// Bounds of the size of an RSA key.
const (
	DefaultSiteBits = 2048
	minSiteBits     = 2048
	maxSiteBits     = 16384
)

// siteLife is how long a certificate holds whose end nobody has named.
const siteLife = 365 * 24 * time.Hour

// SiteRequest says for whom a certificate is.
type SiteRequest struct {
	CommonName string
	DNS        []string
	IPs        []net.IP
	Nodes      []routing.NodeID
}

// SiteCA makes a site's CA: its certificate and RSA key as PEM. Zero times are
// now and a year later.
func SiteCA(commonName string, bits int, notBefore, notAfter time.Time) (cert, key []byte, err error) {
	signer, key, err := SiteKey(bits)
	if err != nil {
		return nil, nil, err
	}
	t := &x509.Certificate{
		Subject: pkix.Name{CommonName: commonName}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
	}
	if err := siteValidity(t, notBefore, notAfter); err != nil {
		return nil, nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, signer.Public(), signer)
	if err != nil {
		return nil, nil, fmt.Errorf("make the CA's certificate: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), key, nil
}

// SiteKey makes an RSA key of so many bits (0: DefaultSiteBits), for use and as
// PEM.
func SiteKey(bits int) (crypto.Signer, []byte, error) {
	if bits == 0 {
		bits = DefaultSiteBits
	}
	if bits < minSiteBits || bits > maxSiteBits {
		return nil, nil, fmt.Errorf("an RSA key of %d bits: %d to %d are allowed", bits, minSiteBits, maxSiteBits)
	}
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		return nil, nil, fmt.Errorf("make an RSA key: %w", err)
	}
	return key, pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}), nil
}

// SiteCSR makes a request for a certificate, as PEM.
func SiteCSR(r SiteRequest, key crypto.Signer) ([]byte, error) {
	for _, id := range r.Nodes {
		if err := id.Validate(); err != nil {
			return nil, err
		}
	}
	t := &x509.CertificateRequest{Subject: pkix.Name{CommonName: r.CommonName}}
	if len(r.DNS)+len(r.IPs)+len(r.Nodes) > 0 {
		san, err := ReceptorSAN(r.DNS, r.IPs, r.Nodes)
		if err != nil {
			return nil, fmt.Errorf("encode the names: %w", err)
		}
		t.ExtraExtensions = []pkix.Extension{{Id: sanOID(), Value: san}}
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, t, key)
	if err != nil {
		return nil, fmt.Errorf("make the request: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), nil
}

// ParseSiteCSR reads a request of SiteCSR's form and checks that who made it has
// the key.
func ParseSiteCSR(text []byte) (*x509.CertificateRequest, SiteRequest, error) {
	var r SiteRequest
	block, err := pemBlock(text, "CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST")
	if err != nil {
		return nil, r, err
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, r, fmt.Errorf("read the request: %w", err)
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, r, fmt.Errorf("the request is not signed with its own key: %w", err)
	}
	r = SiteRequest{CommonName: csr.Subject.CommonName, DNS: csr.DNSNames, IPs: csr.IPAddresses}
	for _, e := range csr.Extensions {
		if e.Id.Equal(sanOID()) {
			if r.Nodes, err = parseOtherNames(e.Value); err != nil {
				return nil, r, fmt.Errorf("the request's alternative names: %w", err)
			}
		}
	}
	return csr, r, nil
}

// SignSiteCSR makes the certificate that a request asks for, as PEM. caCert and
// caKey are PEM. Zero times are now and a year later, but no later than the
// CA's own end.
func SignSiteCSR(csr *x509.CertificateRequest, caCert, caKey []byte, notBefore, notAfter time.Time) ([]byte, error) {
	block, err := pemBlock(caCert, "CERTIFICATE")
	if err != nil {
		return nil, fmt.Errorf("the CA's certificate: %w", err)
	}
	ca, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("the CA's certificate: %w", err)
	}
	if !ca.IsCA {
		return nil, fmt.Errorf("the certificate %q is no CA's", ca.Subject.CommonName)
	}
	signer, err := ParseSiteKey(caKey)
	if err != nil {
		return nil, fmt.Errorf("the CA's key: %w", err)
	}
	if public, ok := signer.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !public.Equal(ca.PublicKey) {
		return nil, errors.New("the CA's key is not that of its certificate")
	}
	t := &x509.Certificate{
		Subject: csr.Subject, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	for _, e := range csr.Extensions {
		if e.Id.Equal(sanOID()) {
			t.ExtraExtensions = []pkix.Extension{{Id: e.Id, Value: e.Value}}
		}
	}
	if notAfter.IsZero() {
		if notAfter = time.Now().Add(siteLife); notAfter.After(ca.NotAfter) {
			notAfter = ca.NotAfter
		}
	}
	if err := siteValidity(t, notBefore, notAfter); err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, t, ca, csr.PublicKey, signer)
	if err != nil {
		return nil, fmt.Errorf("sign the certificate: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}

// siteValidity sets the times, and the number, of a certificate to be.
func siteValidity(t *x509.Certificate, from, to time.Time) error {
	if from.IsZero() {
		from = time.Now()
	}
	if to.IsZero() {
		to = from.Add(siteLife)
	}
	if !to.After(from) {
		return fmt.Errorf("the certificate would end (%s) before it begins (%s)", to.Format(time.RFC3339), from.Format(time.RFC3339))
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return err
	}
	t.NotBefore, t.NotAfter, t.SerialNumber = from, to, serial.Add(serial, big.NewInt(1))
	return nil
}

// ParseSiteKey reads a private key from PEM: PKCS #1, PKCS #8 or SEC 1.
func ParseSiteKey(text []byte) (crypto.Signer, error) {
	block, err := pemBlock(text, "RSA PRIVATE KEY", "PRIVATE KEY", "EC PRIVATE KEY")
	if err != nil {
		return nil, err
	}
	var key any
	switch block.Type {
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	default:
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	}
	if err != nil {
		return nil, fmt.Errorf("read the key: %w", err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("a key of the type %T cannot sign", key)
	}
	return signer, nil
}

// pemBlock returns the first block of one of the types.
func pemBlock(text []byte, types ...string) (*pem.Block, error) {
	for rest := text; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return nil, fmt.Errorf("there is no PEM block %s", types[0])
		}
		for _, t := range types {
			if block.Type == t {
				return block, nil
			}
		}
	}
}
