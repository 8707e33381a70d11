package bench

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/identity"
	"github.com/ranvier-mesh/ranvier/internal/wire"
	"github.com/ranvier-mesh/ranvier/mesh"
	"github.com/ranvier-mesh/ranvier/mesh/link"
	"github.com/ranvier-mesh/ranvier/mesh/tcplink"
	"github.com/ranvier-mesh/ranvier/routing"
)

// origin is what a router says of itself.
type origin struct {
	frames []byte   // its certificate and its advert
	chain  [][]byte // the certificate's
	advert []byte
}

// tree makes the words of so many routers, each with ten below it; the first is
// linked to root.
func tree(b *testing.B, ca *identity.CA, root *identity.Self, count int, links ...routing.Adjacency) []origin {
	b.Helper()
	id := func(i int) routing.NodeID { return routing.NodeID(fmt.Sprintf("n%05d", i)) }
	all := make([]origin, 0, count+1)
	say := func(s *identity.Self, links []routing.Adjacency) {
		ad := &routing.Advert{Key: routing.Key{Origin: s.ID}, Version: routing.Version{Epoch: 1, Seq: 1}, Links: links}
		if err := s.Seal(ad); err != nil {
			b.Fatal(err)
		}
		frames, err := s.Cert().Append(nil)
		if err != nil {
			b.Fatal(err)
		}
		all = append(all, origin{wire.AppendAdvert(frames, ad.Raw), s.Certificate().Certificate, ad.Raw})
	}
	say(root, append(links, routing.Adjacency{To: id(0), Cost: 1000}))
	for i := range count {
		key, err := identity.NewKey()
		if err != nil {
			b.Fatal(err)
		}
		s, err := identity.Volatile(ca, identity.Claims{ID: id(i), Role: identity.Router}, key)
		if err != nil {
			b.Fatal(err)
		}
		var links []routing.Adjacency // sorted: the one above has a lower number
		if i > 0 {
			links = append(links, routing.Adjacency{To: id((i - 1) / 10), Cost: 1000})
		}
		for c := 10*i + 1; c <= 10*i+10 && c < count; c++ {
			links = append(links, routing.Adjacency{To: id(c), Cost: 1000})
		}
		if i == 0 {
			links = append(links, routing.Adjacency{To: root.ID, Cost: 1000}) // "root" sorts behind
		}
		say(s, links)
	}
	return all
}

// BenchmarkVerifiedFlood has a fresh node hear of 10,000 routers over a link,
// until it has a way to the last of them, and beside it only checks the chains
// and signatures, one after the other.
func BenchmarkVerifiedFlood(b *testing.B) {
	const origins = 10_000
	ca := newCA(b)
	begin := func(id routing.NodeID) *identity.Self {
		key, err := identity.NewKey()
		if err != nil {
			b.Fatal(err)
		}
		s, err := identity.Volatile(ca, identity.Claims{ID: id, Role: identity.Router}, key)
		if err != nil {
			b.Fatal(err)
		}
		return s
	}
	root := begin("root")
	all := tree(b, ca, root, origins, routing.Adjacency{To: "fresh", Cost: 1000})
	roots, err := ca.Roots()
	if err != nil {
		b.Fatal(err)
	}
	var ours, reference []float64
	for b.Loop() {
		for range 3 {
			start := time.Now()
			for _, s := range all {
				if err := bareCheck(s.chain, roots, s.advert); err != nil {
					b.Fatal(err)
				}
			}
			reference = append(reference, float64(time.Since(start).Microseconds())/origins)
			ours = append(ours, float64(flood(b, begin("fresh"), root, all).Microseconds())/origins)
		}
	}
	report(b, "a flood of 10,000 origins, each", "µs", ours, reference)
}

// flood links a fresh node and tells it all.
func flood(b *testing.B, self, from *identity.Self, all []origin) time.Duration {
	b.Helper()
	over := func(s *identity.Self) tcplink.Transport {
		return tcplink.Transport{ServerTLS: s.ServerTLS(), ClientTLS: s.ClientTLS()}
	}
	m, err := mesh.New(b.Context(), mesh.Config{
		ID: self.ID, Epoch: 1, Self: self, Transports: map[string]link.Transport{"tcp": over(self)},
		Listeners: []mesh.ListenerConfig{{Address: "tcp://127.0.0.1:0"}},
	})
	if err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(b.Context())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	defer func() { stop(); <-done }()

	l, err := over(from).Dial(ctx, strings.TrimPrefix(m.Addrs()[0], "tcp://"))
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	control, err := l.Open(ctx)
	if err != nil {
		b.Fatal(err)
	}
	nonce := make([]byte, wire.NonceLen)
	rand.Read(nonce)
	frame, err := wire.Hello{Protocol: wire.Protocol, ID: from.ID, Epoch: 1, Nonce: nonce, Role: wire.RoleRouter}.Append(nil)
	if err != nil {
		b.Fatal(err)
	}
	beat, err := wire.Heartbeat{}.Append(nil)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := control.Write(frame); err != nil {
		b.Fatal(err)
	}
	if _, _, err := wire.ReadFrame(control, nil, wire.MaxFrame); err != nil {
		b.Fatal(err)
	}
	var writing sync.Mutex
	go func() { // answers as a neighbour does, or the link ends for its silence
		for {
			t, _, err := wire.ReadFrame(control, nil, wire.MaxFrame)
			if err != nil {
				return
			}
			if t == wire.TypeHeartbeat {
				writing.Lock()
				control.Write(beat)
				writing.Unlock()
			}
		}
	}()
	start := time.Now()
	w := bufio.NewWriterSize(locked{control, &writing}, 32<<10) // neighbours write what waits at once
	w.Write(beat)
	for _, s := range all {
		if w.Available() < len(s.frames) { // so that only whole frames are written
			w.Flush()
		}
		if _, err := w.Write(s.frames); err != nil {
			b.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		b.Fatal(err)
	}
	tick := time.NewTicker(50 * time.Millisecond) // to look takes time as well
	defer tick.Stop()
	limit := time.After(2 * time.Minute)
	for reached := 0; reached < len(all); {
		select {
		case <-tick.C:
		case <-limit:
			b.Fatalf("%d of %d are reached", reached, len(all))
		}
		reached = 0
		for _, n := range m.Status().Nodes {
			if n.Reachable && n.ID != m.ID() {
				reached++
			}
		}
	}
	return time.Since(start)
}

// locked lets one write at a time.
type locked struct {
	io.Writer
	mu *sync.Mutex
}

func (l locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Writer.Write(p)
}

// bareCheck is the reference: the chain by crypto/x509, and a signature of the
// advert's length by crypto/ed25519.
func bareCheck(ders [][]byte, roots []*x509.Certificate, advert []byte) error {
	pool, between := x509.NewCertPool(), x509.NewCertPool()
	for _, r := range roots {
		pool.AddCert(r)
	}
	leaf, err := x509.ParseCertificate(ders[0])
	if err != nil {
		return err
	}
	for _, der := range ders[1:] {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return err
		}
		between.AddCert(c)
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: pool, Intermediates: between}); err != nil {
		return err
	}
	ed25519.Verify(leaf.PublicKey.(ed25519.PublicKey), advert, make([]byte, ed25519.SignatureSize))
	return nil
}
