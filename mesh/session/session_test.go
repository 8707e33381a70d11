package session

import (
	"bytes"
	"context"
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

// pair is a session that is never redialled.
func pair() (a, b *Conn, carrier *pipe.Conn) {
	x, y := pipe.New(addr("a"), addr("b"))
	budget := NewBudget(64 << 20)
	noWay := func(context.Context, int, error) (Carrier, error) { return Carrier{}, errors.New("no way") }
	return New(Carrier{Conn: x}, Config{Name: "to b", Budget: budget, Redial: noWay}), New(Carrier{Conn: y}, Config{Name: "to a", Budget: budget}), x
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

func TestACarrierThatEndsWithoutFinIsAnErrorInTheEnd(t *testing.T) {
	for name, end := range map[string]func(*pipe.Conn){
		"clean end": func(p *pipe.Conn) { p.Close() },
		"cut":       func(p *pipe.Conn) { p.Break(nil) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b, carrier := pair()
				a.Write([]byte("before"))
				io.ReadFull(b, make([]byte, 6))
				end(carrier)
				start := time.Now()
				for _, c := range []*Conn{a, b} {
					var broken *BrokenError
					if _, err := c.Read(make([]byte, 1)); !errors.As(err, &broken) || errors.Is(err, io.EOF) {
						t.Errorf("read: %v", err)
					}
					if _, err := c.Write([]byte("x")); !errors.As(err, &broken) {
						t.Errorf("write: %v", err)
					}
					if d := time.Since(start); d != GiveUp {
						t.Errorf("told after %v", d)
					}
					c.Close()
					<-c.Gone()
				}
			})
		})
	}
}

func TestFinThenCarrierEndKeepsTheData(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, carrier := pair()
		a.Write([]byte("all of it"))
		a.CloseWrite()
		synctest.Wait()
		carrier.Break(nil)
		if got, err := io.ReadAll(b); err != nil || string(got) != "all of it" {
			t.Fatalf("read %q, %v", got, err)
		}
		a.Close()
		b.Close()
		<-a.Gone()
		<-b.Gone()
	})
}

func TestCloseDeliversWhatWasWritten(t *testing.T) {
	a, b, _ := pair()
	sent := bytes.Repeat([]byte("x"), 100_000)
	go func() {
		a.Write(sent)
		a.Close()
	}()
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

func TestCloseDoesNotWaitForAPeerThatNeverReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, _ := pair()
		a.SetWriteDeadline(time.Now().Add(time.Second))
		if _, err := a.Write(make([]byte, 1<<20)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
		a.Close()
		<-a.Gone()
		if got, err := io.ReadAll(b); err != nil || len(got) != firstWindow {
			t.Errorf("read %d bytes, %v", len(got), err)
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
		if n != firstWindow {
			t.Errorf("%d bytes went out to a reader that does not read, %d are allowed", n, firstWindow)
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
			c := New(Carrier{Conn: x}, Config{Name: "to b", Budget: NewBudget(0), GiveUp: time.Second})
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
