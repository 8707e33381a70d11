package identity

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/ranvier-mesh/ranvier/internal/wire"
	"github.com/ranvier-mesh/ranvier/routing"
)

// now is the time of most tests.
func now() time.Time { return time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC) }

func at(t time.Time) func() time.Time { return func() time.Time { return t } }

// world is a mesh with its CA.
type world struct {
	*CA
	t    testing.TB
	time time.Time
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, time: now()}
	ca, err := InitCA(t.TempDir(), "test", "ca1", CAOptions{Addresses: []string{"127.0.0.1:1"}, Now: func() time.Time { return w.time }})
	if err != nil {
		t.Fatal(err)
	}
	w.CA, ca.scrypt = ca, 10
	return w
}

// self enrols a node.
func (w *world) self(id routing.NodeID, role Role, work ...string) *Self {
	w.t.Helper()
	s, err := Begin(w.CA, Claims{ID: id, Role: role, Work: work}, filepath.Join(w.t.TempDir(), "identity"))
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

// trust is that of another node, which has heard of no revocation.
func (w *world) trust(clock time.Time) *Trust {
	w.t.Helper()
	roots, err := w.Roots()
	if err != nil {
		w.t.Fatal(err)
	}
	return NewTrust(w.mesh, roots, NewClock(at(clock), time.Time{}))
}

// forge signs a certificate with the CA's own issuer, changed as a test likes.
func (w *world) forge(change func(*x509.Certificate)) []*x509.Certificate {
	w.t.Helper()
	chain, issuerKey, err := w.issuer()
	if err != nil {
		w.t.Fatal(err)
	}
	key, err := NewKey()
	if err != nil {
		w.t.Fatal(err)
	}
	value, err := encodeClaims(Claims{Role: Router, Work: []string{"*"}})
	if err != nil {
		w.t.Fatal(err)
	}
	n, err := serial()
	if err != nil {
		w.t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: n, NotBefore: now().Add(-time.Hour), NotAfter: now().Add(time.Hour),
		URIs: []*url.URL{nodeURI("test", "eve")}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		ExtraExtensions:       []pkix.Extension{{Id: claimsOID(), Value: value}},
	}
	change(c)
	cert, err := create(c, chain[0], key.Public(), issuerKey)
	if err != nil {
		w.t.Fatal(err)
	}
	return append([]*x509.Certificate{cert}, chain...)
}

func (s *Self) chain(t testing.TB) []*x509.Certificate {
	t.Helper()
	chain, err := parseChain(s.Certificate().Certificate)
	if err != nil {
		t.Fatal(err)
	}
	return chain
}

func TestVerify(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	other := newWorld(t)
	for name, tc := range map[string]struct {
		chain []*x509.Certificate
		use   Usage
		clock time.Time
		want  string // of the error; empty: none
		is    error
	}{
		"good":                {chain: w.forge(func(*x509.Certificate) {})},
		"a client dials":      {chain: w.self("alice", Client).chain(t)},
		"a client is dialled": {chain: w.self("bob", Client).chain(t), use: AsServer, want: "not for this use"},
		"expired": {chain: w.forge(func(c *x509.Certificate) { c.NotAfter = now().Add(-time.Minute) }),
			want: "has expired: it ended at 2027-03-01 11:59:00 UTC, and this host's clock says 2027-03-01 12:00:00 UTC"},
		"not yet valid": {chain: w.forge(func(c *x509.Certificate) { c.NotBefore = now().Add(maxSlow + time.Minute) }), want: "is not valid yet"},
		"wrong usage": {chain: w.forge(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning} }),
			want: "not for this use"},
		"no usage as a client": {chain: w.forge(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }),
			use: AsClient, want: "not for this use"},
		"another CA of the same name": {chain: other.forge(func(*x509.Certificate) {}), is: ErrOtherMesh, want: "no CA that this node trusts"},
		"another mesh of this CA":     {chain: w.forge(func(c *x509.Certificate) { c.URIs[0].Host = "prod" }), is: ErrOtherMesh, want: "it is of mesh prod"},
		"16 KiB": {chain: w.forge(func(c *x509.Certificate) {
			c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: []int{1, 2, 3}, Value: make([]byte, 16<<10)})
		}), want: "at most 8192"},
		"too many certificates":  {chain: slices.Repeat(w.forge(func(*x509.Certificate) {}), 5), want: "a chain of 10"},
		"lives a year":           {chain: w.forge(func(c *x509.Certificate) { c.NotAfter = now().AddDate(1, 0, 0) }), want: "at most 168h"},
		"two names":              {chain: w.forge(func(c *x509.Certificate) { c.URIs = append(c.URIs, nodeURI("test", "b")) }), want: "names no node"},
		"no name":                {chain: w.forge(func(c *x509.Certificate) { c.URIs = nil }), want: "names no node"},
		"the CA's name":          {chain: w.forge(func(c *x509.Certificate) { c.URIs[0] = caURI("test", "") }), want: "is not that of a node"},
		"a name below another's": {chain: w.forge(func(c *x509.Certificate) { c.URIs[0] = nodeURI("test", "a/b") }), want: "a slash"},
		"no role":                {chain: w.forge(func(c *x509.Certificate) { c.ExtraExtensions = nil }), want: `role ""`},
		"broken claims":          {chain: w.forge(func(c *x509.Certificate) { c.ExtraExtensions[0].Value = []byte{0xa1} }), want: "malformed"},
		"a CA":                   {chain: w.forge(func(c *x509.Certificate) { c.IsCA = true }), want: "a CA's"},
		"the issuer itself":      {chain: w.forge(func(*x509.Certificate) {})[1:], want: ""},
		"a member as CA":         {chain: signedByMember(t, w), want: "no CA that this node trusts"},
		"2100":                   {chain: w.self("late", Router).chain(t), clock: time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC), want: "this host's clock says 2100-01-01"},
		"1970":                   {chain: w.self("early", Router).chain(t), clock: time.Unix(0, 0), want: "is not valid yet"}, // more than a week after all that is known
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			clock := tc.clock
			if clock.IsZero() {
				clock = now()
			}
			use := tc.use
			if use == 0 {
				use = AsClient
			}
			m, err := w.trust(clock).Verify(tc.chain, use)
			switch {
			case name == "the issuer itself":
				if err == nil {
					t.Error("the issuer's own certificate passes for a node's")
				}
			case tc.want == "" && err != nil:
				t.Error(err)
			case tc.want == "" && m.Mesh != "test":
				t.Errorf("member %+v", m)
			case tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)):
				t.Errorf("error %v, want %q", err, tc.want)
			case tc.is != nil && !errors.Is(err, tc.is):
				t.Errorf("error %v is not %v", err, tc.is)
			}
			if err != nil && strings.Contains(err.Error(), "\n") {
				t.Errorf("the error has several lines: %v", err)
			}
		})
	}
}

// signedByMember is a certificate that a member has signed with its own key.
func signedByMember(t testing.TB, w *world) []*x509.Certificate {
	t.Helper()
	m := w.self("mallory", Router)
	key, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	template := w.forge(func(*x509.Certificate) {})[0]
	template.ExtraExtensions = template.Extensions
	cert, err := create(template, m.chain(t)[0], key.Public(), m.key)
	if err != nil {
		t.Fatal(err)
	}
	return append([]*x509.Certificate{cert}, m.chain(t)...)
}

// A certificate that is shown again is not verified anew, but for what may have changed.
func TestVerifiedBefore(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	clock := now()
	roots, err := w.Roots()
	if err != nil {
		t.Fatal(err)
	}
	trust := NewTrust(w.mesh, roots, NewClock(func() time.Time { return clock }, time.Time{}))
	chain := w.self("alice", Client).chain(t)
	for range 3 {
		if m, err := trust.Verify(chain, AsClient); err != nil || m.ID != "alice" {
			t.Fatalf("%s, %v", m.ID, err)
		}
	}
	if known := trust.issuer(chain[1].Raw); len(known.signed) != 1 {
		t.Errorf("%d certificates are known to be signed, want alice's", len(known.signed))
	}
	if _, err := trust.Verify(chain, AsServer); err == nil || !strings.Contains(err.Error(), "not for this use") {
		t.Errorf("a client's certificate shown as a server's, after it was a client's: %v", err)
	}
	other := *chain[0]
	other.Raw = bytes.Clone(other.Raw)
	other.Raw[len(other.Raw)-1] ^= 1
	other.Signature = other.Raw[len(other.Raw)-len(other.Signature):]
	if _, err := trust.Verify(append([]*x509.Certificate{&other}, chain[1:]...), AsClient); err == nil {
		t.Error("the same certificate with another signature is taken")
	}
	clock = chain[0].NotAfter.Add(time.Second)
	if _, err := trust.Verify(chain, AsClient); !errors.As(err, new(*ClockError)) {
		t.Errorf("the certificate has expired since: %v", err)
	}
}

// A host whose clock says 1970 knows the time by what the CA has signed.
// Where the system's clock is wrong, what is known to have passed goes on.
func TestClockGoesOn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		seen := time.Date(2031, 1, 1, 0, 0, 0, 0, time.UTC)
		c := NewClock(func() time.Time { return time.Unix(0, 0) }, time.Time{})
		c.Observe(seen)
		time.Sleep(MaxLife)
		c.Observe(seen.Add(time.Hour)) // passed long ago
		if want := seen.Add(MaxLife); !c.Now().Equal(want) || !c.Floor().Equal(want) || !c.Behind() {
			t.Errorf("%v, %v, want %v", c.Now(), c.Floor(), want)
		}
	})
}

func TestClockBehind(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	dir := filepath.Join(t.TempDir(), "identity")
	s, err := Begin(w.CA, Claims{ID: "box", Role: Router}, dir)
	if err != nil {
		t.Fatal(err)
	}
	w.time = w.time.Add(3 * 24 * time.Hour)
	peer := w.self("peer", Router) // renewed three days later
	box, err := Load(dir, at(time.Unix(0, 0)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := box.trust.Verify(peer.chain(t), AsServer); err != nil {
		t.Errorf("a peer's newer certificate: %v", err)
	}
	if got := box.trust.clock.Now(); got.Before(w.time.Add(-skew)) {
		t.Errorf("the box thinks it is %v, although the CA has signed at %v", got, w.time)
	}
	if err := box.Save(); err != nil {
		t.Fatal(err)
	}
	if box, err = Load(dir, at(time.Unix(0, 0))); err != nil || box.trust.clock.Now().Before(w.time.Add(-skew)) {
		t.Errorf("the time is forgotten: %v", err)
	}
	_, err = Load(dir, at(time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)))
	if err == nil || !strings.Contains(err.Error(), "this host's clock says 2100-01-01") || strings.Contains(err.Error(), "\n") {
		t.Errorf("a clock in 2100: %v", err)
	}
	_ = s
}

func TestRevoke(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	good, bad := w.self("good", Router), w.self("bad", Router)
	m, err := good.trust.Verify(bad.chain(t), AsClient)
	if err != nil {
		t.Fatal(err)
	}
	changed := good.trust.Changed()
	list, err := w.Revoke("bad")
	if err != nil {
		t.Fatal(err)
	}
	if newer, err := good.trust.Revoke(list.Raw); !newer || err != nil {
		t.Fatalf("the list is refused: newer %v, %v", newer, err)
	}
	select {
	case <-changed:
	default:
		t.Error("nobody is told of the change")
	}
	if err := good.trust.Still(m); !errors.Is(err, ErrRevoked) {
		t.Errorf("who was verified before is still a member: %v", err)
	}
	if _, err := good.trust.Verify(bad.chain(t), AsClient); !errors.Is(err, ErrRevoked) {
		t.Errorf("a revoked certificate: %v", err)
	}
	if newer, err := good.trust.Revoke(list.Raw); newer || err != nil {
		t.Errorf("the same list again: newer %v, %v", newer, err)
	}
	if _, err := w.Renew(m); err == nil {
		t.Error("a revoked key is renewed")
	}
	if _, err := w.Enrol(Claims{ID: "bad2", Role: Router}, m.Key.(ed25519.PublicKey)); !errors.Is(err, ErrRevoked) {
		t.Errorf("a revoked key gets another id: %v", err)
	}
	w.self("bad", Leaf) // the id is free, for another key
	if err := good.SaveRevocations(); err != nil {
		t.Fatal(err)
	}
	again, err := Load(good.dir, at(now()))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := again.trust.Verify(bad.chain(t), AsClient); !errors.Is(err, ErrRevoked) {
		t.Errorf("after a restart: %v", err)
	}
	if _, err := w.Revoke("ca1"); err == nil {
		t.Error("the CA's own node is revoked")
	}
	if _, err := w.Revoke("nobody"); err == nil || !strings.Contains(err.Error(), "good") {
		t.Errorf("who is unknown: %v", err)
	}
}

func TestRevocationsForged(t *testing.T) {
	t.Parallel()
	w, other := newWorld(t), newWorld(t)
	victim, eve := w.self("victim", Router), w.self("eve", Router)
	forged := func(key ed25519.PrivateKey, chain []*x509.Certificate, mesh string) []byte {
		r, err := signRevocations(key, chain, mesh, Revocations{Number: 1 << 40, Issued: now(), Keys: []KeyID{victim.KeyID()}})
		if err != nil {
			t.Fatal(err)
		}
		return r.Raw
	}
	otherChain, otherKey, err := other.issuer()
	if err != nil {
		t.Fatal(err)
	}
	chain, key, err := w.issuer()
	if err != nil {
		t.Fatal(err)
	}
	future, err := signRevocations(key, chain, "test", Revocations{Number: 9, Issued: now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	for name, raw := range map[string][]byte{
		"by a member":         forged(eve.key, eve.chain(t), "test"),
		"by a member as CA":   forged(eve.key, chain, "test"),
		"by another CA":       forged(otherKey, otherChain, "test"),
		"of another mesh":     forged(key, chain, "prod"),
		"from the future":     future.Raw,
		"of nothing":          {},
		"larger than a frame": make([]byte, MaxRevocations+1),
	} {
		if newer, err := victim.trust.Revoke(raw); newer || err == nil {
			t.Errorf("%s: newer %v, %v", name, newer, err)
		}
	}
	if err := victim.trust.Still(Member{KeyID: victim.KeyID(), NotAfter: now().Add(time.Hour)}); err != nil {
		t.Error(err)
	}
}

// A token that no id could be for is not made.
func TestTokenForNobody(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for pattern, want := range map[string]string{
		"a/b": "slash", "a/*": "slash", "": "write an id", "[a": "write an id", "edge 1": "letters, digits", "edge+*": "letters, digits", "Localhost": "localhost",
		strings.Repeat("a", routing.MaxNodeIDLen+1): "at most",
	} {
		if _, err := w.Token(Request{Role: Leaf, Pattern: pattern}); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("a token for %q: %v, want %q", pattern, err, want)
		}
	}
	for _, pattern := range []string{"*", "localhost*", "edge-[0-9]?", "[^a]*", "alice@example.com"} {
		if _, err := w.Token(Request{Role: Leaf, Pattern: pattern}); err != nil {
			t.Errorf("a token for %q: %v", pattern, err)
		}
	}
}

func TestRedeem(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	key1, _ := NewKey()
	key2, _ := NewKey()
	pub1, pub2 := key1.Public().(ed25519.PublicKey), key2.Public().(ed25519.PublicKey)
	tok, err := w.Token(Request{Role: Leaf, Pattern: "edge-*", Work: []string{"a"}, TTL: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	refused := func(secret [SecretLen]byte, id routing.NodeID, key ed25519.PublicKey, want string) {
		t.Helper()
		if _, err := w.Redeem(secret, id, key); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("redeem for %s: %v, want %q", id, err, want)
		}
	}
	refused([SecretLen]byte{}, "edge-1", pub1, "not known")
	refused(tok.Secret, "core-1", pub1, `ids like "edge-*"`)
	refused(tok.Secret, "edge-1/x", pub1, "edge-")
	g, err := w.Redeem(tok.Secret, "edge-1", pub1)
	if err != nil {
		t.Fatal(err)
	}
	m, err := w.trust(now()).VerifyRaw(g.Chain, AsServer)
	if err != nil || m.ID != "edge-1" || m.Role != Leaf || !slices.Equal(m.Work, []string{"a"}) {
		t.Fatalf("member %+v, %v", m, err)
	}
	if _, err := w.Redeem(tok.Secret, "edge-1", pub1); err != nil {
		t.Errorf("who asks again because the answer was lost: %v", err)
	}
	refused(tok.Secret, "edge-2", pub2, "used already")
	second, err := w.Token(Request{Role: Router, Pattern: "*"})
	if err != nil {
		t.Fatal(err)
	}
	refused(second.Secret, "edge-1", pub2, ErrTaken.Error())
	if _, err := w.Token(Request{Role: Router, Pattern: "edge-1"}); !errors.Is(err, ErrTaken) {
		t.Errorf("a token for an id that is taken: %v", err)
	}
	w.time = w.time.Add(2 * time.Hour)
	refused(second.Secret, "edge-3", pub2, "not known") // its hour is over
	state, err := os.ReadFile(filepath.Join(w.dir, stateFile))
	if err != nil || strings.Contains(string(state), string(tok.Secret[:])) {
		t.Error("the state has the secret", err)
	}
}

// A renewal gives what the member joined with, whatever its certificate says.
func TestRenewNeverWidens(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	roots, err := w.Roots()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	rapid.Check(t, func(rt *rapid.T) {
		n++
		w.time = now()
		id := routing.NodeID(fmt.Sprint("n", n))
		role := rapid.SampledFrom([]Role{Router, Leaf, Client}).Draw(rt, "role")
		work := rapid.SliceOfN(rapid.StringMatching(`[a-z]{1,8}`), 0, 4).Draw(rt, "work")
		key, _ := NewKey()
		g, err := w.Enrol(Claims{ID: id, Role: role, Work: work}, key.Public().(ed25519.PublicKey))
		if err != nil {
			rt.Fatal(err)
		}
		trust := NewTrust("test", roots, NewClock(func() time.Time { return w.time }, time.Time{}))
		for range rapid.IntRange(1, 3).Draw(rt, "renewals") {
			w.time = w.time.Add(time.Duration(rapid.IntRange(0, 6*24).Draw(rt, "hours")) * time.Hour)
			m, err := trust.VerifyRaw(g.Chain, AsSigner)
			if err != nil {
				rt.Fatal(err)
			}
			m.Role, m.Work = Router, []string{"*"} // what the asker would like
			if g, err = w.Renew(m); err != nil {
				rt.Fatal(err)
			}
		}
		m, err := trust.VerifyRaw(g.Chain, AsSigner)
		if err != nil || m.ID != id || m.Role != role || !slices.Equal(m.Work, work) && len(m.Work)+len(work) > 0 {
			rt.Fatalf("renewed to %+v, %v; joined as %s for %v", m, err, role, work)
		}
		if life := m.NotAfter.Sub(w.time); life > MaxLife {
			rt.Fatalf("a certificate for %v", life)
		}
		m.KeyID[0]++
		if _, err := w.Renew(m); err == nil {
			rt.Fatal("another key is renewed")
		}
	})
}

func TestMayBe(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		cert Role
		id   routing.NodeID
		role wire.Role
		ok   bool
	}{
		{Router, "n", wire.RoleRouter, true}, {Router, "n", wire.RoleLeaf, true}, {Router, "n", wire.RoleEphemeral, true},
		{Leaf, "n", wire.RoleRouter, false}, {Leaf, "n", wire.RoleLeaf, true}, {Leaf, "n/1", wire.RoleEphemeral, true},
		{Client, "n", wire.RoleRouter, false}, {Client, "n", wire.RoleLeaf, false}, {Client, "n/x", wire.RoleEphemeral, true},
		{Router, "n/x", wire.RoleRouter, false}, {Router, "nn", wire.RoleRouter, false}, {Router, "m", wire.RoleEphemeral, false},
		{Client, "nx/1", wire.RoleEphemeral, false}, {Client, "/n", wire.RoleEphemeral, false},
	} {
		if err := (Claims{ID: "n", Role: tc.cert}).MayBe(tc.id, tc.role); (err == nil) != tc.ok {
			t.Errorf("a %s's certificate as %v %s: %v", tc.cert, tc.role, tc.id, err)
		}
	}
}
