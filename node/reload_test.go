package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/config"
	"github.com/ranvier-mesh/ranvier/internal/control"
	"github.com/ranvier-mesh/ranvier/internal/freeport"
	"github.com/ranvier-mesh/ranvier/mesh"
	"github.com/ranvier-mesh/ranvier/mesh/link"
	"github.com/ranvier-mesh/ranvier/mesh/quiclink"
	"github.com/ranvier-mesh/ranvier/mesh/tcplink"
	"github.com/ranvier-mesh/ranvier/mesh/wslink"
	"github.com/ranvier-mesh/ranvier/routing"
)

// fileNode is a node that runs from a file.
type fileNode struct {
	*Node
	t      *testing.T
	file   string
	socket string
	level  *slog.LevelVar
	over   chan error
	stop   func()
}

func transports(t *testing.T) map[string]link.Transport {
	t.Helper()
	quic, err := quiclink.New(quiclink.Config{})
	if err != nil {
		t.Fatal(err)
	}
	return map[string]link.Transport{"tcp": tcplink.Transport{}, "quic": quic, "ws": wslink.Transport{}}
}

func startFile(t *testing.T, id, items string) *fileNode {
	t.Helper()
	dir := t.TempDir()
	n := &fileNode{t: t, file: filepath.Join(dir, "r.conf"), socket: filepath.Join(dir, "s"), level: new(slog.LevelVar), over: make(chan error, 1)}
	n.write(fmt.Sprintf("- node: {id: %s, datadir: %s/data}\n- control-service: {filename: %s}\n- work-command: {worktype: echo, command: echo}\n", id, dir, n.socket) + items)
	cfg, err := config.Load(n.file)
	if err != nil {
		t.Fatal(err)
	}
	if n.Node, err = New(t.Context(), cfg, Options{Transports: transports(t), Version: "test", Level: n.level}); err != nil {
		t.Fatal(err)
	}
	var ctx context.Context
	ctx, n.stop = context.WithCancel(context.Background())
	ready := make(chan struct{})
	go func() { n.over <- n.Run(ctx, func([]string) { close(ready) }) }()
	<-ready
	t.Cleanup(func() {
		n.stop()
		if err := <-n.over; err != nil {
			t.Error(err)
		}
		n.over <- nil
	})
	return n
}

func (n *fileNode) write(text string) {
	n.t.Helper()
	if err := os.WriteFile(n.file, []byte(text), 0o600); err != nil {
		n.t.Fatal(err)
	}
}

// edit replaces text in the file.
func (n *fileNode) edit(from, to string) {
	n.t.Helper()
	text, err := os.ReadFile(n.file)
	if err != nil || !strings.Contains(string(text), from) {
		n.t.Fatalf("%q is not in the file, %v", from, err)
	}
	n.write(strings.Replace(string(text), from, to, 1))
}

func (n *fileNode) reload() error {
	n.t.Helper()
	c, err := control.Dial(n.t.Context(), n.socket)
	if err != nil {
		n.t.Fatal(err)
	}
	defer c.Close()
	return c.Reload(n.t.Context())
}

func (n *fileNode) reach(id string) {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), 20*time.Second)
	defer cancel()
	for {
		_, err := backend{n.Node}.Ping(ctx, id)
		if err == nil {
			return
		}
		if ctx.Err() != nil {
			n.t.Fatalf("%s is not reached: %v", id, err)
		}
	}
}

func freePort(t *testing.T) string { return strconv.Itoa(freeport.Pick(t)) }

func TestAStreamRunsThroughAReload(t *testing.T) {
	first, second := freePort(t), freePort(t)
	hub := startFile(t, "hub", "- tcp-listener: {bindaddr: 127.0.0.1, port: "+first+"}\n")
	b := startFile(t, "b", "- tcp-peer: 127.0.0.1:"+first+"\n")
	c := startFile(t, "c", "- quic-peer: {address: '127.0.0.1:"+second+"'}\n")
	hub.reach("b")

	echo, err := b.mesh.Listen("echo")
	if err != nil {
		t.Fatal(err)
	}
	defer echo.Close()
	go func() {
		if conn, err := echo.Accept(); err == nil {
			io.Copy(conn, conn)
			conn.Close()
		}
	}()
	stream, err := hub.mesh.Dial(t.Context(), "b", "echo")
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	talk := func() {
		t.Helper()
		if _, err := stream.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(stream, make([]byte, 5)); err != nil {
			t.Fatal(err)
		}
	}
	talk()
	since := hub.mesh.Status().Links[0].Since

	hub.edit("- tcp-listener", "- log-level: debug\n- quic-listener: {bindaddr: 127.0.0.1, port: "+second+", cost: 3}\n- tcp-listener")
	if err := hub.reload(); err != nil {
		t.Fatal(err)
	}
	hub.reach("c")
	talk()
	if hub.level.Level() != slog.LevelDebug {
		t.Error("the log level did not change")
	}

	// c's link has to go when its listener changes, and comes back
	hub.edit("cost: 3", "cost: 4, rate: 1Gbit")
	if err := hub.reload(); err != nil {
		t.Fatal(err)
	}
	hub.reach("c")
	costs := map[string]float64{}
	for _, l := range hub.mesh.Status().Links {
		costs[string(l.Node)] = l.Cost.Float64()
		if l.Node == "b" && l.Since != since {
			t.Error("the link to b was lost")
		}
	}
	if costs["c"] != 4 || costs["b"] != 1 {
		t.Errorf("costs %v", costs)
	}

	c.edit("quic-peer", "local-only\n#")
	if err := c.reload(); err != nil {
		t.Fatal(err)
	}
	if links := c.mesh.Status().Links; len(links) != 0 {
		t.Errorf("c's links: %+v", links)
	}
	talk()
}

// Costs and allowed peers change under a link, at both of its ends, in either direction.
func TestAReloadChangesCostsInPlace(t *testing.T) {
	first := freePort(t)
	hub := startFile(t, "hub", "- tcp-listener: {bindaddr: 127.0.0.1, port: "+first+", cost: 3}\n")
	b := startFile(t, "b", "- tcp-peer: {address: '127.0.0.1:"+first+"', cost: 2}\n")
	hub.reach("b")
	since := [2]time.Time{hub.mesh.Status().Links[0].Since, b.mesh.Status().Links[0].Since}
	for _, step := range []struct {
		node     *fileNode
		from, to string
		cost     float64
		ends     bool // the link
	}{
		{hub, "cost: 3", "cost: 7", 7, false},
		{hub, "cost: 7", "cost: 1.5", 2, false},
		{hub, "cost: 1.5", "cost: 1.5, nodecost: {b: 9}", 9, false},
		{b, "cost: 2", "cost: 12", 12, false},
		{hub, "cost: 1.5", "cost: 1.5, allowedpeers: [b, c]", 12, false},
		{hub, "[b, c]", "[c]", 0, true},
	} {
		step.node.edit(step.from, step.to)
		if err := step.node.reload(); err != nil {
			t.Fatal(err)
		}
		eventually(t, step.to, func() bool {
			x, y := hub.mesh.Status(), b.mesh.Status()
			if step.ends {
				return len(x.Links)+len(y.Links) == 0
			}
			return len(x.Links) == 1 && len(y.Links) == 1 && x.Links[0].Cost.Float64() == step.cost && y.Links[0].Cost.Float64() == step.cost &&
				slices.ContainsFunc(x.Nodes, func(i routing.NodeInfo) bool { return i.ID == "b" && i.Cost == uint64(step.cost*1000) }) &&
				slices.ContainsFunc(y.Nodes, func(i routing.NodeInfo) bool { return i.ID == "hub" && i.Cost == uint64(step.cost*1000) })
		})
		if links := hub.mesh.Status().Links; !step.ends && links[0].Since != since[0] {
			t.Errorf("%s: the link was made anew", step.to)
		}
		if links := b.mesh.Status().Links; !step.ends && links[0].Since != since[1] {
			t.Errorf("%s: the other end's link was made anew", step.to)
		}
	}
}

// eventually waits for what other goroutines bring about.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline, tick := time.After(10*time.Second), time.NewTicker(5*time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not so after 10 s: %s", what)
		}
	}
}

func TestAReloadThatFailsChangesNothing(t *testing.T) {
	first := freePort(t)
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	_, busyPort, _ := net.SplitHostPort(busy.Addr().String())
	const peer = "- tcp-peer: 127.0.0.1:1\n"
	listener := "- tcp-listener: {bindaddr: 127.0.0.1, port: " + first + "}\n"
	n := startFile(t, "a", listener+peer)
	good, err := os.ReadFile(n.file)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct{ from, to, want string }{
		"no YAML":                  {peer, "- {", "ERRORCODE 4"},
		"a wrong key":              {peer, "- tcp-peer: {adress: x}\n", "ERRORCODE 4"},
		"open to the world":        {"bindaddr: 127.0.0.1, ", "", "ERRORCODE 4"},
		"another id":               {"id: a", "id: b", "what the file says of node has changed, which needs a restart ERRORCODE 3"},
		"another work type":        {"worktype: echo", "worktype: cat", "of work-command has changed"},
		"an address in use":        {peer, "- tcp-listener: {bindaddr: 127.0.0.1, port: " + busyPort + "}\n- tcp-listener: {bindaddr: 127.0.0.1, port: 0}\n", "r.conf:5: tcp-listener: cannot listen on tcp://127.0.0.1:" + busyPort},
		"the address in use again": {listener + peer, "- tcp-listener: {bindaddr: 127.0.0.1, port: 0}\n- tcp-listener: {bindaddr: 127.0.0.1, port: " + busyPort + "}\n", "address already in use"},
	} {
		t.Run(name, func(t *testing.T) {
			n.edit(tt.from, tt.to)
			err := n.reload()
			var refused *control.ServerError
			if !errors.As(err, &refused) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("reload: %v, want %s", err, tt.want)
			}
			if addrs := n.Addrs(); len(addrs) != 1 || addrs[0] != "tcp://127.0.0.1:"+first {
				t.Errorf("it listens on %v", addrs)
			}
			n.write(string(good))
			if err := n.reload(); err != nil {
				t.Errorf("the file as it was: %v", err)
			}
		})
	}
	os.Remove(n.file)
	if err := n.reload(); err == nil || !strings.Contains(err.Error(), "ERRORCODE 4") {
		t.Errorf("without a file: %v", err)
	}
}

func TestReloadMovesAPortToAnotherTransport(t *testing.T) {
	port := freePort(t)
	hub := startFile(t, "hub", "- tcp-listener: {bindaddr: 127.0.0.1, port: "+port+"}\n")
	edge := startFile(t, "edge", "- tcp-peer: {address: ['127.0.0.1:"+port+"', 'ws://127.0.0.1:"+port+"/mesh']}\n")
	edge.reach("hub")
	hub.edit("- tcp-listener: {", "- ws-listener: {path: /mesh, ")
	if err := hub.reload(); err != nil {
		t.Fatal(err)
	}
	edge.reach("hub")
}

func TestDrainStopsTheNode(t *testing.T) {
	port := freePort(t)
	hub := startFile(t, "hub", "- quic-listener: {bindaddr: 127.0.0.1, port: "+port+"}\n")
	startFile(t, "a", "- quic-peer: 127.0.0.1:"+port+"\n").reach("hub")
	c, err := control.Dial(t.Context(), hub.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Call(t.Context(), map[string]any{"command": "drain", "timeout": "soon"}, nil); err == nil || !strings.Contains(err.Error(), `timeout "soon" is no time`) {
		t.Errorf("drain soon: %v", err)
	}
	start := time.Now()
	if err := c.Drain(t.Context(), time.Minute); err != nil {
		t.Fatal(err)
	}
	if err := <-hub.over; err != nil {
		t.Error(err)
	}
	hub.over <- nil
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("a node that carries nothing took %v", took)
	}
}

// A signal waits for others' streams no longer than leaveTime; a drain for as
// long as it was told, unless a signal comes.
func TestASignalEndsADrain(t *testing.T) {
	port := freePort(t)
	hub := startFile(t, "hub", "- tcp-listener: {bindaddr: 127.0.0.1, port: "+port+"}\n")
	a := startFile(t, "a", "- tcp-peer: 127.0.0.1:"+port+"\n")
	b := startFile(t, "b", "- tcp-peer: 127.0.0.1:"+port+"\n")
	a.reach("b")
	l, err := b.mesh.Listen("sink")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	stream, err := a.mesh.Dial(t.Context(), "b", "sink")
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	hub.Drain(time.Hour)
	var refused *mesh.RefusedError
	for { // until it drains
		if _, _, err := a.mesh.Ping(t.Context(), "b"); errors.As(err, &refused) {
			break
		}
	}
	select {
	case <-hub.over:
		t.Fatal("the node did not wait for the stream that it carries")
	default:
	}
	start := time.Now()
	hub.stop()
	if err := <-hub.over; err != nil {
		t.Error(err)
	}
	hub.over <- nil
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
}
