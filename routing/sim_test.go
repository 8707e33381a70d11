package routing

import (
	"container/heap"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"
)

// sim runs cores in virtual time over links that deliver in order after a
// delay: deterministic, so that a failure is the same each time.
type sim struct {
	t     testing.TB
	start time.Time
	now   time.Time
	todo  simQueue
	count int // of scheduled things, so that those of one moment keep their order
	nodes map[NodeID]*simNode
	links map[[2]NodeID]*simLink

	delay     func(from, to NodeID) time.Duration
	configure func(*Config)
	onSend    func(from NodeID, s Send)
	onEvent   func(at NodeID, e Event)
	onFault   func(at, from NodeID, err error) // default: the test fails
	sends     int
}

type simNode struct {
	id    NodeID
	epoch uint64 // as on disk
	core  *Core
	timer time.Time // the one that is scheduled
	runs  int
	relay func([]Send) // instead of deliver, see alias
}

type simLink struct {
	cost    Cost
	arrival map[NodeID]time.Time // of the last message to an end
	down    bool
}

type simEvent struct {
	at time.Time
	n  int
	do func()
}

type simQueue []simEvent

func (q simQueue) Len() int { return len(q) }
func (q simQueue) Less(i, j int) bool {
	return q[i].at.Before(q[j].at) || q[i].at.Equal(q[j].at) && q[i].n < q[j].n
}
func (q simQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *simQueue) Push(x any)   { *q = append(*q, x.(simEvent)) }
func (q *simQueue) Pop() any {
	old := *q
	e := old[len(old)-1]
	*q = old[:len(old)-1]
	return e
}

func newSim(t testing.TB) *sim {
	start := time.Unix(0, 0).UTC()
	return &sim{
		t: t, start: start, now: start,
		nodes: make(map[NodeID]*simNode),
		links: make(map[[2]NodeID]*simLink),
		delay: func(NodeID, NodeID) time.Duration { return time.Millisecond },
		onFault: func(at, from NodeID, err error) {
			t.Helper()
			t.Errorf("%s got a fault from %s: %v", at, from, err)
		},
	}
}

func (s *sim) after(d time.Duration, do func()) {
	s.count++
	heap.Push(&s.todo, simEvent{s.now.Add(d), s.count, do})
}

func pair(a, b NodeID) [2]NodeID {
	if b < a {
		a, b = b, a
	}
	return [2]NodeID{a, b}
}

// boot starts a node, or starts it again with the next epoch after cutting its
// links.
func (s *sim) boot(id NodeID) *simNode {
	n := s.nodes[id]
	if n == nil {
		n = &simNode{id: id}
		s.nodes[id] = n
	}
	s.halt(id)
	n.epoch++
	n.runs++
	cfg := Config{Self: id, Epoch: n.epoch}
	if s.configure != nil {
		s.configure(&cfg)
	}
	n.core = New(cfg, s.now)
	n.timer = time.Time{}
	s.pump(n)
	return n
}

// halt stops a node; its neighbours notice.
func (s *sim) halt(id NodeID) {
	n := s.nodes[id]
	if n.core == nil {
		return
	}
	n.core = nil
	for _, p := range slices.SortedFunc(maps.Keys(s.links), comparePairs) {
		if p[0] == id || p[1] == id {
			s.cut(p[0], p[1])
		}
	}
}

func comparePairs(a, b [2]NodeID) int {
	return slices.Compare(a[:], b[:])
}

func (s *sim) link(a, b NodeID, cost Cost) {
	s.cut(a, b)
	s.links[pair(a, b)] = &simLink{cost: cost, arrival: make(map[NodeID]time.Time)}
	for _, ends := range [][2]NodeID{{a, b}, {b, a}} {
		n := s.nodes[ends[0]]
		n.core.AddLink(s.now, ends[1], cost)
		s.pump(n)
	}
}

// alias links node, a core that calls itself as, with peer.
func (s *sim) alias(node, as, peer NodeID) {
	n, p := s.nodes[node], s.nodes[peer]
	relay := func(from, to *simNode, as NodeID, sends []Send, at NodeID) {
		for _, m := range sends {
			if m.To != at {
				s.deliver(from.id, m)
				continue
			}
			s.after(time.Millisecond, func() {
				if err := to.core.Receive(s.now, as, m.Msg); err != nil {
					s.onFault(to.id, as, err)
				}
				s.pump(to)
			})
		}
	}
	n.relay = func(sends []Send) { relay(n, p, as, sends, peer) }
	p.relay = func(sends []Send) { relay(p, n, peer, sends, as) }
	n.core.AddLink(s.now, peer, CostUnit)
	p.core.AddLink(s.now, as, CostUnit)
	s.pump(n)
	s.pump(p)
}

func (s *sim) cut(a, b NodeID) {
	l := s.links[pair(a, b)]
	if l == nil {
		return
	}
	l.down = true
	delete(s.links, pair(a, b))
	for _, ends := range [][2]NodeID{{a, b}, {b, a}} {
		if n := s.nodes[ends[0]]; n.core != nil {
			n.core.RemoveLink(s.now, ends[1])
			s.pump(n)
		}
	}
}

// pump does what a core's owner does after each call.
func (s *sim) pump(n *simNode) {
	for _, e := range n.core.TakeEvents() {
		if e, ok := e.(EpochJumped); ok {
			n.epoch = e.Epoch
		}
		if s.onEvent != nil {
			s.onEvent(n.id, e)
		}
	}
	sends := n.core.TakeSends()
	checkComputed(s.t, n.core)
	s.sends += len(sends)
	for _, m := range sends {
		if s.onSend != nil {
			s.onSend(n.id, m)
		}
		if n.relay == nil {
			s.deliver(n.id, m)
		}
	}
	if n.relay != nil {
		n.relay(sends)
	}
	at, ok := n.core.NextTimer()
	if !ok || at.Equal(n.timer) {
		return
	}
	n.timer = at
	run := n.runs
	s.after(at.Sub(s.now), func() {
		if n.runs != run || n.core == nil || !n.timer.Equal(at) {
			return
		}
		n.timer = time.Time{}
		n.core.Advance(s.now)
		s.pump(n)
	})
}

func (s *sim) deliver(from NodeID, m Send) {
	if s.nodes[m.To] == nil {
		return // a neighbour that a test plays itself
	}
	l := s.links[pair(from, m.To)]
	if l == nil {
		s.t.Errorf("%s sends to %s without a link", from, m.To)
		return
	}
	at := s.now.Add(s.delay(from, m.To))
	if last := l.arrival[m.To]; at.Before(last) {
		at = last
	}
	l.arrival[m.To] = at
	s.after(at.Sub(s.now), func() {
		if l.down {
			return
		}
		n := s.nodes[m.To]
		if err := n.core.Receive(s.now, from, m.Msg); err != nil {
			s.onFault(m.To, from, err)
		}
		s.pump(n)
	})
}

// beat has all neighbours tell each other their hashes, as heartbeats do.
func (s *sim) beat() {
	for _, p := range slices.SortedFunc(maps.Keys(s.links), comparePairs) {
		for i, id := range p {
			s.deliver(id, Send{To: p[1-i], Msg: s.nodes[id].core.Hash()})
		}
	}
}

// run lets d pass.
func (s *sim) run(d time.Duration) {
	end := s.now.Add(d)
	for len(s.todo) > 0 && !s.todo[0].at.After(end) {
		e := heap.Pop(&s.todo).(simEvent)
		s.now = e.at
		e.do()
	}
	s.now = end
}

// ids returns the running nodes, sorted.
func (s *sim) ids() []NodeID {
	var ids []NodeID
	for id, n := range s.nodes {
		if n.core != nil {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// components returns which running nodes are connected, by the lowest id.
func (s *sim) components() map[NodeID]NodeID {
	of := make(map[NodeID]NodeID)
	for _, id := range s.ids() {
		if _, ok := of[id]; ok {
			continue
		}
		queue := []NodeID{id}
		of[id] = id
		for len(queue) > 0 {
			at := queue[0]
			queue = queue[1:]
			for p := range s.links {
				for i, end := range p {
					other := p[1-i]
					if _, ok := of[other]; end == at && !ok {
						of[other] = id
						queue = append(queue, other)
					}
				}
			}
		}
	}
	return of
}

// checkQuiet checks what holds when no flood is under way: connected nodes
// have the same database and reach each other, and nobody else, by following next
// hops.
func (s *sim) checkQuiet() error {
	of := s.components()
	ids := s.ids()
	for _, a := range ids {
		t := s.nodes[a].core.Table()
		for _, b := range ids {
			hops := t.NextHops(b)
			if connected := of[a] == of[b]; connected != (hops != nil) && a != b {
				return fmt.Errorf("%s has the next hops %v to %s; connected: %v", a, hops, b, connected)
			}
			if of[a] != of[b] || a == b {
				continue
			}
			if ha, hb := s.nodes[a].core.Hash(), s.nodes[b].core.Hash(); ha != hb {
				return fmt.Errorf("%s has hash %x, %s %x", a, ha, b, hb)
			}
			if err := s.follow(a, b); err != nil {
				return err
			}
		}
	}
	return nil
}

// follow walks every way of next hops from a to b: the cost that remains has
// to fall by that of each link.
func (s *sim) follow(a, b NodeID) error {
	if a == b {
		return nil
	}
	t := s.nodes[a].core.Table()
	cost, _ := t.Cost(b)
	for _, h := range t.NextHops(b) {
		l := s.links[pair(a, h)]
		if l == nil {
			return fmt.Errorf("%s's next hop to %s is %s, which is no neighbour", a, b, h)
		}
		rest, ok := s.nodes[h].core.Table().Cost(b)
		if !ok || rest+uint64(l.cost) != cost {
			return fmt.Errorf("%s to %s costs %d, but %d from the next hop %s whose link costs %d", a, b, cost, rest, h, l.cost)
		}
	}
	return nil
}
