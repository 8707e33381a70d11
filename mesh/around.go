package mesh

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/wire"
	"github.com/ranvier-mesh/ranvier/mesh/secure"
	"github.com/ranvier-mesh/ranvier/routing"
)

// This file finds ways around nodes that do not do what they should: routing
// believes members' adverts, so one that drops what it attracts is only noticed at
// the ends, and by the neighbour before it.

// connectAround is connect for a stream that begins. Where a way does not do,
// others are tried: first those without suspects, in the end all. The error is that
// of the first one.
func (m *Mesh) connectAround(ctx context.Context, open wire.Open) (*secure.Conn, []routing.NodeID, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	suspected := m.suspects.but(time.Now(), open.To)
	open.Avoid = suspected
	k, path, first := m.connectFor(ctx, open, 6)
	if first == nil || ctx.Err() != nil {
		return k, path, first
	}
	relays := relaysOf(path, open.To)
	var further [][]routing.NodeID
	if len(relays) > 0 {
		further = waysAround(relays)
	}
	if len(suspected) > 0 {
		further = append(further, nil)
	}
	for _, open.Avoid = range further {
		if open.Avoid != nil {
			open.Avoid = joined(open.Avoid, suspected)
		}
		if k, path, err := m.connectFor(ctx, open, 8); err == nil {
			m.suspects.add(time.Now(), without(relays, path), "a stream to "+string(open.To)+" could not begin: "+first.Error())
			return k, path, nil
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, nil, first
}

// connectFor is connect in so many tenths of the time that is left.
func (m *Mesh) connectFor(ctx context.Context, open wire.Open, tenths int) (*secure.Conn, []routing.NodeID, error) {
	if deadline, ok := ctx.Deadline(); ok {
		one, cancel := context.WithTimeout(ctx, time.Until(deadline)*time.Duration(tenths)/10)
		defer cancel()
		ctx = one
	}
	return m.connect(ctx, open)
}

// waysAround lists what to avoid where one of some relays is at fault and
// nobody says which: all of them, then all but the first, which may be the only
// one to begin with.
func waysAround(relays []routing.NodeID) [][]routing.NodeID {
	ways := [][]routing.NodeID{relays}
	if len(relays) > 1 {
		ways = append(ways, relays[1:])
	}
	return ways
}

// relaysOf are the nodes of a path between its ends; of the path of a refusal,
// who refused as well.
func relaysOf(path []routing.NodeID, to routing.NodeID) []routing.NodeID {
	if len(path) == 0 {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(path[1:]), func(id routing.NodeID) bool { return id == to })
}

func joined(a, b []routing.NodeID) []routing.NodeID {
	all := slices.Concat(a, without(b, a))
	return all[:min(len(all), wire.MaxAvoid)]
}

// avoid says what another carrier of a stream is to avoid. Where a link has
// broken that is its relays, or nothing, in turns. After something foul the way may lead
// through the same node again for as long as it is the best one, so each
// relay is avoided in its turn.
func (c *Conn) avoid(attempt int) []routing.NodeID {
	relays := relaysOf(c.Path(), c.remote.Node)
	if !c.fouled {
		if attempt%2 == 0 {
			return relays
		}
		return nil
	}
	ways := append(waysAround(relays), nil)
	for _, id := range relays {
		ways = append(ways, []routing.NodeID{id})
	}
	c.turn++
	return ways[(c.turn-1)%len(ways)]
}

// around is told that a stream goes on by another path than before.
func (c *Conn) around(before, after []routing.NodeID) {
	if c.fouled {
		why := fmt.Sprintf("a stream to %s broke: %v", c.remote.Node, c.why)
		c.mesh.suspects.add(time.Now(), without(relaysOf(before, c.remote.Node), after), why)
	}
}
