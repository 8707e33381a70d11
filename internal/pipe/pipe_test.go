package pipe

import (
	"errors"
	"io"
	"net"
	"testing"

	"golang.org/x/net/nettest"
)

type addr string

func (addr) Network() string  { return "pipe" }
func (a addr) String() string { return string(a) }

func TestConformance(t *testing.T) {
	nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
		a, b := New(addr("a"), addr("b"))
		return a, b, func() { a.Close(); b.Close() }, nil
	})
}

func TestCloseDeliversWhatWasWritten(t *testing.T) {
	a, b := New(addr("a"), addr("b"))
	if _, err := a.Write(make([]byte, Size)); err != nil {
		t.Fatal(err)
	}
	a.Close()
	got, err := io.ReadAll(b)
	if err != nil || len(got) != Size {
		t.Fatalf("read %d bytes, %v", len(got), err)
	}
	if _, err := b.Write([]byte("x")); !errors.Is(err, io.ErrClosedPipe) {
		t.Fatalf("write to a closed end: %v", err)
	}
}

func TestBreakLosesWhatWasNotRead(t *testing.T) {
	a, b := New(addr("a"), addr("b"))
	a.Write([]byte("x"))
	a.Break(nil)
	for _, c := range []net.Conn{a, b} {
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, ErrBroken) {
			t.Fatalf("read: %v", err)
		}
		if _, err := c.Write(make([]byte, 1)); !errors.Is(err, ErrBroken) {
			t.Fatalf("write: %v", err)
		}
	}
}
