package identity

import (
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

	"golang.org/x/sys/unix"
)

// crowd makes connections to the join service that show no token.
func crowd(t *testing.T, addr string, size int) []net.Conn {
	t.Helper()
	var all []net.Conn
	for range size {
		c, err := tls.Dial("tcp", addr, &tls.Config{NextProtos: []string{JoinProtocol}, InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		all = append(all, c)
	}
	return all
}

// Whoever holds connections without a token keeps nobody out, also not from
// the same host, and who makes room for another one hears why.
func TestJoinCrowded(t *testing.T) {
	t.Parallel()
	ca := wallCA(t)
	service := NewJoinService(ca, slog.New(slog.DiscardHandler))
	service.patience = time.Minute
	addr := listen(t, &tls.Config{GetConfigForClient: service.Config}, func(c net.Conn) {
		if s := c.(*tls.Conn); s.Handshake() == nil {
			service.Serve(s)
		}
	})
	idle := crowd(t, addr, joinsOfHost+4)
	tok, err := ca.Token(Request{Role: Router, Pattern: "n", Addresses: []string{addr}})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := Join(t.Context(), tok, "n", filepath.Join(t.TempDir(), "i"), nil, nil); err != nil {
		t.Errorf("not let in: %v", err)
	}
	idle[0].SetReadDeadline(time.Now().Add(30 * time.Second))
	var refused *RefusedError
	if _, err := readGrant(idle[0]); !errors.As(err, &refused) || !refused.Busy {
		t.Errorf("the oldest of the idle: %v", err)
	}
}

// Who is turned away comes again.
func TestJoinAfterBusy(t *testing.T) {
	t.Parallel()
	ca := wallCA(t)
	cfg, err := ca.JoinTLS()
	if err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	addr := listen(t, cfg, func(c net.Conn) {
		busy := false
		once.Do(func() { busy = true })
		if busy {
			defer c.Close()
			readJoin(c)
			answer(c, nil, errCrowded)
			return
		}
		ca.ServeJoin(c, slog.New(slog.DiscardHandler))
	})
	tok, err := ca.Token(Request{Role: Router, Pattern: "n", Addresses: []string{addr}})
	if err != nil {
		t.Fatal(err)
	}
	var why []string
	_, _, err = Join(t.Context(), tok, "n", filepath.Join(t.TempDir(), "i"), nil, func(err error) { why = append(why, err.Error()) })
	if err != nil || len(why) != 1 || !strings.Contains(why[0], "too many nodes") {
		t.Errorf("joined: %v, after %q", err, why)
	}
}

// A CA whose node was started at the same time is waited for.
func TestJoinBeforeTheCAListens(t *testing.T) {
	t.Parallel()
	ca := wallCA(t)
	// A socket that is bound and does not listen: who connects is refused.
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	socket := os.NewFile(uintptr(fd), "socket")
	defer socket.Close()
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	bound, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	addr := fmt.Sprintf("127.0.0.1:%d", bound.(*unix.SockaddrInet4).Port)
	tok, err := ca.Token(Request{Role: Router, Pattern: "n", Addresses: []string{addr}})
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := ca.JoinTLS()
	if err != nil {
		t.Fatal(err)
	}
	var served sync.WaitGroup
	t.Cleanup(served.Wait)
	begun := false
	_, _, err = Join(t.Context(), tok, "n", filepath.Join(t.TempDir(), "i"), nil, func(error) {
		if begun {
			return
		}
		begun = true
		err := unix.Listen(fd, 16)
		if err != nil {
			t.Error(err)
			return
		}
		l, err := net.FileListener(socket)
		if err != nil {
			t.Error(err)
			return
		}
		t.Cleanup(func() { l.Close() })
		served.Go(func() {
			if c, err := l.Accept(); err == nil {
				ca.ServeJoin(tls.Server(c, cfg), slog.New(slog.DiscardHandler))
			}
		})
	})
	if err != nil || !begun {
		t.Errorf("joined: %v, asked again: %v", err, begun)
	}
}
