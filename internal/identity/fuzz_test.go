package identity

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/ranvier-mesh/ranvier/routing"
)

func FuzzToken(f *testing.F) {
	t := Token{Mesh: "test", Addresses: []string{"host:1"}, Role: Leaf, Issued: now()}
	f.Add(t.String())
	f.Add("rj1_")
	f.Fuzz(func(t *testing.T, text string) {
		tok, err := ParseToken(text)
		if err != nil {
			if !errors.Is(err, ErrToken) {
				t.Fatalf("%v does not wrap ErrToken", err)
			}
			return
		}
		again, err := ParseToken(tok.String())
		if err != nil || again.Secret != tok.Secret || again.Mesh != tok.Mesh || !slices.Equal(again.Addresses, tok.Addresses) {
			t.Fatalf("%+v reads back as %+v, %v", tok, again, err)
		}
	})
}

func FuzzClaims(f *testing.F) {
	good, err := encodeClaims(Claims{Role: Router, Work: []string{"a", "*"}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Fuzz(func(t *testing.T, value []byte) {
		role, work, err := decodeClaims(value)
		if err == nil && (len(work) > maxWork || role == "") {
			t.Fatalf("role %q, %d work types", role, len(work))
		}
	})
}

func FuzzRevocations(f *testing.F) {
	f.Add([]byte{0xa3, 1, 0x41, 0, 2, 0x41, 0, 3, 0x80})
	f.Fuzz(func(t *testing.T, raw []byte) {
		if r, err := ParseRevocations(raw); err == nil && (len(r.Keys) > maxRevoked || r.Number == 0) {
			t.Fatalf("%+v", r)
		}
	})
}

func FuzzOtherNames(f *testing.F) {
	good, err := ReceptorSAN([]string{"h"}, nil, []routing.NodeID{"a", "b"})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Fuzz(func(t *testing.T, san []byte) {
		ids, err := parseOtherNames(san)
		for _, id := range ids {
			if err == nil && id.Validate() != nil {
				t.Fatalf("id %q", id)
			}
		}
	})
}

// A token that was cut or changed on its way is told from one that is wrong.
func TestTokenCut(t *testing.T) {
	t.Parallel()
	tok := Token{Mesh: "test", Addresses: []string{"host:1", "[::1]:2"}, Role: Leaf, Issued: now()}
	text := tok.String()
	for n := range text {
		if _, err := ParseToken(text[:n]); !errors.Is(err, ErrToken) {
			t.Fatalf("cut at %d: %v", n, err)
		}
	}
	if _, err := ParseToken(" " + text + "\n"); err != nil {
		t.Error("with space around:", err)
	}
	rapid.Check(t, func(rt *rapid.T) {
		b := []byte(text)
		i := rapid.IntRange(0, len(b)-1).Draw(rt, "i")
		c := rapid.Byte().Draw(rt, "c")
		if b[i] == c {
			return
		}
		b[i] = c
		if got, err := ParseToken(string(b)); err == nil && got.Secret != tok.Secret {
			rt.Fatalf("%q passes", b)
		}
	})
}

// site is a CA as sites have from before, and a node's RSA certificate.
func site(t *testing.T) (cafile, certfile, keyfile string, leaf *x509.Certificate) {
	t.Helper()
	dir := t.TempDir()
	caKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "site"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	if ca, err = create(ca, ca, caKey.Public(), caKey); err != nil {
		t.Fatal(err)
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	san, err := ReceptorSAN([]string{"localhost"}, nil, []routing.NodeID{"old1", "old2"})
	if err != nil {
		t.Fatal(err)
	}
	leaf = &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "old1"}, NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, ExtraExtensions: []pkix.Extension{{Id: sanOID(), Value: san}}}
	if leaf, err = create(leaf, ca, key.Public(), caKey); err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	cafile, certfile, keyfile = filepath.Join(dir, "ca"), filepath.Join(dir, "crt"), filepath.Join(dir, "key")
	for name, data := range map[string][]byte{cafile: encodeCerts(ca.Raw), certfile: encodeCerts(leaf.Raw), keyfile: pem.EncodeToMemory(&pem.Block{Type: pemKey, Bytes: der})} {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cafile, certfile, keyfile, leaf
}

func TestReceptor(t *testing.T) {
	t.Parallel()
	cafile, certfile, keyfile, leaf := site(t)
	if ids, err := ReceptorIDs(leaf); err != nil || !slices.Equal(ids, []routing.NodeID{"old1", "old2"}) {
		t.Fatalf("ids %v, %v", ids, err)
	}
	sum := sha256.Sum256(leaf.Raw)
	pin := hex.EncodeToString(sum[:])
	client := TLSItem{Cert: certfile, Key: keyfile, CAs: cafile, Pinned: []string{pin}}
	server := TLSItem{Cert: certfile, Key: keyfile, CAs: cafile, RequireCert: true}
	_, strangerCert, strangerKey, _ := site(t)
	for name, tc := range map[string]struct {
		client, server TLSItem
		ok             bool
	}{
		"good":                     {client, server, true},
		"no certificate":           {TLSItem{CAs: cafile}, server, false},
		"none needed":              {TLSItem{CAs: cafile}, TLSItem{Cert: certfile, Key: keyfile}, true},
		"a stranger dials":         {TLSItem{Cert: strangerCert, Key: strangerKey, CAs: cafile}, server, false},
		"a stranger answers":       {client, TLSItem{Cert: strangerCert, Key: strangerKey}, false},
		"not pinned at the server": {client, TLSItem{Cert: certfile, Key: keyfile, CAs: cafile, Pinned: []string{hex.EncodeToString(bytes.Repeat([]byte{1}, 32))}}, false},
		"not pinned at the client": {TLSItem{CAs: cafile, Pinned: []string{hex.EncodeToString(bytes.Repeat([]byte{1}, 64))}}, TLSItem{Cert: certfile, Key: keyfile}, false},
		"believes anybody":         {TLSItem{SkipVerify: true}, TLSItem{Cert: strangerCert, Key: strangerKey}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, err := tc.server.Server()
			if err != nil {
				t.Fatal(err)
			}
			c, err := tc.client.Client()
			if err != nil {
				t.Fatal(err)
			}
			if err := shake(t, c("localhost"), s); (err == nil) != tc.ok {
				t.Errorf("error %v, want success: %v", err, tc.ok)
			}
		})
	}
	if _, err := (TLSItem{Pinned: []string{"abc"}}).Client(); err == nil {
		t.Error("a fingerprint that is none passes")
	}
	if _, err := (TLSItem{}).Server(); err == nil {
		t.Error("a server without a certificate passes")
	}
}

// shake connects two ends; the error is that of whichever fails.
func shake(t *testing.T, c, s *tls.Config) error {
	t.Helper()
	result := make(chan error, 1)
	addr := listen(t, s, func(conn net.Conn) {
		defer conn.Close()
		result <- conn.(*tls.Conn).HandshakeContext(t.Context())
	})
	conn, err := tls.Dial("tcp", addr, c)
	if err == nil {
		conn.Close()
	}
	return errors.Join(err, <-result)
}

// The link's own TLS: both ends are members, and no ticket is given.
func TestLinkTLS(t *testing.T) {
	t.Parallel()
	ca := wallCA(t)
	begin := func(id routing.NodeID, role Role) *Self {
		t.Helper()
		s, err := Begin(ca, Claims{ID: id, Role: role}, filepath.Join(t.TempDir(), "i"))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	a, b, c := begin("a", Router), begin("b", Router), begin("c", Client)
	if err := shake(t, a.ClientTLS(), b.ServerTLS()); err != nil {
		t.Error(err)
	}
	if err := shake(t, c.ClientTLS(), b.ServerTLS()); err != nil {
		t.Error(err)
	}
	if err := shake(t, a.ClientTLS(), c.ServerTLS()); err == nil {
		t.Error("a client is dialled")
	}
	nobody := a.ClientTLS()
	nobody.GetClientCertificate = nil
	if err := shake(t, nobody, b.ServerTLS()); err == nil {
		t.Error("who shows no certificate gets in")
	}
	list, err := ca.Revoke("a")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.trust.Revoke(list.Raw); err != nil {
		t.Fatal(err)
	}
	if err := shake(t, b.ClientTLS(), a.ServerTLS()); !errors.Is(err, ErrRevoked) {
		t.Errorf("a revoked node is dialled: %v", err)
	}
	// One that dials is told why, in place of a Hello.
	if err := shake(t, a.ClientTLS(), b.ServerTLS()); err != nil || !b.trust.RevokedKey(a.Certificate().Leaf) {
		t.Errorf("a revoked node cannot be told: %v", err)
	}
	if _, err := b.trust.Peer([]*x509.Certificate{a.Certificate().Leaf}, false); err == nil {
		t.Error("a revoked node is believed")
	}
}
