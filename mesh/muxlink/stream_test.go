package muxlink

import (
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/hashicorp/yamux"

	"github.com/ranvier-mesh/ranvier/mesh/link"
)

// besideYamux is a link whose other end is yamux alone: a peer that does as it likes.
func besideYamux(t *testing.T, near, far net.Conn, closeTime time.Duration) (*muxLink, *yamux.Session) {
	t.Helper()
	l, err := Server(near, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	link.Known(l)
	l.(*muxLink).session.closeTime = closeTime
	cfg := yamux.DefaultConfig()
	cfg.LogOutput, cfg.EnableKeepAlive = io.Discard, false
	peer, err := yamux.Client(far, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { peer.Close() })
	return l.(*muxLink), peer
}

func comesTo(t *testing.T, l *muxLink, want int) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(20 * time.Second); l.Streams() != want; <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("%d streams are left, want %d", l.Streams(), want)
		}
	}
}

// A peer leaves 10,000 streams open and reads none: once they are closed here
// they are gone after a while.
func TestStreamsThatThePeerNeverEnds(t *testing.T) {
	t.Parallel()
	near, far := net.Pipe()
	l, peer := besideYamux(t, near, far, 100*time.Millisecond)
	const streams = 10_000
	go func() {
		for range streams {
			s, err := peer.OpenStream()
			if err != nil {
				return
			}
			s.Write(make([]byte, 4<<10))
		}
	}()
	for range streams {
		s, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		s.Write([]byte("refused"))
		s.Close()
	}
	comesTo(t, l, 0)
}

// A stream that only the peer has still to end counts, and nothing that comes on
// it is kept.
func TestWhatComesAfterClose(t *testing.T) {
	t.Parallel()
	near, far := net.Pipe()
	l, peer := besideYamux(t, near, far, time.Hour)
	s, err := peer.OpenStream()
	if err != nil {
		t.Fatal(err)
	}
	in, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	read := make(chan error)
	go func() {
		_, err := in.Read(make([]byte, 1))
		read <- err
	}()
	in.Write([]byte("bye"))
	in.Close()
	if err := <-read; !errors.Is(err, net.ErrClosed) {
		t.Errorf("a read that waited: %v", err)
	}
	if _, err := in.Write([]byte("more")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a write after Close: %v", err)
	}
	if all, err := io.ReadAll(s); string(all) != "bye" || err != nil {
		t.Errorf("the peer reads %q, %v", all, err)
	}
	if n, err := s.Write(make([]byte, 100<<10)); err != nil {
		t.Errorf("%d bytes were taken after Close, then %v", n, err)
	}
	if n := l.Streams(); n != 1 {
		t.Errorf("%d streams count, want the one that the peer has open", n)
	}
	s.Close()
	comesTo(t, l, 0)
}

// Where the peer has ceased to read, Close waits for nothing.
func TestCloseOnALinkThatIsHeldUp(t *testing.T) {
	t.Parallel()
	near, far := net.Pipe()
	l, err := Server(near, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		far.Write([]byte{0, 1, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0}) // opens the first stream
		io.ReadFull(far, make([]byte, header))                // is told that it is taken
	}()
	in, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	written := make(chan error)
	go func() {
		_, err := in.Write([]byte("nobody reads this"))
		written <- err
	}()
	closed := make(chan struct{})
	go func() {
		in.Close()
		close(closed)
	}()
	select {
	case <-closed:
	case <-time.After(20 * time.Second):
		t.Error("Close waits for a peer that does not read")
	}
	l.Close()
	<-written
}
