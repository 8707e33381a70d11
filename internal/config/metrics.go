package config

import (
	"io/fs"
	"net"
	"strconv"

	"go.yaml.in/yaml/v3"
)

// Metrics is the item "metrics": where the node tells how it is, over HTTP.
type Metrics struct {
	Pos         Pos
	Listen      string // host:port; empty: none
	Filename    string // of a unix socket; empty: none
	Permissions fs.FileMode
}

func buildMetrics(c *Config, f *fields) {
	m := Metrics{Pos: f.pos, Listen: get(f, "listen", "", asLoopback), Filename: get(f, "filename", "", asText), Permissions: f.mode("permissions", 0o600)}
	if (m.Listen == "") == (m.Filename == "") && !f.wrong("listen") && !f.wrong("filename") {
		f.rep.errorf(f.pos, "listen", "either listen or filename must be given")
	}
	c.Metrics = m
}

// asLoopback is host:port to listen on, or a port alone, on this host.
func asLoopback(n *yaml.Node) (string, error) {
	s, err := asListen(n)
	if _, alone := strconv.ParseUint(n.Value, 10, 16); err == nil && alone == nil {
		s = net.JoinHostPort("127.0.0.1", n.Value)
	}
	return s, err
}

// checkMetrics refuses what other hosts could read: it has no certificates and asks
// for none.
func checkMetrics(c *Config, rep *report) {
	host, _, _ := net.SplitHostPort(c.Metrics.Listen)
	if l := (Listener{BindAddr: host}); c.Metrics.Listen != "" && !l.loopback() && !c.Node.Insecure {
		rep.errorf(c.Metrics.Pos, "listen", `anyone who reaches %s could read what this node does: listen on 127.0.0.1, name a unix socket with "filename", or write "insecure: true" in the item node to allow it`, c.Metrics.Listen)
	}
}
