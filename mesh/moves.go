package mesh

import (
	"context"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ranvier-mesh/ranvier/internal/wire"
	"github.com/ranvier-mesh/ranvier/routing"
)

// This file moves running streams away from nodes that are about to go
// (docs/protocol.md section 6.7): the end that dialled a stream opens another
// carrier around them and goes on over that, while the one before still works.

const (
	// toldTime is how long a node without a database believes that a node
	// drains: about as long as one drains.
	toldTime = time.Minute
	// moveAttempts are made for a stream each time that another node drains, with
	// pauses from movePause on that double: the other way may not be known yet.
	moveAttempts = 4
	movePause    = 500 * time.Millisecond
	// movesAtOnce bounds the handshakes that run at a time.
	movesAtOnce = 16
)

// moves knows the nodes that are about to go. Its mutex is held for a moment
// only, Mesh.mu may be held.
type moves struct {
	wake chan struct{} // has one when a stream may have to be moved

	mu         sync.Mutex
	table      []routing.NodeID             // as the routing table has them, sorted
	told       map[routing.NodeID]time.Time // by a home, and until when it counts; zero: for ever
	generation int                          // counts the nodes that were added
}

func newMoves() *moves {
	return &moves{wake: make(chan struct{}, 1), told: map[routing.NodeID]time.Time{}}
}

func (v *moves) signal() {
	select {
	case v.wake <- struct{}{}:
	default:
	}
}

// setTable takes the draining nodes of a new routing table, sorted, and tells
// whether there are others among them than before.
func (v *moves) setTable(ids []routing.NodeID) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	more := len(without(ids, v.table)) > 0
	v.table = ids
	if more {
		v.generation++
		v.signal()
	}
	return more
}

// tell notes what a home says, or that this node goes itself.
func (v *moves) tell(ids []routing.NodeID, now, until time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for id, end := range v.told {
		if !end.IsZero() && end.Before(now) {
			delete(v.told, id)
		}
	}
	for _, id := range ids {
		if _, known := v.told[id]; !known {
			v.generation++
		}
		if len(v.told) < wire.MaxDraining {
			v.told[id] = until
		}
	}
	v.signal()
}

// among returns those of some nodes that are about to go.
func (v *moves) among(ids []routing.NodeID) []routing.NodeID {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.table) == 0 && len(v.told) == 0 {
		return nil
	}
	var going []routing.NodeID
	for _, id := range ids {
		end, told := v.told[id]
		told = told && (end.IsZero() || time.Now().Before(end))
		if _, found := slices.BinarySearch(v.table, id); told || found {
			going = append(going, id)
		}
	}
	return going
}

// all returns the nodes that are about to go, as many as fit into a message.
func (v *moves) all() []routing.NodeID {
	v.mu.Lock()
	defer v.mu.Unlock()
	ids := slices.Clone(v.table)
	for id := range v.told {
		ids = append(ids, id)
	}
	return ids[:min(len(ids), wire.MaxDraining)]
}

// check is told of the path that a stream has taken: a node on it may have
// begun to drain meanwhile.
func (v *moves) check(path []routing.NodeID) {
	if len(path) > 2 && len(v.among(path[1:len(path)-1])) > 0 {
		v.signal()
	}
}

func (v *moves) now() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.generation
}

// drainingAre is called by route with the draining nodes of each new table.
func (m *Mesh) drainingAre(ids []routing.NodeID) {
	if m.moves.setTable(ids) {
		m.tellDraining()
	}
}

// tellDraining tells the neighbours that have no database, and streams.
func (m *Mesh) tellDraining() {
	ids := m.moves.all()
	for _, n := range m.allNeighbours() {
		if n.hello.Role != Router && n.streams.Load() > 0 && len(ids) > 0 {
			n.push(wire.Draining{Nodes: ids})
		}
	}
}

// warn tells a neighbour without a database that the stream which it has just
// opened passes a node which is about to go.
func (m *Mesh) warn(n *neighbour, path []wire.Hop) {
	if n.hello.Role == Router {
		return
	}
	ids := make([]routing.NodeID, 0, len(path))
	for _, h := range path[:max(0, len(path)-1)] {
		ids = append(ids, h.Node)
	}
	if going := m.moves.among(ids); len(going) > 0 {
		n.push(wire.Draining{Nodes: going})
	}
}

// move carries streams away from nodes that are about to go, until ctx ends.
func (m *Mesh) move(ctx context.Context) error {
	again := time.NewTimer(time.Hour)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-m.moves.wake:
		case <-again.C:
		}
		again.Stop()
		if next := m.moveAll(ctx); !next.IsZero() {
			again.Reset(time.Until(next))
		}
	}
}

// moving is what the goroutine of move knows of a stream: how often it has
// tried in vain since the nodes were last others.
type moving struct {
	generation, tries int
	next              time.Time
}

// moveAll tries each stream that is to be moved and whose time has come. It
// returns when the next one's will have.
func (m *Mesh) moveAll(ctx context.Context) (next time.Time) {
	generation, now := m.moves.now(), time.Now()
	var g errgroup.Group
	g.SetLimit(movesAtOnce)
	for _, c := range m.dialled() {
		going := m.moves.among(relaysOf(c.Path(), c.remote.Node))
		if len(going) == 0 {
			c.moving = moving{}
			continue
		}
		if c.moving.generation != generation {
			c.moving = moving{generation: generation}
		}
		if c.moving.tries >= moveAttempts {
			continue // there is no other way; when this one ends the session looks again
		}
		if !now.Before(c.moving.next) {
			c.moving.next = now.Add(movePause << c.moving.tries)
			c.moving.tries++
			g.Go(func() error { c.move(ctx, going[:min(len(going), wire.MaxAvoid)]); return nil })
		}
		if next.IsZero() || c.moving.next.Before(next) {
			next = c.moving.next
		}
	}
	g.Wait()
	return next
}

// dialled returns the streams that were opened here.
func (m *Mesh) dialled() []*Conn {
	m.mu.Lock()
	defer m.mu.Unlock()
	var conns []*Conn
	for c := range m.conns {
		if c.dialled {
			conns = append(conns, c)
		}
	}
	return conns
}

// move has the stream go on around some nodes, if there is a way.
func (c *Conn) move(ctx context.Context, avoid []routing.NodeID) {
	before := c.path.Load()
	k, path, err := c.another(ctx, avoid)
	if err != nil {
		c.mesh.log.Debug("a stream stays where it is", "stream", c.remote, "draining", joinIDs(avoid, ", "), "err", err)
		return
	}
	if !c.path.CompareAndSwap(before, &path) {
		k.Close() // it has found another way by itself
		return
	}
	if !c.session.Replace(carrierOf(k, path)) {
		c.path.CompareAndSwap(&path, before)
		k.Close()
		return
	}
	c.prove(k)
	c.mesh.log.Debug("a stream was moved", "stream", c.remote, "path", joinIDs(path, " → "), "draining", joinIDs(avoid, ", "))
}
