package routing

import (
	"encoding/binary"
	"fmt"
	"slices"
)

// digest lists everything in the database, tombstones excepted, in parts.
func (c *Core) digest() []*Digest {
	var stamps []Stamp
	for _, o := range c.origins {
		if o.dropped {
			continue
		}
		for _, f := range o.frags {
			stamps = append(stamps, f.Stamp())
		}
	}
	var parts []*Digest
	for _, p := range split(stamps) {
		parts = append(parts, &Digest{Entries: p, More: true})
	}
	parts[len(parts)-1].More = false // there is always our own stamp
	return parts
}

// receiveDigest compares a part of the neighbour's digest with the range of
// the database that it covers, and has sent what the neighbour lacks or has
// older. The stamps of all parts together ascend, so each part stands for
// everything after the part before it up to its own last stamp; the last one
// stands for all the rest.
func (c *Core) receiveDigest(l *link, d *Digest) error {
	if err := validateStamps("digest", d.Entries); err != nil {
		return err
	}
	if len(d.Entries) == 0 && d.More {
		return fmt.Errorf("%w: an empty part that says more follows", ErrBadDigest)
	}
	if !l.inDigest {
		l.cursor = Key{}
		clear(l.withheld)
	}
	start := l.cursor
	for _, s := range d.Entries {
		if s.Key.Compare(l.cursor) <= 0 {
			err := fmt.Errorf("%w: %s fragment %d is out of order", ErrBadDigest, s.Origin, s.Fragment)
			l.cursor, l.inDigest = Key{}, false
			return err
		}
		l.cursor = s.Key
	}
	peerHasMore := false
	for _, s := range d.Entries {
		peerHasMore = c.compareStamp(l, s) || peerHasMore
	}
	c.offerRest(l, start, d)
	l.inDigest = d.More
	if peerHasMore && (l.digestSent.IsZero() || c.due(l.digestSent, c.cfg.DigestInterval)) {
		l.digestDue = true
		c.rouse(l)
	}
	return nil
}

// compareStamp compares one stamp of a neighbour with what we have, and tells
// whether the neighbour has something that we do not. So it is with what this
// node itself is claimed to have said: nobody has signed a digest, only the
// advert that follows can be believed.
func (c *Core) compareStamp(l *link, s Stamp) bool {
	o := c.origin(s.Origin)
	if o == nil {
		return true
	}
	ours := Version{Epoch: o.epoch}
	i, ok := o.find(s.Fragment)
	if ok {
		ours = o.frags[i].Version
	}
	switch d := s.Version.Compare(ours); {
	case d < 0:
		c.answer(l, o, s.Fragment)
		return false
	default:
		if d == 0 {
			l.out.cancel(s.Key)
		}
		return d > 0 || o.dropped
	}
}

// offerRest has sent what is within the range of d and not listed in it. What
// is unreachable is not offered: nobody could tell whether it still exists. Should
// it become reachable, it is sent then.
func (c *Core) offerRest(l *link, start Key, d *Digest) {
	listed := d.Entries
	i, _ := slices.BinarySearchFunc(c.origins, start.Origin, byID)
	for _, o := range c.origins[i:] {
		if d.More && o.node.id > l.cursor.Origin {
			return
		}
		if o.dropped || o.node.id == l.peer && isOutdated(o, d) {
			continue
		}
		for _, f := range o.frags {
			if f.Key.Compare(start) <= 0 {
				continue
			}
			if d.More && f.Key.Compare(l.cursor) > 0 {
				return
			}
			for len(listed) > 0 && listed[0].Key.Compare(f.Key) < 0 {
				listed = listed[1:]
			}
			switch {
			case len(listed) > 0 && listed[0].Key == f.Key:
			case o.reachable:
				c.offer(l, f.Stamp(), &l.out.bulk)
			default:
				if l.withheld == nil {
					l.withheld = make(map[Key]struct{})
				}
				l.withheld[f.Key] = struct{}{}
			}
		}
	}
}

// isOutdated tells whether d lists o with an epoch above the one known here.
func isOutdated(o *origin, d *Digest) bool {
	return slices.ContainsFunc(d.Entries, func(s Stamp) bool { return s.Origin == o.node.id && s.Epoch > o.epoch })
}

// offerWithheld has sent what was withheld of an origin that became reachable.
func (c *Core) offerWithheld(l *link, o *origin) {
	for _, f := range o.frags {
		if _, ok := l.withheld[f.Key]; ok {
			delete(l.withheld, f.Key)
			c.offer(l, f.Stamp(), &l.out.bulk)
		}
	}
}

// receiveHash compares databases: where they differ while nothing is being
// changed, something went wrong and digests are exchanged again.
func (c *Core) receiveHash(l *link, h Hash) {
	c.settle()
	if !c.stale && h != c.Hash() && c.due(l.digestSent, c.cfg.DigestInterval) {
		l.digestDue = true
		c.rouse(l)
	}
}

// Hash returns a number that is the same on two routers whose databases hold
// the same versions of the same reachable origins, in whatever order they came
// (docs/protocol-routing.md section 5.4).
func (c *Core) Hash() Hash {
	c.settle()
	return c.hash
}

// hashStamp is FNV-1a over the stamp with SplitMix64's finalizer behind it, which
// spreads single bits so that sums of many rarely meet.
func hashStamp(s Stamp) Hash {
	const offset, prime = 14695981039346656037, 1099511628211
	h := uint64(offset)
	for i := range len(s.Origin) {
		h = (h ^ uint64(s.Origin[i])) * prime
	}
	var b [18]byte
	binary.BigEndian.PutUint16(b[0:], s.Fragment)
	binary.BigEndian.PutUint64(b[2:], s.Epoch)
	binary.BigEndian.PutUint64(b[10:], s.Seq)
	for _, x := range b {
		h = (h ^ uint64(x)) * prime
	}
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return Hash(h ^ h>>31)
}
