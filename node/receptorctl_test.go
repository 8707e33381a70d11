package node

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/config"
	"github.com/ranvier-mesh/ranvier/routing"
)

// TestReceptorctl says to a node, byte by byte, what the Python receptorctl says for
// each of its commands, and looks at each reply as it does: over a unix socket, TCP,
// TLS, the mesh, and TLS within the mesh.
func TestReceptorctl(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.cert("a", "a")
	s.cert("b", "b")
	server := s.item("tls-server", "srv", "a", "requireclientcert: true, clientcas: CA")
	file := s.file("a.conf")
	text := datadir(t, "a") + server + "- tcp-listener: {bindaddr: 127.0.0.1, port: 0, tls: srv}\n" +
		"- control-service: {service: control, filename: " + s.file("a.sock") + ", tcplisten: '127.0.0.1:0', tcptls: srv}\n" +
		"- control-service: {service: over-tls, tls: srv, tcplisten: '127.0.0.1:0'}\n" +
		"- work-command: {worktype: cat, command: cat}\n- work-command: {worktype: echo, command: echo, allowruntimeparams: true}\n" +
		"- work-command: {worktype: sleep, command: sleep, params: '1000'}\n- work-command: {worktype: fails, command: ls, params: /nowhere}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	a, _ := runSource(t, config.Source{File: file})
	b, _ := run(t, datadir(t, "b")+"- control-service:\n- work-command: {worktype: cat, command: cat}\n"+s.item("tls-client", "cli", "b", "rootcas: CA")+
		"- tcp-peer: {address: '127.0.0.1:"+port(t, a)+"', tls: cli}\n")
	pings(t, a, "b")
	pings(t, b, "a")

	cert, err := tls.LoadX509KeyPair(s.file("b.crt"), s.file("b.key"))
	if err != nil {
		t.Fatal(err)
	}
	secure := &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{cert}} // the client's own check is not the test's
	overMesh := func(service, client string) func() (net.Conn, error) {
		return func() (net.Conn, error) {
			stream, err := backend{b}.Connect(t.Context(), "a", service, client)
			if err != nil {
				return nil, err
			}
			return stream.(net.Conn), nil
		}
	}
	for name, dial := range map[string]func() (net.Conn, error){
		"unix":     func() (net.Conn, error) { return net.Dial("unix", s.file("a.sock")) },
		"tls":      func() (net.Conn, error) { return tls.Dial("tcp", a.sockets[1].Addr().String(), secure) },
		"tcp":      func() (net.Conn, error) { return net.Dial("tcp", a.sockets[2].Addr().String()) },
		"mesh":     overMesh("control", ""),
		"mesh+tls": overMesh("over-tls", "cli"),
	} {
		t.Run(name, func(t *testing.T) {
			receptorctl{t, func() *talk {
				conn, err := dial()
				if err != nil {
					t.Fatal(err)
				}
				return newTalk(t, conn.(halves))
			}}.all()
		})
	}
}

// receptorctl is that program, which connects anew for each command.
type receptorctl struct {
	t    *testing.T
	dial func() *talk
}

// simple is a command with one line of JSON as its reply.
func (r receptorctl) simple(command string) map[string]any {
	r.t.Helper()
	return r.parse(command, r.dial().ask(command))
}

func (r receptorctl) parse(command, line string) map[string]any {
	r.t.Helper()
	var reply map[string]any
	if err := json.Unmarshal([]byte(line), &reply); err != nil {
		r.t.Fatalf("%s: %v: %s", command, err, line)
	}
	return reply
}

// has takes keys out of a reply and tells those that are missing, or left.
func (r receptorctl) has(what string, reply map[string]any, keys ...string) {
	r.t.Helper()
	left := map[string]bool{}
	for k := range reply {
		left[k] = true
	}
	for _, k := range keys {
		if !left[k] {
			r.t.Errorf("%s has no %s", what, k)
		}
		delete(left, k)
	}
	if len(left) > 0 {
		r.t.Errorf("%s has %v too", what, left)
	}
}

// submit is "receptorctl work submit".
func (r receptorctl) submit(request, payload string) (unit string) {
	r.t.Helper()
	c := r.dial()
	m := regexp.MustCompile(`^Work unit created with ID (.+). Send stdin data and EOF.$`).FindStringSubmatch(c.ask(request))
	if m == nil {
		r.t.Fatalf("%s was not taken", request)
	}
	io.WriteString(c, payload)
	c.CloseWrite()
	reply := r.parse(request, c.line())
	r.has("the reply to a submit", reply, "result", "unitid")
	if _, err := c.in.ReadByte(); err != io.EOF {
		r.t.Errorf("after a submit the connection stays open: %v", err)
	}
	return reply["unitid"].(string)
}

// results is "receptorctl work results", which half-closes at once.
func (r receptorctl) results(command, unit string) string {
	r.t.Helper()
	c := r.dial()
	if got := c.ask(command); got != "Streaming results for work unit "+unit {
		r.t.Fatalf("%s: %s", command, got)
	}
	c.CloseWrite()
	out, err := io.ReadAll(c.in)
	if err != nil {
		r.t.Errorf("%s: %v", command, err)
	}
	return string(out)
}

func (r receptorctl) all() {
	t := r.t
	r.has("version", r.simple(`{"command":"status","requested_fields":["Version"]}`), "Version")
	r.status()
	r.has("ping", r.simple("ping b"), "Success", "From", "Time", "TimeStr")
	if reply := r.simple("ping nobody"); reply["Success"] != false || reply["Error"] == "" {
		t.Errorf("ping of nobody: %v", reply)
	}
	trace := r.simple("traceroute b")
	for i, from := range []string{"a", "b"} {
		hop, _ := trace[fmt.Sprint(i)].(map[string]any)
		r.has("a hop", hop, "From", "Time", "TimeStr")
		if hop["From"] != from {
			t.Errorf("hop %d: %v", i, hop)
		}
	}
	if reply := r.dial().ask("reload"); reply != `{"Success":true}` {
		t.Errorf("reload: %s", reply)
	}
	r.work()

	// work list --node, and connect: both go on on the same connection
	c := r.dial()
	if got := c.ask("connect b control "); got != "Connecting" || c.line() != "Receptor Control, node b" {
		t.Errorf("connect: %s", got)
	}
	if got := c.ask("work list"); got != "{}" {
		t.Errorf("work list of b: %s", got)
	}
	if got := r.dial().ask("connect b nothing "); !strings.HasPrefix(got, "ERROR: ") {
		t.Errorf("connect to nothing: %s", got)
	}
}

// status looks at everything that "receptorctl status" shows, and that nothing is left
// for its "Additional data".
func (r receptorctl) status() {
	t := r.t
	st := r.simple("status")
	r.has("status", st, "NodeID", "Version", "SystemCPUCount", "SystemMemoryMiB", "Connections", "KnownConnectionCosts", "RoutingTable", "Advertisements")
	for _, c := range st["Connections"].([]any) {
		r.has("a connection", c.(map[string]any), "NodeID", "Cost")
	}
	if st["KnownConnectionCosts"].(map[string]any)["a"].(map[string]any)["b"] != 1.0 || st["RoutingTable"].(map[string]any)["b"] != "b" || st["NodeID"] != "a" {
		t.Errorf("status %v", st)
	}
	seen := map[string]bool{}
	for _, each := range st["Advertisements"].([]any) {
		ad := each.(map[string]any)
		r.has("an advertisement", ad, "NodeID", "Service", "Time", "ConnType", "Tags", "WorkCommands")
		if at, err := time.Parse(time.RFC3339, ad["Time"].(string)); err != nil || time.Since(at) > time.Minute {
			t.Errorf("it was seen %v, %v", ad["Time"], err)
		}
		if kind := ad["ConnType"].(float64); !slices.Contains([]float64{0, 1, 2}, kind) || ad["Service"] == "over-tls" && kind != 2 {
			t.Errorf("%v is of the type %v", ad["Service"], kind)
		}
		if commands, ok := ad["WorkCommands"].([]any); ok {
			for _, w := range commands {
				r.has("a work type", w.(map[string]any), "WorkType", "Secure")
			}
			seen[ad["NodeID"].(string)] = len(commands) > 0
		}
	}
	if !seen["a"] || !seen["b"] {
		t.Errorf("work types are seen of %v", seen)
	}
}

func (r receptorctl) work() {
	t := r.t
	unit := r.submit(`{"command": "work", "subcommand": "submit", "node": "localhost", "worktype": "cat"}`, "payload\n")
	if got := r.results("work results "+unit, unit); got != "payload\n" {
		t.Errorf("results %q", got)
	}
	if got := r.results("work results "+unit+" 3", unit); got != "load\n" {
		t.Errorf("results from 3: %q", got)
	}
	st := r.simple("work status " + unit)
	r.has("a status", st, "State", "StateName", "Detail", "StdoutSize", "WorkType", "ExtraData")
	if st["State"] != 2.0 || st["StateName"] != "Succeeded" || st["StdoutSize"] != 8.0 || st["ExtraData"] != nil {
		t.Errorf("status %v", st)
	}
	r.has("work list", r.simple("work list"), unit)
	r.has("work list of a unit", r.simple("work list "+unit), unit)
	r.has("released", r.simple("work release "+unit), "released")
	if got := r.dial().ask("work status " + unit); got != "ERROR: unknown work unit "+unit {
		t.Errorf("a released unit: %s", got)
	}

	unit = r.submit(`{"command": "work", "subcommand": "submit", "node": "a", "worktype": "echo", "params": "one two"}`, "")
	if got := r.results("work results "+unit, unit); got != "one two\n" {
		t.Errorf("results %q", got)
	}
	r.has("released", r.simple("work force-release "+unit), "released")

	unit = r.submit(`{"command": "work", "subcommand": "submit", "node": "localhost", "worktype": "fails"}`, "")
	if got := r.results("work results "+unit, unit); !strings.Contains(got, "/nowhere") {
		t.Errorf("what a job says before it fails: %q", got)
	}
	if st := r.simple("work status " + unit); st["State"] != 3.0 || st["Detail"] == "" {
		t.Errorf("failed: %v", st)
	}
	r.simple("work release " + unit)

	unit = r.submit(`{"command": "work", "subcommand": "submit", "node": "localhost", "worktype": "sleep"}`, "")
	if got := r.simple("work cancel " + unit); got["cancelled"] != unit {
		t.Errorf("cancel: %v", got)
	}
	if got := r.results("work results "+unit, unit); got != "" {
		t.Errorf("canceled, it wrote %q", got)
	}
	if st := r.simple("work status " + unit); st["State"] != 4.0 || st["Detail"] != "Canceled" {
		t.Errorf("canceled: %v", st)
	}
	r.simple("work release " + unit)
	for _, none := range []string{"work status ", "work cancel ", "work release ", "work results "} {
		if got := r.dial().ask(none + "nothing1"); got != "ERROR: unknown work unit nothing1" {
			t.Errorf("%s: %s", none, got)
		}
	}
}

// awxStarter is the file that AWX writes for itself, as its YAML library does: with
// its keys sorted.
const awxStarter = `- local-only: null
- log-level: debug
- control-service:
    filename: DIR/receptor.sock
    permissions: '0660'
    service: control
- work-command:
    allowruntimeparams: true
    command: DIR/ansible-runner
    params: worker
    worktype: local
- work-signing:
    privatekey: PRIVATE
    tokenexpiration: 1m
- work-kubernetes:
    allowruntimeauth: true
    allowruntimeparams: true
    allowruntimepod: true
    authmethod: runtime
    worktype: kubernetes-runtime-auth
- work-kubernetes:
    allowruntimeauth: true
    allowruntimeparams: true
    allowruntimepod: true
    authmethod: incluster
    worktype: kubernetes-incluster-auth
- tls-client:
    cert: DIR/controller.crt
    key: DIR/controller.key
    name: tlsclient
    rootcas: DIR/ca.crt
`

// TestAWXReload has a controller as AWX's pod has it: a node without an id, whose file
// AWX writes anew, and reloads, when it gets an execution node; then what AWX does
// there to see whether it is well, and a job that is canceled.
func TestAWXReload(t *testing.T) {
	t.Parallel()
	host, err := os.Hostname()
	if err != nil || host == "localhost" {
		t.Skip("the host has no name for a node")
	}
	s := newSite(t)
	s.cert("exec", "exec")
	s.cert("controller", routing.NodeID(host))
	private, public := rsaKey(t)
	if err := os.WriteFile(s.file("ansible-runner"), []byte("#!/bin/sh\necho \"$@\"\ncase $* in *awx_7*) exec sleep 1000;; esac\nexec cat\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	words := strings.NewReplacer("DIR", s.dir, "PUBLIC", public, "PRIVATE", private)
	exec, _ := run(t, words.Replace(awxExecution))
	file := s.file("receptor.conf")
	write := func(more string) {
		if err := os.WriteFile(file, []byte(words.Replace(awxStarter)+more), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("")
	runSource(t, config.Source{File: file, DataDir: func(routing.NodeID, string) string { return s.file("data") }})
	r := receptorctl{t, func() *talk { return dialSocket(t, s.file("receptor.sock")) }}

	peer := "- tcp-peer:\n    address: 127.0.0.1:" + port(t, exec) + "\n    tls: tlsclient\n"
	write(peer)
	if got := r.dial().ask("reload"); got != `{"Success":true}` {
		t.Fatalf("reload: %s", got)
	}
	within(t, "the execution node is in the mesh", func() bool {
		for _, each := range r.simple("status")["Advertisements"].([]any) {
			if ad := each.(map[string]any); ad["NodeID"] == "exec" {
				return ad["ConnType"] == 2.0
			}
		}
		return false
	})
	// worker info: the results are asked for before the job's end, and its state then
	request := `{"command": "work", "subcommand": "submit", "node": "exec", "worktype": "ansible-runner", "tlsclient": "tlsclient", "ttl": "20s", "signwork": "true", "params": "PARAMS"}`
	unit := r.submit(strings.Replace(request, "PARAMS", "--worker-info", 1), "")
	if got := r.results("work results "+unit, unit); got != "worker --worker-info\n" {
		t.Errorf("worker info: %q", got)
	}
	within(t, "the unit ends", func() bool { return r.simple("work status " + unit)["StateName"] == "Succeeded" })
	if got := r.simple("work release " + unit); len(got) != 1 || got["released"] != unit {
		t.Errorf("release: %v", got)
	}
	// a job that is canceled while it is read
	unit = r.submit(strings.Replace(request, "PARAMS", "--private-data-dir=/tmp/awx_7_x --delete", 1), "stream")
	c := r.dial()
	c.ask("work results " + unit)
	c.CloseWrite()
	if got := c.line(); got != "worker --private-data-dir=/tmp/awx_7_x --delete" {
		t.Errorf("the job says %q", got)
	}
	if got := r.simple("work cancel " + unit); got["cancelled"] != unit && got["cancel pending"] != unit {
		t.Errorf("cancel: %v", got)
	}
	if rest, err := io.ReadAll(c.in); err != nil || len(rest) > 0 {
		t.Errorf("the results after a cancel: %q, %v", rest, err)
	}
	r.simple("work release " + unit)
	// the node goes: AWX writes its file without it
	write("")
	if got := r.dial().ask("reload"); got != `{"Success":true}` {
		t.Errorf("reload: %s", got)
	}
	within(t, "the link goes", func() bool { return len(r.simple("status")["Connections"].([]any)) == 0 })
}
