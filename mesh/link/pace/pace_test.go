package pace

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/pipe"
	"github.com/ranvier-mesh/ranvier/mesh/link"
)

type addr string

func (addr) Network() string  { return "test" }
func (a addr) String() string { return string(a) }

func TestConnSendsAtItsRate(t *testing.T) {
	for _, rate := range []int64{8_000, 625_000, 50_000_000} { // 64 kbit/s, 5 Mbit/s, 400 Mbit/s
		synctest.Test(t, func(t *testing.T) {
			a, b := pipe.New(addr("a"), addr("b"))
			c := Conn(a, link.Options{Rate: rate})
			go io.Copy(io.Discard, b)
			start := time.Now()
			n, err := c.Write(make([]byte, 10*rate))
			if err != nil || int64(n) != 10*rate {
				t.Fatalf("wrote %d, %v", n, err)
			}
			if took := time.Since(start); took < 9800*time.Millisecond || took > 10*time.Second {
				t.Errorf("10 seconds of bytes at %d B/s took %v", rate, took)
			}
			c.Close()
			b.Close()
		})
	}
}

func TestCloseEndsAWriteThatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := pipe.New(addr("a"), addr("b"))
		defer b.Close()
		c := Conn(a, link.Options{Rate: 1000})
		go io.Copy(io.Discard, b)
		time.AfterFunc(time.Second, func() { c.Close() })
		start := time.Now()
		if _, err := c.Write(make([]byte, 1<<20)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("write: %v", err)
		}
		if took := time.Since(start); took > 1100*time.Millisecond {
			t.Errorf("it ended after %v", took)
		}
	})
}

func TestWhatIsSpentHoldsUpTheRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(10_000)
		b.Spend(50_000)
		start := time.Now()
		b.Write(context.Background(), make([]byte, 1000), func(p []byte) (int, error) { return len(p), nil })
		if took := time.Since(start); took < 4800*time.Millisecond || took > 5200*time.Millisecond {
			t.Errorf("the next bytes waited %v", took)
		}
	})
}

func TestNoRateIsNoWrapper(t *testing.T) {
	a, b := pipe.New(addr("a"), addr("b"))
	defer a.Close()
	defer b.Close()
	if Conn(a, link.Options{}) != net.Conn(a) {
		t.Error("a connection without a rate is wrapped")
	}
	var none *Bucket
	none.Spend(1)
	if n, err := none.Write(t.Context(), []byte("abc"), func(p []byte) (int, error) { return len(p), nil }); n != 3 || err != nil {
		t.Error(n, err)
	}
}
