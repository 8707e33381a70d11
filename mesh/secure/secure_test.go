package secure

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ranvier-mesh/ranvier/internal/pipe"
	"github.com/ranvier-mesh/ranvier/routing"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type addr string

func (addr) Network() string  { return "test" }
func (a addr) String() string { return string(a) }

func selfMade(t testing.TB, id routing.NodeID) *Identity {
	t.Helper()
	i, err := SelfMade(id)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// recorder keeps what is written.
type recorder struct {
	net.Conn
	mu     sync.Mutex
	writes [][]byte
}

func (r *recorder) Write(p []byte) (int, error) {
	r.mu.Lock()
	r.writes = append(r.writes, bytes.Clone(p))
	r.mu.Unlock()
	return r.Conn.Write(p)
}

// pair handshakes; a is the client and thinks that the server is to.
func pair(t testing.TB, from, to *Identity, fromID, toID routing.NodeID) (a, b *Conn, wire *recorder, errA, errB error) {
	x, y := pipe.New(addr("a"), addr("b"))
	wire = &recorder{Conn: x}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(cancel)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if b, errB = Server(ctx, y, to, fromID); errB != nil {
			y.Close()
		}
	}()
	if a, errA = Client(ctx, wire, from, toID); errA != nil {
		x.Close()
	} else {
		t.Cleanup(func() { a.Close() })
	}
	// The client is done first: what the server says of it comes when it reads.
	<-done
	if errB == nil {
		t.Cleanup(func() { b.Close() })
	}
	return a, b, wire, errA, errB
}

func TestBothEndsAgree(t *testing.T) {
	t.Parallel()
	from, to := selfMade(t, "a"), selfMade(t, "b/x@y")
	a, b, _, errA, errB := pair(t, from, to, "a", "b/x@y")
	if err := errors.Join(errA, errB); err != nil {
		t.Fatal(err)
	}
	tokenA, errA := a.Token()
	tokenB, errB := b.Token()
	if errA != nil || errB != nil || tokenA != tokenB || tokenA == [32]byte{} {
		t.Errorf("tokens %x, %x, %v, %v", tokenA, tokenB, errA, errB)
	}
	again, _, _, _, _ := pair(t, from, to, "a", "b/x@y")
	if other, _ := again.Token(); other == tokenA {
		t.Error("two streams have one token")
	}
	if a.PeerKey() != again.PeerKey() || a.PeerKey() == b.PeerKey() {
		t.Error("a key's fingerprint is not the key's")
	}
	if a.RTT() <= 0 || b.RTT() <= 0 {
		t.Errorf("round trips %v, %v", a.RTT(), b.RTT())
	}
	state := a.tls.ConnectionState()
	if state.Version != tls.VersionTLS13 || state.CurveID != tls.X25519MLKEM768 {
		t.Errorf("version %x, key exchange %v", state.Version, state.CurveID)
	}
}

func TestAnotherNameIsRefused(t *testing.T) {
	t.Parallel()
	var wrong *PeerError
	_, _, _, errA, _ := pair(t, selfMade(t, "a"), selfMade(t, "mallory"), "a", "b")
	if !errors.As(errA, &wrong) || wrong.Peer != "b" {
		t.Errorf("client: %v", errA)
	}
	_, _, _, _, errB := pair(t, selfMade(t, "mallory"), selfMade(t, "b"), "a", "b")
	if !errors.As(errB, &wrong) || wrong.Peer != "a" {
		t.Errorf("server: %v", errB)
	}
}

func TestVerifyDecides(t *testing.T) {
	t.Parallel()
	no := errors.New("not today")
	from, to := selfMade(t, "a"), selfMade(t, "b")
	to.Verify = func(peer routing.NodeID, chain []*x509.Certificate, dialled bool) error {
		if peer != "a" || len(chain) != 1 || dialled {
			t.Errorf("asked for %s, %d certificates", peer, len(chain))
		}
		return no
	}
	if _, _, _, _, err := pair(t, from, to, "a", "b"); !errors.Is(err, no) {
		t.Errorf("server: %v", err)
	}
}

func TestAnotherProtocolIsRefused(t *testing.T) {
	t.Parallel()
	x, y := pipe.New(addr("a"), addr("b"))
	id := selfMade(t, "a")
	go func() {
		c := tls.Client(x, &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{*id.Certificate()}})
		c.Handshake()
		c.Read(make([]byte, 1))
		x.Close()
	}()
	var wrong *PeerError
	if _, err := Server(t.Context(), y, selfMade(t, "b"), "a"); !errors.As(err, &wrong) {
		t.Errorf("server: %v", err)
	}
	y.Close()
}

func TestAWriteIsOneWriteAndUnreadable(t *testing.T) {
	t.Parallel()
	a, b, wire, errA, errB := pair(t, selfMade(t, "a"), selfMade(t, "b"), "a", "b")
	if err := errors.Join(errA, errB); err != nil {
		t.Fatal(err)
	}
	hello := wire.writes[0]
	if len(wire.writes) != 2 || hello[0] != 22 || hello[5] != 1 {
		t.Errorf("the handshake took %d writes; the first is %x", len(wire.writes), hello[:6])
	}
	wire.writes = nil
	sent := bytes.Repeat([]byte("secret! "), MaxWrite/8+1)[:MaxWrite]
	go a.Write(sent)
	got := make([]byte, len(sent))
	if _, err := io.ReadFull(b, got); err != nil || !bytes.Equal(got, sent) {
		t.Fatalf("read: %v", err)
	}
	if len(wire.writes) != 1 || len(wire.writes[0])+2*12 != 32<<10 { // two frames of a link have that much more
		t.Errorf("%d writes, the first of %d bytes", len(wire.writes), len(wire.writes[0]))
	}
	if bytes.Contains(wire.writes[0], []byte("secret!")) {
		t.Error("the carrier shows what it carries")
	}
	big := bytes.Repeat([]byte("x"), 200_000) // more than is gathered
	go a.Write(big)
	if _, err := io.ReadFull(b, make([]byte, len(big))); err != nil {
		t.Error(err)
	}
}

func TestCloseWakes(t *testing.T) {
	t.Parallel()
	a, b, _, errA, errB := pair(t, selfMade(t, "a"), selfMade(t, "b"), "a", "b")
	if err := errors.Join(errA, errB); err != nil {
		t.Fatal(err)
	}
	over := make(chan struct{})
	go func() {
		defer close(over)
		a.Read(make([]byte, 1))
	}()
	a.Close()
	<-over
	<-a.Closed()
	if err := a.Close(); err != net.ErrClosed {
		t.Errorf("second close: %v", err)
	}
	if _, err := b.Read(make([]byte, 1)); err == nil {
		t.Error("the other end noticed nothing")
	}
}

func BenchmarkHandshake(b *testing.B) {
	from, to := selfMade(b, "a"), selfMade(b, "b")
	for b.Loop() {
		x, y := pipe.New(addr("a"), addr("b"))
		go Server(b.Context(), y, to, "a")
		if _, err := Client(b.Context(), x, from, "b"); err != nil {
			b.Fatal(err)
		}
	}
}
