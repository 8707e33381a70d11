package config

import (
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.yaml.in/yaml/v3"

	"github.com/ranvier-mesh/ranvier/internal/identity"
	"github.com/ranvier-mesh/ranvier/routing"
)

// receptorItems are all items of Receptor's file with all their keys.
var receptorItems = map[string]string{
	"node":               "id datadir firewallrules maxidleconnectiontimeout receptorkubesupportreconnect receptorkubeclientsetqps receptorkubeclientsetburst receptorkubeclientsetratelimiter",
	"local-only":         "",
	"log-level":          "level",
	"trace":              "",
	"work-python":        "worktype plugin function config",
	"ip-router":          "networkname interface localnet routes",
	"tcp-listener":       "bindaddr port tls cost nodecost allowedpeers",
	"tcp-peer":           "address redial tls cost allowedpeers",
	"ws-listener":        "bindaddr port path tls cost nodecost allowedpeers",
	"ws-peer":            "address redial extraheader tls cost allowedpeers",
	"udp-listener":       "bindaddr port cost nodecost allowedpeers",
	"udp-peer":           "address redial cost allowedpeers",
	"tls-server":         "name cert key requireclientcert clientcas pinnedclientcert skipreceptornamescheck mintls13",
	"tls-client":         "name cert key rootcas insecureskipverify pinnedservercert skipreceptornamescheck mintls13",
	"control-service":    "service filename permissions tls tcplisten tcptls",
	"work-command":       "worktype command params allowruntimeparams verifysignature",
	"work-kubernetes":    "worktype namespace image command params authmethod kubeconfig pod allowruntimeauth allowruntimecommand allowruntimeparams allowruntimepod deletepodonrestart streammethod verifysignature",
	"work-signing":       "privatekey tokenexpiration",
	"work-verification":  "publickey",
	"tcp-server":         "port bindaddr remotenode remoteservice tlsserver tlsclient",
	"tcp-client":         "service address tlsserver tlsclient",
	"udp-server":         "port bindaddr remotenode remoteservice",
	"udp-client":         "service address",
	"unix-socket-server": "filename permissions remotenode remoteservice tls",
	"unix-socket-client": "service filename tls",
	"command-service":    "service command tls",
	"cert-init":          "commonname bits notbefore notafter outcert outkey",
	"cert-makereq":       "commonname bits dnsname ipaddress nodeid inkey outkey outreq",
	"cert-signreq":       "req cacert cakey notbefore notafter outcert verify",
}

const (
	pin256 = "f1e0c1c2c3c4c5c6c7c8c9cacbcccdcecfd0d1d2d3d4d5d6d7d8d9dadbdcddde"
	pin512 = pin256 + ":" + pin256
)

// everyKey has every key of receptorItems that a node's file may have; each list
// has two values.
const everyKey = `
- Node:
    ID: here
    dataDir: /data
    firewallRules:
    - {action: reject, fromnode: a, tonode: /b.*/, fromservice: c, toservice: d}
    - {Action: accept, FromNode: e}
    maxIdleConnectionTimeout: 1m30s
    receptorKubeSupportReconnect: enabled
    receptorKubeClientsetQPS: 100
    receptorKubeClientsetBurst: 200
    receptorKubeClientsetRateLimiter: default
- local-only: null
- log-level: {level: Warning}
- trace: null
- work-python: {workType: p, plugin: q, function: r, config: {s: t}}
- ip-router: {networkname: n, interface: tun0, localnet: 10.0.0.0/30, routes: 10.1.0.0/24}
- tcp-listener: {bindaddr: 127.0.0.1, port: 1, tls: server, cost: 1.5, nodecost: {a: 2, b: 2.5}, allowedpeers: [a, b]}
- tcp-peer: {address: 'peer:2', redial: false, tls: client, cost: 3, allowedpeers: [c, d]}
- ws-listener: {bindaddr: '::1', port: 3, path: /mesh, tls: server, cost: 4, nodecost: {a: 5}, allowedpeers: [a, b]}
- ws-peer: {address: 'wss://peer/mesh', redial: false, extraheader: 'X-K: v', tls: client, cost: 6, allowedpeers: [c, d]}
- udp-listener: {bindaddr: 127.0.0.1, port: 7, cost: 8, nodecost: {a: 9}, allowedpeers: [a, b]}
- udp-peer: {address: 'peer:10', redial: false, cost: 11, allowedpeers: [c, d]}
- tls-server: {name: server, cert: s.crt, key: s.key, requireclientcert: true, clientcas: ca.crt, pinnedclientcert: [P256, 'P512'], skipreceptornamescheck: true, mintls13: true}
- tls-client: {name: client, cert: c.crt, key: c.key, rootcas: ca.crt, insecureskipverify: true, pinnedservercert: [P256, 'P512'], skipreceptornamescheck: true, mintls13: true}
- control-service: {service: ctl, filename: /run/ctl, permissions: 0660, tls: server, tcplisten: 2112, tcptls: server}
- work-command: {worktype: cat, command: cat, params: '-n -', allowruntimeparams: true, verifysignature: true}
- work-kubernetes: {worktype: kube, namespace: n, image: i, command: c, params: p, authmethod: kubeconfig, kubeconfig: k, pod: q, allowruntimeauth: true,
    allowruntimecommand: true, allowruntimeparams: true, allowruntimepod: true, deletepodonrestart: true, streammethod: tcp, verifysignature: true}
- work-signing: {privatekey: w.key, tokenexpiration: 3h30m}
- work-verification: {publickey: w.pub}
- tcp-server: {port: 12, bindaddr: 127.0.0.1, remotenode: far, remoteservice: ssh, tlsserver: server, tlsclient: client}
- tcp-client: {service: ssh, address: 'localhost:22', tlsserver: server, tlsclient: client}
- udp-server: {port: 13, bindaddr: 127.0.0.1, remotenode: far, remoteservice: dns}
- udp-client: {service: dns, address: 'localhost:53'}
- unix-socket-server: {filename: /run/in, permissions: 0640, remotenode: far, remoteservice: db, tls: client}
- unix-socket-client: {service: db, filename: /run/out, tls: server}
- command-service: {service: sh, command: 'sh -i', tls: server}
`

func everyKeyTyped() *Config {
	server := &TLS{Name: "server", Item: identity.TLSItem{Cert: "s.crt", Key: "s.key", RequireCert: true, CAs: "ca.crt", Pinned: []string{pin256, pin512}, SkipNames: true}}
	client := &TLS{Name: "client", Item: identity.TLSItem{Cert: "c.crt", Key: "c.key", SkipVerify: true, CAs: "ca.crt", Pinned: []string{pin256, pin512}, SkipNames: true}}
	ab, cd := []routing.NodeID{"a", "b"}, []routing.NodeID{"c", "d"}
	type costs = map[routing.NodeID]routing.Cost
	return &Config{
		Node:      Node{ID: "here", DataDir: "/data"},
		LocalOnly: true, LogLevel: slog.LevelWarn,
		FirewallRules: []FirewallRule{{Action: "reject", FromNode: "a", ToNode: "/b.*/", FromService: "c", ToService: "d"}, {Action: "accept", FromNode: "e"}},
		Listeners: []Listener{
			{Scheme: "tcp", BindAddr: "127.0.0.1", Port: 1, TLS: server, Cost: 1500, NodeCost: costs{"a": 2000, "b": 2500}, AllowedPeers: ab},
			{Scheme: "ws", BindAddr: "::1", Port: 3, Path: "/mesh", TLS: server, Cost: 4000, NodeCost: costs{"a": 5000}, AllowedPeers: ab},
			{Scheme: "quic", BindAddr: "127.0.0.1", Port: 7, Cost: 8000, NodeCost: costs{"a": 9000}, AllowedPeers: ab},
		},
		Peers: []Peer{
			{Addresses: []string{"tcp://peer:2"}, TLS: client, Cost: 3000, AllowedPeers: cd},
			{Addresses: []string{"wss://peer:443/mesh"}, Header: http.Header{"X-K": {"v"}}, TLS: client, Cost: 6000, AllowedPeers: cd},
			{Addresses: []string{"quic://peer:10"}, Cost: 11000, AllowedPeers: cd},
		},
		TLSServers: []TLS{*server}, TLSClients: []TLS{*client},
		ControlServices:  []ControlService{{Service: "ctl", Filename: "/run/ctl", Permissions: 0o660, TLS: server, TCPListen: "0.0.0.0:2112", TCPTLS: server}},
		WorkCommands:     []WorkCommand{{WorkType: "cat", Command: "cat", Params: "-n -", AllowRuntimeParams: true, VerifySignature: true}},
		Kubernetes:       []Kubernetes{{WorkType: "kube"}},
		WorkSigning:      WorkSigning{PrivateKey: "w.key", TokenExpiration: 3*time.Hour + 30*time.Minute},
		WorkVerification: WorkVerification{PublicKey: "w.pub"},
		Inbound: []Inbound{
			{Network: "tcp", Address: "127.0.0.1:12", RemoteNode: "far", RemoteService: "ssh", TLSServer: server, TLSClient: client},
			{Network: "udp", Address: "127.0.0.1:13", RemoteNode: "far", RemoteService: "dns"},
			{Network: "unix", Address: "/run/in", Permissions: 0o640, RemoteNode: "far", RemoteService: "db", TLSClient: client},
		},
		Outbound: []Outbound{
			{Service: "ssh", Network: "tcp", Address: "localhost:22", TLSServer: server, TLSClient: client},
			{Service: "dns", Network: "udp", Address: "localhost:53"},
			{Service: "db", Network: "unix", Address: "/run/out", TLSServer: server},
			{Service: "sh", Network: "command", Command: []string{"sh", "-i"}, TLSServer: server},
		},
	}
}

// requiredKeys has what no item goes without, and minimal what is then by default.
const requiredKeys = `
- node: here
- log-level:
- tcp-listener: 1
- ws-listener: 2
- udp-listener: 3
- tcp-peer: 'peer:4'
- ws-peer: 'ws://peer:5'
- udp-peer: 'peer:6'
- tls-server: {name: server, cert: s.crt, key: s.key}
- tls-client: {name: client}
- control-service:
- work-command: {worktype: cat, command: cat}
- work-kubernetes: {worktype: kube}
- work-signing: w.key
- work-verification: w.pub
- tcp-server: {port: 7, remotenode: far, remoteservice: ssh}
- tcp-client: {service: ssh, address: 'localhost:22'}
- udp-server: {port: 8, remotenode: far, remoteservice: dns}
- udp-client: {service: dns, address: 'localhost:53'}
- unix-socket-server: {filename: /run/in, remotenode: far, remoteservice: db}
- unix-socket-client: {service: db, filename: /run/out}
- command-service: {service: sh, command: sh}
`

func minimal() *Config {
	return &Config{
		Node:     Node{ID: "here", DataDir: DefaultDataDir},
		LogLevel: slog.LevelError, // Receptor's, of an item without a level
		Listeners: []Listener{
			{Scheme: "tcp", BindAddr: "0.0.0.0", Port: 1}, {Scheme: "ws", BindAddr: "0.0.0.0", Port: 2, Path: "/"}, {Scheme: "quic", BindAddr: "0.0.0.0", Port: 3},
		},
		Peers: []Peer{
			{Addresses: []string{"tcp://peer:4"}, Redial: true}, {Addresses: []string{"ws://peer:5"}, Redial: true}, {Addresses: []string{"quic://peer:6"}, Redial: true},
		},
		TLSServers:      []TLS{{Name: "server", Item: identity.TLSItem{Cert: "s.crt", Key: "s.key", MinTLS12: true}}},
		TLSClients:      []TLS{{Name: "client", Item: identity.TLSItem{MinTLS12: true}}},
		ControlServices: []ControlService{{Service: "control", Permissions: 0o600}},
		WorkCommands:    []WorkCommand{{WorkType: "cat", Command: "cat"}},
		Kubernetes:      []Kubernetes{{WorkType: "kube"}},
		WorkSigning:     WorkSigning{PrivateKey: "w.key"}, WorkVerification: WorkVerification{PublicKey: "w.pub"},
		Inbound: []Inbound{
			{Network: "tcp", Address: "0.0.0.0:7", AnyHost: true, RemoteNode: "far", RemoteService: "ssh"},
			{Network: "udp", Address: "0.0.0.0:8", AnyHost: true, RemoteNode: "far", RemoteService: "dns"},
			{Network: "unix", Address: "/run/in", Permissions: 0o600, RemoteNode: "far", RemoteService: "db"},
		},
		Outbound: []Outbound{
			{Service: "ssh", Network: "tcp", Address: "localhost:22"}, {Service: "dns", Network: "udp", Address: "localhost:53"},
			{Service: "db", Network: "unix", Address: "/run/out"}, {Service: "sh", Network: "command", Command: []string{"sh"}},
		},
	}
}

// certKeys are the items that stand alone.
const certKeys = `
- cert-init: {commonname: ca, bits: 2048, notbefore: '2026-01-02T03:04:05Z', notafter: '2027-01-02T03:04:05Z', outcert: ca.crt, outkey: ca.key}
- cert-makereq: {commonname: x, bits: 4096, dnsname: [a.example, b.example], ipaddress: [10.0.0.1, '::1'], nodeid: [a, b], outkey: x.key, outreq: x.req}
- cert-makereq: {commonname: y, inkey: x.key, outreq: y.req}
- cert-signreq: {req: x.req, cacert: ca.crt, cakey: ca.key, notbefore: '2026-01-02T03:04:05Z', notafter: '2027-01-02T03:04:05Z', outcert: x.crt, verify: true}
`

func certsTyped() Certs {
	from, to := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), time.Date(2027, 1, 2, 3, 4, 5, 0, time.UTC)
	return Certs{
		CertInit{CommonName: "ca", Bits: 2048, NotBefore: from, NotAfter: to, OutCert: "ca.crt", OutKey: "ca.key"},
		CertRequest{Bits: 4096, OutKey: "x.key", OutReq: "x.req", Request: identity.SiteRequest{CommonName: "x",
			DNS: []string{"a.example", "b.example"}, IPs: []net.IP{net.ParseIP("10.0.0.1"), net.ParseIP("::1")}, Nodes: []routing.NodeID{"a", "b"}}},
		CertRequest{InKey: "x.key", OutReq: "y.req", Request: identity.SiteRequest{CommonName: "y"}},
		CertSign{Req: "x.req", CACert: "ca.crt", CAKey: "ca.key", NotBefore: from, NotAfter: to, OutCert: "x.crt", Verify: true},
	}
}

// items parses a file as plain YAML.
func items(t *testing.T, text string) []*yaml.Node {
	t.Helper()
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(pins(text)), &doc); err != nil {
		t.Fatal(err)
	}
	return doc.Content[0].Content
}

func pins(text string) string {
	return strings.NewReplacer("P256", pin256, "P512", pin512).Replace(text)
}

// scalars calls f for every value, and not for keys.
func scalars(n *yaml.Node, f func(*yaml.Node)) {
	switch n.Kind {
	case yaml.ScalarNode:
		f(n)
	case yaml.SequenceNode:
		for _, c := range n.Content {
			scalars(c, f)
		}
	case yaml.MappingNode:
		for i := 1; i < len(n.Content); i += 2 {
			scalars(n.Content[i], f)
		}
	}
}

// arguments writes items as on a command line: lists in two forms.
func arguments(t *testing.T, all []*yaml.Node, repeat bool) []Arg {
	t.Helper()
	var args []Arg
	for _, item := range all {
		a := Arg{Item: item.Content[0].Value}
		switch value := item.Content[1]; {
		case value.Kind == yaml.ScalarNode && value.ShortTag() != "!!null":
			a.Words = []string{value.Value}
		case value.Kind == yaml.MappingNode:
			for i := 0; i < len(value.Content); i += 2 {
				a.Words = append(a.Words, words(t, value.Content[i].Value, value.Content[i+1], repeat)...)
			}
		}
		args = append(args, a)
	}
	return args
}

func words(t *testing.T, key string, n *yaml.Node, repeat bool) (all []string) {
	t.Helper()
	switch {
	case n.Kind == yaml.ScalarNode:
		return []string{key + "=" + n.Value}
	case n.Kind == yaml.SequenceNode && n.Content[0].Kind == yaml.ScalarNode && repeat:
		for _, c := range n.Content {
			all = append(all, key+"="+c.Value)
		}
		return all
	}
	var v any
	if err := n.Decode(&v); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return []string{key + "=" + string(text)}
}

func expectConfig(t *testing.T, form string, want, got *Config, err error) {
	t.Helper()
	if err != nil {
		t.Errorf("%s: %v", form, err)
		return
	}
	if d := cmp.Diff(want, got, cmpopts.IgnoreTypes(Pos{}), cmpopts.IgnoreFields(Config{}, "File", "Warnings")); d != "" {
		t.Errorf("%s: %s", form, d)
	}
}

// TestEveryKeyOfReceptor holds a file that has every key to what it means, in each
// of the forms that Receptor takes: the file, all values quoted, and the command
// line with lists as JSON and as keys that are repeated.
func TestEveryKeyOfReceptor(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]*Config{
		everyKey:     everyKeyTyped(),
		requiredKeys: minimal(),
		certKeys:     {LogLevel: slog.LevelInfo, Node: Node{DataDir: DefaultDataDir}, Certs: certsTyped()},
	} {
		got, err := Parse("r.conf", []byte(pins(text)))
		expectConfig(t, "file", want, got, err)

		all := items(t, text)
		for _, item := range all {
			scalars(item, func(n *yaml.Node) {
				if n.ShortTag() != "!!null" {
					n.Tag, n.Style = "!!str", yaml.DoubleQuotedStyle
				}
			})
		}
		quoted, err := yaml.Marshal(all)
		if err != nil || !strings.Contains(string(quoted), `"`) {
			t.Fatalf("%s\n%v", quoted, err)
		}
		got, err = Parse("r.conf", quoted)
		expectConfig(t, "quoted", want, got, err)

		for _, repeat := range []bool{false, true} {
			got, err = Source{Args: arguments(t, all, repeat)}.Load()
			expectConfig(t, "command line", want, got, err)
		}
	}
}

// TestEmptyKeysOfReceptor gives each key that may be left out no value, as programs
// write files: the defaults are in effect.
func TestEmptyKeysOfReceptor(t *testing.T) {
	t.Parallel()
	for _, none := range []string{"null", "", "''", `""`} {
		var text strings.Builder
		for _, item := range items(t, requiredKeys) {
			name, value := item.Content[0].Value, item.Content[1]
			given := map[string]string{}
			if value.Kind == yaml.ScalarNode && value.ShortTag() != "!!null" {
				given[map[bool]string{true: "address", false: "port"}[strings.HasSuffix(name, "-peer")]] = value.Value
				if key := map[string]string{"node": "id", "work-signing": "privatekey", "work-verification": "publickey"}[name]; key != "" {
					given = map[string]string{key: value.Value}
				}
			}
			for i := 0; i+1 < len(value.Content); i += 2 {
				given[value.Content[i].Value] = value.Content[i+1].Value
			}
			text.WriteString("- " + name + ":\n")
			for _, key := range strings.Fields(receptorItems[name]) {
				v := none
				if g := given[key]; g != "" {
					v = "'" + g + "'"
				}
				text.WriteString("    " + key + ": " + v + "\n")
			}
		}
		got, err := Parse("r.conf", []byte(text.String()))
		want := minimal()
		want.Inbound[0].AnyHost, want.Inbound[1].AnyHost = true, true
		expectConfig(t, none, want, got, err)
	}
}

// The tables above leave out no item and no key.
func TestNoKeyOfReceptorIsForgotten(t *testing.T) {
	t.Parallel()
	has := map[string]map[string]bool{}
	for _, item := range append(items(t, everyKey), items(t, certKeys)...) {
		name := strings.ToLower(item.Content[0].Value)
		if has[name] == nil {
			has[name] = map[string]bool{}
		}
		for i := 0; i+1 < len(item.Content[1].Content); i += 2 {
			has[name][strings.ToLower(item.Content[1].Content[i].Value)] = true
		}
	}
	for name, keys := range receptorItems {
		if has[name] == nil {
			t.Errorf("there is no %s", name)
		}
		for _, key := range strings.Fields(keys) {
			if !has[name][key] {
				t.Errorf("%s has no %s", name, key)
			}
			delete(has[name], key)
		}
		for key := range has[name] {
			t.Errorf("%s: what is %s?", name, key)
		}
	}
	for _, it := range table() {
		if _, known := receptorItems[it.name]; known == it.ours {
			t.Errorf("%s: is it Receptor's or ours?", it.name)
		}
	}
}
