package routing

import (
	"errors"
	"math"
	"slices"
	"time"
)

// maxJump is how far a node's epoch may jump at once. It leaves room for four
// thousand million jumps, while a mesh that lost count never needs so large a one.
const maxJump = 1 << 32

// A contested epoch is a node of the same id once it has happened maxFights
// times within fightWindow: what is left of an own former life goes away with
// the first jump.
const (
	fightWindow = time.Minute
	maxFights   = 3
)

// Receive takes what the neighbour from has sent. A *FaultError means that the
// neighbour breaks the protocol and its link has to be closed; nothing of the
// message was used. What is stale or known already, or comes from a neighbour without
// a link, is no error.
func (c *Core) Receive(now time.Time, from NodeID, m Message) error {
	c.tick(now)
	i, ok := c.findLink(from)
	if !ok {
		return nil
	}
	var err error
	switch l := c.links[i]; m := m.(type) {
	case *Advert:
		err = c.receiveAdvert(l, m)
	case *Digest:
		err = c.receiveDigest(l, m)
	case *Ack:
		err = c.receiveAck(l, m)
	case Hash:
		c.receiveHash(l, m)
	default:
		err = errors.New("no message")
	}
	if err != nil {
		return &FaultError{Peer: from, Err: err}
	}
	return nil
}

func (c *Core) receiveAdvert(l *link, a *Advert) error {
	s := a.Stamp()
	if err := s.validate(); err != nil {
		return err
	}
	o := c.origin(a.Origin)
	newer := 1
	if o != nil {
		newer = o.compare(a)
	}
	if newer > 0 || o.dropped { // else nothing of it is used
		if err := a.Validate(); err != nil {
			return err
		}
	}
	if err := c.ack(l, s); err != nil {
		return err
	}
	switch {
	case newer < 0:
		c.answer(l, o, a.Fragment)
	case o != nil && newer == 0 && !o.dropped:
		l.out.cancel(s.Key)
	case o == c.self:
		c.contest(s, l.peer)
	default:
		c.store(l, o, a)
	}
	return nil
}

// store takes in an advert that is newer than what we have, and passes it on.
func (c *Core) store(l *link, o *origin, a *Advert) {
	need := a.size()
	if o != nil {
		if i, ok := o.find(a.Fragment); ok {
			need -= o.frags[i].size()
		}
	}
	if !c.makeRoom(o, need) {
		c.tell(&c.told.full, OriginRefused{Origin: a.Origin, From: l.peer})
		return
	}
	if o == nil {
		o = c.newOrigin(a.Origin)
	}
	c.install(o, a)
	l.out.cancel(a.Key)
	c.flood(a.Stamp(), l)
}

// answer sends the neighbour what we have that is newer than what it has sent.
func (c *Core) answer(l *link, o *origin, number uint16) {
	i, ok := o.find(number)
	if !ok || o.frags[i].stub {
		i = 0 // of a newer epoch, which is all that it has to learn
	}
	if i < len(o.frags) && !o.frags[i].stub {
		c.offer(l, o.frags[i].Stamp(), &l.out.live)
	}
}

// contest goes on above a version of our own adverts that we have not issued:
// it is of a former life whose epoch was lost, or of another node with our id.
// See docs/protocol-routing.md section 5.5.
//
// The jump happens with the next origination, which is held down as any other:
// whatever is claimed until then makes one jump.
func (c *Core) contest(heard Stamp, from NodeID) {
	switch {
	case heard.Epoch < c.Epoch():
		return // older, or already to be topped
	case heard.Epoch == math.MaxUint64, heard.Epoch-c.epoch > maxJump:
		c.tell(&c.told.epoch, EpochRefused{Epoch: c.epoch, Heard: heard.Version, From: from})
		return
	}
	c.jump = EpochJumped{Epoch: heard.Epoch + 1, Heard: heard.Version, From: from}
	c.changed = true
}

// jumped tells of the jump that is being made, and of a twin when there were
// several in a short time.
func (c *Core) jumped() {
	c.epoch = c.jump.Epoch
	c.events = append(c.events, c.jump)
	c.fights = append(slices.DeleteFunc(c.fights, func(t time.Time) bool { return c.due(t, fightWindow) }), c.now)
	if len(c.fights) >= maxFights {
		c.tell(&c.told.duplicate, DuplicateID{ID: c.cfg.Self, From: c.jump.From})
	}
}
