package remote

import (
	"fmt"
	"net"
	"strconv"
	"strings"
)

const (
	// DefaultPeer is where a node is looked for when nothing else is said.
	DefaultPeer = "receptor://localhost"
	// DefaultPort is the port of a peer's address that names none.
	DefaultPort = "8888"
)

// PeerAddress turns what people write for a peer into scheme://host:port:
// host, host:port, and with a scheme, receptor:// or tcp://, quic://, ws:// or
// wss://; an IPv6 address in brackets. The last two may have a path, and their
// ports are the web's where none is given. The error says what is wrong with it.
func PeerAddress(s string) (string, error) {
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok {
		scheme, rest = "tcp", s
	}
	if scheme == "receptor" {
		scheme = "tcp"
	}
	bad := func(what string) (string, error) {
		return "", fmt.Errorf("peer address %q: %s; write host:port, receptor://host:port, or a URL of quic, ws or wss", s, what)
	}
	path, defaultPort := "", DefaultPort
	switch scheme {
	case "tcp", "quic":
		rest = strings.TrimSuffix(rest, "/")
	case "ws", "wss":
		rest, path, _ = strings.Cut(rest, "/")
		if path != "" {
			path = "/" + path
		}
		defaultPort = map[string]string{"ws": "80", "wss": "443"}[scheme]
	default:
		return bad(fmt.Sprintf("scheme %q is not known", scheme))
	}
	host, port, err := net.SplitHostPort(rest)
	if err != nil { // no port, or nonsense that fails with one too
		if host, port, err = net.SplitHostPort(rest + ":" + defaultPort); err != nil {
			return bad("it is no host and port")
		}
	}
	if host == "" || strings.ContainsAny(host, "@/") {
		return bad("the host is missing")
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return bad(fmt.Sprintf("port %q is not between 1 and 65535", port))
	}
	return scheme + "://" + net.JoinHostPort(host, port) + path, nil
}
