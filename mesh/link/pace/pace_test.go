package pace

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// sink takes what is written to it.
func sink(p []byte) (int, error) { return len(p), nil }

func TestBytesLeaveAtTheirRate(t *testing.T) {
	for _, rate := range []int64{8_000, 625_000, 50_000_000} { // 64 kbit/s, 5 Mbit/s, 400 Mbit/s
		synctest.Test(t, func(t *testing.T) {
			b := New(rate)
			start := time.Now()
			n, err := b.Write(t.Context(), make([]byte, 10*rate), sink)
			if err != nil || int64(n) != 10*rate {
				t.Fatalf("wrote %d, %v", n, err)
			}
			if took := time.Since(start); took < 9800*time.Millisecond || took > 10*time.Second {
				t.Errorf("10 seconds of bytes at %d B/s took %v", rate, took)
			}
		})
	}
}

func TestASmallMessageGoesAtOnceAndIsCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(100_000)
		start := time.Now()
		go b.Write(t.Context(), make([]byte, 1_000_000), sink)
		synctest.Wait()
		for range 4 {
			b.Write(t.Context(), make([]byte, small), sink)
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("they waited %v", took)
		}
		b.Write(t.Context(), make([]byte, small+1), sink)
		if took := time.Since(start); took < 40*time.Millisecond {
			t.Errorf("what is not small waited %v", took)
		}
		time.Sleep(time.Minute) // in the bubble: the large one is over
	})
}

// Many small messages are bulk as well: all together keep to the rate, and what is
// large has its share.
func TestManySmallMessagesKeepToTheRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const bytesPerSecond = 100_000
		b := New(bytesPerSecond)
		var sent, large atomic.Int64
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		for i := range 8 {
			size := small
			if i == 0 {
				size = 1 << 20
			}
			go func() {
				for ctx.Err() == nil {
					n, _ := b.Write(ctx, make([]byte, size), func(p []byte) (int, error) {
						sent.Add(int64(len(p)))
						if size > small {
							large.Add(int64(len(p)))
						}
						return len(p), nil
					})
					if n < size {
						return
					}
				}
			}()
		}
		<-ctx.Done()
		synctest.Wait()
		if n := sent.Load(); n > 10.2*bytesPerSecond || n < 9.5*bytesPerSecond {
			t.Errorf("%d bytes in 10 s at %d B/s", n, bytesPerSecond)
		}
		if n := large.Load(); n < bytesPerSecond/2 {
			t.Errorf("%d of them of the large write", n)
		}
	})
}

func TestTheEndOfItsContextEndsAWriteThatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		if _, err := New(1000).Write(ctx, make([]byte, 1<<20), sink); !errors.Is(err, net.ErrClosed) {
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
		b.Write(context.Background(), make([]byte, small+1), sink)
		if took := time.Since(start); took < 4800*time.Millisecond || took > 5200*time.Millisecond {
			t.Errorf("the next bytes waited %v", took)
		}
	})
}

func TestNoRateBoundsNothing(t *testing.T) {
	var none *Bucket
	none.Spend(1)
	if n, err := none.Write(t.Context(), []byte("abc"), sink); n != 3 || err != nil {
		t.Error(n, err)
	}
}
