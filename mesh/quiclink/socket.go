package quiclink

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/quic-go/quic-go"
	"golang.org/x/sys/unix"
)

// socket is a UDP socket with what QUIC does on it. A listener and the links
// that it accepted share one; the last to leave closes it.
type socket struct {
	transport *quic.Transport
	conn      net.PacketConn

	mu    sync.Mutex
	users int
}

func (s *socket) share() *socket {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.users++
	return s
}

func (s *socket) release() {
	s.mu.Lock()
	s.users--
	last := s.users == 0
	s.mu.Unlock()
	if last {
		s.transport.Close()
		s.conn.Close()
	}
}

// connected is a UDP socket with one peer. The system tells it, unlike one
// without, when nobody listens there: a dial fails at once, and a link too
// whose peer was killed.
type connected struct{ *net.UDPConn }

// WriteTo replaces net.UDPConn's, which refuses an address on such a socket.
func (c connected) WriteTo(p []byte, _ net.Addr) (int, error) { return c.Write(p) }

// WriteMsgUDP replaces net.UDPConn's for the same reason.
func (c connected) WriteMsgUDP(p, oob []byte, _ *net.UDPAddr) (n, oobn int, err error) {
	return c.UDPConn.WriteMsgUDP(p, oob, nil)
}

// wantedBuffer is what quic-go asks for; with less, packets are lost at full speed.
const wantedBuffer = 7 << 20

// checkBuffers warns once when the system gave the socket smaller buffers
// than QUIC asked for.
func (t *Transport) checkBuffers(pc net.PacketConn) {
	conn, ok := pc.(syscall.Conn)
	if !ok {
		return
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return
	}
	smallest := wantedBuffer
	raw.Control(func(fd uintptr) {
		for _, option := range []int{unix.SO_RCVBUF, unix.SO_SNDBUF} {
			// The kernel counts its own overhead too, and says twice of what was set.
			if n, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, option); err == nil {
				smallest = min(smallest, n)
			}
		}
	})
	if smallest >= wantedBuffer {
		return
	}
	t.warned.Do(func() {
		t.log.Warn("the system's UDP buffers are small for QUIC; links may lose packets at full speed: set the sysctls net.core.rmem_max and net.core.wmem_max",
			"bytes", smallest, "wanted", wantedBuffer)
	})
}

// selfMade makes a key and a certificate for this process.
func selfMade() (tls.Certificate, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	// No clock decides whether a node may link: the times say nothing.
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ranvier, self-made"},
		NotBefore: time.Unix(0, 0), NotAfter: time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private}, nil
}
