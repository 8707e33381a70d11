// Package routing is the link-state core of a router: adverts in, floods and next
// hops out. It has no I/O, clock, goroutine, lock or logger, so whole meshes of
// it run in a test in virtual time; its owner is mesh. Everything it does follows
// from what it is told and in which order.
//
//   - originate.go: what this node says of itself, and when
//   - receive.go, database.go, leaf.go: what others say
//   - link.go, outbox.go, digest.go: what each neighbour has still to get
//   - graph.go, paths.go: the ways that follow from it
//   - table.go, nodeinfo.go: the answers, for any number of readers
//
// docs/protocol-routing.md is its specification.
package routing

import (
	"container/list"
	"slices"
	"strings"
	"time"
)

// Config is what a Core is made from. Zero values of all but Self stand for
// the defaults of docs/protocol-routing.md section 5.8.
type Config struct {
	// Self is this node's id; it must be valid.
	Self NodeID
	// Epoch is this start's number, at least 1. The caller counts it on disk.
	Epoch uint64
	// Nonce is where the sequence numbers begin: a random number of this
	// start, so that two nodes that share an id by mistake differ in their
	// versions and notice each other.
	Nonce uint32
	// Seal sets Raw, the signed form, of an advert that this node originates.
	// It is called from within the Core's methods. Nil leaves Raw empty.
	Seal func(*Advert)

	HoldMin, HoldMax time.Duration // pause between two changes told: 100 ms, doubling to 5 s
	Quiet            time.Duration // with nothing to tell, in which the next pause halves: 1 s
	Expiry           time.Duration // an unreachable node is shown: 60 min
	Tombstone        time.Duration // its versions are kept after that: 24 h
	DigestInterval   time.Duration // least time between two digests to a neighbour on one link: 10 s
	ComputeMin       time.Duration // least time between a change and computing paths: 1 ms
	ComputeMax       time.Duration // the same on a large mesh: 200 ms
	Window           int           // adverts in flight to one neighbour: 64
	MaxOrigins       int           // routers in the database: 20,000; at most 65,536
	MaxBytes         int           // about what the database may take: 128 MiB
}

func (cfg *Config) setDefaults() {
	or := func(d *time.Duration, def time.Duration) {
		if *d == 0 {
			*d = def
		}
	}
	or(&cfg.HoldMin, 100*time.Millisecond)
	or(&cfg.HoldMax, 5*time.Second)
	or(&cfg.Quiet, time.Second)
	or(&cfg.Expiry, time.Hour)
	or(&cfg.Tombstone, 24*time.Hour)
	or(&cfg.DigestInterval, 10*time.Second)
	or(&cfg.ComputeMin, time.Millisecond)
	or(&cfg.ComputeMax, 200*time.Millisecond)
	if cfg.Epoch == 0 {
		cfg.Epoch = 1
	}
	if cfg.Window == 0 {
		cfg.Window = 64
	}
	if cfg.MaxOrigins == 0 {
		cfg.MaxOrigins = 20_000
	}
	cfg.MaxOrigins = min(cfg.MaxOrigins, maxGraph)
	if cfg.MaxBytes == 0 {
		cfg.MaxBytes = 128 << 20
	}
}

// Core is the link-state database of one router and what follows from it:
// what to tell whom, and which way to each node. It has no I/O, clock or
// goroutine of its own: its owner calls it with the time, which must come from a
// monotonic clock (an earlier time than before counts as the one before), and
// after each call takes the sends and events. It is not safe for concurrent use;
// the tables that it gives out are.
type Core struct {
	cfg Config
	now time.Time

	nodes   map[NodeID]*node
	origins []*origin  // sorted by id, tombstones too
	leaves  []*leaf    // sorted by id; sortLeaves brings it up to date
	fresh   []*leaf    // not yet in leaves
	thinned bool       // some in leaves are forgotten
	self    *origin    //
	lost    *list.List // of *origin: unreachable, longest first
	tombs   *list.List // of *origin: dropped, longest first
	gone    *list.List // of *leaf: without a home, longest first
	touched []*leaf    // to be looked at by settleLeaves
	size    int        // bytes that all fragments take, about

	links []*link // sorted by peer
	ready []*link // that may have something to send

	// What this node says of itself, and what it has told.
	local    Local
	attached map[NodeID]Attachment
	own      []ownFragment
	flags    flags
	changed  bool // local, links or attached may differ from what was told
	epoch    uint64
	jump     EpochJumped // the one to make with the next origination, if above epoch
	hold     time.Duration
	toldAt   time.Time

	// Paths.
	stale     bool      // something that tables show has changed
	members   bool      // the set of routers has, too
	moved     []*origin // whose links, or the draining, have
	computeAt time.Time
	ranAt     time.Time
	pause     time.Duration // after a computation
	graph     *graph
	paths     *paths
	table     *Table // nil when it has to be made anew

	hash Hash // the sum of all reachable origins'

	events []Event
	fights []time.Time // when the epoch jumped, in the last minute
	told   struct{ epoch, duplicate, full, entry time.Time }
}

// New returns the core of a router that has no links yet.
func New(cfg Config, now time.Time) *Core {
	cfg.setDefaults()
	c := &Core{
		cfg:      cfg,
		now:      now,
		nodes:    make(map[NodeID]*node),
		lost:     list.New(),
		tombs:    list.New(),
		gone:     list.New(),
		attached: make(map[NodeID]Attachment),
		own:      []ownFragment{{seq: uint64(cfg.Nonce), dirty: true}},
		changed:  true,
		epoch:    cfg.Epoch,
		pause:    cfg.ComputeMin,
	}
	c.self = c.newOrigin(cfg.Self)
	c.lost.Remove(c.self.queued)
	c.self.queued, c.self.reachable = nil, true
	c.compute()
	return c
}

// tick sets the time that a call happens at.
func (c *Core) tick(now time.Time) {
	if now.After(c.now) {
		c.now = now
	}
}

// touch notes that tables are out of date.
func (c *Core) touch() {
	at := c.now.Add(c.cfg.ComputeMin)
	if next := c.ranAt.Add(c.pause); next.After(at) {
		at = next
	}
	if !c.stale || at.Before(c.computeAt) {
		c.computeAt = at
	}
	c.stale = true
}

// touchMembers notes that the set of routers has changed, and with it their numbers.
func (c *Core) touchMembers() {
	c.members = true
	c.touch()
}

// touchLinks notes that what counts of o's links may have changed, or that it drains.
func (c *Core) touchLinks(o *origin) {
	if !o.moved {
		o.moved = true
		c.moved = append(c.moved, o)
	}
	c.touch()
}

// settle does what is due.
func (c *Core) settle() {
	if c.changed && !c.now.Before(c.originateAt()) {
		c.originate()
	}
	if c.stale && !c.now.Before(c.computeAt) {
		c.compute()
	}
}

// compute brings paths, and what follows from them, up to date.
func (c *Core) compute() {
	if c.members || len(c.moved) > 0 {
		c.updatePaths()
		c.ranAt = c.now
		// Ten times what a run from nothing takes, about 0.3 microseconds a node or
		// link: no clock is needed, and all nodes of a mesh wait alike.
		cost := time.Duration(len(c.graph.ids)+c.graph.links) * 300 * time.Nanosecond
		c.pause = min(max(10*cost, c.cfg.ComputeMin), c.cfg.ComputeMax)
	}
	c.settleLeaves()
	c.stale = false
	c.table = nil
}

// updatePaths brings the graph and the paths up to date, with as little work
// as what has changed asks for.
func (c *Core) updatePaths() {
	var changes []change
	next, draining := (*graph)(nil), false
	if !c.members {
		next, changes, draining = c.patched(c.graph)
	}
	for _, o := range c.moved {
		o.moved = false
	}
	c.members, c.moved = false, c.moved[:0]
	switch {
	case next == nil:
		c.graph = c.newGraph()
		c.paths = c.graph.paths()
		c.settleOrigins(func(i int) bool { return c.graph.origins[i].reachable })
	default:
		c.graph = next
		if before := c.paths; draining || !before.hold(next, changes) {
			c.paths = next.paths()
			c.settleOrigins(func(i int) bool { return before.dist[i] != unreachable })
		}
	}
}

// settleOrigins finds out which origins are reachable now, other than before,
// and offers those that became so to the neighbours that do not have them.
func (c *Core) settleOrigins(before func(i int) bool) {
	for i, d := range c.paths.dist {
		up := d != unreachable
		if up == before(i) {
			continue
		}
		o := c.graph.origins[i]
		c.setReachable(o, up)
		c.touchLeavesOf(o)
		if !up {
			continue
		}
		for _, l := range c.links {
			c.offerWithheld(l, o)
		}
	}
}

// Advance does what is due at now: changes held back are told, paths are
// computed, what has been unreachable for too long is dropped.
func (c *Core) Advance(now time.Time) {
	c.tick(now)
	for e := c.lost.Front(); e != nil && c.due(e.Value.(*origin).since, c.cfg.Expiry); e = c.lost.Front() {
		c.drop(e.Value.(*origin))
	}
	for e := c.tombs.Front(); e != nil && c.due(e.Value.(*origin).since, c.cfg.Tombstone); e = c.tombs.Front() {
		c.remove(e.Value.(*origin))
	}
	for e := c.gone.Front(); e != nil && c.due(e.Value.(*leaf).goneAt, c.cfg.Expiry); e = c.gone.Front() {
		c.removeLeaf(e.Value.(*leaf))
	}
	c.settle()
}

func (c *Core) due(since time.Time, after time.Duration) bool {
	return !c.now.Before(since.Add(after))
}

// NextTimer returns when Advance has to be called next, or false when nothing
// is to be waited for. What is due already is due at the time of the last call.
func (c *Core) NextTimer() (time.Time, bool) {
	next, ok := time.Time{}, false
	earliest := func(t time.Time) {
		if t.Before(c.now) {
			t = c.now
		}
		if !ok || t.Before(next) {
			next, ok = t, true
		}
	}
	if c.changed {
		earliest(c.originateAt())
	}
	if c.stale {
		earliest(c.computeAt)
	}
	if e := c.lost.Front(); e != nil {
		earliest(e.Value.(*origin).since.Add(c.cfg.Expiry))
	}
	if e := c.tombs.Front(); e != nil {
		earliest(e.Value.(*origin).since.Add(c.cfg.Tombstone))
	}
	if e := c.gone.Front(); e != nil {
		earliest(e.Value.(*leaf).goneAt.Add(c.cfg.Expiry))
	}
	return next, ok
}

// TakeSends returns what is to be sent now, in order, and forgets it. The owner
// calls it after every other call.
func (c *Core) TakeSends() []Send {
	c.settle()
	var sends []Send
	slices.SortFunc(c.ready, func(a, b *link) int { return strings.Compare(string(a.peer), string(b.peer)) })
	for _, l := range c.ready {
		l.ready = false
		if !l.gone {
			sends = c.take(sends, l)
		}
	}
	c.ready = c.ready[:0]
	return sends
}

// TakeEvents returns what has happened, in order, and forgets it. The owner
// calls it before TakeSends, to store an epoch before it is used.
func (c *Core) TakeEvents() []Event {
	c.settle()
	events := c.events
	c.events = nil
	return events
}

// Epoch returns the number that this node's next adverts carry.
func (c *Core) Epoch() uint64 { return max(c.epoch, c.jump.Epoch) }
