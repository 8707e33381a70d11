// Package linktest is the suite that every transport passes.
package linktest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/ranvier-mesh/ranvier/mesh/link"
)

// Run tests a transport; listenAddr is one that Listen takes, with a port or
// name of its own choosing.
func Run(t *testing.T, transport link.Transport, listenAddr string) {
	tests := []struct {
		name string
		f    func(*testing.T, link.Link, link.Link)
	}{
		{"streams carry bytes both ways", testEcho},
		{"close delivers what was written", testCloseDelivers},
		{"many streams at once", testMany},
		{"a reader that waits holds up no other stream", testIndependent},
		{"closing the link ends its streams at both ends", testLinkClose},
		{"traffic is counted", testTraffic},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			near, far := connect(t, transport, listenAddr)
			tt.f(t, near, far)
		})
	}
	t.Run("nobody listens", func(t *testing.T) {
		l, err := transport.Listen(t.Context(), listenAddr)
		if err != nil {
			t.Fatal(err)
		}
		addr := l.Addr().String()
		l.Close()
		if _, err := transport.Dial(t.Context(), addr); err == nil {
			t.Fatal("dialled a closed listener")
		}
	})
	t.Run("a canceled dial ends", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		l, err := transport.Listen(t.Context(), listenAddr)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if _, err := transport.Dial(ctx, l.Addr().String()); !errors.Is(err, context.Canceled) {
			t.Fatalf("dial: %v", err)
		}
	})
}

func connect(t *testing.T, transport link.Transport, addr string) (near, far link.Link) {
	t.Helper()
	l, err := transport.Listen(t.Context(), addr)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	accepted := make(chan link.Link, 1)
	go func() {
		defer close(accepted)
		if k, err := l.Accept(); err == nil {
			accepted <- k
		}
	}()
	near, err = transport.Dial(t.Context(), l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if far = <-accepted; far == nil {
		t.Fatal("the listener accepted nothing")
	}
	t.Cleanup(func() { near.Close(); far.Close() })
	link.Known(near)
	link.Known(far)
	return near, far
}

// pair opens a stream from near to far and says a byte, so that both know it.
func pair(t *testing.T, near, far link.Link) (a, b net.Conn) {
	t.Helper()
	a, err := near.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Write([]byte{1}); err != nil {
		t.Fatal(err)
	}
	if b, err = far.Accept(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(b, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	return a, b
}

func testEcho(t *testing.T, near, far link.Link) {
	for _, ends := range [][2]link.Link{{near, far}, {far, near}} {
		a, b := pair(t, ends[0], ends[1])
		sent := bytes.Repeat([]byte("ranvier "), 100_000)
		go func() {
			io.CopyN(b, b, int64(len(sent)))
		}()
		go a.Write(sent)
		got := make([]byte, len(sent))
		if _, err := io.ReadFull(a, got); err != nil || !bytes.Equal(got, sent) {
			t.Fatalf("echo differs: %v", err)
		}
		a.Close()
		b.Close()
	}
}

func testCloseDelivers(t *testing.T, near, far link.Link) {
	a, b := pair(t, near, far)
	if _, err := a.Write(make([]byte, 10_000)); err != nil {
		t.Fatal(err)
	}
	a.Close()
	got, err := io.ReadAll(b)
	if err != nil || len(got) != 10_000 {
		t.Fatalf("read %d bytes, %v", len(got), err)
	}
	b.Close()
}

func testMany(t *testing.T, near, far link.Link) {
	const n = 500
	go func() {
		for range n {
			s, err := far.Accept()
			if err != nil {
				return
			}
			go func() {
				defer s.Close()
				io.CopyN(s, s, 1000)
			}()
		}
	}()
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			s, err := near.Open(t.Context())
			if err != nil {
				t.Error(err)
				return
			}
			defer s.Close()
			sent := bytes.Repeat([]byte{byte(i)}, 1000)
			go s.Write(sent)
			got := make([]byte, len(sent))
			if _, err := io.ReadFull(s, got); err != nil || !bytes.Equal(got, sent) {
				t.Errorf("stream %d: %v", i, err)
			}
		})
	}
	wg.Wait()
}

func testIndependent(t *testing.T, near, far link.Link) {
	stuck, _ := pair(t, near, far) // nobody reads its other end
	wrote := make(chan struct{})
	go func() {
		defer close(wrote)
		stuck.Write(make([]byte, 8<<20))
	}()
	testEcho(t, near, far)
	near.Close()
	<-wrote
}

func testLinkClose(t *testing.T, near, far link.Link) {
	a, b := pair(t, near, far)
	near.Close()
	for _, s := range []net.Conn{a, b} {
		if n, err := s.Read(make([]byte, 1)); err == nil {
			t.Errorf("read %d bytes from a stream of a closed link", n)
		}
	}
	for _, l := range []link.Link{near, far} {
		<-l.Done()
		if _, err := l.Open(t.Context()); !errors.Is(err, link.ErrClosed) {
			t.Errorf("open on a closed link: %v", err)
		}
		if _, err := l.Accept(); !errors.Is(err, link.ErrClosed) {
			t.Errorf("accept on a closed link: %v", err)
		}
	}
}

func testTraffic(t *testing.T, near, far link.Link) {
	a, b := pair(t, near, far)
	wrote := make(chan struct{})
	go func() {
		defer close(wrote)
		a.Write(make([]byte, 10_000))
	}()
	if _, err := io.ReadFull(b, make([]byte, 10_000)); err != nil {
		t.Fatal(err)
	}
	<-wrote
	if received, _ := far.Traffic(); received < 10_000 {
		t.Errorf("far end received %d bytes", received)
	}
	if _, sent := near.Traffic(); sent < 10_000 {
		t.Errorf("near end sent %d bytes", sent)
	}
}
