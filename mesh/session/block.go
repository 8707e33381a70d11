package session

import "sync"

// blockLen is the largest block: with what TLS adds to two records, and with the
// headers of two frames of a link, it fills two records of the link's TLS, so that
// nothing is left over where the link cuts it in two.
const blockLen = 2 * (16<<10 - 12 - (5 + 1 + 16))

// block is a pooled piece of memory. It goes back to its pool when the last
// holder lets go: a goroutine may still be reading a block from, or writing it
// to, a carrier that has been given up, while the session has moved on.
// refs is guarded by the mutex of the one Conn that uses the block.
type block struct {
	buf        []byte
	class      int
	refs       int
	start, end int // what is in use of buf

	// of a block in a ring (ring.go)
	first uint64 // where its first byte of data is in the stream
	size  int    // how many bytes of data it holds
	open  int    // where the header of the frame is that can still grow; or -1

	claimed bool // of a block in an inbox: a goroutine is filling it behind end
}

var (
	classes = [...]int{2 << 10, 17 << 10, blockLen}
	pools   [len(classes)]sync.Pool
)

// newBlock returns a block for n bytes, or for as many as there can be.
func newBlock(n int) *block {
	class := 0
	for class < len(classes)-1 && classes[class] < n {
		class++
	}
	b, ok := pools[class].Get().(*block)
	if !ok {
		b = &block{buf: make([]byte, classes[class]), class: class}
	}
	*b = block{buf: b.buf, class: class, refs: 1, open: -1}
	return b
}

func (b *block) release() {
	if b.refs--; b.refs == 0 {
		pools[b.class].Put(b)
	}
}

func (b *block) room() int { return len(b.buf) - b.end }
