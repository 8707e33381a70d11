package node

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ranvier-mesh/ranvier/internal/config"
	"github.com/ranvier-mesh/ranvier/internal/control"
	"github.com/ranvier-mesh/ranvier/mesh/link"
	"github.com/ranvier-mesh/ranvier/mesh/memlink"
	"github.com/ranvier-mesh/ranvier/mesh/tcplink"
)

func TestMain(m *testing.M) {
	if socket := os.Getenv(idleSocket); socket != "" {
		if err := holdIdle(socket); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

func parse(t *testing.T, text string) *config.Config {
	t.Helper()
	cfg, err := config.Parse("test.yml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// start runs a node until the test ends.
func start(t *testing.T, text string) *Node {
	t.Helper()
	n, err := New(t.Context(), parse(t, text), Options{
		Transports: map[string]link.Transport{"tcp": tcplink.Transport{}, "mem": &memlink.Network{}}, Version: "1.2.3",
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	over, ready := make(chan error, 1), make(chan struct{})
	go func() { over <- n.Run(ctx, func([]string) { close(ready) }) }()
	<-ready
	t.Cleanup(func() {
		stop()
		if err := <-over; err != nil {
			t.Error(err)
		}
	})
	return n
}

func TestStatusOverTheControlSocket(t *testing.T) {
	dir := t.TempDir()
	socket := filepath.Join(dir, "a.sock")
	a := start(t, fmt.Sprintf("- node: {id: a, datadir: %s/a}\n- tcp-listener: {port: 0, bindaddr: 127.0.0.1, cost: 2.5}\n"+
		"- control-service: {filename: %s}\n- work-command: {worktype: echo, command: echo}\n", dir, socket))
	start(t, fmt.Sprintf("- node: {id: b, datadir: %s/b}\n- tcp-peer: %s\n- work-command: {worktype: cat, command: cat}\n- control-service: {service: control}\n",
		dir, strings.TrimPrefix(a.Addrs()[0], "tcp://")))

	c, err := control.Dial(t.Context(), socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for {
		if _, err := c.Ping(ctx, "b"); err == nil {
			break
		} else if ctx.Err() != nil {
			t.Fatal(err)
		}
	}
	var s control.Status
	for len(s.Advertisements) < 2 && ctx.Err() == nil { // b's advert follows its link
		if s, err = c.Status(ctx, control.AllFields()...); err != nil {
			t.Fatal(err)
		}
	}
	if s.NodeID != "a" || s.Version != "1.2.3" || s.RoutingTable["b"] != "b" {
		t.Errorf("status %+v", s)
	}
	if len(s.Connections) != 1 || s.Connections[0].NodeID != "b" || s.Connections[0].Cost != 2.5 {
		t.Errorf("connections %+v", s.Connections)
	}
	if s.KnownConnectionCosts["a"]["b"] != 2.5 || s.KnownConnectionCosts["b"]["a"] != 2.5 {
		t.Errorf("known costs %v", s.KnownConnectionCosts)
	}
	i := slices.IndexFunc(s.Advertisements, func(ad control.Advertisement) bool { return ad.NodeID == "b" })
	if i < 0 || s.Advertisements[i].Service != "control" || len(s.Advertisements[i].WorkCommands) != 1 ||
		s.Advertisements[i].WorkCommands[0].WorkType != "cat" || time.Since(s.Advertisements[i].Time) > time.Minute {
		t.Errorf("advertisements %+v", s.Advertisements)
	}

	// the same service over the mesh, through the socket's connect
	stream, err := c.Connect(ctx, "b", "control")
	if err != nil {
		t.Fatal(err)
	}
	greeting := make([]byte, len("Receptor Control, node b\n"))
	if _, err := stream.Read(greeting); err != nil || string(greeting) != "Receptor Control, node b\n" {
		t.Errorf("greeting %q, %v", greeting, err)
	}
	stream.Close()
}

func TestEpochGrowsWithEveryStart(t *testing.T) {
	dir := t.TempDir()
	for want := uint64(1); want <= 3; want++ {
		e, err := openEpochs(dir)
		if err != nil || e.current != want {
			t.Fatalf("epoch %+v, %v; want %d", e, err, want)
		}
	}
	e, _ := openEpochs(dir)
	if err := e.save(1000); err != nil {
		t.Fatal(err)
	}
	if e, err := openEpochs(dir); err != nil || e.current != 1001 {
		t.Fatalf("epoch %+v, %v after a jump", e, err)
	}
	os.WriteFile(filepath.Join(dir, "epoch"), []byte("x"), 0o600)
	if _, err := openEpochs(dir); err == nil || !strings.Contains(err.Error(), `"x" is not a number`) {
		t.Errorf("damaged epoch: %v", err)
	}
}

func TestNodesThatCannotStart(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	os.WriteFile(file, nil, 0o600)
	for name, tt := range map[string]struct{ text, want string }{
		"data directory is a file": {"- node: {id: a, datadir: " + file + "}\n- local-only\n", "data directory"},
		"open to other hosts":      {"- node: {id: a, datadir: DIR}\n- tcp-listener: 0\n", "insecure"},
		"address of another host":  {"- node: {id: a, datadir: DIR}\n- tcp-listener: {port: 1, bindaddr: 192.0.2.1}\n- node: x\n", ""},
		"signed work":              {"- node: {id: a, datadir: DIR}\n- local-only\n- work-command: {worktype: x, command: cat}\n- work-policy: {worktype: x, needsignature: true}\n", `key "needsignature": this node has no identity`},
		"control socket no socket": {"- node: {id: a, datadir: DIR}\n- local-only\n- control-service: {filename: " + file + "}\n", file},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, err := config.Parse("test.yml", []byte(strings.ReplaceAll(tt.text, "DIR", t.TempDir())))
			if err == nil {
				_, err = New(t.Context(), cfg, Options{Transports: map[string]link.Transport{"tcp": tcplink.Transport{}}})
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q in it", err, tt.want)
			}
		})
	}
}

func TestTwoNodesOnOneDataDir(t *testing.T) {
	dir := t.TempDir()
	text := fmt.Sprintf("- node: {id: a, datadir: %s}\n- local-only\n", dir)
	start(t, text)
	if _, err := New(t.Context(), parse(t, text), Options{}); err == nil || !strings.Contains(err.Error(), dir) {
		t.Errorf("second node on one data directory: %v", err)
	}
}
