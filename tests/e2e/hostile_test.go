package e2e

import (
	"bytes"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"github.com/hashicorp/yamux"

	"github.com/ranvier-mesh/ranvier/internal/wire"
)

// Whatever comes to its listener, a node serves on, and takes no more memory
// than a node does.
func TestHostileBytes(t *testing.T) {
	t.Parallel()
	m := startLine(t)
	hello, err := wire.Hello{Protocol: wire.Protocol, ID: "mallory", Nonce: make([]byte, wire.NonceLen), Role: 1}.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	beat, err := wire.Heartbeat{}.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	linked := append(bytes.Clone(hello), beat...) // the node takes it for a neighbour
	huge := binary.BigEndian.AppendUint32(nil, 1<<32-1)
	zero := []byte{0, 0}
	noise := make([]byte, 64<<10)
	for i := range noise {
		noise[i] = byte(rand.Uint32())
	}

	// Bytes in place of a link, then bytes on the control stream of one.
	raw := map[string][]byte{
		"nothing": nil, "zero": zero, "4 GiB": huge, "noise": noise, "HTTP": []byte("GET / HTTP/1.1\r\n\r\n"),
		"yamux preface, then noise": append([]byte{0, 1, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0}, noise...),
		"yamux frame of 4 GiB":      {0, 0, 0, 1, 0, 0, 0, 1, 255, 255, 255, 255},
		"yamux of a later version":  {9, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0},
	}
	for name, sent := range raw {
		t.Run("connection/"+name, func(t *testing.T) { m.b.withstands(t, sent, false) })
	}
	control := map[string][]byte{
		"zero": zero, "zero length": {0, 0, 0, 0}, "4 GiB": huge, "noise": noise,
		"not Hello":         {0, 0, 0, 2, byte(wire.TypeOpen), 0xa0},
		"endless Hello":     append([]byte{0, 0, 0x3f, 0xff, byte(wire.TypeHello)}, noise[:8<<10]...),
		"Hello, then noise": append(bytes.Clone(hello), noise...),
		"Hello, then 4 GiB": append(bytes.Clone(hello), huge...),
		"Hello twice":       append(bytes.Clone(hello), hello...),
		"linked":            linked,
		"linked, noise":     append(bytes.Clone(linked), noise...),
		"linked, zero":      append(bytes.Clone(linked), 0, 0, 0, 0),
		"linked, 4 GiB":     append(bytes.Clone(linked), huge...),
		"linked, no advert": append(bytes.Clone(linked), 0, 0, 0, 3, byte(wire.TypeAdvert), 0xa1, 0x01),
		"linked, no digest": append(bytes.Clone(linked), 0, 0, 0, 3, byte(wire.TypeDigest), 0xff, 0xff),
	}
	for i := range hello {
		if i%7 == 0 {
			control["truncated Hello "+string(rune('A'+i/7))] = hello[:i]
		}
	}
	for name, sent := range control {
		t.Run("control stream/"+name, func(t *testing.T) { m.b.withstands(t, sent, true) })
	}
	t.Run("slow and silent", func(t *testing.T) { m.slowAndSilent(t, hello[:len(hello)/2]) })

	m.a.reaches("c")
	p := newProject(t, "- debug:\n")
	p.run(m.b, "c").exits(0)
	m.b.bounded(t, 100)
}

// withstands sends bytes to a node, as a connection or on the control stream of
// one, and closes; the node answers a ping while they are there.
func (n *node) withstands(t *testing.T, sent []byte, control bool) {
	t.Helper()
	conn := n.dial(t)
	defer conn.Close()
	var w io.Writer = conn
	if control {
		w = stream(t, conn)
	}
	w.Write(sent) // the node may have closed meanwhile
	n.reaches("a")
	if !n.running() {
		t.Fatalf("the node died of %.40x", sent)
	}
}

func (n *node) dial(t *testing.T) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", n.addr)
	if err != nil {
		t.Fatal(err)
	}
	conn.SetDeadline(time.Now().Add(patience))
	return conn
}

// stream opens the first stream of a link.
func stream(t *testing.T, conn net.Conn) net.Conn {
	t.Helper()
	cfg := yamux.DefaultConfig()
	cfg.LogOutput = io.Discard
	session, err := yamux.Client(conn, cfg)
	if err != nil {
		t.Fatal(err)
	}
	s, err := session.OpenStream()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { session.Close() })
	return s
}

// slowAndSilent keeps a half of a Hello and three hundred silent connections at
// a node, which goes on with its links, lets nobody wait for ever, and then
// lets others in again.
func (m line) slowAndSilent(t *testing.T, half []byte) {
	slow := m.b.dial(t)
	defer slow.Close()
	if _, err := stream(t, slow).Write(half); err != nil {
		t.Fatal(err)
	}
	silent := make([]net.Conn, 300)
	for i := range silent {
		silent[i] = m.b.dial(t)
		defer silent[i].Close()
	}
	m.a.reaches("c") // through b
	newProject(t, "- debug:\n").run(m.a, "c").exits(0)
	for i, conn := range append(silent, slow) {
		if _, err := io.Copy(io.Discard, conn); err != nil && isTimeout(err) {
			t.Fatalf("connection %d is still open after %v", i, patience)
		}
	}
	ranvierOK(t, "ping", "c", "--count", "1", "--receptor-peer", m.b.addr)
}

func isTimeout(err error) bool {
	e, ok := err.(net.Error)
	return ok && e.Timeout()
}

// bounded checks that the node never had more than so much memory.
func (n *node) bounded(t *testing.T, mib int) {
	t.Helper()
	peak := n.peakMiB()
	t.Logf("node %s: at most %d MiB", n.id, peak)
	if peak > mib {
		t.Errorf("node %s has had %d MiB, more than %d", n.id, peak, mib)
	}
}
