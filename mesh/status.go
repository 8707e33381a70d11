package mesh

import (
	"time"

	"github.com/ranvier-mesh/ranvier/routing"
)

// Status is what a node knows of the mesh at one moment.
type Status struct {
	ID    routing.NodeID
	Links []LinkStatus // sorted by node
	Down  []*PeerError // configured peers without a link, and why
	Nodes []routing.NodeInfo
	// Suspects are the nodes that seem to drop or change what they should pass on.
	Suspects []Suspect
	// Limited is what was refused because an identity was beyond a limit.
	Limited Limited
}

// LinkStatus describes a link to a neighbour.
type LinkStatus struct {
	Node           routing.NodeID
	Role           Role
	Address        string
	Dialled        bool // by this node
	Cost           routing.Cost
	RTT            time.Duration // of the handshake
	Since          time.Time
	Streams        int
	Received, Sent uint64 // bytes
	Software       string
	Insecure       bool
}

// Status returns the links of this node and, on a router, all known nodes.
func (m *Mesh) Status() Status {
	s := Status{ID: m.cfg.ID, Suspects: m.suspects.list(time.Now()), Limited: m.limits.counted()}
	for _, n := range m.allNeighbours() {
		received, sent := n.link.Traffic()
		s.Links = append(s.Links, LinkStatus{
			Node: n.id, Role: n.hello.Role, Address: n.link.RemoteAddr().String(), Dialled: n.dialled,
			Cost: n.cost(), RTT: n.rtt, Since: n.since, Streams: int(n.streams.Load()), Received: received, Sent: sent,
			Software: n.hello.Software, Insecure: n.hello.Insecure,
		})
	}
	_, dialers := m.parts()
	for _, d := range dialers {
		if err := d.failure(); err != nil {
			s.Down = append(s.Down, &PeerError{Address: d.address, Err: err})
		}
	}
	if m.cfg.Role == Router {
		s.Nodes = m.table.Load().Nodes()
	}
	return s
}
