package control

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"testing"
)

// TestConnectKeepsEveryByte sends a request and what follows it in one piece,
// more than any buffer takes, and reads it back.
func TestConnectKeepsEveryByte(t *testing.T) {
	t.Parallel()
	conn := dialRaw(t, serve(t, fakeNode{}))
	payload := make([]byte, 8<<20)
	rand.Read(payload)
	go func() {
		conn.Write(append([]byte("connect c echo\n"), payload...))
		conn.CloseWrite()
	}()
	got, err := io.ReadAll(conn)
	if want := append([]byte("Receptor Control, node a\nConnecting\n"), payload...); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes, %v; want %d", len(got), err, len(want))
	}
}

// streamPair returns two ends of a unix socket.
func streamPair(t *testing.T) (near, far *net.UnixConn) {
	t.Helper()
	ln, err := ListenUnix(t.TempDir()+"/s", 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	near = dialRaw(t, ln.Addr().String())
	c, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return near, c.(*net.UnixConn)
}

// TestConnectHalfClose ends the service's way first, and then the client's.
func TestConnectHalfClose(t *testing.T) {
	t.Parallel()
	service, far := streamPair(t)
	path := serve(t, fakeNode{connected: func() Stream { return far }})
	c, err := Dial(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := c.Connect(t.Context(), "c", "echo")
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	io.WriteString(service, "all there is")
	service.CloseWrite()
	if got, err := io.ReadAll(stream); string(got) != "all there is" || err != nil {
		t.Errorf("the client got %q, %v", got, err)
	}
	io.WriteString(stream, "thanks")
	stream.CloseWrite()
	if got, err := io.ReadAll(service); string(got) != "thanks" || err != nil {
		t.Errorf("the service got %q, %v", got, err)
	}
}

// brokenStream fails when it is read, and is never ready to be written.
type brokenStream struct{ closed chan struct{} }

var errBroken = errors.New("the relay b died")

func (s brokenStream) Read([]byte) (int, error) { return 0, errBroken }
func (s brokenStream) CloseWrite() error        { return nil }
func (s brokenStream) Write(p []byte) (int, error) {
	<-s.closed
	return 0, net.ErrClosed
}

func (s brokenStream) Close() error {
	select {
	case <-s.closed:
	default:
		close(s.closed)
	}
	return nil
}

// TestConnectBreaks breaks the way back while the way there is stuck: both
// ends are closed.
func TestConnectBreaks(t *testing.T) {
	t.Parallel()
	near, client := net.Pipe()
	far := brokenStream{make(chan struct{})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		NewServer("a", fakeNode{connected: func() Stream { return far }}, quiet()).ServeConn(context.Background(), near)
	}()
	go io.WriteString(client, "connect c echo\nmore than the service takes")
	io.Copy(io.Discard, client)
	<-done
	<-far.closed
}
