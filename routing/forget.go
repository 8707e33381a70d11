package routing

import (
	"slices"
	"time"
)

// Forget drops each origin of which of is true of a part of what it said, as if
// it had never been heard of: who signed that must not be believed any more,
// and its numbers must not stand above those of who has the id after it. Of
// this node's own adverts it is not asked. It returns the ids.
func (c *Core) Forget(now time.Time, of func(*Advert) bool) []NodeID {
	c.tick(now)
	var gone []NodeID
	for _, o := range slices.Clone(c.origins) {
		if o == c.self || !slices.ContainsFunc(o.frags, func(f fragment) bool { return !f.stub && of(f.Advert) }) {
			continue
		}
		if o.reachable {
			c.setReachable(o, false)
		}
		c.touchLeavesOf(o)
		c.remove(o)
		gone = append(gone, o.node.id)
	}
	return gone
}
