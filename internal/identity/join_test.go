package identity

import (
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ranvier-mesh/ranvier/routing"
)

// serve runs the join service of a CA on loopback, in the wall clock's time.
func serve(t *testing.T, ca *CA) string {
	t.Helper()
	cfg, err := ca.JoinTLS()
	if err != nil {
		t.Fatal(err)
	}
	return listen(t, cfg, func(c net.Conn) { ca.ServeJoin(c, slog.New(slog.DiscardHandler)) })
}

func listen(t *testing.T, cfg *tls.Config, handle func(net.Conn)) string {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", cfg)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { handle(c) })
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return l.Addr().String()
}

func wallCA(t *testing.T) *CA {
	t.Helper()
	ca, err := InitCA(t.TempDir(), "test", "ca1", CAOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ca.scrypt = 10
	return ca
}

func TestJoin(t *testing.T) {
	t.Parallel()
	ca := wallCA(t)
	addr := serve(t, ca)
	token := func(r Request) Token {
		t.Helper()
		r.Addresses = []string{"127.0.0.1:1", addr} // the first does not answer
		tok, err := ca.Token(r)
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseToken(tok.String())
		if err != nil || again.Secret != tok.Secret {
			t.Fatalf("the token does not read back: %v", err)
		}
		return again
	}
	dir := filepath.Join(t.TempDir(), "identity")
	first := token(Request{Role: Router, Pattern: "n1", Work: []string{"ansible-runner"}})
	s, answered, err := Join(t.Context(), first, "n1", dir, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if answered != addr {
		t.Errorf("%s answered, want %s", answered, addr)
	}
	if s.ID != "n1" || s.Role != Router || !s.MayWork("ansible-runner") || s.MayWork("command") || s.CA != "ca1" {
		t.Errorf("joined as %+v", s.Claims)
	}
	if info, err := os.Stat(filepath.Join(dir, keyFile)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key's file: %v, %v", info.Mode(), err)
	}
	if _, err := Load(dir, nil); err != nil {
		t.Error(err)
	}
	var refused *RefusedError
	if _, _, err := Join(t.Context(), first, "n1", t.TempDir(), nil, nil); !errors.As(err, &refused) || !strings.Contains(err.Error(), "used already") {
		t.Errorf("the token again: %v", err)
	}
	if _, _, err := Join(t.Context(), token(Request{Role: Router, Pattern: "*"}), "n1", t.TempDir(), nil, nil); !errors.As(err, &refused) || !strings.Contains(err.Error(), ErrTaken.Error()) {
		t.Errorf("an id that is taken: %v", err)
	}
	if _, _, err := Join(t.Context(), first, "n1", dir, nil, nil); err == nil || !strings.Contains(err.Error(), "has an identity already") {
		t.Errorf("into a directory that has one: %v", err)
	}
	// A box whose clock says 1970 joins.
	box, _, err := Join(t.Context(), token(Request{Role: Leaf, Pattern: "box"}), "box", filepath.Join(t.TempDir(), "i"), at(time.Unix(0, 0)), nil)
	if err != nil {
		t.Errorf("a box without a clock: %v", err)
	} else if _, err := Load(box.dir, at(time.Unix(0, 0))); err != nil {
		t.Errorf("a box without a clock starts: %v", err)
	}
	if _, _, err := Join(t.Context(), token(Request{Role: Leaf, Pattern: "x"}), "x", t.TempDir(), at(time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)), nil); err == nil || !strings.Contains(err.Error(), "clock says 2100-01-01") {
		t.Errorf("a box in 2100: %v", err)
	}
}

// A token's secret is told to nobody but its CA.
func TestJoinAsksOnlyTheCA(t *testing.T) {
	t.Parallel()
	ca, other := wallCA(t), wallCA(t)
	member, err := Begin(ca, Claims{ID: "member", Role: Router}, filepath.Join(t.TempDir(), "i"))
	if err != nil {
		t.Fatal(err)
	}
	asMember := &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{JoinProtocol}, Certificates: []tls.Certificate{*member.Certificate()}}
	roots, err := ca.Roots()
	if err != nil {
		t.Fatal(err)
	}
	asMember.Certificates[0].Certificate = append(asMember.Certificates[0].Certificate, rawCerts(roots)...)
	heard := func(conn net.Conn) {
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(5 * time.Second))
		if n, err := conn.Read(make([]byte, 1)); n > 0 {
			t.Errorf("something was said to who is not the CA (%v)", err)
		}
	}
	for name, tc := range map[string]struct{ addr, want string }{
		"a member":   {listen(t, asMember, heard), "a member of the mesh and not its CA"},
		"another CA": {serve(t, other), "not have the root"},
	} {
		tok, err := ca.Token(Request{Role: Router, Pattern: "*", Addresses: []string{tc.addr}})
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := Join(t.Context(), tok, "n", t.TempDir(), nil, nil); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestServeJoinHostile(t *testing.T) {
	t.Parallel()
	ca := wallCA(t)
	for name, sent := range map[string]string{
		"nothing":    "",
		"noise":      "GET / HTTP/1.0\r\n\r\n",
		"too long":   "\x7f\xff\xff\xff\x40",
		"no request": "\x00\x00\x00\x02\x41\xa0",
		"empty":      "\x00\x00\x00\x02\x40\xa0",
	} {
		near, far := net.Pipe()
		done := make(chan struct{})
		go func() { ca.ServeJoin(far, slog.New(slog.DiscardHandler)); close(done) }()
		go func() {
			near.Write([]byte(sent))
			near.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
			near.Read(make([]byte, 512))
			near.Close()
		}()
		select {
		case <-done:
		case <-time.After(30 * time.Second):
			t.Errorf("%s: it holds on", name)
		}
	}
	if all, err := ca.Members(); err != nil || len(all) != 0 {
		t.Errorf("members %v, %v", all, err)
	}
}

func TestRenew(t *testing.T) {
	t.Parallel()
	ca := wallCA(t)
	s, err := Begin(ca, Claims{ID: "n", Role: Leaf, Work: []string{"w"}}, filepath.Join(t.TempDir(), "i"))
	if err != nil {
		t.Fatal(err)
	}
	renew := func(asker *Self) error {
		near, far := net.Pipe()
		defer near.Close()
		go ca.ServeRenew(far, s.trust, slog.New(slog.DiscardHandler))
		return asker.Renew(near)
	}
	before := s.Certificate().Leaf.SerialNumber
	if err := renew(s); err != nil {
		t.Fatal(err)
	}
	if s.Certificate().Leaf.SerialNumber.Cmp(before) == 0 {
		t.Error("the certificate is still the old one")
	}
	fresh, err := Load(s.dir, nil)
	if err != nil || fresh.Certificate().Leaf.SerialNumber.Cmp(s.Certificate().Leaf.SerialNumber) != 0 {
		t.Errorf("the new certificate is not on disk: %v", err)
	}
	var refused *RefusedError
	thief := &Self{Claims: s.Claims, trust: s.trust} // has the certificate, not its key
	thief.cert.Store(s.Certificate())
	if thief.key, err = NewKey(); err != nil {
		t.Fatal(err)
	}
	if err := renew(thief); !errors.As(err, &refused) {
		t.Errorf("without the key: %v", err)
	}
	// A grant that changes the role is not taken, even from the CA.
	g, err := ca.Enrol(Claims{ID: "router", Role: Router}, s.Certificate().Leaf.PublicKey.(ed25519.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Renewed(g); err == nil {
		t.Error("the node was talked into another id and role")
	}
}

func TestRollover(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	early, late := w.self("early", Router), w.self("late", Router)
	renew := func(s *Self) {
		t.Helper()
		m, err := s.trust.Verify(s.chain(t), AsSigner)
		if err != nil {
			t.Fatal(err)
		}
		g, err := w.Renew(m)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Renewed(g); err != nil {
			t.Fatal(err)
		}
	}
	agree := func(when string) {
		t.Helper()
		for _, pair := range [][2]*Self{{early, late}, {late, early}} {
			if _, err := pair[0].trust.Verify(pair[1].chain(t), AsSigner); err != nil {
				t.Errorf("%s: %s about %s: %v", when, pair[0].ID, pair[1].ID, err)
			}
		}
	}
	w.time = w.time.Add(time.Hour)
	if err := w.Rollover(RootKey{}, "secret"); err != nil {
		t.Fatal(err)
	}
	agree("before anybody renewed")
	renew(early)
	agree("after one renewed")
	if waiting, err := w.Waiting(); err != nil || len(waiting) != 1 || waiting[0] != "late" {
		t.Errorf("waiting %v, %v", waiting, err)
	}
	if err := w.Rollover(RootKey{Passphrase: "secret"}, ""); err == nil {
		t.Error("a second rollover begins within the first")
	}
	renew(late)
	agree("after both renewed")
	list, err := w.FinishRollover()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []*Self{early, late} {
		if newer, err := s.trust.Revoke(list.Raw); !newer || err != nil {
			t.Fatalf("%s: %v", s.ID, err)
		}
		if n := len(s.trust.Roots()); n != 1 {
			t.Errorf("%s trusts %d roots", s.ID, n)
		}
	}
	agree("after the end")
	if _, _, err := w.readRootKey(RootKey{}); !errors.Is(err, ErrPassphrase) {
		t.Errorf("the root's key without its passphrase: %v", err)
	}
	if _, _, err := w.readRootKey(RootKey{Passphrase: "wrong"}); !errors.Is(err, ErrPassphrase) {
		t.Errorf("the root's key with a wrong passphrase: %v", err)
	}
	// A root that nobody vouched for is not taken.
	other := newWorld(t)
	roots, err := other.Roots()
	if err != nil {
		t.Fatal(err)
	}
	if added, err := early.trust.AddRoots(roots, nil); added || err == nil {
		t.Error("a stranger's root is taken")
	}
}

// The join service shows the issuer of now: a token may name a root that is a
// moment old.
func TestJoinAfterRollover(t *testing.T) {
	t.Parallel()
	ca := wallCA(t)
	service := NewJoinService(ca, slog.New(slog.DiscardHandler))
	addr := listen(t, &tls.Config{GetConfigForClient: service.Config}, func(c net.Conn) { service.Serve(c.(*tls.Conn)) })
	for i, change := range []func() error{
		func() error { return nil },
		func() error { return ca.RenewIssuer(RootKey{}) },
		func() error { return ca.Rollover(RootKey{}, "") },
		func() error { _, err := ca.FinishRollover(); return err },
	} {
		if err := change(); err != nil {
			t.Fatal(err)
		}
		tok, err := ca.Token(Request{Role: Leaf, Pattern: "*", Addresses: []string{addr}})
		if err != nil {
			t.Fatal(err)
		}
		id := routing.NodeID(fmt.Sprint("n", i))
		if _, _, err := Join(t.Context(), tok, id, filepath.Join(t.TempDir(), "i"), nil, nil); err != nil {
			t.Errorf("%s: %v", id, err)
		}
	}
}

func TestRootKeyOffline(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	away := filepath.Join(t.TempDir(), "usb")
	if err := os.Rename(filepath.Join(w.dir, rootKeyFile), away); err != nil {
		t.Fatal(err)
	}
	w.self("n", Router) // issuing goes on
	if _, err := w.Revoke("n"); err != nil {
		t.Fatal(err)
	}
	if err := w.RenewIssuer(RootKey{}); err == nil || !strings.Contains(err.Error(), "--root-key") {
		t.Errorf("without the root's key: %v", err)
	}
	if err := w.RenewIssuer(RootKey{File: away}); err != nil {
		t.Error(err)
	}
	trust := w.trust(now())
	if _, err := trust.Verify(w.self("m", Router).chain(t), AsSigner); err != nil {
		t.Errorf("under the new issuer: %v", err)
	}
	list, err := w.Revocations()
	if err != nil {
		t.Fatal(err)
	}
	if newer, err := trust.Revoke(list); !newer || err != nil {
		t.Errorf("the list under the new issuer: %v", err)
	}
}

func TestBackup(t *testing.T) {
	t.Parallel()
	ca := wallCA(t)
	s, err := Begin(ca, Claims{ID: "n", Role: Router}, filepath.Join(t.TempDir(), "i"))
	if err != nil {
		t.Fatal(err)
	}
	text, err := ca.Backup("pass")
	if err != nil {
		t.Fatal(err)
	}
	_, err = Begin(ca, Claims{ID: "later", Role: Router}, filepath.Join(t.TempDir(), "i"))
	if err != nil {
		t.Fatal(err)
	}
	list, err := ca.Revoke("later") // after the backup
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.trust.Revoke(list.Raw); err != nil {
		t.Fatal(err)
	}
	if _, err := RestoreCA(t.TempDir(), text, "wrong"); !errors.Is(err, ErrPassphrase) {
		t.Errorf("with a wrong passphrase: %v", err)
	}
	if _, err := RestoreCA(ca.dir, text, "pass"); err == nil {
		t.Error("over a CA that is there")
	}
	restored, err := RestoreCA(filepath.Join(t.TempDir(), "ca"), text, "pass")
	if err != nil {
		t.Fatal(err)
	}
	m, err := s.trust.Verify(s.chain(t), AsSigner)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := restored.Renew(m); err != nil {
		t.Errorf("renewal by the restored CA: %v", err)
	}
	list, err = restored.Revoke("n")
	if err != nil {
		t.Fatal(err)
	}
	if newer, err := s.trust.Revoke(list.Raw); !newer || err != nil {
		t.Errorf("a list of the restored CA counts for older than one before: %v", err)
	}
}

// What happened between a backup and its restore the members know, and the CA
// learns it from them.
func TestRestoredCALearns(t *testing.T) {
	t.Parallel()
	ca := wallCA(t)
	begin := func(ca *CA, id routing.NodeID) *Self {
		s, err := Begin(ca, Claims{ID: id, Role: Leaf, Work: []string{"w"}}, filepath.Join(t.TempDir(), "i"))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	node, before := begin(ca, "node"), begin(ca, "before")
	text, err := ca.Backup("pass")
	if err != nil {
		t.Fatal(err)
	}
	after, stays := begin(ca, "after"), begin(ca, "stays")
	for _, id := range []routing.NodeID{"before", "after"} {
		if _, err := ca.Revoke(id); err != nil {
			t.Fatal(err)
		}
	}
	old, err := ca.Revocations()
	if err != nil {
		t.Fatal(err)
	}
	restored, err := RestoreCA(filepath.Join(t.TempDir(), "ca"), text, "pass")
	if err != nil {
		t.Fatal(err)
	}
	publish := func() {
		list, err := restored.Revocations()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := node.trust.Revoke(list); err != nil {
			t.Fatal(err)
		}
	}
	publish()

	heard, met := 0, 0
	node.trust.Watch(func(r *Revocations) {
		heard++
		if news, err := restored.Recall(r); news != (heard == 1) || err != nil {
			t.Errorf("%v, %v", news, err)
		}
	}, func(m Member) {
		met++
		if news, err := restored.Readmit(m); news != (m.ID == "stays") || err != nil || !restored.Knows(m) {
			t.Errorf("%s: %v, %v", m.ID, news, err)
		}
	})
	if newer, err := node.trust.Revoke(old); newer || err != nil {
		t.Errorf("the list from before the restore: %v, %v", newer, err)
	}
	publish()
	if newer, err := node.trust.Revoke(old); newer || err != nil || heard != 2 {
		t.Errorf("%v, %v, heard %d times", newer, err, heard)
	}
	for _, s := range []*Self{before, after} {
		if _, err := node.trust.Verify(s.chain(t), AsSigner); !errors.Is(err, ErrRevoked) {
			t.Errorf("%s was revoked after the backup: %v", s.ID, err)
		}
	}
	if _, err := node.trust.Verify(stays.chain(t), AsSigner); err != nil || met != 1 {
		t.Errorf("%v, met %d", err, met)
	}
	if _, err := restored.Token(Request{Role: Leaf, Pattern: "stays", Addresses: []string{"127.0.0.1:1"}}); !errors.Is(err, ErrTaken) {
		t.Errorf("a token for the id of a member that joined after the backup: %v", err)
	}
	if list, err := restored.Revoke("stays"); err != nil || len(list.Keys) != 3 {
		t.Errorf("%+v, %v", list, err)
	}
}
