package mesh

import (
	"context"
	"time"

	"github.com/ranvier-mesh/ranvier/routing"
)

// relays counts the streams that a node carries for others, and says when it
// takes no more of them. Mesh.mu guards it.
type relays struct {
	open     int
	draining bool
	none     chan struct{} // closed while draining and open is 0; nil before
}

// enterRelay counts one more relayed stream; false means that the node drains
// and takes none.
func (m *Mesh) enterRelay() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.relays.draining {
		return false
	}
	m.relays.open++
	return true
}

func (m *Mesh) leaveRelay() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.relays.open--
	m.relays.settle()
}

func (r *relays) settle() {
	if r.draining && r.open == 0 && r.none != nil {
		close(r.none)
		r.none = nil
	}
}

// Drain tells the mesh that this node is about to go, so that others move the
// streams that it carries for them (docs/protocol.md section 6.7), refuses from now
// on those that they want to open through it, and waits until those that it carries
// have ended or moved, or ctx has. It returns how many are left. What is opened to the node itself is accepted as before. There is
// no way back; Drain may be called again to wait longer.
func (m *Mesh) Drain(ctx context.Context) (left int) {
	none := make(chan struct{})
	m.mu.Lock()
	running, before := m.running, m.relays.none
	if before != nil {
		none = before
	}
	m.relays.draining, m.relays.none = true, none
	m.relays.settle()
	m.mu.Unlock()
	m.moves.tell([]routing.NodeID{m.cfg.ID}, time.Now(), time.Time{})
	m.tellDraining()
	if running != nil {
		m.change(running, func(c *routing.Core, now time.Time) {
			m.local.Draining = true
			c.SetLocal(now, m.local)
		})
	}
	select {
	case <-none:
	case <-ctx.Done():
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.relays.open
}
