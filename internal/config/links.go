package config

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"go.yaml.in/yaml/v3"
	"golang.org/x/net/http/httpguts"

	"github.com/ranvier-mesh/ranvier/routing"
)

// Listener is an item that lets other nodes link to this one.
type Listener struct {
	Pos      Pos
	Scheme   string // of its links' addresses: "tcp", "quic" or "ws"
	BindAddr string
	Port     uint16 // 0: any that is free
	Path     string // of ws, from "/"; empty for others
	// Cost of a link that comes in here. 0 means that the file does not say:
	// the other end's wish counts, or routing.CostUnit when it has none.
	Cost routing.Cost
	// NodeCost overrides Cost for the peers named in it.
	NodeCost map[routing.NodeID]routing.Cost
	// AllowedPeers are the only ids that may link here; empty allows all.
	AllowedPeers []routing.NodeID
	// Rate is how many bytes a second each link may send; 0 for no bound.
	Rate int64
	// TLS is a tls-server with certificates of the site's own; nil: none.
	TLS *TLS
}

// Address returns the listener's address in the form of net.Listen.
func (l *Listener) Address() string {
	return net.JoinHostPort(l.BindAddr, strconv.Itoa(int(l.Port)))
}

// URL returns the listener's address with its scheme and path.
func (l *Listener) URL() string {
	path := l.Path
	if path == "/" {
		path = ""
	}
	return l.Scheme + "://" + l.Address() + path
}

// loopback tells whether only this host can reach the listener. A name other
// than localhost may mean any address and does not count.
func (l *Listener) loopback() bool {
	ip, err := netip.ParseAddr(l.BindAddr)
	return l.BindAddr == "localhost" || err == nil && ip.Unmap().IsLoopback()
}

// closed tells whether only who shows a certificate of the site's can link to
// the listener.
func (l *Listener) closed() bool {
	return l.TLS != nil && l.TLS.Item.RequireCert && (l.TLS.Item.CAs != "" || len(l.TLS.Item.Pinned) > 0)
}

// Network is what the port is a port of: "tcp" or "udp".
func (l *Listener) Network() string {
	if l.Scheme == "quic" {
		return "udp"
	}
	return "tcp"
}

// Peer is an item that makes this node link to another one.
type Peer struct {
	Pos Pos
	// Addresses are ways to the same node, as scheme://host:port, with a path
	// for ws and wss. There is at least one.
	Addresses []string
	Header    http.Header // of the request for a WebSocket; nil: none
	Redial    bool        // link again when the link breaks
	// Cost of the link; 0 means as in Listener that the file does not say.
	Cost routing.Cost
	// AllowedPeers are the only ids that may answer there; empty allows all.
	AllowedPeers []routing.NodeID
	// Rate is how many bytes a second the link may send; 0 for no bound.
	Rate int64
	// TLS is a tls-client with certificates of the site's own; nil: none.
	TLS *TLS
}

// linkItems are the items that make links, by their transport.
func linkItems() []item {
	return []item{
		{name: "tcp-listener", main: "port", build: buildListener("tcp")},
		{name: "tcp-peer", main: "address", build: buildPeer("tcp")},
		{name: "quic-listener", main: "port", ours: true, build: buildListener("quic")},
		{name: "quic-peer", main: "address", ours: true, build: buildPeer("quic")},
		{name: "ws-listener", main: "port", build: buildListener("ws")},
		{name: "ws-peer", main: "address", build: buildPeer("ws")},
		{name: "udp-listener", main: "port", build: inPlace("quic-listener", buildListener("quic"))},
		{name: "udp-peer", main: "address", build: inPlace("quic-peer", buildPeer("quic"))},
	}
}

// inPlace builds another item than the file says, and tells so.
func inPlace(other string, build func(*Config, *fields)) func(*Config, *fields) {
	return func(c *Config, f *fields) {
		f.rep.warnf(f.pos, "", "the links are encrypted, over QUIC, and Receptor's own nodes do not understand them: write %s, which is the same", other)
		build(c, f)
	}
}

func buildListener(scheme string) func(*Config, *fields) {
	return func(c *Config, f *fields) {
		l := Listener{
			Pos:          f.pos,
			Scheme:       scheme,
			BindAddr:     get(f, "bindaddr", "0.0.0.0", asHost),
			Port:         need(f, "port", asPort),
			Cost:         get(f, "cost", 0, asCost),
			NodeCost:     get(f, "nodecost", nil, asNodeCosts),
			AllowedPeers: get(f, "allowedpeers", nil, asNodeIDs),
			Rate:         get(f, "rate", 0, asRate),
		}
		if scheme == "ws" {
			l.Path = get(f, "path", "/", asPath)
		}
		i := len(c.Listeners)
		c.Listeners = append(c.Listeners, l)
		f.tls("tls", server, func(c *Config, t *TLS) { c.Listeners[i].TLS = t })
	}
}

func buildPeer(scheme string) func(*Config, *fields) {
	return func(c *Config, f *fields) {
		p := Peer{
			Pos:          f.pos,
			Addresses:    need(f, "address", asAddresses(scheme)),
			Redial:       get(f, "redial", true, asBool),
			Cost:         get(f, "cost", 0, asCost),
			AllowedPeers: get(f, "allowedpeers", nil, asNodeIDs),
			Rate:         get(f, "rate", 0, asRate),
		}
		if scheme == "ws" || hasWebSocket(p.Addresses) {
			p.Header = get(f, "extraheader", nil, asHeader)
		}
		i := len(c.Peers)
		c.Peers = append(c.Peers, p)
		unsecured := slices.IndexFunc(p.Addresses, func(a string) bool { return strings.HasPrefix(a, "ws://") })
		set := func(c *Config, t *TLS) { c.Peers[i].TLS = t }
		if f.has("tls") && unsecured >= 0 {
			what := "%s is a WebSocket without TLS: write wss://"
			if len(p.Addresses) > 1 {
				f.rep.errorf(f.pos, "tls", what, p.Addresses[unsecured])
			} else { // Receptor does not look at it
				f.warnf("tls", "has no effect: "+what, p.Addresses[unsecured])
				set = func(*Config, *TLS) {}
			}
		}
		f.tls("tls", client, set)
	}
}

func hasWebSocket(addresses []string) bool {
	for _, a := range addresses {
		if strings.HasPrefix(a, "ws") {
			return true
		}
	}
	return false
}

// asAddresses is one address or a list of them; what has no scheme has the
// item's.
func asAddresses(scheme string) func(*yaml.Node) ([]string, error) {
	return func(n *yaml.Node) ([]string, error) {
		return asList(n, func(n *yaml.Node) (string, error) {
			s, err := asText(n)
			if err != nil {
				return "", err
			}
			return address(s, scheme)
		})
	}
}

// asList is a list of values, at least one; one value needs no list.
func asList[T any](n *yaml.Node, parse func(*yaml.Node) (T, error)) ([]T, error) {
	nodes := []*yaml.Node{n}
	if n.Kind == yaml.SequenceNode {
		nodes = n.Content
	}
	var all []T
	for _, n := range nodes {
		v, err := parse(deref(n))
		if err != nil {
			return nil, &lineError{n.Line, err}
		}
		all = append(all, v)
	}
	if len(all) == 0 {
		return nil, errors.New("the list is empty")
	}
	return all, nil
}

// address makes scheme://host:port, with a path for a WebSocket, of what people
// write.
func address(s, scheme string) (string, error) {
	rest := s
	if given, after, ok := strings.Cut(s, "://"); ok {
		scheme, rest = strings.ToLower(given), after
	}
	switch scheme {
	case "tcp", "quic":
		return scheme + "://" + rest, checkHostPort(rest)
	case "receptor":
		return "tcp://" + rest, checkHostPort(rest)
	case "ws", "wss":
		return webSocket(s, scheme, rest)
	}
	return "", fmt.Errorf("%q: the scheme %q is not one of tcp, quic, ws and wss", s, scheme)
}

// webSocket completes the URL of a WebSocket with its port.
func webSocket(s, scheme, rest string) (string, error) {
	u, err := url.Parse(scheme + "://" + rest)
	switch {
	case err != nil:
		return "", fmt.Errorf("%q is no URL", s)
	case u.User != nil:
		return "", errors.New("a user in the URL is not supported: write an extraheader")
	case u.Fragment != "":
		return "", fmt.Errorf("%q: a URL with # is no WebSocket's", s)
	}
	if u.Port() == "" {
		u.Host = net.JoinHostPort(u.Hostname(), map[string]string{"ws": "80", "wss": "443"}[scheme])
	}
	if u.Path == "/" {
		u.Path = ""
	}
	return u.String(), checkHostPort(u.Host)
}

func checkHostPort(s string) error {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return fmt.Errorf("%q is no host:port", s)
	}
	if p, err := strconv.ParseUint(port, 10, 16); err != nil || p == 0 {
		return fmt.Errorf("%q has no port from 1 to 65535", s)
	}
	if host == "" || strings.ContainsFunc(host, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) || r == '/' }) {
		return fmt.Errorf("%q has no host", s)
	}
	return nil
}

// asPath is the path of a URL.
func asPath(n *yaml.Node) (string, error) {
	s, err := asText(n)
	if err != nil {
		return "", err
	}
	u, err := url.Parse(s)
	if err != nil || s[0] != '/' || u.Path != s {
		return "", fmt.Errorf(`%q is no path: it begins with a slash and has no "?", "#" or "%%"`, s)
	}
	return s, nil
}

// asHeader is one header "Name: value", or a list of them.
func asHeader(n *yaml.Node) (http.Header, error) {
	lines, err := asList(n, asText)
	if err != nil {
		return nil, err
	}
	h := http.Header{}
	for _, line := range lines {
		name, value, ok := strings.Cut(line, ":")
		name, value = strings.TrimSpace(name), strings.TrimSpace(value)
		if !ok || !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(value) {
			return nil, fmt.Errorf(`%q is no header: write "Name: value"`, line)
		}
		switch key := http.CanonicalHeaderKey(name); {
		case key == "Host", key == "Connection", key == "Upgrade", strings.HasPrefix(key, "Sec-Websocket-"):
			return nil, fmt.Errorf("the header %s is the node's own", key)
		}
		h.Add(name, value)
	}
	return h, nil
}

// minRate leaves room for the heartbeats, the routes and a little work.
const minRate = 8000

// asRate is a number with a unit, as in 5Mbit, 1MB/s or 500 kbit/s, in bytes a
// second. Mb is refused: people mean one and the other by it.
func asRate(n *yaml.Node) (int64, error) {
	s, err := asText(n)
	if err != nil {
		return 0, err
	}
	bad := fmt.Errorf(`%q is no rate: write it as "5Mbit", "500kbit/s" or "1MB/s"`, s)
	text := strings.TrimSuffix(s, "/s")
	unit := strings.TrimLeft(text, "0123456789.")
	v, err := strconv.ParseFloat(strings.TrimSuffix(text, unit), 64)
	if err != nil {
		return 0, bad
	}
	prefix, ok := strings.CutSuffix(strings.TrimSpace(unit), "bit")
	if ok {
		v /= 8
	} else if prefix, ok = strings.CutSuffix(prefix, "B"); !ok {
		return 0, bad
	}
	factor, ok := map[string]float64{"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30}[strings.ToLower(prefix)]
	switch v *= factor; {
	case !ok:
		return 0, bad
	case v < minRate:
		return 0, fmt.Errorf("%s is too little for a link: at least 64kbit is needed", s)
	case v > 1e12:
		return 0, fmt.Errorf("%s is more than any link has: leave the key out for no bound", s)
	}
	return int64(v), nil
}
