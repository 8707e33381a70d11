package config

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/ranvier-mesh/ranvier/routing"
)

func parseText(text string) (*Config, error) {
	return parse("r.conf", []byte(text), func() (string, error) { return "box.example", nil })
}

// full has every supported key, in the forms that Receptor's own users write.
const full = `---
- node:
    id: b
    datadir: /var/lib/b
    insecure: "true"
- log-level: Debug
- TCP-Listener: 2222
- tcp-listener:
    bindAddr: 127.0.0.1
    port: '2223'
    cost: "2.5"
    nodecost: {a: 1, c: '0.5'}
    allowedpeers:
      - a
      - c
- tcp-peer: hub.example:27199
- tcp-peer:
    address: "[::1]:27199"
    redial: no
    cost: 10
    allowedPeers: hub
- control-service:
    service: control
    filename: /run/receptor.sock
    permissions: '0660'
- control-service:
    service: other
    filename: /run/other.sock
    permissions: 0666
- work-command:
    workType: ansible-runner
    command: ansible-runner
    params: worker
    allowruntimeparams: true
    verifysignature: true
- work-command:
    worktype: cat
    command: cat
- local-only:
`

func TestFull(t *testing.T) {
	t.Parallel()
	got, err := parseText(full)
	if err != nil {
		t.Fatal(err)
	}
	want := &Config{
		File:      "r.conf",
		Node:      Node{ID: "b", DataDir: "/var/lib/b", Insecure: true},
		LocalOnly: true,
		LogLevel:  slog.LevelDebug,
		Listeners: []Listener{
			{Scheme: "tcp", BindAddr: "0.0.0.0", Port: 2222},
			{
				Scheme: "tcp", BindAddr: "127.0.0.1", Port: 2223, Cost: 2500,
				NodeCost:     map[routing.NodeID]routing.Cost{"a": 1000, "c": 500},
				AllowedPeers: []routing.NodeID{"a", "c"},
			},
		},
		Peers: []Peer{
			{Addresses: []string{"tcp://hub.example:27199"}, Redial: true},
			{Addresses: []string{"tcp://[::1]:27199"}, Cost: 10000, AllowedPeers: []routing.NodeID{"hub"}},
		},
		ControlServices: []ControlService{
			{Service: "control", Filename: "/run/receptor.sock", Permissions: 0o660},
			{Service: "other", Filename: "/run/other.sock", Permissions: 0o666},
		},
		WorkCommands: []WorkCommand{
			{WorkType: "ansible-runner", Command: "ansible-runner", Params: "worker", AllowRuntimeParams: true, VerifySignature: true},
			{WorkType: "cat", Command: "cat"},
		},
	}
	if d := cmp.Diff(want, got, cmpopts.IgnoreTypes(Pos{})); d != "" {
		t.Error(d)
	}
	if want := (Pos{"r.conf", 7, "tcp-listener"}); got.Listeners[0].Pos != want {
		t.Errorf("position of the first listener: %v, want %v", got.Listeners[0].Pos, want)
	}
	if a := got.Listeners[1].Address(); a != "127.0.0.1:2223" {
		t.Errorf("address %q", a)
	}
}

func TestDefaults(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"- local-only: null", "- local-only:", "- local-only", "- local-only: {}", "- node:\n- local-only:", "- node: {id: null}\n- LOCAL-only:"} {
		c, err := parseText(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if !c.LocalOnly || c.Node.ID != "box.example" || c.Node.DataDir != DefaultDataDir || c.LogLevel != slog.LevelInfo || c.Node.Insecure || len(c.Warnings) > 0 {
			t.Errorf("%q: %+v", text, c)
		}
	}
	c, err := parseText("- tcp-listener: 0\n- control-service:\n")
	if err != nil {
		t.Fatal(err)
	}
	if s := c.ControlServices[0]; c.Listeners[0].Port != 0 || s.Service != "control" || s.Filename != "" || s.Permissions != 0o600 {
		t.Errorf("%+v", c)
	}
}

func TestAnchors(t *testing.T) {
	t.Parallel()
	c, err := parseText("- tcp-peer: {address: 'a:1', allowedpeers: &hubs [h1, h2]}\n- tcp-peer: {address: 'b:1', allowedpeers: *hubs}\n")
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Peers[1].AllowedPeers; !slices.Equal(got, []routing.NodeID{"h1", "h2"}) {
		t.Errorf("allowedpeers by alias: %v", got)
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		text string
		want string // the lines of the error
	}{
		{"", `r.conf: no item links this node to another one: add a tcp-listener or a tcp-peer, or local-only if none is wanted`},
		{"- node: a", `r.conf: no item links this node to another one: add a tcp-listener or a tcp-peer, or local-only if none is wanted`},
		{"node: a", `r.conf:1: the file must be a list of items, each of them as "- item: ..."`},
		{"- local-only:\n---\n- node: b", `r.conf:2: a second YAML document begins here: the file is one list of items`},
		{"- local-only:\n- tcp-peer: {", `r.conf:2: not valid YAML: did not find expected node content`},
		{"- local-only:\n- 7: x\n- []\n- ? [a]\n  : b", "r.conf:2: unknown item \"7\"\nr.conf:3: this is no item: write \"- item: ...\"\nr.conf:4: the name of an item must be a word"},
		{"- local-only:\n- tcp-pear: x:1", `r.conf:2: unknown item "tcp-pear", did you mean "tcp-peer"?`},
		{"- local-only:\n- controlservice: x", `r.conf:2: unknown item "controlservice", did you mean "control-service"?`},
		{"- node: a\n  local-only:", `r.conf:1: "local-only" is beside the item "node": keys of an item are indented deeper than its name, and each item begins with a dash`},
		{"- local-only: true", `r.conf:1: local-only: it takes keys with values, not "true"`},
		{"- tcp-peer: [a, b]", `r.conf:1: tcp-peer: it takes keys with values, not a list`},
		{"- local-only:\n- node: a\n- Node: b", `r.conf:3: node: it may stand only once, and stands on line 2 already`},
		{"- local-only:\n- node:\n    ids: a", `r.conf:3: node: key "ids": there is no such key, did you mean "id"?`},
		{"- local-only:\n- work-command:\n    work_type: a\n    command: c", "r.conf:2: work-command: key \"worktype\": it is missing\nr.conf:3: work-command: key \"work_type\": there is no such key, did you mean \"worktype\"?"},
		{"- tcp-peer:\n    address: a:1\n    Address: b:1", `r.conf:3: tcp-peer: key "Address": it stands on line 2 already`},
		{"- tcp-peer:\n    address: a:1\n    ? [x]\n    : 1", `r.conf:3: tcp-peer: a key must be a word`},
		{"- tcp-peer:\n    address: a:1\n    cost: abc", `r.conf:3: tcp-peer: key "cost": "abc" is not a number`},
		{"- tcp-peer:\n    address: a:1\n    cost: -1", `r.conf:3: tcp-peer: key "cost": invalid cost -1: between 0.001 and 1000000 is allowed`},
		{"- tcp-peer:\n    address: a:1\n    cost: .nan", `r.conf:3: tcp-peer: key "cost": ".nan" is not a number`},
		{"- tcp-peer:\n    address: a:1\n    cost: nan", `r.conf:3: tcp-peer: key "cost": invalid cost NaN: between 0.001 and 1000000 is allowed`},
		{"- tcp-peer:\n    redial: maybe", "r.conf:1: tcp-peer: key \"address\": it is missing\nr.conf:2: tcp-peer: key \"redial\": \"maybe\" is neither true nor false"},
		{"- tcp-peer: hub", `r.conf:1: tcp-peer: key "address": "hub" is no host:port`},
		{"- tcp-peer: hub:0", `r.conf:1: tcp-peer: key "address": "hub:0" has no port from 1 to 65535`},
		{"- tcp-peer: :27199", `r.conf:1: tcp-peer: key "address": ":27199" has no host`},
		{"- tcp-peer:\n    address: a:1\n    allowedpeers: {a: b}", `r.conf:3: tcp-peer: key "allowedpeers": a list of node ids is expected, not a map`},
		{"- tcp-peer:\n    address: a:1\n    allowedpeers:\n    - a\n    - b c", `r.conf:5: tcp-peer: key "allowedpeers": invalid node id "b c": letters, digits and . _ - @ : / are allowed`},
		{"- tcp-listener:", `r.conf:1: tcp-listener: key "port": it is missing`},
		{"- tcp-listener:\n    port:", `r.conf:1: tcp-listener: key "port": it is missing`},
		{"- tcp-listener: 65536", `r.conf:1: tcp-listener: key "port": "65536" is no port: 0 to 65535 is allowed`},
		{"- tcp-listener: {port: [1]}", `r.conf:1: tcp-listener: key "port": one value is expected, not a list or a map`},
		{"- tcp-listener:\n    port: 1\n    bindaddr: 127.0.0.1:1", `r.conf:3: tcp-listener: key "bindaddr": "127.0.0.1:1" must be an address without a port: write 127.0.0.1 here and 1 as the port`},
		{"- tcp-listener:\n    port: 1\n    nodecost: 5", `r.conf:3: tcp-listener: key "nodecost": a map of node ids to costs is expected`},
		{"- tcp-listener:\n    port: 1\n    nodecost:\n      a: 1\n      b: x", `r.conf:5: tcp-listener: key "nodecost": node b: "x" is not a number`},
		{"- tcp-listener:\n    port: 1\n    nodecost:\n      a: 1\n      a: 2", `r.conf:5: tcp-listener: key "nodecost": node a stands twice`},
		{"- tcp-listener: 5\n- tcp-listener: 5", `r.conf:2: tcp-listener: key "port": the listener on line 1 has the address 0.0.0.0:5 already`},
		{"- tcp-listener:\n    port: 1\n    tls: server", `r.conf:3: tcp-listener: key "tls": there is no tls-server "server"; add an item tls-server with this name`},
		{"- tls-client: {name: x, path: 7}\n- work-signing: {privatekey: x, privatkey: y}\n- local-only", "r.conf:1: tls-client: key \"path\": there is no such key\nr.conf:2: work-signing: key \"privatkey\": there is no such key, did you mean \"privatekey\"?"},
		{"- local-only:\n- node: localhost", `r.conf:2: node: key "id": a node cannot be called localhost: that is every node's name for itself`},
		{"- local-only:\n- quic-peer:\n    address: ''", `r.conf:3: quic-peer: key "address": it is empty`},
		{"- local-only:\n- node:\n    leaf: true", `r.conf:2: node: key "leaf": a leaf needs a tcp-peer to attach to`},
		{"- node: {leaf: true}\n- tcp-peer: a:1\n- tcp-listener: 1", `r.conf:3: tcp-listener: a leaf forwards nothing and cannot have a listener: remove it, or leaf from the item node`},
		{"- local-only:\n- log-level: loud", `r.conf:2: log-level: key "level": "loud" is no log level: error, warning, info or debug is allowed`},
		{"- local-only:\n- control-service: sock", `r.conf:2: control-service: it takes keys with values, not "sock"`},
		{"- local-only:\n- control-service:\n    filename: /s\n    permissions: 660", `r.conf:4: control-service: key "permissions": 660 is no file mode: write it with a leading zero, from 0000 to 0777`},
		{"- local-only:\n- control-service:\n    filename:\n    permissions: rw\n    tcplisten: 5", "r.conf:4: control-service: key \"permissions\": \"rw\" is no file mode: write it as 0660"},
		{"- local-only:\n- control-service: {filename: /s}\n- control-service: {filename: /s}", "r.conf:3: control-service: key \"service\": the control-service on line 2 is called \"control\" already\nr.conf:3: control-service: key \"filename\": the control-service on line 2 has the socket /s already"},
		{"- local-only:\n- work-command: {worktype: a, command: x}\n- work-command: {worktype: a, command: y}", `r.conf:3: work-command: key "worktype": the work type "a" stands on line 2 already`},
		{"- local-only:\n- work-command: {worktype: a b, command: x}", `r.conf:2: work-command: key "worktype": "a b" is no name: at most 255 bytes without spaces are allowed`},
		{"- local-only:\n- node:\n    maxidleconnectiontimeout: 5", `r.conf:3: node: key "maxidleconnectiontimeout": "5" is no duration: write it as "90s" or "1h30m"`},
		{"- &a [*a]", `r.conf:1: this is no item: write "- item: ..."`},
		{strings.Repeat("#", MaxSize+1), fmt.Sprintf("r.conf: the file is too large: at most %d bytes are allowed", MaxSize)},
	} {
		_, err := parseText(tc.text)
		if err == nil {
			t.Errorf("%.200q: no error, want %s", tc.text, tc.want)
		} else if d := cmp.Diff(tc.want, err.Error()); d != "" {
			t.Errorf("%.200q: %s", tc.text, d)
		}
	}
}

func TestErrorsAreTyped(t *testing.T) {
	t.Parallel()
	_, err := parseText("- tcp-peer:\n    address: a:1\n    cost: 0\n")
	var e *Error
	if !errors.As(err, &e) || e.File != "r.conf" || e.Line != 3 || e.Item != "tcp-peer" || e.Key != "cost" {
		t.Errorf("%#v", e)
	}
	if !errors.Is(err, routing.ErrBadCost) {
		t.Errorf("%v does not wrap routing.ErrBadCost", err)
	}
}

func TestManyErrors(t *testing.T) {
	t.Parallel()
	_, err := parseText(strings.Repeat("- nonsense\n", 1000))
	lines := strings.Split(err.Error(), "\n")
	if len(lines) != maxErrors+1 || lines[maxErrors] != "r.conf: and 980 more errors" {
		t.Errorf("%d lines, the last one %q", len(lines), lines[len(lines)-1])
	}
}

func TestHostname(t *testing.T) {
	t.Parallel()
	for host, want := range map[string]string{
		"localhost": "cannot be called localhost",
		"":          "it is empty",
		"bad host":  `invalid node id "bad host"`,
	} {
		_, err := parse("r.conf", []byte("- local-only:"), func() (string, error) { return host, nil })
		if err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), `r.conf: node: key "id": `) {
			t.Errorf("host %q: %v", host, err)
		}
	}
}

func TestWarnings(t *testing.T) {
	t.Parallel()
	c, err := parseText(`
- node:
    receptorKubeClientsetQPS: 100
    maxidleconnectiontimeout: 30s
- trace:
- work-python: {worktype: x, module: y}
- ip-router: {networkname: x}
- work-kubernetes: {worktype: kube, namespace: x}
- tcp-peer: a:1
- tcp-peer: {address: 'a:1', cost: 3}
- control-service: {filename: /s, permissions: 432}
`)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, w := range c.Warnings {
		got = append(got, w[:strings.LastIndex(w, ": ")])
	}
	want := []string{
		`r.conf:3: node: key "receptorKubeClientsetQPS": has no effect`,
		`r.conf:4: node: key "maxidleconnectiontimeout": has no effect`,
		`r.conf:5: trace: has no effect`,
		`r.conf:6: work-python: has no effect`,
		`r.conf:7: ip-router: has no effect`,
		`r.conf:8: work-kubernetes: work in Kubernetes is not run by this version`,
		`r.conf:10: tcp-peer: key "address": a:1 is the peer of line 9 already`,
		`r.conf:11: control-service: key "permissions": 432 is a decimal number, which means mode 0660`,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if len(c.Peers) != 1 || c.ControlServices[0].Permissions != 0o660 {
		t.Errorf("%+v", c)
	}
}

func TestModes(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]fs.FileMode{"0660": 0o660, "'0660'": 0o660, "0o640": 0o640, "384": 0o600, "0": 0, "0777": 0o777} {
		c, err := parseText("- local-only:\n- control-service: {permissions: " + text + "}")
		if err != nil || c.ControlServices[0].Permissions != want {
			t.Errorf("%s: %v, %v; want %v", text, c, err, want)
		}
	}
}

func TestCheckLoopback(t *testing.T) {
	t.Parallel()
	for text, ok := range map[string]bool{
		"- tcp-listener: 1": false,
		"- tcp-listener: {port: 1, bindaddr: 127.0.0.1}":                true,
		"- tcp-listener: {port: 1, bindaddr: localhost}":                true,
		"- tcp-listener: {port: 1, bindaddr: '::1'}":                    true,
		"- tcp-listener: {port: 1, bindaddr: '::ffff:127.0.0.1'}":       true,
		"- tcp-listener: {port: 1, bindaddr: '::'}":                     false,
		"- tcp-listener: {port: 1, bindaddr: 10.0.0.1}":                 false,
		"- tcp-listener: {port: 1, bindaddr: somehost}":                 false,
		"- node: {insecure: true}\n- tcp-listener: 1":                   true,
		"- tcp-listener: {port: 1, bindaddr: '::1'}\n- tcp-listener: 2": false,

		"- local-only:\n- tcp-server: {port: 1, remotenode: a, remoteservice: s}":                                              true, // on loopback then
		"- local-only:\n- tcp-server: {port: 1, bindaddr: 127.0.0.1, remotenode: a, remoteservice: s}":                         true,
		"- local-only:\n- tcp-server: {port: 1, bindaddr: 0.0.0.0, remotenode: a, remoteservice: s}":                           false,
		"- local-only:\n- udp-server: {port: 1, bindaddr: 10.0.0.1, remotenode: a, remoteservice: s}":                          false,
		"- node: {insecure: true}\n- local-only:\n- udp-server: {port: 1, bindaddr: 0.0.0.0, remotenode: a, remoteservice: s}": true,
		"- local-only:\n- unix-socket-server: {filename: /run/x, remotenode: a, remoteservice: s}":                             true,
	} {
		c, err := parseText(text)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.CheckLoopback(); (err == nil) != ok {
			t.Errorf("%s: %v", text, err)
		} else if err != nil && !strings.HasPrefix(err.Error(), "r.conf:") {
			t.Errorf("the error does not name the line: %v", err)
		}
	}
}

func TestLoad(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "ranvier.conf")
	if _, err := Load(path); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), path) {
		t.Errorf("a file that is missing: %v", err)
	}
	if err := os.WriteFile(path, []byte("- node: a\n- local-only:\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if c, err := Load(path); err != nil || c.Node.ID != "a" || c.File != path {
		t.Errorf("%+v, %v", c, err)
	}
	if _, err := Load("/dev/zero"); err == nil || !strings.Contains(err.Error(), "too large") {
		t.Errorf("a file without an end: %v", err)
	}
}

// TestExamples loads every file of config-examples, each of them as a node
// without an identity would.
func TestExamples(t *testing.T) {
	t.Parallel()
	var files []string
	err := filepath.WalkDir("../../config-examples", func(path string, d fs.DirEntry, err error) error {
		if ext := filepath.Ext(path); err == nil && !d.IsDir() && (ext == ".yml" || ext == ".conf") {
			files = append(files, path)
		}
		return err
	})
	if err != nil || len(files) < 3 {
		t.Fatalf("examples found: %v, %v", files, err)
	}
	for _, file := range files {
		c, err := Load(file)
		if err != nil {
			t.Error(err)
			continue
		}
		if err := c.CheckLoopback(); err != nil {
			t.Error(err)
		}
		if len(c.Warnings) > 0 {
			t.Errorf("%s has warnings: %q", file, c.Warnings)
		}
	}
}

// TestLineExample holds config-examples/line to what its comments say: only b
// is linked to both others, and the addresses meet.
func TestLineExample(t *testing.T) {
	t.Parallel()
	nodes := map[string]*Config{}
	listens := map[string]string{}
	for _, id := range []string{"a", "b", "c"} {
		c, err := Load("../../config-examples/line/" + id + ".yml")
		if err != nil {
			t.Fatal(err)
		}
		if string(c.Node.ID) != id {
			t.Errorf("%s is the node %s", c.File, c.Node.ID)
		}
		nodes[id] = c
		for _, l := range c.Listeners {
			listens[l.URL()] = id
		}
	}
	var links []string
	for _, id := range []string{"a", "b", "c"} {
		for _, p := range nodes[id].Peers {
			links = append(links, id+"-"+listens[p.Addresses[0]])
		}
	}
	if want := []string{"b-a", "c-b"}; !slices.Equal(links, want) {
		t.Errorf("links %v, want %v", links, want)
	}
	if listens["tcp://127.0.0.1:8888"] != "a" {
		t.Error("a must listen where --receptor-peer looks by default")
	}
}

// TestDocs holds docs/config.md to the table: a heading for each item and a
// row for each key.
func TestDocs(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("../../docs/config.md")
	if err != nil {
		t.Fatal(err)
	}
	doc := string(data)
	for _, it := range table() {
		if !strings.Contains(doc, "`"+it.name+"`") {
			t.Errorf("docs/config.md does not name the item %s", it.name)
		}
		f := &fields{rep: &report{}}
		it.build(&Config{}, f)
		if len(f.asked) == 0 {
			continue
		}
		heading := regexp.MustCompile("(?m)^### .*`" + it.name + "`.*\n") // it may name several items
		at := heading.FindStringIndex(doc)
		if at == nil {
			t.Errorf("docs/config.md has no heading for the item %s", it.name)
			continue
		}
		section, _, _ := strings.Cut(doc[at[1]:], "\n##")
		for _, key := range f.asked {
			if !strings.Contains(section, "| `"+key+"` |") {
				t.Errorf("docs/config.md: item %s has no row for the key %s", it.name, key)
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(full))
	f.Add([]byte("- &x {node: &y {id: *x}}\n- *x\n- tcp-peer: *y"))
	f.Add([]byte("- tcp-listener: {port: 1, nodecost: {a: }, allowedpeers: [~, [a]]}"))
	f.Add([]byte("- control-service: {permissions: !!binary AAAA}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := parse("r.conf", data, func() (string, error) { return "box", nil })
		if err != nil {
			for _, e := range err.(interface{ Unwrap() []error }).Unwrap() {
				if e, ok := e.(*Error); !ok || e.File != "r.conf" || e.Line < 0 {
					t.Fatalf("%#v", e)
				}
			}
			return
		}
		if c.Node.ID.Validate() != nil || c.Node.DataDir == "" || len(c.Listeners)+len(c.Peers) == 0 && !c.LocalOnly {
			t.Fatalf("%+v", c)
		}
		for _, l := range c.Listeners {
			if l.Cost > routing.MaxCost || l.BindAddr == "" || l.Pos.Line < 1 {
				t.Fatalf("%+v", l)
			}
			for id, cost := range l.NodeCost {
				if id.Validate() != nil || cost == 0 || cost > routing.MaxCost {
					t.Fatalf("%+v", l)
				}
			}
		}
		for _, s := range c.ControlServices {
			if s.Permissions > 0o777 || s.Service == "" {
				t.Fatalf("%+v", s)
			}
		}
		for _, w := range c.WorkCommands {
			if w.WorkType == "" || w.Command == "" {
				t.Fatalf("%+v", w)
			}
		}
	})
}
