package session

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/nettest"

	"github.com/ranvier-mesh/ranvier/internal/pipe"
	"github.com/ranvier-mesh/ranvier/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type addr string

func (addr) Network() string  { return "test" }
func (a addr) String() string { return string(a) }

func pair() (a, b *Conn, carrier *pipe.Conn) {
	x, y := pipe.New(addr("a"), addr("b"))
	return New(x, "to b", nil), New(y, "to a", nil), x
}

func TestConformance(t *testing.T) {
	nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
		a, b, _ := pair()
		return a, b, func() { a.Close(); b.Close(); <-a.Gone(); <-b.Gone() }, nil
	})
}

func TestHalfClosedStreamLivesAnHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, _ := pair()
		if _, err := a.Write([]byte("request")); err != nil {
			t.Fatal(err)
		}
		a.CloseWrite()
		if got, err := io.ReadAll(b); err != nil || string(got) != "request" {
			t.Fatalf("read %q, %v", got, err)
		}
		time.Sleep(time.Hour)
		go func() {
			b.Write([]byte("answer"))
			b.Close()
		}()
		if got, err := io.ReadAll(a); err != nil || string(got) != "answer" {
			t.Fatalf("read %q, %v", got, err)
		}
		if _, err := a.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
			t.Fatalf("write after CloseWrite: %v", err)
		}
		a.Close()
		<-a.Gone()
		<-b.Gone()
	})
}

func TestACarrierThatEndsWithoutFinIsAnError(t *testing.T) {
	for name, end := range map[string]func(*pipe.Conn){
		"clean end": func(p *pipe.Conn) { p.Close() },
		"cut":       func(p *pipe.Conn) { p.Break(nil) },
	} {
		t.Run(name, func(t *testing.T) {
			a, b, carrier := pair()
			a.Write([]byte("before"))
			io.ReadFull(b, make([]byte, 6))
			end(carrier)
			for _, c := range []*Conn{a, b} {
				var broken *BrokenError
				if _, err := c.Read(make([]byte, 1)); !errors.As(err, &broken) || errors.Is(err, io.EOF) {
					t.Errorf("read: %v", err)
				}
				if _, err := c.Write([]byte("x")); !errors.As(err, &broken) {
					t.Errorf("write: %v", err)
				}
				c.Close()
				<-c.Gone()
			}
		})
	}
}

func TestFinThenCarrierEndKeepsTheData(t *testing.T) {
	a, b, carrier := pair()
	a.Write([]byte("all of it"))
	a.CloseWrite()
	first := make([]byte, 1)
	io.ReadFull(b, first) // the rest is in b's memory once the FIN has come
	synced(t, func() bool { b.mu.Lock(); defer b.mu.Unlock(); return b.finGot })
	carrier.Break(nil)
	rest, err := io.ReadAll(b)
	if err != nil || string(first)+string(rest) != "all of it" {
		t.Fatalf("read %q, %v", rest, err)
	}
	a.Close()
	b.Close()
	<-a.Gone()
	<-b.Gone()
}

// synced waits until ok, giving the other goroutines the processor.
func synced(t *testing.T, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-t.Context().Done():
			t.Fatal("never happened")
		case <-tick.C:
		}
	}
}

func TestCloseDeliversWhatWasWritten(t *testing.T) {
	a, b, _ := pair()
	sent := bytes.Repeat([]byte("x"), 100_000)
	if _, err := a.Write(sent); err != nil {
		t.Fatal(err)
	}
	a.Close()
	got, err := io.ReadAll(b)
	if err != nil || !bytes.Equal(got, sent) {
		t.Fatalf("read %d bytes, %v", len(got), err)
	}
	if _, err := b.Write([]byte("x")); !errors.Is(err, ErrPeerClosed) {
		t.Fatalf("write to a closed peer: %v", err)
	}
	b.Close()
	<-a.Gone()
	<-b.Gone()
}

func TestCloseGivesUpOnAPeerThatNeverReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, _ := pair()
		a.SetWriteDeadline(time.Now().Add(time.Second))
		if _, err := a.Write(make([]byte, 1<<20)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
		a.Close()
		start := time.Now()
		<-a.Gone()
		if d := time.Since(start); d != lingerTime {
			t.Errorf("gave up after %v", d)
		}
		b.Close()
		<-b.Gone()
	})
}

func TestReset(t *testing.T) {
	a, b, _ := pair()
	a.Reset(wire.CodeForbidden, "not for you")
	var reset *ResetError
	if _, err := b.Read(make([]byte, 1)); !errors.As(err, &reset) || reset.Code != wire.CodeForbidden {
		t.Fatalf("read: %v", err)
	}
	if _, err := a.Read(make([]byte, 1)); err == nil || err == io.EOF {
		t.Fatalf("read at the resetting end: %v", err)
	}
	a.Close()
	b.Close()
	<-a.Gone()
	<-b.Gone()
}

func TestASlowReaderStopsTheSenderAtABound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, _ := pair()
		a.SetWriteDeadline(time.Now().Add(time.Minute))
		n, err := a.Write(make([]byte, 10<<20))
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
		// maxChunks at each end, one in each of the two goroutines' hands, and the pipe
		if bound := (2*maxChunks+2)*32<<10 + pipe.Size; n > bound {
			t.Errorf("%d bytes went out to a reader that does not read, bound %d", n, bound)
		}
		a.SetWriteDeadline(time.Time{})
		go a.CloseWrite()
		if got, err := io.ReadAll(b); err != nil || len(got) != n {
			t.Errorf("read %d of %d bytes: %v", len(got), n, err)
		}
		b.Close()
		a.Close()
		<-a.Gone()
		<-b.Gone()
	})
}

func TestBytesThatAreNoSession(t *testing.T) {
	fin := func(offset uint64) []byte { b, _ := (wire.Fin{Offset: offset}).Append(nil); return b }
	for name, bytes := range map[string][]byte{
		"two zero bytes":     {0, 0},
		"zero length":        {0, 0, 0, 0, 0x20},
		"4 GiB":              {255, 255, 255, 255, 0x20},
		"fin at wrong place": fin(7),
		"data after fin":     append(fin(0), 0, 0, 0, 2, 0x20, 'x'),
		"half a frame":       {0, 0, 0, 9, 0x20, 'x'},
		"malformed fin":      {0, 0, 0, 3, 0x21, 0xff, 0xff},
	} {
		t.Run(name, func(t *testing.T) {
			x, y := pipe.New(addr("a"), addr("b"))
			c := New(x, "to b", nil)
			y.Write(bytes)
			y.Close()
			buf := make([]byte, 10)
			_, err := io.ReadFull(c, buf)
			if _, err2 := c.Write(buf); err2 == nil {
				for err2 == nil {
					_, err2 = c.Write(buf)
				}
			}
			if err == nil {
				t.Error("no error")
			}
			c.Close()
			<-c.Gone()
		})
	}
}
