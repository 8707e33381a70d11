package mesh

import (
	"context"
	"crypto/rand"
	"slices"

	"github.com/ranvier-mesh/ranvier/internal/wire"
)

// trailKey is that of a context's job.
type trailKey struct{}

// WithJob returns a context in which Dial opens streams for a job: the id is told
// to all nodes on the way, for their logs (docs/adr/0009-trails.md). One of more than
// 128 bytes is not told.
func WithJob(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, trailKey{}, id)
}

// newTrail is what a new stream is called in logs: its job, or a word by chance.
func newTrail(ctx context.Context) string {
	if id, _ := ctx.Value(trailKey{}).(string); id != "" && len(id) <= wire.MaxJobLen {
		return id
	}
	return rand.Text()[:16]
}

// Trail is what the logs of all nodes on the stream's way call it. The one who
// opened it has chosen that, so it is for people and proves nothing.
func (c *Conn) Trail() string { return c.trail }

// From is where the stream came from, for people: the node that opened it, the
// one that let it into the mesh, and all others on the way, as these say it.
func (c *Conn) From() string {
	path := slices.Clone(c.Path())
	if !c.dialled && len(path) > 0 {
		path[0] = c.remote.Node // proved, where nodes have identities
	}
	return joinIDs(path, " → ")
}

// trailed logs a stream that is carried for others, and where it came from.
func (m *Mesh) trailed(n *neighbour, open wire.Open) {
	m.passing.info("a stream passes", "stream", open.Job, "from", open.From, "to", open.To, "service", open.Service,
		"neighbour", n.id, "address", n.link.RemoteAddr(), "resumed", open.Resume)
}
