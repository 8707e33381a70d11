package config

import (
	"strings"
	"testing"
	"time"
)

func TestServices(t *testing.T) {
	t.Parallel()
	c, err := Parse("r.conf", []byte(`
- node: {id: a, resumetime: 90s, streammemory: 128MiB}
- local-only:
- tls-server: {name: s, cert: s.crt, key: s.key}
- tls-client: {name: c}
- tcp-server: {port: 2222, bindaddr: 127.0.0.1, remotenode: c, remoteservice: ssh, tlsserver: s, tlsclient: c}
- TCP-Server: {port: '0', remotenode: c, remoteservice: web}
- udp-server: {port: 53, bindaddr: '::1', remotenode: c, remoteservice: dns}
- unix-socket-server: {filename: /run/x.sock, permissions: '0660', remotenode: c, remoteservice: db, tls: c}
- tcp-client: {service: ssh, address: 'localhost:22', tlsserver: s, tlsclient: c}
- udp-client: {service: dns, address: '[::1]:53'}
- unix-socket-client: {service: db, filename: /run/db.sock, tls: s}
- command-service: {service: shell, command: 'sh -c "echo hi"', tls: s}
`))
	if err != nil {
		t.Fatal(err)
	}
	if c.Node.ResumeTime != 90*time.Second || c.Node.StreamMemory != 128<<20 {
		t.Errorf("node %+v", c.Node)
	}
	if len(c.Inbound) != 4 || len(c.Outbound) != 4 {
		t.Fatalf("%d and %d items", len(c.Inbound), len(c.Outbound))
	}
	in, out := c.Inbound[0], c.Outbound[0]
	in.Pos = Pos{}
	server, _ := c.TLSServer("s")
	client, _ := c.TLSClient("c")
	if want := (Inbound{Network: "tcp", Address: "127.0.0.1:2222", RemoteNode: "c", RemoteService: "ssh", TLSServer: &server, TLSClient: &client}); !Equal(in, want) {
		t.Errorf("tcp-server %+v", in)
	}
	if want := (Outbound{Service: "ssh", Network: "tcp", Address: "localhost:22", TLSServer: &server, TLSClient: &client}); !Equal(out, want) {
		t.Errorf("tcp-client %+v", out)
	}
	if u := c.Inbound[3]; u.Address != "/run/x.sock" || u.Permissions != 0o660 || u.TLSClient == nil {
		t.Errorf("unix-socket-server %+v", u)
	}
	if a := c.Inbound[1].Address; a != "0.0.0.0:0" {
		t.Errorf("default address %s", a)
	}
	if u := c.Outbound[2]; u.Address != "/run/db.sock" || u.TLSServer == nil {
		t.Errorf("unix-socket-client %+v", u)
	}
	if w := c.Outbound[3].Command; strings.Join(w, "|") != "sh|-c|echo hi" {
		t.Errorf("command %q", w)
	}
}

func TestServiceErrors(t *testing.T) {
	t.Parallel()
	for item, want := range map[string]string{
		"tcp-server: {port: 1, remotenode: c}":                                 `key "remoteservice": it is missing`,
		"tcp-server: {remotenode: c, remoteservice: x}":                        `key "port": it is missing`,
		"udp-server: {port: 1, remotenode: c, remoteservice: x, tlsserver: y}": `key "tlsserver": there is no such key`,
		"tcp-client: {service: x, address: y}":                                 `is no host:port`,
		"tcp-client: {service: work, address: 'a:1'}":                          `one of the node's own services`,
		"unix-socket-server: {remotenode: c, remoteservice: x}":                `key "filename": it is missing`,
		"command-service: {service: x, command: 'a \"b'}":                      `is no command line`,
		"command-service: {service: x, command: ' '}":                          `it is empty`,
		"node: {id: a, firewallrules: 7}":                                      `a list of rules is expected`,
		"node: {id: a, firewallrules: [7]}":                                    `a rule is a map`,
		"node: {id: a, firewallrules: [{fromnode: a}]}":                        `key "action": it is missing`,
		"node: {id: a, firewallrules: [{action: allow}]}":                      `key "action": "allow" is no action`,
		"node: {id: a, firewallrules: [{action: drop, node: a}]}":              `key "node": there is no such key`,
		"node: {id: a, firewallrules: [{action: drop, toservice: '/a(/'}]}":    `r.conf:2: node: key "toservice": /a(/ is no regular expression`,
		"node: {id: a, firewallrules: [{action: drop, tonode: '/a)|(?:b/'}]}":  `is no regular expression`,
		"node: {id: a, streammemory: 5}":                                       `too little for streams`,
		"node: {id: a, resumetime: soon}":                                      `no duration`,
	} {
		_, err := Parse("r.conf", []byte("- local-only:\n- "+item+"\n"))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", item, err, want)
		}
	}
	_, err := Parse("r.conf", []byte(`
- tcp-listener: {port: 5, bindaddr: 127.0.0.1}
- tcp-server: {port: 5, bindaddr: 127.0.0.1, remotenode: c, remoteservice: x}
- control-service: {service: ctl}
- tcp-client: {service: ctl, address: 'a:1'}
`))
	if err == nil || !strings.Contains(err.Error(), "line 2 listens on 127.0.0.1:5 already") || !strings.Contains(err.Error(), `line 4 has the service "ctl" already`) {
		t.Errorf("what items fight for: %v", err)
	}
}

func TestFirewallRules(t *testing.T) {
	t.Parallel()
	c, err := Parse("r.conf", []byte(`
- local-only:
- node:
    id: a
    firewallrules:
    - Action: Accept
      FromNode: b
    - action: reject
      tonode: a
      toservice: /control|work/
`))
	if err != nil {
		t.Fatal(err)
	}
	if len(c.FirewallRules) != 2 || c.FirewallRules[0].Action != "accept" || c.FirewallRules[0].FromNode != "b" ||
		c.FirewallRules[1].Pos.Line != 8 || c.FirewallRules[1].ToService != "/control|work/" {
		t.Errorf("%+v", c.FirewallRules)
	}
	other := *c
	other.FirewallRules, other.Inbound, other.Outbound = nil, []Inbound{{}}, []Outbound{{}}
	if fixed := Fixed(c, &other); len(fixed) > 0 {
		t.Errorf("%v cannot be changed by a reload", fixed)
	}
}

func TestLegacyControl(t *testing.T) {
	t.Parallel()
	for _, form := range []string{"- legacy-control: /run/old.sock\n", "- Legacy-Control: {Filename: /run/old.sock}\n"} {
		c, err := parseText("- node: a\n- local-only\n" + form)
		if err != nil || c.LegacyControl.Filename != "/run/old.sock" {
			t.Errorf("%s: %+v, %v", form, c, err)
		}
	}
	for text, want := range map[string]string{
		"- legacy-control:\n":                                                   `legacy-control: key "filename": it is missing`,
		"- legacy-control: /a\n- legacy-control: /b\n":                          "it may stand only once",
		"- control-service: {filename: /run/s}\n- legacy-control: /run/s\n":     "is this node's own control socket",
		"- legacy-control: {filename: /run/s, nodes: [a]}\n":                    "there is no such key",
		"- control-service: {filename: /a}\n- legacy-control: {socket: /run}\n": "there is no such key",
	} {
		if _, err := parseText("- node: a\n- local-only\n" + text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}
