package routing

import "container/list"

// outbox holds which adverts one neighbour has still to get. It holds keys, not
// adverts: what is sent is the newest version at that moment, so a burst of
// changes costs one message and the memory of a slow link is bounded by the
// database. Where a key is:
//
//	           add              next            acked
//	nowhere ────────► live/bulk ──────► flight ────────► nowhere
//	                                      │ add (newer)    ▲ acked: to live
//	                                      └──► flight + held
//
// At most window keys are in flight: sent and not yet acknowledged.
type outbox struct {
	window  int
	live    *list.List // of Key: changes, sent before
	bulk    *list.List // of Key: what a new neighbour lacks
	waiting map[Key]place
	flight  map[Key]Version
}

// place is where a key waits. In neither list it is held until what is in
// flight of it is acknowledged.
type place struct {
	in   *list.List
	elem *list.Element
}

func newOutbox(window int) outbox {
	return outbox{
		window:  window,
		live:    list.New(),
		bulk:    list.New(),
		waiting: make(map[Key]place),
		flight:  make(map[Key]Version),
	}
}

// add has version v of k sent, as part of a bulk or as a live change.
func (o *outbox) add(k Key, v Version, in *list.List) {
	if sent, ok := o.flight[k]; ok {
		if sent.Compare(v) < 0 {
			o.waiting[k] = place{}
		}
		return
	}
	if p, ok := o.waiting[k]; ok {
		if p.in == in || p.in == o.live {
			return
		}
		p.in.Remove(p.elem)
	}
	o.waiting[k] = place{in: in, elem: in.PushBack(k)}
}

// acked notes that the neighbour has v of k or something newer.
func (o *outbox) acked(k Key, v Version) {
	sent, ok := o.flight[k]
	if !ok || sent.Compare(v) > 0 {
		return
	}
	delete(o.flight, k)
	if _, held := o.waiting[k]; held {
		o.waiting[k] = place{in: o.live, elem: o.live.PushBack(k)}
	}
}

// cancel forgets that k waits: the neighbour has what we have.
func (o *outbox) cancel(k Key) {
	p, ok := o.waiting[k]
	if !ok {
		return
	}
	if p.in != nil {
		p.in.Remove(p.elem)
	}
	delete(o.waiting, k)
}

// next takes the next key to send; the caller calls sent if it does send it.
func (o *outbox) next() (Key, bool) {
	if len(o.flight) >= o.window {
		return Key{}, false
	}
	for _, in := range [...]*list.List{o.live, o.bulk} {
		if e := in.Front(); e != nil {
			k := in.Remove(e).(Key)
			delete(o.waiting, k)
			return k, true
		}
	}
	return Key{}, false
}

func (o *outbox) sent(k Key, v Version) { o.flight[k] = v }
