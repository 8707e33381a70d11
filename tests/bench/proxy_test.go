package bench

import (
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// proxy passes TCP connections on to an address, late and slowly: what it reads
// goes on after delay, at most rate bytes a second in each direction. It holds at
// most a bandwidth-delay product and queue bytes, as a router does.
type proxy struct {
	delay time.Duration
	rate  float64 // 0: none
	queue int
	to    string
}

type piece struct {
	data []byte
	due  time.Time
}

// listen starts the proxy and returns its address.
func (p proxy) listen(b *testing.B) string {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", p.to)
			if err != nil {
				in.Close()
				continue
			}
			go p.pass(in, out)
			go p.pass(out, in)
		}
	}()
	return l.Addr().String()
}

func (p proxy) pass(from, to net.Conn) {
	defer to.Close()
	if p.rate > 0 {
		from.(*net.TCPConn).SetReadBuffer(p.queue)
		to.(*net.TCPConn).SetWriteBuffer(p.queue)
	}
	room := max(4<<20, p.queue) // fast: what is under way at 100 MB/s, and as much again
	if p.rate > 0 {
		room = int(p.rate*p.delay.Seconds()) + p.queue
	} else if p.delay > 0 {
		room = 64 << 20
	}
	w := &held{room: room}
	w.changed.L = &w.mu
	go func() {
		defer w.end()
		var free time.Time // when the line is free again
		for {
			size := 64 << 10
			if p.rate > 0 {
				size = 4 << 10
			}
			buf := make([]byte, size)
			n, err := from.Read(buf)
			if n > 0 {
				now := time.Now()
				if free.Before(now) {
					free = now
				}
				if p.rate > 0 {
					free = free.Add(time.Duration(float64(n) / p.rate * 1e9))
				}
				w.put(piece{buf[:n], free.Add(p.delay)})
			}
			if err != nil {
				return
			}
		}
	}()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		x, ok := w.take()
		if !ok {
			return
		}
		if wait := time.Until(x.due); wait > 0 {
			timer.Reset(wait)
			<-timer.C
		}
		if _, err := to.Write(x.data); err != nil {
			from.Close()
			io.Copy(io.Discard, from)
			return
		}
		w.gone(len(x.data))
	}
}

// held is what is under way.
type held struct {
	mu      sync.Mutex
	changed sync.Cond
	pieces  []piece
	bytes   int
	room    int
	over    bool
}

func (h *held) put(x piece) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for h.bytes >= h.room && !h.over {
		h.changed.Wait()
	}
	h.pieces = append(h.pieces, x)
	h.bytes += len(x.data)
	h.changed.Broadcast()
}

func (h *held) take() (piece, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for len(h.pieces) == 0 {
		if h.over {
			return piece{}, false
		}
		h.changed.Wait()
	}
	x := h.pieces[0]
	h.pieces = h.pieces[1:]
	return x, true
}

func (h *held) gone(n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.bytes -= n
	h.changed.Broadcast()
}

func (h *held) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.over = true
	h.changed.Broadcast()
}

// alone is how fast one connection without a mesh goes through the proxy.
func (p proxy) alone(b *testing.B, bytes int64) (mbPerSecond float64) {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	p.to = l.Addr().String()
	c, err := net.Dial("tcp", p.listen(b))
	if err != nil {
		b.Fatal(err)
	}
	far, err := l.Accept()
	if err != nil {
		b.Fatal(err)
	}
	defer far.Close()
	start := time.Now()
	go func() {
		defer c.Close()
		buf := make([]byte, 64<<10)
		for sent := int64(0); sent < bytes; sent += int64(len(buf)) {
			if _, err := c.Write(buf); err != nil {
				return
			}
		}
	}()
	n, _ := io.Copy(io.Discard, far)
	return float64(n) / 1e6 / time.Since(start).Seconds()
}
