package config

import (
	"errors"
	"net"
	"slices"
	"strings"

	"github.com/ranvier-mesh/ranvier/routing"
)

// check looks at the items together and fills in what depends on the host.
func check(c *Config, rep *report, hostname func() (string, error)) {
	if checkCerts(c, rep) {
		return
	}
	defaultID(c, rep, hostname)
	file := Pos{File: c.File}
	switch {
	case rep.unread: // what is missing may be what could not be read
	case len(c.Listeners)+len(c.Peers) == 0 && !c.LocalOnly:
		rep.errorf(file, "", "no item links this node to another one: add a tcp-listener or a tcp-peer, or local-only if none is wanted")
	case c.Node.Leaf && len(c.Peers) == 0:
		rep.errorf(c.Node.Pos, "leaf", "a leaf needs a tcp-peer to attach to")
	}
	if c.Node.Leaf {
		for _, l := range c.Listeners {
			rep.errorf(l.Pos, "", "a leaf forwards nothing and cannot have a listener: remove it, or leaf from the item node")
		}
	}
	checkDuplicates(c, rep)
	checkWorkPolicies(c, rep)
	checkLegacyControl(c, rep)
	checkMetrics(c, rep)
}

// defaultID uses the host's name when the file has no id. A wrong id in the
// file has been reported and is left alone.
func defaultID(c *Config, rep *report, hostname func() (string, error)) {
	if c.Node.ID != "" {
		return
	}
	for _, e := range rep.errs {
		if e.Item == "node" {
			return
		}
	}
	name, err := hostname()
	id := routing.NodeID(name)
	if err == nil {
		err = id.Validate()
	}
	if err == nil && id == "localhost" {
		err = errLocalhost
	}
	if err != nil {
		rep.errorf(c.Node.Pos, "id", "the host's name cannot be the node id, so the file must have one: %w", err)
	}
	c.Node.ID = id
}

// checkTCP refuses a control socket that other hosts can use without showing
// who they are.
func (s *ControlService) checkTCP() error {
	l := Listener{TLS: s.TCPTLS}
	l.BindAddr, _, _ = net.SplitHostPort(s.TCPListen)
	if s.TCPListen == "" || l.loopback() || l.closed() {
		return nil
	}
	return s.Pos.Errorf("tcplisten",
		`anyone who reaches %s could run jobs and change the node: listen on 127.0.0.1, or write "tcptls" with the name of a tls-server that has requireclientcert, or "insecure: true" in the item node to allow it`,
		s.TCPListen)
}

// checkDuplicates finds items that would fight for the same thing.
func checkDuplicates(c *Config, rep *report) {
	seen := map[[2]string]string{} // what and its name to the first one's place
	again := func(pos Pos, what, name string) (place string) {
		k := [2]string{what, name}
		if place = seen[k]; place == "" {
			seen[k] = pos.Place()
		}
		return place
	}
	for _, l := range c.Listeners {
		if place := again(l.Pos, "listen "+l.Network(), l.Address()); place != "" && l.Port != 0 {
			rep.errorf(l.Pos, "port", "the listener on %s has the address %s already", place, l.Address())
		}
	}
	peers := c.Peers[:0]
	for _, p := range c.Peers {
		ways := p.Addresses[:0]
		for _, address := range p.Addresses {
			if place := again(p.Pos, "peer", address); place != "" {
				rep.warnf(p.Pos, "address", "%s is the peer of %s already: it has no effect here", strings.TrimPrefix(address, "tcp://"), place)
				continue
			}
			ways = append(ways, address)
		}
		if p.Addresses = ways; len(ways) > 0 {
			peers = append(peers, p)
		}
	}
	c.Peers = peers
	for _, s := range c.ControlServices {
		if place := again(s.Pos, "service", s.Service); place != "" {
			rep.errorf(s.Pos, "service", "the control-service on %s is called %q already", place, s.Service)
		}
		if place := again(s.Pos, "file", s.Filename); place != "" && s.Filename != "" {
			rep.errorf(s.Pos, "filename", "the control-service on %s has the socket %s already", place, s.Filename)
		}
	}
	for _, t := range slices.Concat(c.TLSServers, c.TLSClients) {
		if place := again(t.Pos, t.Pos.Item, t.Name); place != "" && t.Name != "" {
			rep.errorf(t.Pos, "name", "the %s on %s is called %q already", t.Pos.Item, place, t.Name)
		}
	}
	checkServices(c, rep, again)
	for _, w := range c.WorkCommands {
		if place := again(w.Pos, "work", w.WorkType); place != "" && w.WorkType != "" {
			rep.errorf(w.Pos, "worktype", "the work type %q stands on %s already", w.WorkType, place)
		}
	}
	for _, w := range c.Kubernetes {
		if place := again(w.Pos, "work", w.WorkType); place != "" && w.WorkType != "" {
			rep.errorf(w.Pos, "worktype", "the work type %q stands on %s already", w.WorkType, place)
		}
	}
}

// CheckLoopback returns an error (an *Error for each, joined) if a listener
// can be reached from other hosts and the file does not say "insecure: true".
// It is what a node without an identity asks before it listens, since it cannot
// know who links to it. A node that has to behave as Receptor does not ask.
func (c *Config) CheckLoopback() error {
	if c.Node.Insecure {
		return nil
	}
	var errs []error
	for _, l := range c.Listeners {
		if !l.loopback() && !l.closed() {
			errs = append(errs, l.Pos.Errorf("bindaddr",
				`anyone who reaches %s could join the mesh, since this node has no identity: make one with "ranvier ca init" or "ranvier join", or write "bindaddr: 127.0.0.1", or "tls" with the name of a tls-server that has requireclientcert, or "insecure: true" in the item node to allow it`,
				l.Address()))
		}
	}
	for _, in := range c.Inbound {
		l := Listener{TLS: in.TLSServer}
		l.BindAddr, _, _ = net.SplitHostPort(in.Address)
		if in.Network != "unix" && !in.AnyHost && !l.loopback() && !l.closed() {
			errs = append(errs, in.Pos.Errorf("bindaddr",
				`anyone who reaches %s could use service %s of node %s, and this node has no identity: make one with "ranvier ca init" or "ranvier join", or write "bindaddr: 127.0.0.1", or "insecure: true" in the item node to allow it`,
				in.Address, in.RemoteService, in.RemoteNode))
		}
	}
	return errors.Join(append(errs, c.CheckControl())...)
}

// CheckControl returns an error (an *Error for each, joined) if a control socket
// can be used from other hosts without a certificate and the file does not say
// "insecure: true". A node with an identity asks it too: its identity says
// nothing of who dials a socket.
func (c *Config) CheckControl() error {
	if c.Node.Insecure {
		return nil
	}
	var errs []error
	for _, s := range c.ControlServices {
		errs = append(errs, s.checkTCP())
	}
	return errors.Join(errs...)
}
