package mesh

import (
	"io"
	"net"
	"sync"
	"time"

	"github.com/ranvier-mesh/ranvier/mesh/link/records"
)

const (
	smallRead = 512                // what an idle stream keeps for reading
	largeRead = 4 * records.Framed // what a busy one reads at a time
)

var largeBuffers = sync.Pool{New: func() any { return new([largeRead]byte) }}

// splice carries bytes both ways between two carriers until either ends, then
// closes both: a session says itself when a direction is over, so the end of
// a carrier, clean or not, is the end of the stream.
func splice(a, b net.Conn) {
	var wg sync.WaitGroup
	wg.Go(func() {
		carry(a, b)
		end(a)
		end(b)
	})
	carry(b, a)
	end(a)
	end(b)
	wg.Wait()
}

// end closes a stream. Some links would let a read wait for the other end to
// close as well.
func end(stream net.Conn) {
	stream.SetReadDeadline(time.Unix(1, 0))
	stream.Close()
}

// carry copies src to dst. It waits with a small buffer, so that an idle
// stream costs little, and takes a large one while there is much to read.
func carry(dst io.Writer, src io.Reader) {
	var small [smallRead]byte
	for {
		n, err := src.Read(small[:])
		if n > 0 {
			if _, werr := dst.Write(small[:n]); werr != nil {
				return
			}
		}
		if err != nil {
			return
		}
		if n == len(small) && !carryBulk(dst, src) {
			return
		}
	}
}

// carryBulk copies until a read returns little; false means that it is over.
func carryBulk(dst io.Writer, src io.Reader) bool {
	large := largeBuffers.Get().(*[largeRead]byte)
	defer largeBuffers.Put(large)
	for {
		n, err := src.Read(large[:])
		if n > 0 {
			if _, werr := dst.Write(large[:n]); werr != nil {
				return false
			}
		}
		if err != nil {
			return false
		}
		if n < smallRead {
			return true
		}
	}
}

// countedStream is an outgoing stream that its neighbour counts until it is closed.
type countedStream struct {
	net.Conn
	n    *neighbour
	once sync.Once
}

func (s *countedStream) Close() error {
	s.once.Do(func() { s.n.streams.Add(-1) })
	return s.Conn.Close()
}
