package session

import "sync/atomic"

// Budget is memory that the sessions of a node share: for bytes that were
// written and not yet confirmed, and for receive windows beyond the first one.
// It is free of locks and used by all of them at the same time.
//
// No session may hold more than is left free when it asks: one alone gets half
// of it all, two get a third each, and a late one still finds some. What a
// session needs to go on slowly it has without asking.
type Budget struct {
	free, total atomic.Int64
	whole       *Budget // that this one is a share of; nil: none
}

// NewBudget returns a budget of so many bytes.
func NewBudget(bytes int64) *Budget {
	b := &Budget{}
	b.free.Store(bytes)
	b.total.Store(bytes)
	return b
}

// Used is how many bytes are lent.
func (b *Budget) Used() int64 { return b.total.Load() - b.free.Load() }

// Share returns a budget of so many bytes at most that are taken from this one as well.
func (b *Budget) Share(bytes int64) *Budget {
	s := NewBudget(bytes)
	s.whole = b
	return s
}

// take lends n bytes to who has held already.
func (b *Budget) take(n, held int) bool {
	for {
		free := b.free.Load()
		if int64(n)+int64(held) > free {
			return false
		}
		if b.free.CompareAndSwap(free, free-int64(n)) {
			break
		}
	}
	if b.whole != nil && !b.whole.take(n, held) {
		b.free.Add(int64(n))
		return false
	}
	return true
}

func (b *Budget) give(n int) {
	b.free.Add(int64(n))
	if b.whole != nil {
		b.whole.give(n)
	}
}
