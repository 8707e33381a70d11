package session

import (
	"io"
	"sync"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/wire"
)

// chunk is a pooled buffer that holds one Data frame, header included, so that
// what was written goes out without being copied again.
type chunk struct {
	buf        [wire.HeaderLen + wire.MaxData]byte
	start, end int // the payload
}

var chunks = sync.Pool{New: func() any { return new(chunk) }}

func newChunk() *chunk {
	k := chunks.Get().(*chunk)
	k.start, k.end = wire.HeaderLen, wire.HeaderLen
	return k
}

func (k *chunk) free()          { chunks.Put(k) }
func (k *chunk) full() bool     { return k.end == len(k.buf) }
func (k *chunk) unread() []byte { return k.buf[k.start:k.end] }

func (k *chunk) fill(p []byte) int {
	n := copy(k.buf[k.end:], p)
	k.end += n
	return n
}

func (k *chunk) readFrom(r io.Reader, n int) error {
	k.end = k.start + n
	_, err := io.ReadFull(r, k.unread())
	return err
}

// frame puts the header before the payload.
func (k *chunk) frame() []byte {
	wire.AppendHeader(k.buf[:0], wire.TypeData, k.end-k.start)
	return k.buf[:k.end]
}

// limit is a deadline under the Conn's mutex.
type limit struct {
	timer  *time.Timer
	passed bool
}

func (l *limit) stop() {
	if l.timer != nil {
		l.timer.Stop()
		l.timer = nil
	}
}

// set moves the deadline to t and wakes who waits when it has passed.
func (l *limit) set(t time.Time, waiters *sync.Cond) {
	l.stop()
	wait := time.Until(t)
	l.passed = !t.IsZero() && wait <= 0
	if l.passed {
		waiters.Broadcast()
		return
	}
	if t.IsZero() {
		return
	}
	var timer *time.Timer
	timer = time.AfterFunc(wait, func() {
		waiters.L.Lock()
		defer waiters.L.Unlock()
		if l.timer == timer { // else it was moved meanwhile
			l.passed = true
			waiters.Broadcast()
		}
	})
	l.timer = timer
}
