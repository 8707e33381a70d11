package node

import (
	"bufio"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/ranvier-mesh/ranvier/internal/control"
)

// standIn speaks as a Receptor node does at its control socket, from transcripts of
// version 1.4.9: the greeting, a request a line, one line for a reply. It has one unit at a
// time, whose output is its input.
type standIn struct {
	t      *testing.T
	socket string
	mu     sync.Mutex
	asked  []string // requests, but for status
	units  map[string]string
	told   chan string // each request for a unit, as it comes
}

func newStandIn(t *testing.T) *standIn {
	t.Helper()
	s := &standIn{t: t, socket: filepath.Join(t.TempDir(), "receptor.sock"), units: map[string]string{"kept1234": "before"}, told: make(chan string, 100)}
	l, err := net.Listen("unix", s.socket)
	if err != nil {
		t.Fatal(err)
	}
	var open sync.WaitGroup
	t.Cleanup(func() { l.Close(); open.Wait() })
	open.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			open.Go(func() { defer conn.Close(); s.serve(conn) })
		}
	})
	return s
}

const receptorStatus = `{"Version":"1.4.9","SystemCPUCount":2,"SystemMemoryMiB":100,"NodeID":"old","Connections":[{"NodeID":"r1","Cost":1}],` +
	`"RoutingTable":{"r1":"r1","b":"r1"},"Advertisements":[{"NodeID":"old","Service":"control","Time":"2026-01-01T00:00:00Z","ConnType":1,"Tags":{"type":"Control Service"},"WorkCommands":null},` +
	`{"NodeID":"r2","Service":"control","Time":"2026-01-01T00:00:00Z","ConnType":1,"Tags":{"type":"Control Service"},"WorkCommands":[{"WorkType":"cat","Secure":true}]},` +
	`{"NodeID":"b","Service":"control","Time":"2026-01-01T00:00:00Z","ConnType":1,"Tags":null,"WorkCommands":null}],"KnownConnectionCosts":{"old":{"r1":1},"r1":{"old":1}}}`

func (s *standIn) serve(conn net.Conn) {
	fmt.Fprint(conn, "Receptor Control, node old\n")
	in := bufio.NewReader(conn)
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		var r struct{ Command, Subcommand, UnitID, Node, Target string }
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			fmt.Fprintf(conn, "ERROR: %v\n", err)
			return
		}
		s.mu.Lock()
		output, known := s.units[r.UnitID]
		if r.Command != "status" {
			s.asked = append(s.asked, strings.TrimSpace(line))
		}
		s.mu.Unlock()
		unit := `{"State":2,"StateName":"Succeeded","Detail":"exit status 0","StdoutSize":6,"WorkType":"cat","ExtraData":null}`
		if r.Command == "work" {
			s.told <- r.Subcommand
		}
		switch {
		case r.Command == "status":
			fmt.Fprintln(conn, receptorStatus)
		case r.Command == "ping":
			fmt.Fprintf(conn, `{"Success":true,"From":"%s","Time":1000,"TimeStr":"1µs"}`+"\n", r.Target)
		case r.Command == "traceroute":
			fmt.Fprintf(conn, `{"0":{"From":"old","Time":10,"TimeStr":"10ns"},"1":{"From":"%s","Time":1000,"TimeStr":"1µs"}}`+"\n", r.Target)
		case r.Subcommand == "submit":
			fmt.Fprint(conn, "Work unit created with ID new5678. Send stdin data and EOF.\n")
			input, _ := io.ReadAll(in)
			s.mu.Lock()
			s.units["new5678"] = string(input)
			s.mu.Unlock()
			fmt.Fprintln(conn, `{"result":"Job Started","unitid":"new5678"}`)
			return
		case r.Subcommand == "list" && r.UnitID == "":
			fmt.Fprintf(conn, `{"kept1234":%s}`+"\n", unit)
		case !known:
			fmt.Fprintf(conn, "ERROR: unknown work unit %s\n", r.UnitID)
		case r.Subcommand == "list":
			fmt.Fprintf(conn, `{"%s":%s}`+"\n", r.UnitID, unit)
		case r.Subcommand == "status":
			fmt.Fprintln(conn, unit)
		case r.Subcommand == "results":
			fmt.Fprintf(conn, "Streaming results for work unit %s\n%s", r.UnitID, output)
			return
		case r.Subcommand == "cancel":
			fmt.Fprintf(conn, `{"cancelled":"%s"}`+"\n", r.UnitID)
		default:
			fmt.Fprintf(conn, `{"released":"%s"}`+"\n", r.UnitID)
		}
	}
}

// requests returns what was asked so far, without status.
func (s *standIn) requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.asked)
}

// TestLegacyControl: what only a Receptor node on this host knows goes to it, in
// its words, and all else stays here.
func TestLegacyControl(t *testing.T) {
	t.Parallel()
	old := newStandIn(t)
	dir := t.TempDir()
	socket := filepath.Join(dir, "a.sock")
	const cat = "- work-command: {worktype: cat, command: cat}\n"
	a := start(t, fmt.Sprintf("- node: {id: a, datadir: %s/a}\n- tcp-listener: {port: 0, bindaddr: 127.0.0.1}\n- control-service: {filename: %s}\n- legacy-control: %s\n%s", dir, socket, old.socket, cat))
	start(t, fmt.Sprintf("- node: {id: b, datadir: %s/b}\n- tcp-peer: %s\n- control-service:\n%s", dir, strings.TrimPrefix(a.Addrs()[0], "tcp://"), cat))
	pings(t, a, "b")
	c := dialSocket(t, socket)

	// both meshes are seen; b is known to both, and ours
	var s control.Status
	if err := json.Unmarshal([]byte(c.ask("status")), &s); err != nil {
		t.Fatal(err)
	}
	if s.NodeID != "a" || s.Version != "1.2.3" || s.RoutingTable["r1"] != "r1" || s.RoutingTable["b"] != "b" || s.KnownConnectionCosts["r1"]["old"] != 1 || s.KnownConnectionCosts["a"]["b"] != 1 {
		t.Errorf("status %+v", s)
	}
	adverts := map[string]int{}
	for _, ad := range s.Advertisements {
		adverts[ad.NodeID]++
		if ad.NodeID == "r2" && !ad.WorkCommands[0].Secure {
			t.Errorf("advertisement %+v", ad)
		}
	}
	if adverts["b"] > 1 || adverts["r2"] != 1 || adverts["old"] != 1 { // b's own may be on its way
		t.Errorf("advertisements of %v", adverts)
	}
	c.expect(`{"command": "status", "requested_fields": ["Version"]}`, `{"Version":"1\.2\.3"}`)
	c.expect("ping r1", `{"Success":true,"From":"r1","Time":1000,"TimeStr":"1µs"}`)
	c.expect("ping nowhere", `{"Success":false,"Error":"[^"]*nowhere[^"]*"}`)
	c.expect("traceroute r1", `{"0":{"From":"a",.*},"1":{"From":"old",.*},"2":{"From":"r1","Time":1000,"TimeStr":"1µs"}}`)

	// submits: text and JSON, to a node that is there and to one that was
	old.mu.Lock()
	old.asked = nil
	old.mu.Unlock()
	id, reply := dialSocket(t, socket).submit("work submit r1 cat one two", "hello")
	if id != "new5678" || reply != `{"result":"Job Started","unitid":"new5678"}` {
		t.Errorf("submit: %s, %s", id, reply)
	}
	dialSocket(t, socket).submit(`{"command":"work","subcommand":"submit","node":"r2","worktype":"cat","ttl":"20s","signwork":true,"tlsclient":"tls","secret_x":"y"}`, "")
	if got, want := old.requests(), []string{
		`{"command":"work","node":"r1","params":"one two","subcommand":"submit","worktype":"cat"}`,
		`{"command":"work","node":"r2","secret_x":"y","signwork":"true","subcommand":"submit","tlsclient":"tls","ttl":"20s","worktype":"cat"}`,
	}; !slices.Equal(got, want) {
		t.Errorf("Receptor was asked %s", got)
	}
	// and to b, which Receptor knows as well, and to one that nobody knows
	id, _ = dialSocket(t, socket).submit("work submit b cat", "ours")
	if got := results(t, socket, id, "work results "+id); got != "ours" {
		t.Errorf("results %q", got)
	}
	waits, reply := dialSocket(t, socket).submit("work submit nowhere cat", "")
	if !strings.Contains(reply, "Job Submitted") || len(old.requests()) != 2 {
		t.Errorf("%s; Receptor was asked %s", reply, old.requests())
	}

	// units
	list := c.ask("work list")
	for _, unit := range []string{id, waits, "kept1234"} {
		if !strings.Contains(list, `"`+unit+`":{"State":`) {
			t.Errorf("work list: %s", list)
		}
	}
	c.expect("work status kept1234", `{"State":2,.*"WorkType":"cat","ExtraData":null}`)
	c.expect("work list kept1234", `{"kept1234":{.*}}`)
	c.expect("work cancel kept1234", `{"cancelled":"kept1234"}`)
	c.expect("work release kept1234", `{"released":"kept1234"}`)
	c.expect("work force-release kept1234", `{"released":"kept1234"}`)
	if got := results(t, socket, "kept1234", "work results kept1234"); got != "before" {
		t.Errorf("results %q", got)
	}
	results(t, socket, "kept1234", `{"command":"work","subcommand":"results","unitid":"kept1234","startpos":"3"}`)

	record, err := os.ReadFile(filepath.Join(dir, "a", "audit.log"))
	for _, want := range []string{
		fmt.Sprintf(`"unit":"new5678","worktype":"cat","payload_bytes":5,"payload_sha256":"%x","outcome":"ok"`, sha256.Sum256([]byte("hello"))),
		`"unit":"kept1234","outcome":"ok"`, `"action":"attach"`,
	} {
		if err != nil || !strings.Contains(string(record), want) {
			t.Errorf("the audit record has no %s: %s, %v", want, record, err)
		}
	}
	if got, want := old.requests()[len(old.requests())-1], `{"command":"work","startpos":3,"subcommand":"results","unitid":"kept1234"}`; got != want {
		t.Errorf("Receptor was asked %s", got)
	}
	before := len(old.requests())
	c.expect("work status nothing", `ERROR: unknown work unit nothing`)
	if len(old.requests()) != before+1 {
		t.Error("Receptor was not asked for a unit that is unknown here")
	}
	c.expect("work status ../..", `ERROR: unknown work unit \.\./\.\.`)
}

// TestLegacySubmitterDies: Receptor takes the end of a connection for the end of the
// input, so the unit is ended before.
func TestLegacySubmitterDies(t *testing.T) {
	t.Parallel()
	old := newStandIn(t)
	dir := t.TempDir()
	socket := filepath.Join(dir, "a.sock")
	start(t, fmt.Sprintf("- node: {id: a, datadir: %s/a}\n- local-only\n- control-service: {filename: %s}\n- legacy-control: %s\n", dir, socket, old.socket))
	c := dialSocket(t, socket)
	c.expect("work submit r1 cat", `Work unit created with ID new5678\. .*`)
	fmt.Fprint(c, "half of")
	c.Close()
	for _, want := range []string{"submit", "cancel", "release"} {
		if got := <-old.told; got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

// TestLegacyIsAway: what is ours goes on; what may be Receptor's is refused, with why.
func TestLegacyIsAway(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	socket := filepath.Join(dir, "a.sock")
	start(t, fmt.Sprintf("- node: {id: a, datadir: %s/a}\n- local-only\n- control-service: {filename: %s}\n- legacy-control: {filename: %s/none}\n- work-command: {worktype: cat, command: cat}\n", dir, socket, dir))
	c := dialSocket(t, socket)
	c.expect("work list", `{}`)
	c.expect(`{"command":"status","requested_fields":["NodeID","RoutingTable"]}`, `{"NodeID":"a","RoutingTable":{}}`)
	refused := `ERROR: .*legacy-control: Receptor does not answer: control socket ` + regexp.QuoteMeta(dir) + `/none: .*`
	c.expect("work submit r1 cat", `ERROR: node r1 is not of this mesh, and whether .*`+strings.TrimPrefix(refused, "ERROR: .*"))
	c.expect("work status kept1234", refused)
	id, _ := dialSocket(t, socket).submit("work submit a cat", "here")
	if got := results(t, socket, id, "work results "+id); got != "here" {
		t.Errorf("results %q", got)
	}
}
