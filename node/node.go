// Package node is a long-running node: a configuration file turned into a
// mesh, work, and control sockets that live and end together.
package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ranvier-mesh/ranvier/internal/config"
	"github.com/ranvier-mesh/ranvier/internal/control"
	"github.com/ranvier-mesh/ranvier/internal/identity"
	"github.com/ranvier-mesh/ranvier/internal/policy"
	"github.com/ranvier-mesh/ranvier/mesh"
	"github.com/ranvier-mesh/ranvier/mesh/link"
	"github.com/ranvier-mesh/ranvier/routing"
	"github.com/ranvier-mesh/ranvier/worktypes"
	"github.com/ranvier-mesh/ranvier/worktypes/remote"
)

// Options are what a node needs beside its configuration file.
type Options struct {
	// Transports makes links, by scheme.
	Transports map[string]link.Transport
	// Version is the program's, as in "0.1.0".
	Version string
	// Worker is the ranvier executable whose worker runs plays; empty leaves
	// them to the Python tool, where it is installed.
	Worker string
	Log    *slog.Logger
	// Level, where it is not nil, is Log's, and set when a reload changes it.
	Level *slog.LevelVar
	// Keeper is the command that starts a keeper of jobs (package
	// worktypes/keeper); nil: jobs are children of this process, and end with
	// it.
	Keeper []string
	// Identity is the node's; nil: none, and then its listeners are on loopback
	// or the file says insecure. Transports have to carry its TLS.
	Identity *identity.Self
	// CA is the mesh's, on the node that has it.
	CA *identity.CA
	// Open lets everybody who reaches the node do what no work-policy item names,
	// as Receptor does, and lets listeners be on any address. A node without an
	// identity is open in the first respect in any case.
	Open bool
	// Load reads the configuration again for a reload; nil reads the file that
	// it came from.
	Load func() (*config.Config, error)
	// Ready, where it is not nil, is called once all that the file names is
	// listened on, with the addresses of the mesh's listeners (scheme://address).
	Ready func(addrs []string)
}

// stopTime is how long running jobs and open streams may take to end when the
// node stops.
const stopTime = 15 * time.Second

// How long streams of other nodes may take to leave: after a signal, and after
// "drain" without a time.
const (
	leaveTime = 10 * time.Second
	drainTime = 60 * time.Second
)

// Node is a node whose parts are made and whose listeners are bound.
type Node struct {
	cfg      *config.Config
	log      *slog.Logger
	version  string
	worker   string
	mesh     *mesh.Mesh
	work     *worktypes.Manager
	forward  *remote.Forwarder
	audit    *auditLog
	policy   *policy.Policy
	refused  refusals
	requests requests
	metrics  net.Listener // nil: none
	leaving  atomic.Bool  // it stops
	signing  signing
	legacy   *legacy // nil: none
	types    []routing.WorkType
	control  *control.Server
	sockets  []net.Listener // control sockets on this host
	drain    chan time.Duration

	services services

	reloading sync.Mutex
	level     *slog.LevelVar
	load      func() (*config.Config, error)
	open      bool           // as Receptor is
	current   *config.Config // the file that is in effect; only its links differ from cfg

	self     *identity.Self // nil: none
	ca       *identity.CA   // nil but on the CA's node
	renewing chan struct{}  // has one when the certificate is to be renewed at once
}

// New makes a node: it takes the data directory, and binds all listeners. An
// error names the item of the file where it has a part in it. Call Run, which
// gives everything free in the end.
func New(ctx context.Context, cfg *config.Config, opt Options) (_ *Node, err error) {
	n := &Node{
		cfg: cfg, current: cfg, log: opt.Log, level: opt.Level, version: opt.Version, drain: make(chan time.Duration, 1),
		self: opt.Identity, ca: opt.CA, open: opt.Open, load: opt.Load, renewing: make(chan struct{}, 1), worker: opt.Worker,
	}
	if n.log == nil {
		n.log = slog.New(slog.DiscardHandler)
	}
	if n.load == nil {
		n.load = func() (*config.Config, error) { return config.Load(cfg.File) }
	}
	for _, w := range cfg.Warnings {
		n.log.Warn(w)
	}
	if err := n.checkOpen(cfg); err != nil {
		return nil, err
	}
	if err := n.checkTLS(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			n.close()
		}
	}()
	n.newPolicy(opt)
	if err := n.openSigning(); err != nil {
		return nil, err
	}
	if err := n.openWork(opt); err != nil {
		return nil, err
	}
	epochs, err := openEpochs(cfg.Node.DataDir)
	if err != nil {
		return nil, err
	}
	mc, err := n.meshConfig(epochs, opt)
	if err != nil {
		return nil, err
	}
	if mc.Firewall, err = firewallRules(cfg); err != nil {
		return nil, err
	}
	if n.mesh, err = mesh.New(ctx, mc); err != nil {
		return nil, blame(err, cfg.Listeners)
	}
	if err := n.openServices(); err != nil {
		return nil, err
	}
	n.legacy = newLegacy(cfg, n.log)
	n.control = control.NewServer(string(cfg.Node.ID), n.backend(), n.log)
	n.control.Handle(control.ReloadCommand(n.ReloadFile))
	n.control.Handle(control.DrainCommand(drainTime, n.Drain))
	n.control.Handle(n.workCommand())
	if err := n.listenControl(ctx); err != nil {
		return nil, err
	}
	return n, n.openMetrics(ctx)
}

// Addrs returns the addresses that peers can dial, as scheme://address.
func (n *Node) Addrs() []string { return n.mesh.Addrs() }

func (n *Node) meshConfig(epochs *epochs, opt Options) (mesh.Config, error) {
	c := mesh.Config{
		ID: n.cfg.Node.ID, Epoch: epochs.current, SaveEpoch: func(e uint64) {
			if err := epochs.save(e); err != nil {
				n.log.Error("the epoch cannot be stored; neighbours may take the next start for a twin", "err", err)
			}
		},
		Transports: opt.Transports, Software: "ranvier " + opt.Version, Self: n.self, Insecure: n.self == nil, Log: n.log,
		ResumeTime: n.cfg.Node.ResumeTime, StreamMemory: n.cfg.Node.StreamMemory, FirewallNames: firewallNames(),
	}
	if n.cfg.Node.Leaf {
		c.Role = mesh.Leaf
	}
	for _, l := range n.cfg.Listeners {
		lc, err := n.listenerConfig(l)
		if err != nil {
			return c, err
		}
		c.Listeners = append(c.Listeners, lc)
	}
	for _, p := range n.cfg.Peers {
		pc, err := n.peerConfig(p)
		if err != nil {
			return c, err
		}
		c.Peers = append(c.Peers, pc)
	}
	n.tellTLS(n.cfg)
	return c, nil
}

// Run keeps the node up until ctx ends or Drain is called, then stops it:
// others' streams go elsewhere, no more work is taken, running jobs are left to
// their keeper (or, without one, interrupted while their submitters can still
// hear of it), control sockets close, and the node leaves the mesh.
func (n *Node) Run(ctx context.Context, ready func(addrs []string)) error {
	defer n.close()
	g, running := errgroup.WithContext(context.WithoutCancel(ctx))
	running, stop := context.WithCancel(running)
	defer stop()

	g.Go(func() error { return n.mesh.Run(running) })
	n.forward.Start()
	for _, s := range n.sockets {
		g.Go(func() error { return n.control.Serve(running, s) })
	}
	if err := n.serveMesh(running, g); err != nil {
		stop()
		return errors.Join(err, g.Wait())
	}
	g.Go(func() error { return n.serveMetrics(running) })
	n.startServices(running)
	g.Go(n.waitServices)
	if err := n.serveIdentity(running, g); err != nil {
		stop()
		return errors.Join(err, g.Wait())
	}
	n.log.Info("node is up", "node", n.cfg.Node.ID, "version", n.version, "data", n.cfg.Node.DataDir)
	if ready != nil {
		ready(n.mesh.Addrs())
	}
	select {
	case <-ctx.Done():
		n.leave(running, leaveTime)
	case bound := <-n.drain:
		running, cancel := context.WithCancel(running)
		stop := context.AfterFunc(ctx, cancel) // a signal is for who will not wait
		n.leave(running, bound)
		stop()
		cancel()
	case <-running.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTime)
	defer cancel()
	n.work.Close(grace)
	stop()
	return g.Wait()
}

// leave waits until the streams that the node carries for others have ended or
// gone another way, for at most bound.
func (n *Node) leave(ctx context.Context, bound time.Duration) {
	n.log.Info("node stops", "node", n.cfg.Node.ID)
	n.leaving.Store(true)
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	if left := n.mesh.Drain(ctx); left > 0 {
		n.log.Warn("streams of other nodes are cut", "streams", left, "after", bound)
	}
}

// Drain stops the node as the end of Run's context does, but waits up to
// bound for the streams that it carries for others. It returns at once.
func (n *Node) Drain(bound time.Duration) {
	select {
	case n.drain <- bound:
	default: // it drains already
	}
}

// serveMesh listens on the services that other nodes use.
func (n *Node) serveMesh(ctx context.Context, g *errgroup.Group) error {
	serve := func(service string, handle func(context.Context, *mesh.Conn)) error {
		l, err := n.mesh.Listen(service)
		if err != nil {
			return err
		}
		g.Go(func() error { return acceptAll(ctx, l, handle) })
		return nil
	}
	secured := map[string]wrapper{remote.ServiceName: plain}
	for _, c := range n.cfg.ControlServices {
		wrap, err := n.controlService(c)
		if err != nil {
			return err
		}
		if c.TLS != nil && secured[workOverTLS] == nil {
			secured[workOverTLS] = wrap
		}
		if err := serve(c.Service, func(ctx context.Context, conn *mesh.Conn) {
			n.control.ServeOnly(ctx, wrap(conn), n.mayControl(conn, c.Service))
		}); err != nil {
			return c.Pos.Errorf("service", "%w", err)
		}
	}
	work := remote.NewServer(n.work, n.log)
	if n.self == nil {
		// An id says nothing for certain; the submitters' own keys do.
		work.Lasting = func(string) string { return "" }
	}
	work.Admin = string(n.cfg.Node.ID)
	work.Park, work.Audit = parkTime, n.audited
	for service, wrap := range secured {
		if err := serve(service, func(ctx context.Context, conn *mesh.Conn) {
			peer, permit := n.mayWork(conn)
			work.ServeOnly(ctx, wrap(conn), peer, permit)
		}); err != nil {
			return fmt.Errorf("work service: %w", err)
		}
	}
	return n.advertise(ctx, n.cfg)
}

// acceptAll serves each stream in a goroutine and returns when all have ended.
func acceptAll(ctx context.Context, l *mesh.Listener, handle func(context.Context, *mesh.Conn)) error {
	var g errgroup.Group
	for {
		conn, err := l.Accept()
		if err != nil {
			return g.Wait() // the mesh has stopped
		}
		g.Go(func() error {
			defer conn.Close()
			handle(ctx, conn.(*mesh.Conn))
			return nil
		})
	}
}

// close gives free what New took, in the opposite order.
func (n *Node) close() {
	for _, s := range n.sockets {
		s.Close()
	}
	if n.metrics != nil {
		n.metrics.Close()
	}
	n.closeServices()
	if n.mesh != nil {
		n.mesh.Close()
	}
	if n.work != nil {
		ctx, cancel := context.WithTimeout(context.Background(), stopTime)
		defer cancel()
		n.work.Close(ctx)
	}
	if n.forward != nil {
		n.forward.Close()
	}
	if n.audit != nil {
		n.audit.close()
	}
}
