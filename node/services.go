package node

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"slices"
	"sync"

	"github.com/ranvier-mesh/ranvier/internal/config"
	"github.com/ranvier-mesh/ranvier/internal/control"
	"github.com/ranvier-mesh/ranvier/internal/identity"
	"github.com/ranvier-mesh/ranvier/mesh"
	"github.com/ranvier-mesh/ranvier/mesh/firewall"
	"github.com/ranvier-mesh/ranvier/mesh/proxy"
	"github.com/ranvier-mesh/ranvier/routing"
	"github.com/ranvier-mesh/ranvier/worktypes/remote"
)

// services are the items that join the mesh with other programs. Node.reloading
// guards what runs.
type services struct {
	ctx  context.Context // of Run, nil before
	runs []*service
	all  sync.WaitGroup
}

// serviceItem is one of those items; one of the two is not nil.
type serviceItem struct {
	In  *config.Inbound
	Out *config.Outbound
}

// service is an item that has what it listens on.
type service struct {
	item  serviceItem
	bound string // the address of its socket; empty: it has none
	log   *slog.Logger
	serve func(context.Context) error
	close func() error // gives free what it listens on
	stop  context.CancelFunc
	over  chan struct{}
}

func serviceItems(cfg *config.Config) []serviceItem {
	var all []serviceItem
	for i := range cfg.Inbound {
		all = append(all, serviceItem{In: &cfg.Inbound[i]})
	}
	for i := range cfg.Outbound {
		all = append(all, serviceItem{Out: &cfg.Outbound[i]})
	}
	return all
}

// place is what two items cannot both have.
func (i serviceItem) place() string {
	if i.In != nil {
		return i.In.Network + " " + i.In.Address
	}
	return "service " + i.Out.Service
}

// openServices binds everything that the file's items listen on. The error names
// the item.
func (n *Node) openServices() error {
	for _, item := range serviceItems(n.cfg) {
		s, err := n.openService(item)
		if err != nil {
			return err
		}
		n.services.runs = append(n.services.runs, s)
	}
	return nil
}

// startServices serves what is bound, until ctx ends; waitServices waits for the
// end of it all.
func (n *Node) startServices(ctx context.Context) {
	n.reloading.Lock()
	defer n.reloading.Unlock()
	n.services.ctx = ctx
	for _, s := range n.services.runs {
		n.startService(s)
	}
}

func (n *Node) waitServices() error {
	<-n.services.ctx.Done()
	n.services.all.Wait()
	return nil
}

// closeServices gives free what was bound and never served.
func (n *Node) closeServices() {
	n.reloading.Lock()
	defer n.reloading.Unlock()
	for _, s := range n.services.runs {
		s.close()
	}
}

func (n *Node) startService(s *service) {
	ctx, stop := context.WithCancel(n.services.ctx)
	s.stop, s.over = stop, make(chan struct{})
	n.services.all.Go(func() {
		defer close(s.over)
		defer s.close()
		if err := s.serve(ctx); err != nil && ctx.Err() == nil {
			s.log.Error("a service has ended", "err", err)
		}
	})
}

// end stops a service, and with it the connections that it made.
func (s *service) end() {
	if s.stop == nil { // it never ran
		s.close()
		return
	}
	s.stop()
	<-s.over
}

func (n *Node) openService(item serviceItem) (*service, error) {
	if item.In != nil {
		return n.openInbound(*item.In, item)
	}
	return n.openOutbound(*item.Out, item)
}

func (n *Node) openInbound(in config.Inbound, item serviceItem) (*service, error) {
	log := n.log.With("item", in.Pos.Item, "address", in.Address, "node", in.RemoteNode, "service", in.RemoteService)
	dial := func(ctx context.Context) (proxy.Stream, error) {
		conn, err := n.mesh.Dial(ctx, in.RemoteNode, in.RemoteService)
		if err != nil {
			return nil, err // not conn: a nil *mesh.Conn is no nil Stream
		}
		return conn, nil
	}
	if in.AnyHost && n.self == nil && !n.cfg.Node.Insecure && !n.open {
		_, port, _ := net.SplitHostPort(in.Address)
		in.Address = net.JoinHostPort("127.0.0.1", port)
	}
	if in.Network == "udp" {
		addr, err := net.ResolveUDPAddr("udp", in.Address)
		if err != nil {
			return nil, in.Pos.Errorf("bindaddr", "%w", err)
		}
		conn, err := net.ListenUDP("udp", addr)
		if err != nil {
			return nil, in.Pos.Errorf("port", "%w", err)
		}
		u := &proxy.UDPInbound{Dial: dial, Log: log}
		log.Info("a service of the mesh is served here", "bound", conn.LocalAddr())
		return &service{item: item, bound: conn.LocalAddr().String(), log: log, close: conn.Close, serve: func(ctx context.Context) error { return u.Serve(ctx, conn) }}, nil
	}
	server, err := n.serverTLS(in.TLSServer)
	if err != nil {
		return nil, err
	}
	client, err := n.clientTLS(in.TLSClient, identity.TLSItem.ServiceClient, string(in.RemoteNode))
	if err != nil {
		return nil, err
	}
	var l net.Listener
	if in.Network == "unix" {
		if l, err = control.ListenUnix(in.Address, in.Permissions); err != nil {
			return nil, in.Pos.Errorf("filename", "%w", err)
		}
	} else if l, err = net.Listen("tcp", in.Address); err != nil {
		return nil, in.Pos.Errorf("port", "%w", err)
	}
	p := &proxy.Inbound{Dial: dial, Server: server, Client: client, Log: log}
	log.Info("a service of the mesh is served here", "bound", l.Addr())
	return &service{item: item, bound: l.Addr().String(), log: log, close: l.Close, serve: func(ctx context.Context) error { return p.Serve(ctx, l) }}, nil
}

func (n *Node) openOutbound(out config.Outbound, item serviceItem) (*service, error) {
	log := n.log.With("item", out.Pos.Item, "service", out.Service)
	if out.Address != "" {
		log = log.With("address", out.Address)
	}
	server, err := n.serverTLS(out.TLSServer)
	if err != nil {
		return nil, err
	}
	var handle func(context.Context, proxy.Stream)
	switch out.Network {
	case "udp":
		handle = proxy.NewUDPOutbound(out.Address, log).Handle
	case "command":
		handle = proxy.NewCommand(out.Command, server, log).Handle
	default:
		host, _, _ := net.SplitHostPort(out.Address)
		client, err := n.clientTLS(out.TLSClient, identity.TLSItem.Client, host)
		if err != nil {
			return nil, err
		}
		handle = proxy.NewOutbound(proxy.OutboundConfig{Network: out.Network, Address: out.Address, Server: server, Client: client, Log: log}).Handle
	}
	l, err := n.mesh.Listen(out.Service)
	if err != nil {
		return nil, out.Pos.Errorf("service", "%w", err)
	}
	return &service{item: item, log: log, close: l.Close, serve: func(ctx context.Context) error {
		defer context.AfterFunc(ctx, func() { l.Close() })()
		return acceptAll(ctx, l, func(ctx context.Context, conn *mesh.Conn) {
			if err := n.MayOpen(conn); err != nil {
				conn.Reset(mesh.Forbidden, err.Error())
				return
			}
			handle(ctx, conn)
		})
	}}, nil
}

// serverTLS makes settings of an item tls-server; nil for none.
func (n *Node) serverTLS(t *config.TLS) (*tls.Config, error) {
	if t == nil {
		return nil, nil
	}
	return siteTLS(n, t, identity.TLSItem.Server)
}

// clientTLS makes settings of an item tls-client towards a host or, with
// identity.TLSItem.ServiceClient, a node; nil for none.
func (n *Node) clientTLS(t *config.TLS, side func(identity.TLSItem) (func(string) *tls.Config, error), peer string) (*tls.Config, error) {
	if t == nil {
		return nil, nil
	}
	client, err := siteTLS(n, t, side)
	if err != nil {
		return nil, err
	}
	return client(peer), nil
}

// exchange is a reload of services under way.
type exchange struct {
	gone  []*service
	bound []*service
	later []serviceItem // whose place one of gone has
}

// beginServices binds what is new in a file, where its place is free; nothing
// else has changed when it fails.
func (n *Node) beginServices(cfg *config.Config) (exchange, error) {
	var x exchange
	gone, added := difference(serviceItems(n.current), serviceItems(cfg))
	taken := map[string]bool{}
	for _, item := range gone {
		i := slices.IndexFunc(n.services.runs, func(s *service) bool {
			return config.Equal(s.item, item) && !slices.Contains(x.gone, s)
		})
		x.gone = append(x.gone, n.services.runs[i])
		taken[item.place()] = true
	}
	for _, item := range added {
		if taken[item.place()] {
			x.later = append(x.later, item)
			continue
		}
		s, err := n.openService(item)
		if err != nil {
			x.undo()
			return x, err
		}
		x.bound = append(x.bound, s)
	}
	return x, nil
}

func (x exchange) undo() {
	for _, s := range x.bound {
		s.close()
	}
}

// finishServices ends what is gone and serves what is new. What could not be bound is
// told, and left out of now, so that the next reload tries it again.
func (n *Node) finishServices(x exchange, now *config.Config) error {
	for _, s := range x.gone {
		s.end()
		n.services.runs = slices.DeleteFunc(n.services.runs, func(r *service) bool { return r == s })
	}
	var errs []error
	for _, item := range x.later {
		s, err := n.openService(item)
		if err != nil {
			errs = append(errs, err)
			now.Inbound = slices.DeleteFunc(slices.Clone(now.Inbound), func(in config.Inbound) bool {
				return item.In != nil && config.Equal(in, *item.In)
			})
			now.Outbound = slices.DeleteFunc(slices.Clone(now.Outbound), func(out config.Outbound) bool {
				return item.Out != nil && config.Equal(out, *item.Out)
			})
			continue
		}
		x.bound = append(x.bound, s)
	}
	for _, s := range x.bound {
		n.startService(s)
	}
	n.services.runs = append(n.services.runs, x.bound...)
	if len(x.gone)+len(x.bound) > 0 {
		errs = append(errs, n.advertise(n.services.ctx, now))
	}
	return errors.Join(errs...)
}

// advertise tells the mesh of the services and work types.
func (n *Node) advertise(ctx context.Context, cfg *config.Config) error {
	var all []routing.Service
	for _, c := range cfg.ControlServices {
		all = append(all, controlAdvert(c))
	}
	for _, out := range cfg.Outbound {
		kind := map[string]string{"tcp": "TCP Proxy", "udp": "UDP Proxy", "unix": "Unix Proxy", "command": "Command Service"}[out.Network]
		s := routing.Service{Name: out.Service, ConnType: connStream, Tags: map[string]string{"type": kind}}
		switch {
		case out.Network == "udp":
			s.ConnType = connDatagram
		case out.TLSServer != nil:
			s.ConnType = connStreamTLS
		}
		all = append(all, s)
	}
	return n.mesh.Advertise(ctx, all, n.types)
}

// firewallNames: rules for the control service are for work as well, which with
// Receptor goes through it.
func firewallNames() map[string]string {
	return map[string]string{remote.ServiceName: "control", workOverTLS: "control"}
}

// firewallRules turns the file's rules, which have been checked, into the mesh's.
func firewallRules(cfg *config.Config) (firewall.Rules, error) {
	var rules firewall.Rules
	for _, r := range cfg.FirewallRules {
		rule := firewall.Rule{Name: r.Pos.String()}
		var errs [5]error
		rule.Action, errs[0] = firewall.ParseAction(r.Action)
		rule.FromNode, errs[1] = firewall.ParsePattern(r.FromNode)
		rule.ToNode, errs[2] = firewall.ParsePattern(r.ToNode)
		rule.FromService, errs[3] = firewall.ParsePattern(r.FromService)
		rule.ToService, errs[4] = firewall.ParsePattern(r.ToService)
		if err := errors.Join(errs[:]...); err != nil {
			return nil, r.Pos.Errorf("firewallrules", "%w", err)
		}
		rules = append(rules, rule)
	}
	return rules, nil
}
