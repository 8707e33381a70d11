package config

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strconv"

	"github.com/google/shlex"
	"go.yaml.in/yaml/v3"

	"github.com/ranvier-mesh/ranvier/mesh/firewall"
	"github.com/ranvier-mesh/ranvier/routing"
)

// Inbound is an item that listens on this host and leads what comes there to a
// service of the mesh: tcp-server, udp-server or unix-socket-server.
type Inbound struct {
	Pos           Pos
	Network       string      // "tcp", "udp" or "unix"
	Address       string      // host:port, or the file name of a unix socket
	AnyHost       bool        // the file names no bindaddr, so Address has Receptor's default
	Permissions   fs.FileMode // of a unix socket
	RemoteNode    routing.NodeID
	RemoteService string
	TLSServer     *TLS // a tls-server for the socket; nil: none
	TLSClient     *TLS // a tls-client within the stream; nil: none
}

// Outbound is an item that leads the streams of a service of the mesh to
// something on, or near, this host: tcp-client, udp-client, unix-socket-client or
// command-service.
type Outbound struct {
	Pos       Pos
	Service   string
	Network   string   // "tcp", "udp", "unix" or "command"
	Address   string   // host:port, or the file name of a unix socket
	Command   []string // with its arguments
	TLSServer *TLS     // a tls-server within the stream; nil: none
	TLSClient *TLS     // a tls-client towards Address; nil: none
}

// FirewallRule is one of the rules of the item node, checked and as it is
// written.
type FirewallRule struct {
	Pos                                              Pos
	Action, FromNode, ToNode, FromService, ToService string
}

// serviceItems are the items that join the mesh with other programs.
func serviceItems() []item {
	return []item{
		{name: "tcp-server", build: buildInbound("tcp")},
		{name: "udp-server", build: buildInbound("udp")},
		{name: "unix-socket-server", build: buildInbound("unix")},
		{name: "tcp-client", build: buildOutbound("tcp")},
		{name: "udp-client", build: buildOutbound("udp")},
		{name: "unix-socket-client", build: buildOutbound("unix")},
		{name: "command-service", build: buildOutbound("command")},
	}
}

func buildInbound(network string) func(*Config, *fields) {
	return func(c *Config, f *fields) {
		in, i := Inbound{Pos: f.pos, Network: network}, len(c.Inbound)
		setServer := func(c *Config, t *TLS) { c.Inbound[i].TLSServer = t }
		setClient := func(c *Config, t *TLS) { c.Inbound[i].TLSClient = t }
		switch network {
		case "unix":
			in.Address = need(f, "filename", asText)
			in.Permissions = f.mode("permissions", 0o600)
			f.tls("tls", client, setClient)
		default:
			in.AnyHost = !f.has("bindaddr")
			host := get(f, "bindaddr", "0.0.0.0", asHost)
			port := need(f, "port", asPort)
			in.Address = net.JoinHostPort(host, strconv.Itoa(int(port)))
		}
		if network == "tcp" {
			f.tls("tlsserver", server, setServer)
			f.tls("tlsclient", client, setClient)
		}
		in.RemoteNode = need(f, "remotenode", asNodeID)
		in.RemoteService = need(f, "remoteservice", asName)
		c.Inbound = append(c.Inbound, in)
	}
}

func buildOutbound(network string) func(*Config, *fields) {
	return func(c *Config, f *fields) {
		out, i := Outbound{Pos: f.pos, Network: network, Service: need(f, "service", asOwnService)}, len(c.Outbound)
		setServer := func(c *Config, t *TLS) { c.Outbound[i].TLSServer = t }
		setClient := func(c *Config, t *TLS) { c.Outbound[i].TLSClient = t }
		switch network {
		case "unix":
			out.Address = need(f, "filename", asText)
			f.tls("tls", server, setServer)
		case "command":
			out.Command = need(f, "command", asCommand)
			f.tls("tls", server, setServer)
		default:
			out.Address = need(f, "address", asHostPort)
		}
		if network == "tcp" {
			f.tls("tlsserver", server, setServer)
			f.tls("tlsclient", client, setClient)
		}
		c.Outbound = append(c.Outbound, out)
	}
}

var errOwnService = errors.New("this name is one of the node's own services: choose another one")

// asOwnService is the name of a service that the file may make.
func asOwnService(n *yaml.Node) (string, error) {
	s, err := asName(n)
	switch s {
	case "work", "work+tls", "ca", "ping":
		return "", errOwnService
	}
	return s, err
}

func asHostPort(n *yaml.Node) (string, error) {
	s, err := asText(n)
	if err != nil {
		return "", err
	}
	return s, checkHostPort(s)
}

// asCommand is a command line, split as a shell splits it.
func asCommand(n *yaml.Node) ([]string, error) {
	s, err := asText(n)
	if err != nil {
		return nil, err
	}
	words, err := shlex.Split(s)
	if err != nil {
		return nil, fmt.Errorf("%q is no command line: %w", s, err)
	}
	if len(words) == 0 {
		return nil, errors.New("it is empty")
	}
	return words, nil
}

// maxRules bounds what is asked about each stream.
const maxRules = 1000

// firewallRules reads the rules of the item node. Each has to be right: one that
// was left out would let through what it should stop.
func firewallRules(f *fields) []FirewallRule {
	g, ok := f.take("firewallrules")
	if !ok {
		return nil
	}
	if g.value.Kind != yaml.SequenceNode {
		f.rep.errorf(g.pos, g.name, "a list of rules is expected, each of them a map with an action")
		return nil
	}
	if len(g.value.Content) > maxRules {
		f.rep.errorf(g.pos, g.name, "there are %d rules, at most %d are allowed", len(g.value.Content), maxRules)
		return nil
	}
	var rules []FirewallRule
	for _, n := range g.value.Content {
		n = deref(n)
		if n.Kind != yaml.MappingNode {
			f.rep.errorf(at(f.pos, n.Line), g.name, "a rule is a map with an action")
			continue
		}
		rules = append(rules, firewallRule(f, n))
	}
	return rules
}

func firewallRule(f *fields, n *yaml.Node) FirewallRule {
	r := &fields{pos: at(f.pos, n.Line), rep: f.rep}
	for i := 0; i+1 < len(n.Content); i += 2 {
		r.add(deref(n.Content[i]), deref(n.Content[i+1]))
	}
	rule := FirewallRule{
		Pos:         r.pos,
		Action:      need(r, "action", asAction),
		FromNode:    get(r, "fromnode", "", asPattern),
		ToNode:      get(r, "tonode", "", asPattern),
		FromService: get(r, "fromservice", "", asPattern),
		ToService:   get(r, "toservice", "", asPattern),
	}
	r.reportUnknown()
	return rule
}

func asAction(n *yaml.Node) (string, error) {
	s, err := asString(n)
	if err != nil {
		return "", err
	}
	a, err := firewall.ParseAction(s)
	return a.String(), err
}

func asPattern(n *yaml.Node) (string, error) {
	s, err := asText(n)
	if err == nil {
		_, err = firewall.ParsePattern(s)
	}
	return s, err
}

// checkServices finds items that would fight for the same thing.
func checkServices(c *Config, rep *report, again func(pos Pos, what, name string) (place string)) {
	for _, in := range c.Inbound {
		if _, port, err := net.SplitHostPort(in.Address); err == nil && port == "0" {
			continue
		}
		if place := again(in.Pos, "listen "+in.Network, in.Address); place != "" {
			rep.errorf(in.Pos, "", "%s listens on %s already", place, in.Address)
		}
	}
	for _, out := range c.Outbound {
		if place := again(out.Pos, "service", out.Service); place != "" && out.Service != "" {
			rep.errorf(out.Pos, "service", "%s has the service %q already", place, out.Service)
		}
	}
}
