package node

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"

	"github.com/ranvier-mesh/ranvier/internal/config"
	"github.com/ranvier-mesh/ranvier/internal/identity"
	"github.com/ranvier-mesh/ranvier/mesh"
	"github.com/ranvier-mesh/ranvier/mesh/link"
	"github.com/ranvier-mesh/ranvier/routing"
)

// listenerConfig turns an item of the file into what the mesh listens on.
func (n *Node) listenerConfig(l config.Listener) (mesh.ListenerConfig, error) {
	c := mesh.ListenerConfig{
		Address: l.URL(), Options: link.Options{Rate: l.Rate},
		Cost: l.Cost, NodeCost: l.NodeCost, AllowedPeers: l.AllowedPeers,
	}
	if l.TLS == nil || n.self != nil {
		return c, nil
	}
	var err error
	c.Options.ServerTLS, err = siteTLS(n, l.TLS, identity.TLSItem.Server)
	c.Check = n.checkPeer(l.TLS)
	return c, err
}

// peerConfig turns an item of the file into what the mesh dials.
func (n *Node) peerConfig(p config.Peer) (mesh.PeerConfig, error) {
	c := mesh.PeerConfig{
		Address: p.Addresses[0], Addresses: p.Addresses[1:], Options: link.Options{Rate: p.Rate, Header: p.Header},
		Cost: p.Cost, AllowedPeers: p.AllowedPeers, Once: !p.Redial,
	}
	if p.TLS == nil || n.self != nil {
		return c, nil
	}
	var err error
	c.Options.ClientTLS, err = siteTLS(n, p.TLS, identity.TLSItem.Client)
	c.Check = n.checkPeer(p.TLS)
	return c, err
}

// siteTLS makes settings of an item tls-server or tls-client, whose certificate
// has to name this node. Errors blame the item.
func siteTLS[T any](n *Node, t *config.TLS, side func(identity.TLSItem) (T, error)) (made T, err error) {
	if made, err = side(t.Item); err != nil {
		return made, t.Pos.Errorf("", "%w", err)
	}
	if err := t.Item.CheckOwn(n.cfg.Node.ID); err != nil {
		return made, t.Pos.Errorf("cert", "%w", err)
	}
	return made, nil
}

// checkOpen refuses what other hosts could reach of a node that cannot know who
// they are: of one with an identity, its control sockets alone. As Receptor it
// warns instead.
func (n *Node) checkOpen(cfg *config.Config) error {
	check := cfg.CheckLoopback
	if n.self != nil {
		check = cfg.CheckControl
	}
	err := check()
	if err != nil && n.open {
		n.log.Warn("as Receptor does, this node lets everybody in who reaches it", "err", err)
		return nil
	}
	if err == nil && n.self == nil && cfg.Node.Insecure {
		n.log.Warn("insecure: this node has no identity: whoever reaches it is believed to be whoever he says, and may do what no work-policy item names", "item", cfg.Node.Pos)
	}
	return err
}

// checkTLS reads the certificates of all TLS items, so that a wrong one is told
// at the start and not by a client.
func (n *Node) checkTLS() error {
	var errs []error
	for _, t := range n.cfg.TLSServers {
		_, err := siteTLS(n, &t, identity.TLSItem.Server)
		errs = append(errs, err)
	}
	for _, t := range n.cfg.TLSClients {
		_, err := siteTLS(n, &t, identity.TLSItem.Client)
		errs = append(errs, err)
	}
	for _, t := range slices.Concat(n.cfg.TLSServers, n.cfg.TLSClients) {
		if err := identity.CheckPrivate(t.Item.Key); err != nil {
			n.log.Warn("the site's key is not this node's alone", "item", t.Pos, "err", err)
		}
	}
	return errors.Join(errs...)
}

// tlsClient makes settings of the item tls-client of that name, for a service of
// a node; nil for no name.
func (n *Node) tlsClient(name, to string) (*tls.Config, error) {
	if name == "" {
		return nil, nil
	}
	n.reloading.Lock()
	item, ok := n.current.TLSClient(name)
	n.reloading.Unlock()
	if !ok {
		return nil, fmt.Errorf("there is no tls-client %.100q in the configuration of node %s", name, n.cfg.Node.ID)
	}
	client, err := siteTLS(n, &item, identity.TLSItem.ServiceClient)
	if err != nil {
		return nil, err
	}
	return client(to), nil
}

// checkPeer says which node a peer with certificates of the site may be.
func (n *Node) checkPeer(t *config.TLS) func(routing.NodeID, []*x509.Certificate) error {
	return func(id routing.NodeID, chain []*x509.Certificate) error {
		if err := t.Item.CheckPeer(id, chain); err != nil {
			return fmt.Errorf("%w (%s)", err, t.Pos)
		}
		return nil
	}
}

// tellTLS warns of certificates of the site's that links do not use, since
// those of the mesh say more.
func (n *Node) tellTLS(cfg *config.Config) {
	if n.self == nil {
		return
	}
	for _, l := range cfg.Listeners {
		if l.TLS != nil {
			n.log.Warn("the identity that this node has takes the place of the item's tls", "item", l.Pos)
		}
	}
	for _, p := range cfg.Peers {
		if p.TLS != nil {
			n.log.Warn("the identity that this node has takes the place of the item's tls", "item", p.Pos)
		}
	}
}
