package routing

import "time"

// Event is something that the owner of a Core has to know: EpochJumped,
// EpochRefused, DuplicateID, NodeUp, NodeDown, NodeForgotten, OriginRefused or
// EntryRefused.
type Event interface{ event() }

// EpochJumped says that this node's own epoch has grown because someone has
// heard of a higher one. The owner stores Epoch before it takes the next sends,
// so that the next start counts on from there.
type EpochJumped struct {
	Epoch uint64  // from now on
	Heard Version // what was above ours
	From  NodeID  // the neighbour that it came from
}

// EpochRefused says that a neighbour spoke of an epoch of this node so high
// that jumping above it could use up the numbers. It is ignored; whoever made
// it up has to be found. Told at most once a minute.
type EpochRefused struct {
	Epoch uint64
	Heard Version
	From  NodeID
}

// DuplicateID says that two live nodes use one id. Told at most once a minute.
type DuplicateID struct {
	ID   NodeID // this node's own id, or that of a leaf which a router has too
	From NodeID // the neighbour that the other's adverts come from, or the leaf's home
}

// NodeUp says that a node became reachable.
type NodeUp struct {
	Node NodeID
	Leaf bool
}

// NodeDown says that a node that was reachable no longer is.
type NodeDown struct {
	Node NodeID
	Leaf bool
}

// NodeForgotten says that a node was unreachable for so long that it is no
// longer shown.
type NodeForgotten struct {
	Node NodeID
	Leaf bool
}

// OriginRefused says that the database is full and what a neighbour sent of
// Origin was not stored. Told at most once a minute.
type OriginRefused struct {
	Origin NodeID
	From   NodeID
}

// EntryRefused says that this node cannot advertise something of its own. Err
// tells what and why. Told at most once a minute.
type EntryRefused struct {
	Err error
}

func (EpochJumped) event()   {}
func (EpochRefused) event()  {}
func (DuplicateID) event()   {}
func (NodeUp) event()        {}
func (NodeDown) event()      {}
func (NodeForgotten) event() {}
func (OriginRefused) event() {}
func (EntryRefused) event()  {}

// tellEvery is how often an event that a faulty neighbour can provoke is told.
const tellEvery = time.Minute

// tell emits e, unless one of its kind was told less than tellEvery ago; last
// is where its kind keeps that.
func (c *Core) tell(last *time.Time, e Event) {
	if !last.IsZero() && c.now.Sub(*last) < tellEvery {
		return
	}
	*last = c.now
	c.events = append(c.events, e)
}
