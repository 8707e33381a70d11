package node

import (
	"github.com/ranvier-mesh/ranvier/internal/config"
	"github.com/ranvier-mesh/ranvier/mesh"
	"github.com/ranvier-mesh/ranvier/mesh/link"
)

// listenerConfig turns an item of the file into what the mesh listens on.
func listenerConfig(l config.Listener) mesh.ListenerConfig {
	return mesh.ListenerConfig{
		Address: l.URL(), Options: link.Options{Rate: l.Rate},
		Cost: l.Cost, NodeCost: l.NodeCost, AllowedPeers: l.AllowedPeers,
	}
}

// peerConfig turns an item of the file into what the mesh dials.
func peerConfig(p config.Peer) mesh.PeerConfig {
	return mesh.PeerConfig{
		Address: p.Addresses[0], Addresses: p.Addresses[1:], Options: link.Options{Rate: p.Rate, Header: p.Header},
		Cost: p.Cost, AllowedPeers: p.AllowedPeers, Once: !p.Redial,
	}
}
