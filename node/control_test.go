package node

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/config"
	"github.com/ranvier-mesh/ranvier/internal/control"
	"github.com/ranvier-mesh/ranvier/internal/policy"
	"github.com/ranvier-mesh/ranvier/mesh"
	"github.com/ranvier-mesh/ranvier/mesh/link"
	"github.com/ranvier-mesh/ranvier/mesh/memlink"
	"github.com/ranvier-mesh/ranvier/routing"
)

// talk is a connection to a control socket.
type talk struct {
	t *testing.T
	halves
	in *bufio.Reader
}

// halves is a connection that is closed in one direction alone: over a unix socket,
// TCP, TLS or the mesh.
type halves interface {
	net.Conn
	CloseWrite() error
}

func dialSocket(t *testing.T, path string) *talk {
	t.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	return newTalk(t, conn.(halves))
}

func newTalk(t *testing.T, conn halves) *talk {
	t.Helper()
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(30 * time.Second)) // a lost reply fails the test
	c := &talk{t, conn, bufio.NewReader(conn)}
	if line := c.line(); !strings.HasPrefix(line, "Receptor Control, node ") {
		t.Fatalf("greeting %q", line)
	}
	return c
}

func (c *talk) line() string {
	c.t.Helper()
	line, err := c.in.ReadString('\n')
	if err != nil {
		c.t.Fatalf("%q, %v", line, err)
	}
	return strings.TrimSuffix(line, "\n")
}

// ask sends a line and returns the one that answers it.
func (c *talk) ask(request string) string {
	c.t.Helper()
	fmt.Fprintln(c, request)
	return c.line()
}

// expect asks and holds the answer, whole, to a pattern.
func (c *talk) expect(request, pattern string) []string {
	c.t.Helper()
	got := c.ask(request)
	m := regexp.MustCompile("^(?:" + pattern + ")$").FindStringSubmatch(got)
	if m == nil {
		c.t.Errorf("%s:\ngot  %s\nwant %s", request, got, pattern)
	}
	return m
}

// submit submits with a connection of its own, as clients do, and returns the
// unit and the reply to its input.
func (c *talk) submit(request, input string) (id, reply string) {
	c.t.Helper()
	m := c.expect(request, `Work unit created with ID ([A-Za-z0-9]+)\. Send stdin data and EOF\.`)
	if m == nil {
		c.t.FailNow()
	}
	fmt.Fprint(c, input)
	c.CloseWrite()
	reply = c.line()
	if _, err := c.in.ReadByte(); err != io.EOF {
		c.t.Errorf("the connection stays open: %v", err)
	}
	return m[1], reply
}

// results reads what a unit wrote from a position on.
func results(t *testing.T, socket, id, request string) string {
	t.Helper()
	c := dialSocket(t, socket)
	c.expect(request, "Streaming results for work unit "+id)
	c.CloseWrite() // as clients do: it is no cancel
	out, err := io.ReadAll(c.in)
	if err != nil {
		t.Error(err)
	}
	return string(out)
}

// TestControlProtocol goes through the commands of docs/control.md with the
// words that Receptor's clients look for.
func TestControlProtocol(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	socket := filepath.Join(dir, "a.sock")
	a := start(t, fmt.Sprintf("- node: {id: a, datadir: %s/a}\n- tcp-listener: {port: 0, bindaddr: 127.0.0.1}\n- control-service: {filename: %s}\n"+
		"- work-command: {worktype: cat, command: cat}\n- work-command: {worktype: sleep, command: sleep, params: '1000'}\n"+
		"- work-command: {worktype: echo, command: echo, allowruntimeparams: true}\n- work-kubernetes: {worktype: kube, namespace: x, authmethod: incluster}\n", dir, socket))
	start(t, fmt.Sprintf("- node: {id: b, datadir: %s/b}\n- tcp-peer: %s\n- control-service:\n- work-command: {worktype: cat, command: cat}\n- work-command: {worktype: sleep, command: sleep, params: '1000'}\n",
		dir, strings.TrimPrefix(a.Addrs()[0], "tcp://")))
	pings(t, a, "b")
	c := dialSocket(t, socket)

	// looking
	var status map[string]any
	if err := json.Unmarshal([]byte(c.ask("status")), &status); err != nil {
		t.Fatal(err)
	}
	if got := slices.Sorted(maps.Keys(status)); !slices.Equal(got, []string{"Advertisements", "Connections", "KnownConnectionCosts", "NodeID", "RoutingTable", "SystemCPUCount", "SystemMemoryMiB", "Version"}) {
		t.Errorf("status has %q", got)
	}
	c.expect(`{"command": "status", "requested_fields": ["Version"]}`, `{"Version":"1\.2\.3"}`)
	c.expect("ping b", `{"Success":true,"From":"b","Time":\d+,"TimeStr":"[^"]+"}`)
	c.expect(`{"command": "ping", "target": "localhost"}`, `{"Success":true,"From":"a","Time":\d+,"TimeStr":"[^"]+"}`)
	c.expect("ping nowhere", `{"Success":false,"Error":"[^"]*nowhere[^"]*"}`)
	c.expect("traceroute b", `{"0":{"From":"a","Time":\d+,"TimeStr":"[^"]+"},"1":{"From":"b","Time":\d+,"TimeStr":"[^"]+"}}`)
	c.expect("traceroute nowhere", `{"0":{"From":"a",.*"Error":"[^"]+"}}`)
	c.expect("traceroute localhost", `{"0":{"From":"a",.*}}`)

	// what is wrong has one ERROR line, and the connection goes on
	for request, want := range map[string]string{
		`{"command": "work"`:       `ERROR: the request is not valid JSON: .*`,
		"nonsense":                 `ERROR: unknown command "nonsense"`,
		"work":                     `ERROR: work: "subcommand" is missing`,
		"work nonsense":            `ERROR: work: unknown subcommand "nonsense"`,
		"work status":              `ERROR: work: "unitid" is missing`,
		"work status nothing":      `ERROR: unknown work unit nothing`,
		"work status ../..":        `ERROR: unknown work unit \.\./\.\.`,
		"work cancel ../../etc":    `ERROR: unknown work unit .*`,
		"work release nothing":     `ERROR: unknown work unit nothing`,
		"work results nothing":     `ERROR: unknown work unit nothing`,
		"work list nothing":        `ERROR: unknown work unit nothing`,
		"work submit":              `ERROR: work: "node" is missing`,
		"work submit b":            `ERROR: work: "worktype" is missing`,
		"work submit a nope":       `ERROR: .*no work type "nope": it has cat, echo, kube, sleep.*`,
		"work submit a cat x":      `ERROR: .*params.*`,
		"work submit a kube":       `ERROR: .*work in Kubernetes \(test.yml:7: work-kubernetes\), which this version.*`,
		"connect b nothing":        `ERROR: .*nothing.*`,
		"connect b control nobody": `ERROR: there is no tls-client "nobody".*`,
		`{"command":"work","subcommand":"submit","node":"a","worktype":"cat","ttl":"5s"}`:           `ERROR: work submit: ttl only applies to remote nodes`,
		`{"command":"work","subcommand":"submit","node":"b","worktype":"cat","ttl":"soon"}`:         `ERROR: work submit: ttl "soon" is no duration.*`,
		`{"command":"work","subcommand":"submit","node":"a","worktype":"cat","signature":"x"}`:      `ERROR: work type did not expect a signature`,
		`{"command":"work","subcommand":"submit","node":"b","worktype":"cat","secret_x":"y"}`:       `ERROR: work submit: secret_x: .*tlsclient.*`,
		`{"command":"work","subcommand":"submit","node":"b","worktype":"cat","tlsclient":"nobody"}`: `ERROR: work submit: there is no tls-client "nobody".*`,
		`{"command":"work","subcommand":"submit","node":"b","worktype":"cat","params":["a"]}`:       `ERROR: "params" must be a string`,
		`{"command":"work","subcommand":"submit","node":"a","worktype":"cat","TTL":"5s"}`:           `ERROR: .*takes no "TTL".*`,
		`{"command":"work","subcommand":"results","unitid":"x","startpos":"y"}`:                     `ERROR: unknown work unit x`,
	} {
		c.expect(request, want)
	}

	// a job here
	id, reply := dialSocket(t, socket).submit("work submit localhost cat", "hello")
	if reply != `{"result":"Job Started","unitid":"`+id+`"}` {
		t.Errorf("reply %s", reply)
	}
	if got := results(t, socket, id, "work results "+id); got != "hello" {
		t.Errorf("results %q", got)
	}
	if got := results(t, socket, id, `{"command":"work","subcommand":"results","unitid":"`+id+`","startpos":3}`) + results(t, socket, id, "work results "+id+" 1"); got != "loello" {
		t.Errorf("results from a position: %q", got)
	}
	done := `{"State":2,"StateName":"Succeeded","Detail":"exit status 0","StdoutSize":5,"WorkType":"cat","ExtraData":null}`
	c.expect("work status "+id, regexp.QuoteMeta(done))
	c.expect("work list "+id, regexp.QuoteMeta(`{"`+id+`":`+done+`}`))
	c.expect("work list", regexp.QuoteMeta(`{"`+id+`":`+done+`}`))
	c.expect("work release "+id, `{"released":"`+id+`"}`)
	c.expect("work status "+id, `ERROR: unknown work unit `+id)
	id, _ = dialSocket(t, socket).submit("work submit a echo one two", "")
	if got := results(t, socket, id, "work results "+id); got != "one two\n" {
		t.Errorf("results %q", got)
	}
	c.expect("work force-release "+id, `{"released":"`+id+`"}`)

	// canceled: its results end
	id, _ = dialSocket(t, socket).submit("work submit a sleep", "")
	c.expect("work cancel "+id, `{"cancelled":"`+id+`"}`)
	if got := results(t, socket, id, "work results "+id); got != "" {
		t.Errorf("results %q", got)
	}
	c.expect("work status "+id, `{"State":4,"StateName":"Canceled","Detail":"Canceled","StdoutSize":0,"WorkType":"sleep","ExtraData":null}`)

	// a job there
	id, reply = dialSocket(t, socket).submit(`{"command":"work","subcommand":"submit","node":"b","worktype":"cat","ttl":"20s"}`, "there")
	if reply != `{"result":"Job Submitted","unitid":"`+id+`"}` && reply != `{"result":"Job Started","unitid":"`+id+`"}` {
		t.Errorf("reply %s", reply)
	}
	if got := results(t, socket, id, "work results "+id); got != "there" {
		t.Errorf("results %q", got)
	}
	c.expect("work status "+id, `{"State":2,"StateName":"Succeeded","Detail":"exit status 0","StdoutSize":5,"WorkType":"remote","ExtraData":`+
		`{"RemoteNode":"b","RemoteWorkType":"cat","RemoteParams":{},"RemoteUnitID":"`+id+`","RemoteStarted":true,"LocalCancelled":false,"LocalReleased":false,"SignWork":false,"TLSClient":"","Expiration":"20[^"]+"}}`)
	c.expect("work release "+id, `{"released":"`+id+`"}`)
	id, _ = dialSocket(t, socket).submit("work submit b sleep", "")
	c.expect("work cancel "+id, `{"cancel(led| pending)":"`+id+`"}`)
	if got := results(t, socket, id, "work results "+id); got != "" {
		t.Errorf("results %q", got)
	}

	// the last command of a connection
	c.expect("connect b control", "Connecting")
	if got := c.line(); got != "Receptor Control, node b" {
		t.Errorf("the service says %q", got)
	}
	c.expect(`{"command": "status", "requested_fields": ["NodeID"]}`, `{"NodeID":"b"}`)
}

// TestReloadCodes holds the replies to reload to Receptor's.
func TestReloadCodes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file, socket := filepath.Join(dir, "r.conf"), filepath.Join(dir, "s")
	good := fmt.Sprintf("- node: {id: a, datadir: %s/a}\n- local-only\n- control-service: {filename: %s}\n", dir, socket)
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(good)
	n, _ := runSource(t, config.Source{File: file})
	_ = n
	c := dialSocket(t, socket)
	c.expect("reload", `{"Success":true}`)
	write(strings.Replace(good, "id: a", "id: b", 1))
	c.expect(`{"command":"reload"}`, `{"Success":false,"Error":".*node has changed.* ERRORCODE 3"}`)
	write(good + "- nonsense\n")
	c.expect("reload", `{"Success":false,"Error":".*r.conf:4: unknown item .*nonsense.* ERRORCODE 4"}`)
	write(good)
	c.expect("reload", `{"Success":true}`)
}

// TestAdvertisementsOfIdleNodes: Receptor's users take the Time for when a node
// was last seen and give it up after three minutes, so it advances although
// nothing is said, and stands still once the node is gone.
func TestAdvertisementsOfIdleNodes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		network := map[string]link.Transport{"mem": &memlink.Network{}}
		run := func(c mesh.Config) (*mesh.Mesh, func()) {
			c.Epoch, c.Transports = 1, network
			m, err := mesh.New(t.Context(), c)
			if err != nil {
				t.Fatal(err)
			}
			ctx, stop := context.WithCancel(context.Background())
			over := make(chan struct{})
			go func() { defer close(over); m.Run(ctx) }()
			synctest.Wait()
			if c.ID == "a" { // b has no control service, and a leaf tells nobody
				if err := m.Advertise(ctx, []routing.Service{{Name: "control", ConnType: 1, Tags: map[string]string{"type": "Control Service"}}}, nil); err != nil {
					t.Fatal(err)
				}
			}
			return m, func() { stop(); <-over }
		}
		a, stopA := run(mesh.Config{ID: "a", Listeners: []mesh.ListenerConfig{{Address: "mem://a"}}})
		_, stopB := run(mesh.Config{ID: "b", Peers: []mesh.PeerConfig{{Address: "mem://a"}}})
		_, stopLeaf := run(mesh.Config{ID: "leaf", Role: mesh.Leaf, Peers: []mesh.PeerConfig{{Address: "mem://a", Cost: 3 * routing.CostUnit}}})
		defer stopA()
		defer stopLeaf()
		n := &Node{mesh: a, cfg: &config.Config{}, policy: policy.New(nil, true)}
		seen := func() (times map[string]time.Time, s control.Status) {
			s, err := backend{n}.Status(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			times = map[string]time.Time{}
			for _, ad := range s.Advertisements {
				if _, twice := times[ad.NodeID]; twice || ad.Service != "control" || ad.ConnType != 1 || ad.Tags["type"] != "Control Service" {
					t.Errorf("advertisement %+v", ad)
				}
				times[ad.NodeID] = ad.Time
			}
			return times, s
		}
		time.Sleep(10 * time.Second)
		before, s := seen()
		if len(before) != 3 {
			t.Errorf("advertisements of %v", before)
		}
		for _, w := range [][2]string{{"a", "b"}, {"b", "a"}, {"a", "leaf"}, {"leaf", "a"}} {
			if cost := s.KnownConnectionCosts[w[0]][w[1]]; cost == 0 || (w[0] == "leaf" || w[1] == "leaf") != (cost == 3) {
				t.Errorf("cost from %s to %s: %v", w[0], w[1], cost)
			}
		}
		time.Sleep(3 * time.Minute)
		after, _ := seen()
		for id, at := range before {
			if d := after[id].Sub(at); d < 3*time.Minute {
				t.Errorf("the time of %s advanced by %v in three minutes", id, d)
			}
		}
		stopB()
		gone := time.Now()
		time.Sleep(3 * time.Minute)
		if now, _ := seen(); now["b"].Sub(gone) > 10*time.Second {
			t.Errorf("b is gone since %v, and was seen at %v", gone, now["b"])
		}
	})
}
