package mesh

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/wire"
	"github.com/ranvier-mesh/ranvier/routing"
)

// part is a listener or a peer to dial, with the links that it made. It can be
// stopped while the others go on.
type part struct {
	address string // as configured
	stop    context.CancelFunc
	over    chan struct{} // closed when nothing of it runs any more
}

func newPart(address string) part { return part{address: address, over: make(chan struct{})} }

// launch runs a part, if the mesh runs; Run launches what was added before.
// The caller holds m.mu.
func (m *Mesh) launch(p *part, run func(context.Context) error) error {
	if m.running == nil {
		return nil
	}
	if m.running.Err() != nil {
		return ErrClosed
	}
	ctx, stop := context.WithCancel(m.running)
	p.stop = stop
	m.group.Go(func() error {
		defer close(p.over)
		return run(ctx)
	})
	return nil
}

// end stops a part: the neighbours that it made are told why, and when end
// returns their links are closed and the part's addresses are free.
func (m *Mesh) end(ctx context.Context, p *part, reason string) {
	m.mu.Lock()
	stop := p.stop
	m.mu.Unlock()
	if stop == nil {
		return // it never ran
	}
	ctx, cancel := context.WithTimeout(ctx, partingTime)
	defer cancel()
	var leaving []*neighbour
	for _, n := range m.allNeighbours() {
		if n.part == p {
			n.push(wire.GoAway{Code: wire.CodeShutdown, Node: m.cfg.ID, Reason: reason})
			leaving = append(leaving, n)
		}
	}
	for _, n := range leaving {
		n.parted(ctx)
	}
	stop()
	<-p.over
}

// AddPeer dials one more neighbour from now on. The error says what is wrong
// with an address, or wraps ErrClosed.
func (m *Mesh) AddPeer(p PeerConfig) error {
	d, err := m.newDialer(p)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.launch(&d.part, d.run); err != nil {
		return err
	}
	m.dialers = append(m.dialers, d)
	return nil
}

// RemovePeer ends the link to the peer with this PeerConfig.Address and dials it
// no more. It returns false when there is none. ctx bounds the good-bye only.
func (m *Mesh) RemovePeer(ctx context.Context, address string) bool {
	m.mu.Lock()
	i := slices.IndexFunc(m.dialers, func(d *dialer) bool { return d.address == address })
	if i < 0 {
		m.mu.Unlock()
		return false
	}
	d := m.dialers[i]
	m.dialers = slices.Concat(m.dialers[:i], m.dialers[i+1:])
	m.mu.Unlock()
	m.end(ctx, &d.part, "the peer was taken out of the configuration")
	return true
}

// AddListener accepts links at one more address. The error says what is wrong
// with the address or that it is in use, or wraps ErrClosed.
func (m *Mesh) AddListener(ctx context.Context, cfg ListenerConfig) error {
	l, err := m.bind(ctx, cfg)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.launch(&l.part, l.run); err != nil {
		l.Close()
		return &ListenError{cfg.Address, err}
	}
	m.listeners = append(m.listeners, l)
	return nil
}

// RemoveListener stops accepting at the ListenerConfig.Address and ends the
// links that came in there; then the address is free. It returns false when
// there is no such listener. ctx bounds the good-bye only.
func (m *Mesh) RemoveListener(ctx context.Context, address string) bool {
	m.mu.Lock()
	i := slices.IndexFunc(m.listeners, func(l *boundListener) bool { return l.address == address })
	if i < 0 {
		m.mu.Unlock()
		return false
	}
	l := m.listeners[i]
	m.listeners = slices.Concat(m.listeners[:i], m.listeners[i+1:])
	m.mu.Unlock()
	l.Close()
	m.end(ctx, &l.part, "the listener was taken out of the configuration")
	return true
}

// ChangeListener has the listener at cfg.Address go by the Cost, NodeCost and
// AllowedPeers of cfg; the links that came in there go on, but for those of peers
// that are not allowed any more. It returns false when there is no such listener.
func (m *Mesh) ChangeListener(cfg ListenerConfig) bool {
	listeners, _ := m.parts()
	i := slices.IndexFunc(listeners, func(l *boundListener) bool { return l.address == cfg.Address })
	if i < 0 {
		return false
	}
	now := *listeners[i].cfg.Load()
	now.Cost, now.NodeCost, now.AllowedPeers = cfg.Cost, cfg.NodeCost, cfg.AllowedPeers
	listeners[i].cfg.Store(&now)
	m.adapt(&listeners[i].part, now.AllowedPeers, now.wish)
	return true
}

// ChangePeer is ChangeListener for the Cost and AllowedPeers of a peer to dial.
func (m *Mesh) ChangePeer(p PeerConfig) bool {
	_, dialers := m.parts()
	i := slices.IndexFunc(dialers, func(d *dialer) bool { return d.address == p.Address })
	if i < 0 {
		return false
	}
	now := *dialers[i].peer.Load()
	now.Cost, now.AllowedPeers = p.Cost, p.AllowedPeers
	dialers[i].peer.Store(&now)
	m.adapt(&dialers[i].part, now.AllowedPeers, func(routing.NodeID) routing.Cost { return now.Cost })
	return true
}

// adapt has the links of a part go by what has changed of it.
func (m *Mesh) adapt(p *part, allowed []routing.NodeID, wish func(routing.NodeID) routing.Cost) {
	for _, n := range m.allNeighbours() {
		switch {
		case n.part != p:
		case len(allowed) > 0 && !slices.Contains(allowed, n.id):
			n.push(wire.GoAway{Code: wire.CodeForbidden, Node: m.cfg.ID, Reason: fmt.Sprintf("node %s is not among the allowed peers any more", n.id)})
			time.AfterFunc(partingTime, func() { n.link.Close() })
		default:
			n.reprice(wish(n.id))
		}
	}
}
