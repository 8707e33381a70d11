package node

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/control"
	"github.com/ranvier-mesh/ranvier/internal/identity"
	"github.com/ranvier-mesh/ranvier/mesh"
	"github.com/ranvier-mesh/ranvier/routing"
)

const patience = 30 * time.Second

// echoServer answers each line with a name and the line.
func echoServer(t *testing.T, name string) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer c.Close()
				for r := bufio.NewScanner(c); r.Scan(); {
					fmt.Fprintf(c, "%s %s\n", name, r.Text())
				}
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		all.Wait()
	})
	return l.Addr().String()
}

// caller is a connection to an echoServer.
type caller struct {
	net.Conn
	r *bufio.Reader
}

func call(t *testing.T, network, addr string) *caller {
	t.Helper()
	c, err := net.Dial(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return &caller{c, bufio.NewReader(c)}
}

// ask returns the answer to a line, and "" where the connection is over.
func (c *caller) ask(line string) string {
	fmt.Fprintln(c, line)
	answer, err := c.r.ReadString('\n')
	if err != nil {
		return ""
	}
	return strings.TrimSpace(answer)
}

func TestServicesAndTheirReload(t *testing.T) {
	link, one, two, three := freePort(t), freePort(t), freePort(t), freePort(t)
	socket := filepath.Join(t.TempDir(), "sock")
	first, second := echoServer(t, "first"), echoServer(t, "second")
	server := func(port, service string) string {
		return fmt.Sprintf("- tcp-server: {bindaddr: 127.0.0.1, port: %s, remotenode: b, remoteservice: %s}\n", port, service)
	}
	b := startFile(t, "b", "- tcp-listener: {bindaddr: 127.0.0.1, port: "+link+"}\n"+
		"- tcp-client: {service: one, address: '"+first+"'}\n- tcp-client: {service: two, address: '"+second+"'}\n")
	a := startFile(t, "a", "- tcp-peer: 127.0.0.1:"+link+"\n"+server(one, "one")+server(two, "two")+
		"- unix-socket-server: {filename: "+socket+", permissions: '0640', remotenode: b, remoteservice: one}\n")
	a.reach("b")

	stays := call(t, "tcp", "127.0.0.1:"+one)
	goes := call(t, "tcp", "127.0.0.1:"+two)
	if x, y, z := stays.ask("x"), goes.ask("y"), call(t, "unix", socket).ask("z"); x != "first x" || y != "second y" || z != "first z" {
		t.Fatalf("%q, %q, %q", x, y, z)
	}
	if info, err := os.Stat(socket); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("the socket: %v, %v", info, err)
	}
	s, err := backend{b.Node}.Status(t.Context(), control.Fields{})
	if err != nil {
		t.Fatal(err)
	}
	told := ""
	for _, ad := range s.Advertisements {
		told += fmt.Sprintf("%s %s %d %s;", ad.NodeID, ad.Service, ad.ConnType, ad.Tags["type"])
	}
	if !strings.Contains(told, "b one 1 TCP Proxy;") || !strings.Contains(told, "b two 1 TCP Proxy;") {
		t.Errorf("advertised: %s", told)
	}

	// A port that is taken changes nothing.
	a.edit("port: "+two, "port: "+link)
	if err := a.reload(); err == nil || !strings.Contains(err.Error(), "tcp-server") {
		t.Errorf("a port in use: %v", err)
	}
	if got := goes.ask("y"); got != "second y" {
		t.Errorf("after a reload that failed: %q", got)
	}
	// Another port, and at b another address: the one that stays is not touched.
	a.edit("port: "+link+", remotenode", "port: "+three+", remotenode")
	b.edit("service: two, address: '"+second, "service: two, address: '"+first)
	for _, n := range []*fileNode{a, b} {
		if err := n.reload(); err != nil {
			t.Fatal(err)
		}
	}
	if got := stays.ask("x"); got != "first x" {
		t.Errorf("what did not change: %q", got)
	}
	if got := goes.ask("y"); got != "" {
		t.Errorf("what is gone answers %q", got)
	}
	if _, err := net.Dial("tcp", "127.0.0.1:"+two); err == nil {
		t.Error("the old port is still listened on")
	}
	if got := call(t, "tcp", "127.0.0.1:"+three).ask("y"); got != "first y" {
		t.Errorf("what has changed: %q", got)
	}
}

func TestFirewallOfTheFile(t *testing.T) {
	link, port := freePort(t), freePort(t)
	b := startFile(t, "b", "- tcp-listener: {bindaddr: 127.0.0.1, port: "+link+"}\n- tcp-client: {service: one, address: '"+echoServer(t, "first")+"'}\n")
	a := startFile(t, "a", "- tcp-peer: 127.0.0.1:"+link+"\n- tcp-server: {bindaddr: 127.0.0.1, port: "+port+", remotenode: b, remoteservice: one}\n")
	a.reach("b")
	runs := call(t, "tcp", "127.0.0.1:"+port)
	if got := runs.ask("x"); got != "first x" {
		t.Fatalf("%q", got)
	}
	b.edit("- node: {", "- node: {firewallrules: [{action: reject, toservice: '/(/'}], ")
	if err := b.reload(); err == nil || !strings.Contains(err.Error(), "r.conf:1: node: key \"toservice\"") || !strings.Contains(err.Error(), "ERRORCODE 4") {
		t.Errorf("a wrong expression: %v", err)
	}
	b.edit("'/(/'", "'/o.e|control/'")
	if err := b.reload(); err != nil {
		t.Fatal(err)
	}
	if got := runs.ask("x"); got != "" {
		t.Errorf("a stream that is refused now answers %q", got)
	}
	for _, service := range []string{"one", "control", "work"} {
		if conn, err := a.mesh.Dial(t.Context(), "b", service); err == nil || !strings.Contains(err.Error(), "firewall") {
			t.Errorf("service %s: %v", service, err)
			if err == nil {
				conn.Close()
			}
		}
	}
	b.edit("action: reject", "action: accept")
	if err := b.reload(); err != nil {
		t.Fatal(err)
	}
	if got := call(t, "tcp", "127.0.0.1:"+port).ask("x"); got != "first x" {
		t.Errorf("accepted again: %q", got)
	}
}

// TestServicesAreForNobodyByDefault where nodes have identities.
func TestServicesAreForNobodyByDefault(t *testing.T) {
	dir := t.TempDir()
	ca, err := identity.InitCA(filepath.Join(dir, "ca"), "test", "a", identity.CAOptions{})
	if err != nil {
		t.Fatal(err)
	}
	self := begin(t, ca, "a", identity.Router)
	cfg := parse(t, fmt.Sprintf("- node: {id: a, datadir: %s}\n- tcp-listener: {port: 0, bindaddr: 127.0.0.1}\n"+
		"- tcp-client: {service: closed, address: '%[2]s'}\n- command-service: {service: shell, command: 'echo hi'}\n"+
		"- tcp-client: {service: open, address: '%[2]s'}\n- work-policy: {service: open, from: alice}\n", dir, echoServer(t, "first")))
	n, err := New(t.Context(), cfg, Options{Transports: secured(self), Identity: self, CA: ca})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	over, ready := make(chan error, 1), make(chan struct{})
	go func() { over <- n.Run(ctx, func([]string) { close(ready) }) }()
	<-ready
	defer func() { stop(); <-over }()
	for _, name := range []string{"alice", "bob"} {
		who := begin(t, ca, routing.NodeID(name), identity.Client)
		m, err := mesh.Attach(t.Context(), mesh.Config{Self: who, Transports: secured(who), Peers: []mesh.PeerConfig{{Address: n.Addrs()[0]}}})
		if err != nil {
			t.Fatal(err)
		}
		for service, want := range map[string]bool{"closed": false, "shell": false, "open": name == "alice"} {
			conn, err := m.Dial(t.Context(), "a", service)
			if err != nil {
				t.Fatal(err)
			}
			conn.SetDeadline(time.Now().Add(patience))
			fmt.Fprintln(conn, "x")
			got, err := io.ReadAll(io.LimitReader(conn, int64(len("first x\n"))))
			if (err == nil && string(got) == "first x\n") != want {
				t.Errorf("%s and service %s: %q, %v", name, service, got, err)
			}
			conn.Close()
		}
		m.Close()
	}
}
