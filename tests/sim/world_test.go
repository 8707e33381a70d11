// Package sim lets whole meshes of routing cores live through hours of trouble
// in virtual time: nodes that are killed and come back, cables that are cut
// silently or not, leaves that wander. Around the pure core it plays what the rest
// of a node does: links with a delay that deliver in order, the end of a link that is
// noticed at once or after three seconds of silence, dialling again with jitter,
// the epoch on disk, the hash that neighbours tell each other once a minute.
//
// There is one thread and one random generator, so a seed is a run: what fails
// once fails each time.
//
//	go test ./tests/sim -run Churn -seed 7          one seed again
//	go test ./tests/sim -seeds 50                   fifty seeds of each scenario
//	go test ./tests/sim -run LinkLoss -large        300 routers with 900 links
//	go test ./tests/sim -run xxx -bench Hour        and with 9,700 leaves, for an hour
package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/ranvier-mesh/ranvier/routing"
)

// What a node does with its links, as mesh does (docs/operations.md section 5).
const (
	silence      = 3 * time.Second
	redialFirst  = 100 * time.Millisecond
	redialCap    = 2 * time.Second
	redialSlow   = 30 * time.Second
	redialAfter  = 5 * time.Minute // of failures it is slow
	dialTime     = 5 * time.Second
	hashInterval = time.Minute
)

// world is a mesh in virtual time.
type world struct {
	t     testing.TB
	rng   *rand.Rand
	now   time.Duration
	queue queue
	count uint64 // of scheduled things, so that those of one moment keep their order
	nodes []*node
	byID  map[routing.NodeID]*node
	edges []*edge
	trace uint64 // of everything that was delivered, and when

	delayMin, delayMax time.Duration // of links that are made from now on
	onPump             func(*node)   // a router has done something
	onSend             func(from *node, m routing.Message)
	onEvent            func(at *node, e routing.Event)
	delivered          int
}

// node is a router or a leaf, and the processes that follow each other as it.
type node struct {
	id     routing.NodeID
	index  uint64
	leaf   bool
	alive  bool
	life   int           // counts its starts
	core   *routing.Core // nil for leaves and the dead
	skew   time.Duration // of its clock
	epoch  uint64        // as on disk
	died   time.Duration
	local  routing.Local
	edges  []*edge
	conns  map[routing.NodeID]*conn // links that are up at this end
	due    time.Duration            // when its core wants to be called, or never
	alarms []time.Duration          // what is scheduled for that, the next one last
}

const never = time.Duration(-1)

// edge is what a configuration has of a link: ends[0] dials ends[1].
type edge struct {
	ends    [2]*node
	cost    routing.Cost
	delay   time.Duration
	severed bool // the cable is cut: nothing passes, and nobody is told
	conn    *conn
	attempt int
	failing time.Duration // since when attempts fail, or never
	dialing int           // counts attempts, so that an old one is not taken for the present
}

// conn is one connection over an edge. An end is open from the moment the
// node has told its core until it notices the end.
type conn struct {
	edge    *edge
	ends    [2]*node // as the edge's were
	open    [2]bool
	over    bool // no new connection may be taken for this one
	lost    bool // what is on its way does not arrive
	arrival [2]time.Duration
}

// newWorld makes an empty world. A test that fails says its seed.
func newWorld(t testing.TB, seed uint64) *world {
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("this was seed %d: -run '^%s$' -seed %d", seed, t.Name(), seed)
		}
	})
	return &world{
		t: t, rng: rand.New(rand.NewPCG(seed, 0x72616e76696572)),
		byID: map[routing.NodeID]*node{}, trace: 1,
		delayMin: 5 * time.Millisecond, delayMax: 50 * time.Millisecond,
	}
}

// clock turns virtual time into what a node's core is told.
func (w *world) clock(n *node) time.Time { return time.Unix(0, 0).UTC().Add(w.now + n.skew) }

func (w *world) between(low, high time.Duration) time.Duration {
	return low + time.Duration(w.rng.Int64N(int64(high-low)+1))
}

func (w *world) addNode(id string, leaf bool) *node {
	n := &node{id: routing.NodeID(id), index: uint64(len(w.nodes)), leaf: leaf, conns: map[routing.NodeID]*conn{}}
	w.nodes = append(w.nodes, n)
	w.byID[n.id] = n
	return n
}

// connect configures from to dial to; it does so at once if it lives.
func (w *world) connect(from, to *node, cost routing.Cost) *edge {
	e := &edge{ends: [2]*node{from, to}, cost: cost, delay: w.between(w.delayMin, w.delayMax), failing: never}
	w.edges = append(w.edges, e)
	from.edges = append(from.edges, e)
	to.edges = append(to.edges, e)
	if from.alive {
		w.dial(e)
	}
	return e
}

// boot starts a node, with its next epoch.
func (w *world) boot(n *node) {
	if n.alive {
		return
	}
	n.alive, n.life, n.due, n.alarms = true, n.life+1, never, nil
	if !n.leaf {
		n.epoch++
		n.core = routing.New(routing.Config{Self: n.id, Epoch: n.epoch, Nonce: w.rng.Uint32()}, w.clock(n))
		n.core.SetLocal(w.clock(n), n.local)
		w.pump(n)
		w.tellHashes(n, n.life, w.between(0, hashInterval))
	}
	for _, e := range n.edges {
		if e.ends[0] == n {
			e.attempt, e.failing = 0, never
			w.dial(e)
		}
	}
}

// kill ends a process; its kernel tells the other ends.
func (w *world) kill(n *node) {
	if !n.alive {
		return
	}
	n.alive, n.core, n.died = false, nil, w.now
	for _, e := range n.edges {
		if e.conn != nil {
			w.hangUp(e.conn, n)
		}
	}
	for _, c := range n.conns {
		c.closed(n)
	}
	clear(n.conns)
}

// closed notes that a connection is not open any more at n.
func (c *conn) closed(n *node) {
	for i := range c.ends {
		c.open[i] = c.open[i] && c.ends[i] != n
	}
}

func (e *edge) other(n *node) *node {
	if e.ends[0] == n {
		return e.ends[1]
	}
	return e.ends[0]
}

// rehome has a leaf that does not run dial another home.
func (w *world) rehome(e *edge, home *node) {
	old := e.ends[1]
	old.edges = slices.DeleteFunc(old.edges, func(o *edge) bool { return o == e })
	home.edges = append(home.edges, e)
	e.ends[1] = home
}

// hangUp ends a connection from one end, which knows; the other one hears of it.
func (w *world) hangUp(c *conn, by *node) {
	e := c.edge
	c.over = true
	if e.conn == c {
		e.conn = nil
	}
	c.closed(by)
	for i, n := range c.ends {
		if n != by {
			w.after(max(e.delay, c.arrival[i]-w.now), func() { w.closeEnd(c, i) })
		}
	}
}

// breakUp ends a connection so that both ends notice soon.
func (w *world) breakUp(e *edge) {
	c := e.conn
	if c == nil {
		return
	}
	c.over, e.conn = true, nil
	for i := range e.ends {
		w.after(w.between(0, e.delay), func() { w.closeEnd(c, i) })
	}
}

// sever cuts the cable without telling anybody: each end notices the silence.
func (w *world) sever(e *edge) {
	e.severed = true
	c := e.conn
	if c == nil {
		return
	}
	c.over, c.lost, e.conn = true, true, nil
	for i := range e.ends {
		w.after(silence+w.between(0, time.Second), func() { w.closeEnd(c, i) })
	}
}

func (w *world) mend(e *edge) { e.severed = false }

// closeEnd is the moment in which an end notices that its link is gone.
func (w *world) closeEnd(c *conn, i int) {
	e := c.edge
	n, peer := c.ends[i], c.ends[1-i]
	if i == 0 && n.alive && e.conn == nil && c.over {
		w.redial(e)
	}
	if !c.open[i] {
		return
	}
	c.open[i] = false
	if n.conns[peer.id] != c {
		return // another one has taken over
	}
	delete(n.conns, peer.id)
	if n.leaf {
		return
	}
	if peer.leaf {
		n.core.RemoveLeaf(w.clock(n), peer.id)
	} else {
		n.core.RemoveLink(w.clock(n), peer.id)
	}
	w.pump(n)
}

// openEnd is the moment in which a link is registered at an end.
func (w *world) openEnd(c *conn, i int) {
	n, peer := c.ends[i], c.ends[1-i]
	if old := n.conns[peer.id]; old != nil {
		old.closed(n) // the newer one supersedes it
	}
	c.open[i] = true
	n.conns[peer.id] = c
	switch {
	case n.leaf:
		return
	case peer.leaf:
		n.core.AddLeaf(w.clock(n), routing.Attachment{Leaf: peer.id, Cost: c.edge.cost})
	default:
		n.core.AddLink(w.clock(n), peer.id, c.edge.cost)
	}
	w.pump(n)
}

// redial tries again after the pause that mesh makes.
func (w *world) redial(e *edge) {
	if e.failing == never {
		e.failing = w.now
	}
	bound := redialCap
	if e.attempt < 5 {
		bound = min(bound, redialFirst<<e.attempt)
	}
	if w.now-e.failing > redialAfter {
		bound = redialSlow
	}
	e.attempt++
	e.dialing++
	mine := e.dialing
	w.after(w.between(0, bound), func() {
		if e.dialing == mine && e.ends[0].alive {
			w.dial(e)
		}
	})
}

// dial makes a connection: TCP's handshake, Hello, Hello, Heartbeat.
func (w *world) dial(e *edge) {
	if e.conn != nil {
		return
	}
	e.dialing++
	mine, dialler, acceptor := e.dialing, e.ends[0], e.ends[1]
	lives := [2]int{dialler.life, acceptor.life}
	still := func() bool {
		return e.dialing == mine && lives == [2]int{dialler.life, acceptor.life} && dialler.alive && acceptor.alive
	}
	fail := func() {
		if e.dialing == mine && dialler.alive {
			w.redial(e)
		}
	}
	switch {
	case e.severed:
		w.after(dialTime, fail)
	case !acceptor.alive:
		w.after(2*e.delay, fail)
	default:
		w.after(4*e.delay, func() {
			if !still() || e.severed {
				fail()
				return
			}
			c := &conn{edge: e, ends: e.ends}
			e.conn, e.attempt, e.failing = c, 0, never
			w.after(e.delay, func() {
				if !c.over && acceptor.alive && acceptor.life == lives[1] {
					w.openEnd(c, 1)
				}
			})
			w.openEnd(c, 0)
		})
	}
}

// pump does what a core's owner does after each call.
func (w *world) pump(n *node) {
	for _, ev := range n.core.TakeEvents() {
		w.mix(n.index, eventTag(ev), 0, 0)
		if j, ok := ev.(routing.EpochJumped); ok {
			n.epoch = j.Epoch
		}
		if w.onEvent != nil {
			w.onEvent(n, ev)
		}
	}
	for _, s := range n.core.TakeSends() {
		if w.onSend != nil {
			w.onSend(n, s.Msg)
		}
		w.send(n, s.To, s.Msg)
	}
	if at, ok := n.core.NextTimer(); ok {
		w.wake(n, at.Sub(time.Unix(0, 0))-n.skew)
	} else {
		n.due = never
	}
	if w.onPump != nil {
		w.onPump(n)
	}
}

// wake has the core called at the time, instead of what was wanted before.
func (w *world) wake(n *node, at time.Duration) {
	n.due = at
	if len(n.alarms) == 0 || at < n.alarms[len(n.alarms)-1] {
		n.alarms = append(n.alarms, at)
		life := n.life
		w.after(at-w.now, func() {
			if n.life == life && n.core != nil {
				w.ring(n)
			}
		})
	}
}

func (w *world) ring(n *node) {
	n.alarms = n.alarms[:len(n.alarms)-1]
	switch {
	case n.due == never:
	case n.due > w.now:
		w.wake(n, n.due)
	default:
		n.due = never
		n.core.Advance(w.clock(n))
		w.pump(n)
	}
}

func (w *world) send(from *node, to routing.NodeID, m routing.Message) {
	c := from.conns[to]
	if c == nil {
		w.t.Errorf("%v: %s sends to %s without a link", w.now, from.id, to)
		return
	}
	i := 0
	if c.ends[1].id == to {
		i = 1
	}
	at := max(w.now+c.edge.delay, c.arrival[i])
	c.arrival[i] = at
	w.count++
	w.queue.push(event{at: at, n: w.count, conn: c, end: i, msg: m})
}

func (w *world) receive(c *conn, i int, m routing.Message) {
	n, from := c.ends[i], c.ends[1-i]
	if c.lost || !c.open[i] || n.core == nil {
		return
	}
	w.delivered++
	w.mixMessage(n, from, m)
	if err := n.core.Receive(w.clock(n), from.id, m); err != nil {
		w.t.Errorf("%v: %s from %s: %v", w.now, n.id, from.id, err)
	}
	w.pump(n)
}

// tellHashes is the hash in a heartbeat, once a minute.
func (w *world) tellHashes(n *node, life int, in time.Duration) {
	w.after(in, func() {
		if n.life != life || n.core == nil {
			return
		}
		h := n.core.Hash()
		for _, e := range n.edges {
			if peer := e.other(n); e.conn != nil && n.conns[peer.id] == e.conn && !peer.leaf {
				w.send(n, peer.id, h)
			}
		}
		w.tellHashes(n, life, hashInterval)
	})
}

// mix makes everything that happens part of the trace.
func (w *world) mix(a, b, c, d uint64) {
	for _, x := range [...]uint64{uint64(w.now), a, b, c, d} {
		w.trace = (w.trace ^ x) * 0x9e3779b97f4a7c15
		w.trace ^= w.trace >> 29
	}
}

func (w *world) mixMessage(to, from *node, m routing.Message) {
	ends := to.index<<32 | from.index
	switch m := m.(type) {
	case *routing.Advert:
		w.mix(ends, 1, w.byID[m.Origin].index<<16|uint64(m.Fragment), m.Epoch<<32^m.Seq)
	case *routing.Ack:
		w.mix(ends, 2, uint64(len(m.Entries)), m.Entries[0].Seq)
	case *routing.Digest:
		w.mix(ends, 3, uint64(len(m.Entries)), 0)
	case routing.Hash:
		w.mix(ends, 4, uint64(m), 0)
	}
}

func eventTag(e routing.Event) uint64 {
	tag := uint64(14695981039346656037)
	for _, c := range []byte(fmt.Sprint(e)) {
		tag = (tag ^ uint64(c)) * 1099511628211
	}
	return tag
}
