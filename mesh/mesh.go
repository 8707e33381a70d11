// Package mesh is a node's place in the network: links to peers, routes that
// are flooded over them, and streams that cross several hops
// (docs/protocol.md sections 4 to 6).
package mesh

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"github.com/ranvier-mesh/ranvier/internal/identity"
	"github.com/ranvier-mesh/ranvier/internal/wire"
	"github.com/ranvier-mesh/ranvier/mesh/firewall"
	"github.com/ranvier-mesh/ranvier/mesh/link"
	"github.com/ranvier-mesh/ranvier/mesh/secure"
	"github.com/ranvier-mesh/ranvier/mesh/session"
	"github.com/ranvier-mesh/ranvier/routing"
)

// Role is what a node is to its neighbours.
type Role = wire.Role

// The roles a node can have.
const (
	Router    = wire.RoleRouter    // floods, forwards and is looked up
	Leaf      = wire.RoleLeaf      // reachable by id through its peers; never forwards
	Ephemeral = wire.RoleEphemeral // opens streams; nobody is told of it
)

// Config describes a node of the mesh.
type Config struct {
	// ID is the node's id; unique in the mesh.
	ID routing.NodeID
	// Role is Router where it is not set.
	Role Role
	// Epoch counts the starts of this node; it must be higher than at any
	// start before (a counter on disk, never a clock).
	Epoch uint64
	// SaveEpoch, where it is not nil, is called when the mesh had to move to a
	// higher epoch, because others remember a higher one. It must not block.
	SaveEpoch func(epoch uint64)
	// Transports makes links, by the scheme of an address ("tcp").
	Transports map[string]link.Transport
	Listeners  []ListenerConfig
	Peers      []PeerConfig
	// Software is told to neighbours, for people: "ranvier 0.1.0".
	Software string
	// Self is the node's identity; nil: none. With one, Transports have to
	// carry its TLS (identity.Self.ServerTLS, ClientTLS), and only members of its
	// mesh are let in.
	Self *identity.Self
	// Insecure is told to the mesh: the node runs without identities.
	Insecure bool
	// ResumeTime is how long a stream whose way broke waits for another one;
	// 0 means session.GiveUp, less that it does not wait. StreamMemory bounds what all streams that begin or
	// end here may hold together beyond a small part of each, in bytes; 0 means
	// 64 MiB.
	ResumeTime   time.Duration
	StreamMemory int64
	// Firewall are the rules for streams from, through and to this node; see
	// SetFirewall. FirewallNames has for a service another name by which rules
	// govern it as well.
	Firewall      firewall.Rules
	FirewallNames map[string]string
	Log           *slog.Logger
}

// ListenerConfig is an address that peers can dial.
type ListenerConfig struct {
	Address string       // scheme://address
	Options link.Options // for the links that come in
	// Cost is the wish for a link's cost; 0 for none. NodeCost is the wish
	// for particular neighbours.
	Cost     routing.Cost
	NodeCost map[routing.NodeID]routing.Cost
	// AllowedPeers are the ids that may connect; empty: all.
	AllowedPeers []routing.NodeID
	// Check, where it is not nil, says whether who has shown these certificates
	// (nil: none) may be a node. It is for links whose TLS is not of Config.Self.
	Check func(id routing.NodeID, chain []*x509.Certificate) error
}

// PeerConfig is a neighbour to dial.
type PeerConfig struct {
	Address string // scheme://address
	// Addresses are further ways to the same node. QUIC is tried first, then
	// TCP, then WebSocket, after what worked the last time.
	Addresses []string
	Options   link.Options // for each of the addresses
	Cost      routing.Cost
	// AllowedPeers are the ids that may answer there; empty: all.
	AllowedPeers []routing.NodeID
	// Check is as in ListenerConfig.
	Check func(id routing.NodeID, chain []*x509.Certificate) error
	// Once dials a single time instead of again and again.
	Once bool
}

// Mesh is a running node of the network. Its methods may be called from
// several goroutines.
//
// The goroutines: route (owner of the routing core), one of each part
// (reload.go: a listener, a peer to dial), and those of each neighbour (neighbour.go).
// mu guards the maps; it is never held while anything waits.
type Mesh struct {
	cfg      Config
	log      *slog.Logger
	nonce    []byte
	members  *members         // nil without an identity
	floods   atomic.Uint64    // routing messages sent, for tests and status
	ends     *secure.Identity // towards the other ends of streams
	budget   *session.Budget
	suspects *suspects
	moves    *moves
	passing  *bounded // the log of what is relayed
	limits   *limits

	firewall atomic.Pointer[firewall.Rules]
	refusals rate.Sometimes // what the firewall refuses is logged no more often

	epoch   atomic.Uint64 // as others may know it: it jumps above a higher one
	core    *routing.Core // owned by route
	local   routing.Local // as core was told; owned by route
	changes chan func(*routing.Core, time.Time)
	table   atomic.Pointer[routing.Table]
	// rerouted is closed, and another one, when there is another table.
	rerouted atomic.Pointer[chan struct{}]

	mu         sync.Mutex
	running    context.Context // of Run, nil before and Done after
	group      *errgroup.Group // of Run
	listeners  []*boundListener
	dialers    []*dialer
	relays     relays
	neighbours map[routing.NodeID]*neighbour
	services   map[string]*Listener
	attached   chan struct{} // closed while there is a neighbour; see Attached
	conns      map[*Conn]struct{}
	left       bool                   // drainConns has begun: there are no more conns
	accepted   map[sessionToken]*Conn // of conns, those that others dialled
}

// defaultStreamMemory is what streams may hold where Config does not say.
const defaultStreamMemory = 64 << 20

// ErrClosed is returned by calls on a mesh that is not running.
var ErrClosed = errors.New("the mesh node is stopped")

// New makes a node and binds its listeners, so that an address in use is told
// at once. Links begin with Run; where Run is not called, Close gives the
// addresses free.
func New(ctx context.Context, cfg Config) (*Mesh, error) {
	if err := cfg.ID.Validate(); err != nil {
		return nil, err
	}
	if cfg.Role == 0 {
		cfg.Role = Router
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	ends, err := newEnds(cfg)
	if err != nil {
		return nil, err
	}
	m := &Mesh{
		cfg:        cfg,
		log:        cfg.Log,
		local:      routing.Local{Insecure: cfg.Insecure},
		nonce:      make([]byte, wire.NonceLen),
		changes:    make(chan func(*routing.Core, time.Time)),
		neighbours: map[routing.NodeID]*neighbour{},
		services:   map[string]*Listener{},
		attached:   make(chan struct{}),
		conns:      map[*Conn]struct{}{},
		ends:       ends,
		accepted:   map[sessionToken]*Conn{},
		refusals:   rate.Sometimes{First: 10, Interval: time.Second},
		suspects:   newSuspects(cfg.Log),
		moves:      newMoves(),
		passing:    newBounded(cfg.Log, passingLines, passingBurst),
		limits:     newLimits(cfg.Log, cmp.Or(cfg.StreamMemory, defaultStreamMemory)),
		budget:     session.NewBudget(cmp.Or(cfg.StreamMemory, defaultStreamMemory)),
	}
	m.firewall.Store(&cfg.Firewall)
	rand.Read(m.nonce)
	if cfg.Self != nil {
		if err := cfg.Self.MayBe(cfg.ID, cfg.Role); err != nil {
			return nil, fmt.Errorf("node %s: %w", cfg.ID, err)
		}
		if err := cfg.Self.CutOff(); err != nil {
			return nil, err
		}
		if m.members, err = newMembers(cfg.Self); err != nil {
			return nil, fmt.Errorf("node %s: %w", cfg.ID, err)
		}
	}
	m.epoch.Store(cfg.Epoch)
	m.core = m.newCore(time.Now())
	m.table.Store(m.core.Table())
	m.rerouted.Store(newSignal())
	for _, p := range cfg.Peers {
		if err := m.AddPeer(p); err != nil {
			return nil, err
		}
	}
	for _, l := range cfg.Listeners {
		if err := m.AddListener(ctx, l); err != nil {
			m.Close()
			return nil, err
		}
	}
	return m, nil
}

// transport splits scheme://address.
func (m *Mesh) transport(address string, o link.Options) (link.Transport, string, error) {
	scheme, addr, ok := strings.Cut(address, "://")
	if t := m.cfg.Transports[scheme]; ok && t != nil {
		if o.Zero() {
			return t, addr, nil
		}
		c, ok := t.(link.Configurable)
		if !ok {
			return nil, "", fmt.Errorf("address %q: links over %s have no rate and no header", address, scheme)
		}
		return c.With(o), addr, nil
	}
	known := make([]string, 0, len(m.cfg.Transports))
	for s := range m.cfg.Transports {
		known = append(known, s+"://")
	}
	slices.Sort(known)
	return nil, "", fmt.Errorf("address %q: its scheme is not one of %s", address, strings.Join(known, ", "))
}

// Run keeps the node in the mesh until ctx ends. The shutdown: listeners and
// streams are closed, what was written to a stream gets a second to leave,
// neighbours are told, links are closed.
func (m *Mesh) Run(ctx context.Context) error {
	g, running := errgroup.WithContext(context.WithoutCancel(ctx))
	running, stop := context.WithCancel(running)
	g.Go(func() error { return m.route(running) })
	g.Go(func() error { return m.guard(running) })
	g.Go(func() error { return m.move(running) })
	m.mu.Lock()
	m.running, m.group = running, g
	for _, l := range m.listeners {
		m.launch(&l.part, l.run)
	}
	for _, d := range m.dialers {
		m.launch(&d.part, d.run)
	}
	m.mu.Unlock()
	select {
	case <-ctx.Done():
	case <-running.Done(): // a part of the mesh failed
	}
	m.Close()
	m.drainConns(time.Second)
	m.goAway(running)
	m.mu.Lock()
	stop() // from here on nothing is launched
	m.mu.Unlock()
	return g.Wait()
}

// Close closes the listeners of the mesh and of its services.
func (m *Mesh) Close() {
	listeners, _ := m.parts()
	for _, l := range listeners {
		l.Close()
	}
	m.mu.Lock()
	services := make([]*Listener, 0, len(m.services))
	for _, s := range m.services {
		services = append(services, s)
	}
	m.mu.Unlock()
	for _, s := range services {
		s.Close()
	}
}

// drainConns closes every stream and waits until they have left, at most for d.
// What is left then is reset, so that nobody at the other ends waits for this node to come back.
func (m *Mesh) drainConns(d time.Duration) {
	m.mu.Lock()
	m.left = true
	conns := make([]*Conn, 0, len(m.conns))
	for c := range m.conns {
		conns = append(conns, c)
	}
	m.mu.Unlock()
	for _, c := range conns {
		c.Close()
	}
	over := time.NewTimer(d)
	defer over.Stop()
	for _, c := range conns {
		select {
		case <-c.session.Gone():
		case <-over.C:
			for _, c := range conns {
				c.session.Reset(wire.CodeShutdown, "the node stops")
			}
			return
		}
	}
}

// partingTime is how long a link stays up after a GoAway, for the peer to read
// it and to close the link: some transports drop what is unsent when they close.
const partingTime = 500 * time.Millisecond

// goAway tells the neighbours that this node leaves, and waits until they have
// closed their links, at most partingTime.
func (m *Mesh) goAway(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, partingTime)
	defer cancel()
	all := m.allNeighbours()
	for _, n := range all {
		n.push(wire.GoAway{Code: wire.CodeShutdown, Node: m.cfg.ID, Reason: "the node stops"})
	}
	for _, n := range all {
		n.parted(ctx)
	}
}

// ID returns the node's id.
func (m *Mesh) ID() routing.NodeID { return m.cfg.ID }

// Addrs returns the addresses that the listeners are bound to, in the order
// of Config.Listeners, as scheme://address.
func (m *Mesh) Addrs() []string {
	var addrs []string
	listeners, _ := m.parts()
	for _, l := range listeners {
		addrs = append(addrs, l.bound())
	}
	return addrs
}

// parts returns what listens and what dials now.
func (m *Mesh) parts() ([]*boundListener, []*dialer) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.listeners), slices.Clone(m.dialers)
}

// Attached waits until the node has a neighbour. It gives up as soon as every
// peer has been tried once in vain, or ctx's time is over; the error then joins
// a *PeerError for each. When ctx was canceled it is context.Canceled.
func (m *Mesh) Attached(ctx context.Context) error {
	_, dialers := m.parts()
	for _, d := range dialers {
		select {
		case <-m.hasNeighbour():
			return nil
		case <-d.tried:
		case <-ctx.Done():
			if ctx.Err() != context.DeadlineExceeded {
				return ctx.Err()
			}
			return m.unattached(context.Cause(ctx))
		}
	}
	select {
	case <-m.hasNeighbour():
		return nil
	default:
		return m.unattached(nil)
	}
}

// unattached says of every peer why it is no neighbour; late is the reason of
// those whose first attempt has not ended.
func (m *Mesh) unattached(late error) error {
	var errs []error
	_, dialers := m.parts()
	for _, d := range dialers {
		err := d.failure()
		if err == nil && late != nil {
			err = &PeerError{Address: d.address, Err: late}
		}
		if err != nil {
			errs = append(errs, err)
		}
	}
	if len(errs) == 0 {
		return errors.New("no peer is configured")
	}
	return errors.Join(errs...)
}

func (m *Mesh) hasNeighbour() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.attached
}

func (m *Mesh) neighbour(id routing.NodeID) *neighbour {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.neighbours[id]
}

// allNeighbours returns the neighbours sorted by id.
func (m *Mesh) allNeighbours() []*neighbour {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := make([]*neighbour, 0, len(m.neighbours))
	for _, n := range m.neighbours {
		all = append(all, n)
	}
	slices.SortFunc(all, func(a, b *neighbour) int { return strings.Compare(string(a.id), string(b.id)) })
	return all
}
