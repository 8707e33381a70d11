package identity

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/ranvier-mesh/ranvier/internal/wire"
	"github.com/ranvier-mesh/ranvier/routing"
)

func advert(origin routing.NodeID, epoch uint64) *routing.Advert {
	return &routing.Advert{
		Key: routing.Key{Origin: origin}, Version: routing.Version{Epoch: epoch, Seq: 1},
		Links: []routing.Adjacency{{To: "x", Cost: 1000}},
	}
}

func TestAdvert(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, eve, leaf := w.self("a", Router), w.self("eve", Router), w.self("leaf", Leaf)
	trust := w.trust(now())
	introduce := func(s *Self) *Signer {
		t.Helper()
		signer, err := trust.Introduce(s.Cert())
		if err != nil {
			t.Fatal(err)
		}
		return signer
	}
	verify := func(by *Signer, raw []byte) error {
		t.Helper()
		ad, e, err := wire.ParseAdvert(raw)
		if err != nil {
			t.Fatal(err)
		}
		return trust.VerifyAdvert(by, ad, e)
	}
	good := advert("a", 7)
	if err := a.Seal(good); err != nil {
		t.Fatal(err)
	}
	if err := verify(introduce(a), good.Raw); err != nil {
		t.Errorf("a good advert: %v", err)
	}

	claimed := advert("a", 1<<64-1) // eve speaks for a
	if err := eve.Seal(claimed); err != nil {
		t.Fatal(err)
	}
	if err := verify(introduce(eve), claimed.Raw); err == nil {
		t.Error("an advert of another origin passes")
	}
	if err := verify(introduce(a), claimed.Raw); err == nil {
		t.Error("an advert of a, signed by eve, passes")
	}
	body, err := wire.EncodeAdvert(advert("a", 9))
	if err != nil {
		t.Fatal(err)
	}
	id := a.KeyID()
	raw, err := wire.Envelope{Body: body, Sig: ed25519.Sign(a.key, body), KeyID: id[:]}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if err := verify(introduce(a), raw); !errors.Is(err, ErrSignature) {
		t.Errorf("a signature without its domain: %v", err)
	}
	if err := wire.SealUnsigned(good); err != nil {
		t.Fatal(err)
	}
	if err := verify(introduce(a), good.Raw); err == nil {
		t.Error("an unsigned advert passes")
	}
	topology := advert("leaf", 1)
	if err := leaf.Seal(topology); err != nil {
		t.Fatal(err)
	}
	if err := verify(introduce(leaf), topology.Raw); err == nil || !strings.Contains(err.Error(), "only routers") {
		t.Errorf("a leaf speaks of routing: %v", err)
	}
	stolen := a.Cert()
	stolen.Origin = "eve"
	if _, err := trust.Introduce(stolen); err == nil {
		t.Error("a's certificate passes for eve's")
	}
}

// A changed bit anywhere in a signed advert is noticed.
func TestAdvertFlippedBit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.self("a", Router)
	trust := w.trust(now())
	signer, err := trust.Introduce(a.Cert())
	if err != nil {
		t.Fatal(err)
	}
	ad := advert("a", 7)
	if err := a.Seal(ad); err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(rt *rapid.T) {
		raw := append([]byte(nil), ad.Raw...)
		bit := rapid.IntRange(0, len(raw)*8-1).Draw(rt, "bit")
		raw[bit/8] ^= 1 << (bit % 8)
		got, e, err := wire.ParseAdvert(raw)
		if err == nil {
			err = trust.VerifyAdvert(signer, got, e)
		}
		if err == nil {
			rt.Fatalf("bit %d flipped, and it passes", bit)
		}
	})
}

func TestAttach(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	leaf, client := w.self("leaf", Leaf), w.self("alice", Client)
	trust := w.trust(now())
	signer, err := trust.Introduce(leaf.Cert())
	if err != nil {
		t.Fatal(err)
	}
	sig := leaf.SignAttach("home", 7)
	if err := trust.VerifyAttach(signer, "home", 7, sig); err != nil {
		t.Error(err)
	}
	for name, err := range map[string]error{
		"another home":  trust.VerifyAttach(signer, "elsewhere", 7, sig),
		"another epoch": trust.VerifyAttach(signer, "home", 8, sig),
		"none":          trust.VerifyAttach(signer, "home", 7, nil),
	} {
		if !errors.Is(err, ErrSignature) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if signer, err = trust.Introduce(client.Cert()); err != nil {
		t.Fatal(err)
	}
	if err := trust.VerifyAttach(signer, "home", 7, client.SignAttach("home", 7)); err == nil {
		t.Error("a client is attached as a leaf")
	}
}

// Two lists of parts never give the same bytes to sign.
func TestSignedIsInjective(t *testing.T) {
	t.Parallel()
	part := rapid.SliceOfN(rapid.SliceOfN(rapid.Byte(), 0, 3), 0, 4)
	rapid.Check(t, func(rt *rapid.T) {
		a, b := part.Draw(rt, "a"), part.Draw(rt, "b")
		same := len(a) == len(b)
		for i := range min(len(a), len(b)) {
			same = same && string(a[i]) == string(b[i])
		}
		if (string(signed("d", "m", a...)) == string(signed("d", "m", b...))) != same {
			rt.Fatalf("%v and %v", a, b)
		}
	})
}

func TestEndorse(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	trust := w.trust(now())
	site, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	key, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	public := key.Public().(ed25519.PublicKey)
	m := Member{Claims: Claims{ID: "old"}, Key: site.Public(), NotAfter: now().Add(time.Hour)}
	raw, err := Endorse(site, "test", "old", public, now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if got, _, err := trust.endorsed(m, raw); err != nil || !got.Equal(public) {
		t.Errorf("a good endorsement: %v", err)
	}
	other := m
	other.ID = "new"
	if _, _, err := trust.endorsed(other, raw); !errors.Is(err, ErrSignature) {
		t.Errorf("for another node: %v", err)
	}
	late, err := Endorse(site, "test", "old", public, now().Add(-time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := trust.endorsed(m, late); err == nil {
		t.Error("an endorsement that ended passes")
	}
	if _, err := Endorse(key, "test", "old", public, now()); err == nil {
		t.Error("an ed25519 key endorses")
	}
	if _, _, err := trust.endorsed(Member{Key: public}, raw); err == nil {
		t.Error("an endorsement by an ed25519 key passes")
	}
}
