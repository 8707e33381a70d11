package routing

// outbox holds which adverts one neighbour has still to get. It holds keys, not
// adverts: what is sent is the newest version at that moment, so a burst of
// changes costs one message and the memory of a slow link is bounded by the
// database. Where a key is:
//
//	           add              next, sent            acked
//	nowhere ────────► live/bulk ────────────► flight ────────► nowhere
//	                                            │ add (newer)    ▲ acked: to live
//	                                            └──► flight + held
//
// At most window keys are in flight: sent and not yet acknowledged.
type outbox struct {
	window int
	live   fifo // changes, sent before
	bulk   fifo // what a new neighbour lacks
	items  map[Key]*item
	flying int
}

// item is a key that is somewhere.
type item struct {
	key        Key
	in         *fifo // where it waits; nil in flight
	prev, next *item // there
	sent       Version
	held       bool // in flight, and a newer version waits for that to be acknowledged
}

// fifo is a queue of items that any can be taken out of.
type fifo struct {
	first, last *item
	n           int
}

func (q *fifo) push(it *item) {
	it.in, it.prev = q, q.last
	if q.last == nil {
		q.first = it
	} else {
		q.last.next = it
	}
	q.last = it
	q.n++
}

func (q *fifo) remove(it *item) {
	if it.prev == nil {
		q.first = it.next
	} else {
		it.prev.next = it.next
	}
	if it.next == nil {
		q.last = it.prev
	} else {
		it.next.prev = it.prev
	}
	it.in, it.prev, it.next = nil, nil, nil
	q.n--
}

// add has version v of k sent, as part of a bulk or as a live change.
func (o *outbox) add(k Key, v Version, in *fifo) {
	it := o.items[k]
	switch {
	case it == nil:
		it = &item{key: k}
		o.items[k] = it
		in.push(it)
	case it.in == nil:
		it.held = it.held || it.sent.Compare(v) < 0
	case it.in != in && it.in != &o.live:
		it.in.remove(it)
		in.push(it)
	}
}

// acked notes that the neighbour has v of k or something newer. It tells whether
// something of k is in flight that says the same of this end.
func (o *outbox) acked(k Key, v Version) (mutual bool) {
	it := o.items[k]
	if it == nil || it.in != nil {
		return false
	}
	d := it.sent.Compare(v)
	if d <= 0 {
		o.flying--
		if it.held {
			it.held = false
			o.live.push(it)
		} else {
			delete(o.items, k)
		}
	}
	return d >= 0
}

// cancel forgets that k waits: the neighbour has what we have.
func (o *outbox) cancel(k Key) {
	it := o.items[k]
	switch {
	case it == nil:
	case it.in == nil:
		it.held = false
	default:
		it.in.remove(it)
		delete(o.items, k)
	}
}

// next takes the next key to send; the caller calls sent or drop.
func (o *outbox) next() *item {
	if o.flying >= o.window {
		return nil
	}
	for _, in := range [...]*fifo{&o.live, &o.bulk} {
		if it := in.first; it != nil {
			in.remove(it)
			return it
		}
	}
	return nil
}

func (o *outbox) sent(it *item, v Version) {
	it.sent = v
	o.flying++
}

// drop forgets a key of which there is nothing to send any more.
func (o *outbox) drop(it *item) { delete(o.items, it.key) }
