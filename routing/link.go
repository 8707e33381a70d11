package routing

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// link is what the core keeps of one neighbour.
type link struct {
	peer NodeID
	cost Cost
	out  outbox
	acks []Stamp // to be sent

	ready bool // in Core.ready
	gone  bool // removed or replaced

	digestDue  bool      // ours has to be sent
	digestSent time.Time // when ours was last sent

	// cursor is the last key of the part of the neighbour's digest that was
	// read last; inDigest tells that further parts follow.
	cursor   Key
	inDigest bool
	// withheld is what the neighbour does not have and was not sent, because
	// its origin was unreachable; nil while there is nothing.
	withheld map[Key]struct{}
}

// maxAcksDue is how many acknowledgements may be due to one neighbour. A
// correct one has at most a window in flight, and as much again where both
// ends' adverts crossed.
const maxAcksDue = 1024

func (c *Core) findLink(peer NodeID) (int, bool) {
	return slices.BinarySearchFunc(c.links, peer, func(l *link, id NodeID) int {
		return strings.Compare(string(l.peer), string(id))
	})
}

// AddLink says that a link to the router peer is up. Called again for a peer
// it says that a new link has replaced the old: what was in flight is lost, and
// digests are exchanged anew. A cost of 0 counts as 1, one above MaxCost as
// MaxCost; a link to this node itself is ignored.
func (c *Core) AddLink(now time.Time, peer NodeID, cost Cost) {
	c.tick(now)
	if peer == c.cfg.Self {
		return
	}
	l := &link{
		peer:      peer,
		cost:      min(max(cost, 1), MaxCost),
		out:       outbox{window: c.cfg.Window, items: make(map[Key]*item)},
		digestDue: true,
	}
	c.rouse(l)
	if i, ok := c.findLink(peer); ok {
		c.links[i].gone = true
		c.links[i] = l
	} else {
		c.links = slices.Insert(c.links, i, l)
	}
	c.changed = true
	c.touchLinks(c.self)
}

// SetCost changes the cost of the link to peer, a router or a leaf that is
// attached, if there is one, without anything being exchanged anew.
func (c *Core) SetCost(now time.Time, peer NodeID, cost Cost) {
	c.tick(now)
	cost = min(max(cost, 1), MaxCost)
	if a, ok := c.attached[peer]; ok {
		a.Cost = cost
		c.AddLeaf(now, a)
	}
	i, ok := c.findLink(peer)
	if !ok || c.links[i].cost == cost {
		return
	}
	c.links[i].cost = cost
	c.changed = true
	c.touchLinks(c.self)
}

// RemoveLink says that the link to peer is down. Paths are computed anew at
// once. A peer without a link is ignored.
func (c *Core) RemoveLink(now time.Time, peer NodeID) {
	c.tick(now)
	i, ok := c.findLink(peer)
	if !ok {
		return
	}
	c.links[i].gone = true
	c.links = slices.Delete(c.links, i, i+1)
	c.changed = true
	c.touchLinks(c.self)
	c.computeAt = c.now
}

// flood has the advert sent to all neighbours but the one it came from.
func (c *Core) flood(s Stamp, from *link) {
	for _, l := range c.links {
		delete(l.withheld, s.Key)
		if l != from {
			c.offer(l, s, &l.out.live)
		}
	}
}

// offer has the neighbour sent what s is of, and whatever replaces it meanwhile.
func (c *Core) offer(l *link, s Stamp, in *fifo) {
	l.out.add(s.Key, s.Version, in)
	c.rouse(l)
}

// rouse has TakeSends look at the link.
func (c *Core) rouse(l *link) {
	if !l.ready {
		l.ready = true
		c.ready = append(c.ready, l)
	}
}

// ack notes that s arrived on the link. What arrives is as good as an
// acknowledgement of what we have sent of it, and the other way round: what
// is on its way to the neighbour already needs no further one.
func (c *Core) ack(l *link, s Stamp) error {
	if len(l.acks) >= maxAcksDue {
		return fmt.Errorf("%w: more than %d adverts without waiting for acknowledgements", ErrLimit, maxAcksDue)
	}
	if !l.out.acked(s.Key, s.Version) {
		l.acks = append(l.acks, s)
	}
	c.rouse(l)
	return nil
}

func (c *Core) receiveAck(l *link, a *Ack) error {
	if err := validateStamps("ack", a.Entries); err != nil {
		return err
	}
	for _, s := range a.Entries {
		l.out.acked(s.Key, s.Version)
	}
	c.rouse(l) // the window has room
	return nil
}

// take appends what is to be sent to the neighbour now: acknowledgements, the
// digest, then adverts as far as the window allows.
func (c *Core) take(sends []Send, l *link) []Send {
	for _, part := range split(l.acks) {
		sends = append(sends, Send{To: l.peer, Msg: &Ack{Entries: part}})
	}
	l.acks = nil
	if l.digestDue {
		l.digestDue, l.digestSent = false, c.now
		for _, d := range c.digest() {
			sends = append(sends, Send{To: l.peer, Msg: d})
		}
	}
	for it := l.out.next(); it != nil; it = l.out.next() {
		if a := c.content(it.key); a != nil {
			l.out.sent(it, a.Version)
			sends = append(sends, Send{To: l.peer, Msg: a})
		} else {
			l.out.drop(it)
		}
	}
	return sends
}

// split cuts stamps into parts that fit into a message each.
func split(stamps []Stamp) [][]Stamp {
	var parts [][]Stamp
	for start := 0; start < len(stamps); {
		end, size := start, 0
		for end < len(stamps) && end-start < MaxStamps && size+stamps[end].size() <= maxMessage {
			size += stamps[end].size()
			end++
		}
		parts = append(parts, stamps[start:end:end])
		start = end
	}
	return parts
}
