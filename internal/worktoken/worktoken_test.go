package worktoken

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"golang.org/x/crypto/ssh"
)

// keys writes one key in every form that sites have.
func keys(t *testing.T) (private, public map[string]string, key *rsa.PrivateKey) {
	t.Helper()
	dir := t.TempDir()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name string, b []byte) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	encode := func(kind string, der []byte) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	}
	p8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	pkix, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	open, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		t.Fatal(err)
	}
	authorized, err := ssh.NewPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]string{
			"PKCS1": write("p1", encode("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(key))),
			"PKCS8": write("p8", encode("PRIVATE KEY", p8)),
			"ssh":   write("open", pem.EncodeToMemory(open)),
		}, map[string]string{
			"PKCS1": write("p1.pub", encode("RSA PUBLIC KEY", x509.MarshalPKCS1PublicKey(&key.PublicKey))),
			"PKIX":  write("pkix.pub", encode("PUBLIC KEY", pkix)),
			"ssh":   write("open.pub", ssh.MarshalAuthorizedKey(authorized)),
		}, key
}

func TestToken(t *testing.T) {
	t.Parallel()
	private, public, key := keys(t)
	now := time.Now()
	for form, file := range private {
		token, err := Signer{KeyFile: file}.Token("node1", now)
		if err != nil {
			t.Fatalf("%s: %v", form, err)
		}
		for check, pub := range public {
			if err := (Verifier{pub}).Verify(token, "node1", now); err != nil {
				t.Errorf("signed with %s, checked with %s: %v", form, check, err)
			}
		}
	}
	v := Verifier{public["ssh"]}
	token, err := Signer{KeyFile: private["ssh"], Life: time.Hour}.Token("node1", now)
	if err != nil {
		t.Fatal(err)
	}
	// What Receptor looks at, and nothing else.
	var claims map[string]any
	body, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(body, &claims); err != nil || len(claims) != 2 || claims["exp"] != float64(now.Add(time.Hour).Unix()) {
		t.Errorf("claims %v, %v", claims, err)
	}
	if aud, ok := claims["aud"].([]any); !ok || len(aud) != 1 || aud[0] != "node1" {
		t.Errorf("aud is %v", claims["aud"])
	}
	other, _, _ := keys(t)
	forged, err := Signer{KeyFile: other["ssh"]}.Token("node1", now)
	if err != nil {
		t.Fatal(err)
	}
	with := func(m jwt.SigningMethod, k any, c jwt.Claims) string {
		s, err := jwt.NewWithClaims(m, c).SignedString(k)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	aud := jwt.ClaimStrings{"node1"}
	pub, err := os.ReadFile(public["PKIX"])
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string]string{
		"nothing": "", "no token": "x.y.z", "another key": forged,
		"too long":           strings.Repeat("x", maxToken+1),
		"no signature":       with(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, jwt.RegisteredClaims{Audience: aud, ExpiresAt: jwt.NewNumericDate(now.Add(time.Hour))}),
		"the public key":     with(jwt.SigningMethodHS512, pub, jwt.RegisteredClaims{Audience: aud, ExpiresAt: jwt.NewNumericDate(now.Add(time.Hour))}),
		"another hash":       with(jwt.SigningMethodRS256, key, jwt.RegisteredClaims{Audience: aud, ExpiresAt: jwt.NewNumericDate(now.Add(time.Hour))}),
		"no end":             with(jwt.SigningMethodRS512, key, jwt.RegisteredClaims{Audience: aud}),
		"nobody's":           with(jwt.SigningMethodRS512, key, jwt.RegisteredClaims{ExpiresAt: jwt.NewNumericDate(now.Add(time.Hour))}),
		"of another purpose": token[:len(token)-8] + "AAAAAAAA",
	} {
		if err := v.Verify(bad, "node1", now); err == nil {
			t.Errorf("%s holds", name)
		}
	}
	if err := v.Verify(token, "node2", now); err == nil {
		t.Error("it holds for another node")
	}
	if err := v.Verify(token, "node1", now.Add(2*time.Hour)); err == nil || !strings.Contains(err.Error(), "expired") {
		t.Errorf("expired: %v", err)
	}
}

// TestBadKeys holds that an error names the file and what is wrong with it.
func TestBadKeys(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	locked, err := ssh.MarshalPrivateKeyWithPassphrase(private, "", []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"text": []byte("no key"), "ed": pem.EncodeToMemory(block), "locked": pem.EncodeToMemory(locked)} {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := (Signer{KeyFile: file}).Token("n", time.Now()); err == nil || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: %v", name, err)
		}
		if err := (Verifier{file}).Verify("x", "n", time.Now()); err == nil || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := (Signer{KeyFile: dir}).Token("n", time.Now()); err == nil {
		t.Error("a directory is a key")
	}
}
