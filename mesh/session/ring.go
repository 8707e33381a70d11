package session

import (
	"encoding/binary"
	"fmt"

	"github.com/ranvier-mesh/ranvier/internal/wire"
)

const (
	// freeRing is how much a ring may hold without asking the budget.
	freeRing = 2 * blockLen
	// maxRing bounds a ring, whatever the budget says.
	maxRing = 16 << 20
)

// ring keeps what was written until the other end has it. It holds Data frames
// as they go over the carrier, so that sending needs no copy; a frame that went
// out once never changes, so that it can go out again.
//
//	acked ≤ sent ≤ written ≤ limit, all counted in bytes of data
type ring struct {
	budget   *Budget
	blocks   []*block
	held     int // bytes of memory in blocks
	borrowed int // of these, from the budget

	acked   uint64 // the other end has what is before
	sent    uint64 // what is before went out on the present carrier
	top     uint64 // what is before went out on any carrier
	written uint64
	limit   uint64 // the other end takes what is before

	at, pos int // block and place of the next frame to send
}

// put takes as much of p as there is credit and memory for.
func (r *ring) put(p []byte) int {
	total := 0
	for total < len(p) && r.written < r.limit {
		b := r.tail(len(p) - total)
		if b == nil {
			break
		}
		if b.open < 0 {
			b.open = b.end
			b.end += wire.HeaderLen
		}
		n := min(len(p)-total, int(min(r.limit-r.written, blockLen)), b.room())
		copy(b.buf[b.end:], p[total:total+n])
		b.end += n
		b.size += n
		r.written += uint64(n)
		total += n
	}
	return total
}

// tail returns a block that takes at least a byte, or nil.
func (r *ring) tail(want int) *block {
	if len(r.blocks) > 0 {
		b := r.blocks[len(r.blocks)-1]
		if b.open >= 0 && b.room() > 0 || b.room() > wire.HeaderLen {
			return b
		}
		want = blockLen // who fills one block fills more
	}
	b := newBlock(want + wire.HeaderLen)
	if !r.pay(len(b.buf)) {
		b.release()
		return nil
	}
	b.first = r.written
	r.blocks = append(r.blocks, b)
	return b
}

func (r *ring) pay(n int) bool {
	if need := r.held + n - freeRing - r.borrowed; need > 0 {
		if r.held+n > maxRing || !r.budget.take(need, r.borrowed) {
			return false
		}
		r.borrowed += need
	}
	r.held += n
	return true
}

func (r *ring) drop(b *block) {
	r.held -= len(b.buf)
	if back := r.borrowed - max(0, r.held-freeRing); back > 0 {
		r.borrowed -= back
		r.budget.give(back)
	}
	b.release()
}

// next returns the bytes to send next and the block that they are in; nil if
// there are none.
func (r *ring) next() (*block, []byte) {
	for r.at < len(r.blocks) {
		b := r.blocks[r.at]
		if r.pos < b.end {
			b.seal()
			frames := b.buf[r.pos:b.end]
			r.pos = b.end
			r.sent = b.first + uint64(b.size)
			r.top = max(r.top, r.sent)
			return b, frames
		}
		if r.at == len(r.blocks)-1 {
			break // more may be put into it
		}
		r.at, r.pos = r.at+1, 0
	}
	return nil, nil
}

// seal ends the frame that grew.
func (b *block) seal() {
	if b.open >= 0 {
		wire.AppendHeader(b.buf[b.open:b.open], wire.TypeData, b.end-b.open-wire.HeaderLen)
		b.open = -1
	}
}

// ack frees what the other end has.
func (r *ring) ack(offset uint64) error {
	if offset < r.acked || offset > r.sent {
		return fmt.Errorf("%w: %d bytes are said to have arrived, after %d, of %d sent", wire.ErrMalformed, offset, r.acked, r.sent)
	}
	r.acked = offset
	for len(r.blocks) > 0 {
		b := r.blocks[0]
		if b.first+uint64(b.size) > offset {
			return nil
		}
		r.drop(b)
		r.blocks[0] = nil
		r.blocks = r.blocks[1:]
		if r.at--; r.at < 0 {
			r.at, r.pos = 0, 0
		}
	}
	r.blocks = nil
	return nil
}

// rewind goes back to what the other end has, to send the rest again.
func (r *ring) rewind(offset uint64) error {
	r.sent = r.top
	if err := r.ack(offset); err != nil {
		return err
	}
	r.at, r.pos, r.sent = 0, 0, offset
	if len(r.blocks) == 0 {
		return nil
	}
	b := r.blocks[0]
	for place := b.first; place < offset; {
		n := int(binary.BigEndian.Uint32(b.buf[r.pos:])) - 1
		r.pos += wire.HeaderLen + n
		if place += uint64(n); place > offset {
			return fmt.Errorf("%w: byte %d is within a frame", wire.ErrMalformed, offset)
		}
	}
	return nil
}

// clear throws all away: nobody wants it any more.
func (r *ring) clear() {
	for _, b := range r.blocks {
		r.drop(b)
	}
	r.blocks, r.at, r.pos = nil, 0, 0
	r.acked, r.sent, r.top = r.written, r.written, r.written
}

// unsent tells whether next would return something.
func (r *ring) unsent() bool { return r.sent < r.written && len(r.blocks) > 0 }
