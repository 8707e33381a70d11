package e2e

import (
	"net"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Somebody begins ten thousand handshakes, each with as much of a ClientHello as
// a node reads, and finishes none. The node stays up, takes no more memory
// than it says, and lets a member in while they are all there.
func TestTenThousandHandshakes(t *testing.T) {
	// Not parallel: it takes thousands of descriptors.
	count := 10_000
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if room := int(min(limit.Cur, 1<<20))*3/4 - 200; room < count {
		if count = room; count < 300 {
			t.Skipf("%d descriptors are too few for this test", limit.Cur)
		}
		t.Logf("this host lets a process have %d descriptors: %d handshakes", limit.Cur, count)
	}
	h := startHub(t, "")
	before := h.node.peakMiB()

	// Two records of a ClientHello that says it has 64 KiB.
	flood := append([]byte{22, 3, 1, 16, 0, 1, 0, 255, 255}, make([]byte, 4092)...)
	flood = append(append(flood, 22, 3, 1, 31, 0), make([]byte, 7930)...)
	conns := make(chan net.Conn, count)
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := w; i < count; i += 8 {
				conn, err := net.DialTimeout("tcp", h.addr, patience)
				if err != nil {
					t.Errorf("handshake %d: %v", i, err)
					return
				}
				conn.SetWriteDeadline(time.Now().Add(patience))
				conn.Write(flood) // the node may have closed meanwhile
				conns <- conn
			}
		})
	}
	wg.Wait()
	close(conns)
	defer func() {
		for c := range conns {
			c.Close()
		}
	}()
	if len(conns) < count {
		t.Fatalf("%d of %d handshakes were begun", len(conns), count)
	}
	m := newHost(t)
	m.ok("join", h.token("--role", "client", "--id", "honest"))
	m.ok("ping", "hub", "-n", "1", "--receptor-peer", h.addr)
	if !h.node.running() {
		t.Fatal("the node has ended")
	}
	// Those that are let in have 16 MiB in all; the rest is what was turned away and
	// is not collected yet. All of them at once would be 640 MiB.
	const bound = 128
	grown := h.node.peakMiB() - before
	t.Logf("%d half-done handshakes: at most %d MiB more than the %d of before", count, grown, before)
	if grown > bound {
		t.Errorf("the node took %d MiB for half-done handshakes, more than %d", grown, bound)
	}
}
