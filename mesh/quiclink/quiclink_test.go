package quiclink

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"go.uber.org/goleak"

	"github.com/ranvier-mesh/ranvier/mesh/link"
	"github.com/ranvier-mesh/ranvier/mesh/link/linktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func transport(t testing.TB, c Config) *Transport {
	t.Helper()
	tr, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func TestConformance(t *testing.T) { linktest.Run(t, transport(t, Config{}), "127.0.0.1:0") }

func TestConformanceIPv6(t *testing.T) { linktest.Run(t, transport(t, Config{}), "[::1]:0") }

func TestConformanceWithCertificates(t *testing.T) {
	server, client := linktest.Certificates(t)
	linktest.Run(t, transport(t, Config{TLSServer: server, TLSClient: client}), "127.0.0.1:0")
}

func TestConformanceWithARate(t *testing.T) {
	linktest.Run(t, transport(t, Config{}).With(link.Options{Rate: 20 << 20}), "127.0.0.1:0")
}

// listen returns a listener and the links that it accepts.
func listen(t *testing.T, tr link.Transport) (link.Listener, <-chan link.Link) {
	t.Helper()
	l, err := tr.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	accepted := make(chan link.Link, 10)
	go func() {
		defer close(accepted)
		for {
			k, err := l.Accept()
			if err != nil {
				return
			}
			accepted <- k
		}
	}()
	t.Cleanup(func() {
		l.Close()
		for k := range accepted {
			k.Close()
		}
	})
	return l, accepted
}

func pair(t *testing.T, tr link.Transport) (near, far link.Link, l link.Listener) {
	t.Helper()
	l, accepted := listen(t, tr)
	near, err := tr.Dial(t.Context(), l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	far = <-accepted
	t.Cleanup(func() { near.Close(); far.Close() })
	return near, far, l
}

func TestADialWhereNobodyListensFailsAtOnce(t *testing.T) {
	tr := transport(t, Config{})
	start := time.Now()
	_, err := tr.Dial(t.Context(), "127.0.0.1:1")
	var op *net.OpError
	if !errors.As(err, &op) || !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dial: %v", err)
	}
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("it took %v", took)
	}
}

func TestNames(t *testing.T) {
	names := new(linktest.Names)
	linktest.RunNames(t, transport(t, Config{Resolver: names.Resolver()}), names, linktest.SamePort)
}

func TestAnUnknownCertificateIsRefused(t *testing.T) {
	server, _ := linktest.Certificates(t)
	_, stranger := linktest.Certificates(t)
	l, _ := listen(t, transport(t, Config{TLSServer: server}))
	_, err := transport(t, Config{TLSClient: stranger}).Dial(t.Context(), l.Addr().String())
	var unknown *tls.CertificateVerificationError
	if !errors.As(err, &unknown) {
		t.Errorf("dial: %v", err)
	}
}

func TestAnotherProtocolIsRefused(t *testing.T) {
	l, _ := listen(t, transport(t, Config{}))
	_, err := quic.DialAddr(t.Context(), l.Addr().String(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h3"}}, nil)
	if err == nil {
		t.Error("h3 is taken")
	}
}

func TestALinkOutlivesItsListener(t *testing.T) {
	near, far, l := pair(t, transport(t, Config{}))
	l.Close()
	s, err := near.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s.Write([]byte("x"))
	if _, err := far.Accept(); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := transport(t, Config{}).Dial(ctx, l.Addr().String()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("dial of a closed listener: %v", err)
	}
}

// A node that is killed says nothing, but its socket is gone.
func TestAPeerThatIsKilledIsNoticedWithTheNextPacket(t *testing.T) {
	near, far, _ := pair(t, transport(t, Config{}))
	s, err := near.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s.Write([]byte("x"))
	if _, err := far.Accept(); err != nil {
		t.Fatal(err)
	}
	far.(*quicLink).socket.conn.Close()
	s.Write([]byte("y"))
	select {
	case <-near.Done():
	case <-time.After(2 * time.Second):
		t.Fatal("the link is still up")
	}
	if _, err := near.Accept(); !errors.Is(err, link.ErrClosed) || !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("accept: %v", err)
	}
}

func TestCloseWithAWriteThatWaits(t *testing.T) {
	for name, rate := range map[string]int64{"for the reader": 0, "for its turn": 2000} {
		t.Run(name, func(t *testing.T) {
			near, far, _ := pair(t, transport(t, Config{}).With(link.Options{Rate: rate}))
			near.Open(t.Context()) // the control stream, which has no rate
			s, err := near.Open(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			wrote := make(chan error)
			go func() {
				_, err := s.Write(make([]byte, 64<<20))
				wrote <- err
			}()
			if _, err := far.Accept(); err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			s.Close()
			if took := time.Since(start); took > time.Second {
				t.Errorf("close took %v", took)
			}
			if err := <-wrote; !errors.Is(err, net.ErrClosed) {
				t.Errorf("write: %v", err)
			}
			if _, err := s.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
				t.Errorf("write after close: %v", err)
			}
			if _, err := s.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
				t.Errorf("read after close: %v", err)
			}
		})
	}
}

func TestManyReadersThatWaitHoldUpNobody(t *testing.T) {
	near, far, _ := pair(t, transport(t, Config{}))
	for range 300 { // each with a full window
		s, err := near.Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		go s.Write(make([]byte, 1<<20))
		if _, err := far.Accept(); err != nil {
			t.Fatal(err)
		}
	}
	s, err := near.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	sent := bytes.Repeat([]byte("x"), 4<<20)
	go func() {
		s.Write(sent)
		s.Close()
	}()
	r, err := far.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r); err != nil || len(got) != len(sent) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

func TestStreamsBeyondTheLimitAreRefused(t *testing.T) {
	near, _, _ := pair(t, transport(t, Config{}))
	var err error
	opened := 0
	for ; err == nil && opened <= maxStreams; opened++ {
		_, err = near.Open(t.Context())
	}
	if !errors.Is(err, link.ErrBusy) || errors.Is(err, link.ErrClosed) {
		t.Errorf("after %d streams: %v", opened, err)
	}
}

func TestControlGoesBeforeBulk(t *testing.T) {
	near, far, _ := pair(t, transport(t, Config{}).With(link.Options{Rate: 200_000}))
	control, err := near.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		bulk, err := near.Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		go bulk.Write(make([]byte, 1<<20))
	}
	control.Write([]byte("first"))
	r, err := far.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(r, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	for range 10 {
		control.Write([]byte("heartbeat"))
		if _, err := io.ReadFull(r, make([]byte, 9)); err != nil {
			t.Fatal(err)
		}
	}
	if took := time.Since(start) / 10; took > 100*time.Millisecond {
		t.Errorf("a control message took %v", took)
	}
}

func TestSmallBuffersAreToldOnce(t *testing.T) {
	var out bytes.Buffer
	tr := transport(t, Config{Log: slog.New(slog.NewTextHandler(&out, nil))})
	for range 3 {
		pc, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		pc.(*net.UDPConn).SetReadBuffer(4096)
		tr.checkBuffers(pc)
		pc.Close()
	}
	if n := strings.Count(out.String(), "net.core.rmem_max"); n != 1 {
		t.Errorf("told %d times: %s", n, &out)
	}
}
