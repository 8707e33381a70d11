package mesh

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/ranvier-mesh/ranvier/internal/identity"
	"github.com/ranvier-mesh/ranvier/internal/wire"
	"github.com/ranvier-mesh/ranvier/routing"
)

// Members that do what members must not, each with a certificate that holds.

// sealed is an advert with a body of the member's own making, and its signature.
func sealed(t *testing.T, self *identity.Self, body map[int]any) []byte {
	t.Helper()
	raw, err := cbor.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := self.SealBody(raw)
	if err != nil {
		t.Fatal(err)
	}
	return wire.AppendAdvert(nil, signed)
}

// A router's costs and numbers are its own to choose, as long as they are some.
func TestLyingAdverts(t *testing.T) {
	t.Parallel()
	s := newSociety(t)
	a := s.router("a")
	victim := s.router("victim", a)
	eventually(t, "the victim is known", reaches(a, "victim"))
	link := func(to string, cost any) map[int]any {
		return map[int]any{7: []any{[]any{to, cost}}}
	}
	many := make([]any, routing.MaxEntries+1)
	for i := range many {
		many[i] = []any{fmt.Sprint("x", i), 1}
	}
	for name, tc := range map[string]struct {
		extra map[int]any
		ends  bool // the link
	}{
		"a link that the other end does not have": {link("victim", 1), false},
		"the highest epoch":                       {map[int]any{3: uint64(math.MaxUint64), 4: uint64(math.MaxUint64)}, false},
		"a negative cost":                         {link("victim", -1), true},
		"no cost":                                 {link("victim", 0), true},
		"not a number":                            {link("victim", math.NaN()), true},
		"endless":                                 {link("victim", math.Inf(1)), true},
		"a fraction":                              {link("victim", 0.5), true},
		"a huge cost":                             {link("victim", uint64(math.MaxUint64)), true},
		"above the highest cost":                  {link("victim", uint64(routing.MaxCost)+1), true},
		"a link to itself":                        {link("eve", 1), true},
		"too many links":                          {map[int]any{7: many}, true},
		"another origin":                          {map[int]any{1: "victim"}, true},
		"epoch 0":                                 {map[int]any{3: 0}, true},
	} {
		eve := s.self("eve", identity.Router)
		body := map[int]any{1: "eve", 2: 0, 3: 2, 4: 1}
		for k, v := range tc.extra {
			body[k] = v
		}
		if ended := sendAs(t, eve, "eve", a, sealed(t, eve, body)); ended != tc.ends {
			t.Errorf("%s: the link ended: %t, want %t", name, ended, tc.ends)
		}
		if !reaches(a, "victim")() || !reaches(victim, "a")() {
			t.Errorf("%s: the victim is cut off", name)
		}
		if hops := a.table.Load().NextHops("victim"); !slices.Equal(hops, []routing.NodeID{"victim"}) {
			t.Errorf("%s: the way to the victim is by %v", name, hops)
		}
		list, err := s.ca.Revoke("eve")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.Revoke(list.Raw); err != nil {
			t.Fatal(err)
		}
	}
}

// What a router has said before its restart says nothing after it, to those
// who were there and to those who were not.
func TestReplayedAdverts(t *testing.T) {
	t.Parallel()
	s := newSociety(t)
	a := s.router("a")
	b := s.router("b", a)
	self := s.self("victim", identity.Router)
	_, stop := s.run(Config{ID: "victim", Epoch: 1, Self: self}, a, b)
	eventually(t, "the victim has two links", func() bool { return len(linksOf(a, "victim")) == 2 })
	old := recorded(a, "victim")
	cert, err := self.Cert().Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	stop()
	victim, _ := s.run(Config{ID: "victim", Epoch: 2, Self: self}, a)
	eventually(t, "the victim is back, with one link", func() bool { return reaches(a, "victim")() && len(linksOf(a, "victim")) == 1 })
	late := s.router("late", b) // knows of the victim what others say, eve first of all

	eve := s.self("eve", identity.Router)
	replay := append([]byte(nil), cert...)
	for _, raw := range old {
		replay = wire.AppendAdvert(replay, raw)
	}
	for _, m := range []*Mesh{late, a, victim} {
		if m != victim {
			sendAs(t, eve, "eve", m, replay)
		}
		eventually(t, "late reaches the victim", reaches(late, "victim"))
		eventually(t, fmt.Sprintf("%s knows the victim's new link alone", m.ID()), func() bool { return len(linksOf(m, "victim")) == 1 })
	}
	if v := victim.epoch.Load(); v != 2 {
		t.Errorf("the victim was driven to epoch %d", v)
	}
}

// What the key of a leaf or a user signs of routing is believed by nobody,
// whether its owner sends it or a router that is in with him.
func TestTopologyOfALeaf(t *testing.T) {
	t.Parallel()
	s := newSociety(t)
	a := s.router("a")
	b := s.router("b", a)
	victim := s.router("victim", b)
	eventually(t, "the victim is known", reaches(a, "victim"))
	accomplice := s.self("eve", identity.Router)
	for _, role := range []identity.Role{identity.Leaf, identity.Client} {
		liar := s.self(routing.NodeID("the-"+role), role)
		id := liar.ID
		if role == identity.Client {
			id += "/1"
		}
		cert, err := liar.Cert().Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		for name, extra := range map[string]map[int]any{
			"links of its own":   {7: []any{[]any{"a", 1}, []any{"victim", 1}}},
			"the victim's links": {1: "victim", 3: uint64(math.MaxUint64)},
			"that it is there":   {},
		} {
			body := map[int]any{1: string(liar.ID), 2: 0, 3: 2, 4: 1}
			for k, v := range extra {
				body[k] = v
			}
			frames := append(bytes.Clone(cert), sealed(t, liar, body)...)
			sendAs(t, liar, id, a, frames)
			sendAs(t, accomplice, "eve", a, frames)
			for _, m := range []*Mesh{a, b, victim} {
				if all := recorded(m, liar.ID); len(all) > 0 {
					t.Errorf("node %s keeps %d adverts of a %s, of %s", m.ID(), len(all), role, name)
				}
			}
			if hops := a.table.Load().NextHops("victim"); !slices.Equal(hops, []routing.NodeID{"b"}) || !reaches(a, "victim")() {
				t.Errorf("after a %s spoke of %s, the way to the victim is by %v", role, name, hops)
			}
		}
	}
}

func linksOf(m *Mesh, id routing.NodeID) []routing.Adjacency {
	info, _ := m.table.Load().Node(id)
	return info.Links
}

// recorded returns the adverts of an origin as they travelled to a node.
func recorded(m *Mesh, id routing.NodeID) (all [][]byte) {
	done := make(chan struct{})
	m.change(m.running, func(c *routing.Core, now time.Time) {
		defer close(done)
		c.Forget(now, func(a *routing.Advert) bool { // forgets nothing
			if a.Origin == id {
				all = append(all, a.Raw)
			}
			return false
		})
	})
	<-done
	return all
}

// Who is revoked may have used up the numbers of its id; the next owner of the
// id is heard all the same.
func TestIDAfterAThief(t *testing.T) {
	t.Parallel()
	s := newSociety(t)
	a := s.router("a")
	b := s.router("b", a)
	thief := s.self("x", identity.Router)
	last := sealed(t, thief, map[int]any{1: "x", 2: 0, 3: uint64(math.MaxUint64), 4: uint64(math.MaxUint64)})
	for _, m := range []*Mesh{a, b} { // to both: what is unreachable is not passed on
		sendAs(t, thief, "x", m, last)
		eventually(t, "the thief's advert is there", func() bool { return len(recorded(m, "x")) > 0 })
	}
	list, err := s.ca.Revoke("x")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Revoke(list.Raw); err != nil {
		t.Fatal(err)
	}
	honest := s.router("x", a)
	eventually(t, "the new owner is reached from afar", reaches(b, "x"))
	if info, _ := b.table.Load().Node("x"); info.Epoch != 1 || honest.epoch.Load() != 1 {
		t.Errorf("its epoch is %d, afar %d", honest.epoch.Load(), info.Epoch)
	}
}

// forger makes certificates with the key of the CA's issuer.
type forger struct {
	t      *testing.T
	issuer *x509.Certificate
	key    any
	like   *identity.Self
}

func (s *society) forger(like *identity.Self) *forger {
	s.t.Helper()
	read := func(name string) []byte {
		text, err := os.ReadFile(filepath.Join(s.ca.Dir(), name))
		if err != nil {
			s.t.Fatal(err)
		}
		block, _ := pem.Decode(text)
		return block.Bytes
	}
	issuer, err := x509.ParseCertificate(read(identity.IssuerFile))
	if err != nil {
		s.t.Fatal(err)
	}
	key, err := x509.ParsePKCS8PrivateKey(read("issuer.key"))
	if err != nil {
		s.t.Fatal(err)
	}
	return &forger{s.t, issuer, key, like}
}

// chain is the member's certificate with something else in it.
func (f *forger) chain(change func(*x509.Certificate)) tls.Certificate {
	f.t.Helper()
	own := f.like.Certificate()
	c := *own.Leaf
	c.ExtraExtensions = nil
	for _, e := range c.Extensions {
		if e.Id[0] == 2 && e.Id[1] == 25 { // the claims
			c.ExtraExtensions = append(c.ExtraExtensions, e)
		}
	}
	c.SerialNumber = big.NewInt(time.Now().UnixNano())
	change(&c)
	der, err := x509.CreateCertificate(rand.Reader, &c, f.issuer, own.Leaf.PublicKey, f.key)
	if err != nil {
		f.t.Fatal(err)
	}
	return tls.Certificate{Certificate: append([][]byte{der}, own.Certificate[1:]...), PrivateKey: own.PrivateKey}
}

// None of these is believed on a listener, and none harms the node. (One that is
// revoked is told so: TestARevokedNodeComesBack.)
func TestWrongCertificates(t *testing.T) {
	t.Parallel()
	s, other := newSociety(t), newSociety(t)
	a := s.router("a")
	eve := s.self("eve", identity.Router)
	f := s.forger(eve)
	for name, tc := range map[string]struct {
		cert tls.Certificate
		ok   bool
	}{
		"its own":       {f.chain(func(*x509.Certificate) {}), true},
		"expired":       {f.chain(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Second) }), false},
		"not yet valid": {f.chain(func(c *x509.Certificate) { c.NotBefore = time.Now().Add(25 * time.Hour) }), false},
		"lives a year":  {f.chain(func(c *x509.Certificate) { c.NotAfter = time.Now().AddDate(1, 0, 0) }), false},
		"another mesh":  {f.chain(func(c *x509.Certificate) { c.URIs[0].Host = "prod" }), false},
		"no usage":      {f.chain(func(c *x509.Certificate) { c.ExtKeyUsage = nil; c.KeyUsage = 0 }), false},
		"a server's": {f.chain(func(c *x509.Certificate) {
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		}), false},
		"16 KiB": {f.chain(func(c *x509.Certificate) {
			c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: []int{1, 2, 3}, Value: make([]byte, 16<<10)})
		}), false},
		"endless": {f.chain(func(c *x509.Certificate) {
			c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: []int{1, 2, 3}, Value: make([]byte, 1<<20)})
		}), false},
		"of another CA": {*other.self("eve", identity.Router).Certificate(), false},
	} {
		err := tlsAs(t, tc.cert, a)
		if (err == nil) != tc.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
	honest := s.router("honest", a)
	eventually(t, "an honest one gets in", reaches(honest, "a"))
}

// tlsAs shows a certificate to a node, and returns nil where it is taken: the
// node's first frame then is not the end.
func tlsAs(t *testing.T, cert tls.Certificate, to *Mesh) error {
	t.Helper()
	conn, err := tls.Dial("tcp", strings.TrimPrefix(to.Addrs()[0], "tcp://"), &tls.Config{
		Certificates: []tls.Certificate{cert}, InsecureSkipVerify: true, MinVersion: tls.VersionTLS13, NextProtos: []string{identity.LinkProtocol},
	})
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := conn.Write(yamux(2, 1, 0, 7)); err != nil {
		return err
	}
	if _, err = conn.Read(make([]byte, 1)); err == io.EOF {
		return nil // who is taken and breaks the rules of yamux is left without an alert
	}
	return err
}

// yamux is the header of a frame of yamux.
func yamux(kind byte, flags uint16, stream, length uint32) []byte {
	h := binary.BigEndian.AppendUint16([]byte{0, kind}, flags)
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(h, stream), length)
}

// Where no TLS says who it is, a peer is unknown until its Hello: what it can
// have a node do for it until then is bounded.
func TestUnknownPeers(t *testing.T) {
	t.Parallel()
	n := newNetOver(t, "tcp")
	hub := n.start("hub")
	syn := yamux(1, 1, 1, 0)
	slow := func(length uint32) []byte { // a Hello that never ends, with much behind it
		return slices.Concat(syn, yamux(0, 0, 1, length), []byte{0, 0, 0x3f, 0xff, 1}, make([]byte, length-5))
	}
	for name, tt := range map[string]struct {
		bytes []byte
		ends  bool
	}{
		"a stream":     {syn, false},
		"a Hello":      {slow(10 << 10), false},
		"a ping":       {slices.Concat(syn, yamux(2, 1, 0, 7)), true},
		"two streams":  {slices.Concat(syn, yamux(1, 1, 3, 0)), true},
		"100 KiB":      {slow(100 << 10), true},
		"a ping later": {slices.Concat(slow(100), yamux(2, 1, 0, 7)), true},
	} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(hub.Addrs()[0], "tcp://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.Write(tt.bytes)
		conn.SetReadDeadline(time.Now().Add(handshakeTime / 2))
		if !tt.ends {
			conn.SetReadDeadline(time.Now().Add(handshakeTime / 10))
		}
		_, err = io.Copy(io.Discard, conn)
		if waits := errors.Is(err, os.ErrDeadlineExceeded); waits == tt.ends {
			t.Errorf("%s: the node's end of the connection: %v", name, err)
		}
	}
	n.start("honest", "hub")
	n.reach("honest", "hub")
}

// Who holds thousands of handshakes half done has 256 places, and in each at
// most 64 KiB. Those of other hosts are let in meanwhile.
func TestHalfDoneHandshakes(t *testing.T) {
	// Not parallel: it measures this process.
	s := newSociety(t)
	a := s.router("a")
	addr := strings.TrimPrefix(a.Addrs()[0], "tcp://")
	from := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}, Timeout: 10 * time.Second}
	// A ClientHello of 64 KiB, as it says, of which as much is sent as it may be, in
	// two records: the buffers of crypto/tls have to grow.
	flood := append([]byte{22, 3, 1, 16, 0, 1, 0, 255, 255}, make([]byte, 4092)...)
	flood = append(append(flood, 22, 3, 1, 31, 0), make([]byte, 7930)...)
	before := heldMemory()
	conns := make([]net.Conn, 0, 3*maxHandshakes)
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	for range cap(conns) {
		c, err := from.DialContext(t.Context(), "tcp", addr)
		if err != nil {
			t.Skipf("this host has no 127.0.0.2: %v", err)
		}
		conns = append(conns, c)
		c.Write(flood)
	}
	// The first have had to go for the last.
	for _, c := range conns[:len(conns)-maxHandshakes] {
		c.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("one of the first is still there: %v", err)
		}
	}
	per := (heldMemory() - before) / maxHandshakes
	t.Logf("%d KiB are held for each of %d", per>>10, maxHandshakes)
	if per > 64<<10 {
		t.Errorf("%d KiB are held for a connection that has not authenticated", per>>10)
	}
	honest := s.router("honest", a)
	eventually(t, "an honest one gets in", func() bool { return honest.neighbour("a") != nil })
}

// heldMemory is what is on the heap and on stacks after a collection.
func heldMemory() int {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc + m.StackInuse)
}
