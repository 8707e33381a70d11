package config

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestLinkItems(t *testing.T) {
	c, err := Parse("r.conf", []byte(`
- node: {id: a, insecure: true}
- quic-listener: {port: 27199, bindaddr: '::1', rate: 5Mbit, cost: 2, nodecost: {b: 3}, allowedpeers: b}
- tcp-listener: {port: 27199, bindaddr: '::1'}
- ws-listener: {port: 80, path: /mesh}
- ws-listener: 81
- quic-peer: hub:27199
- ws-peer: {address: 'wss://hub.example/mesh?site=east', extraheader: 'X-Token: a:b', redial: false}
- ws-peer: {address: 10.0.0.1, extraheader: ['X-A: 1', 'X-A: 2', 'x-b:3']}
- tcp-peer:
    address: [quic://h:1, h:2, 'ws://h:3/x', receptor://h:4]
    extraheader: 'X-C: 4'
    rate: 64KiB/s
`))
	if err != nil {
		t.Fatal(err)
	}
	var urls []string
	for _, l := range c.Listeners {
		urls = append(urls, l.URL())
	}
	if want := []string{"quic://[::1]:27199", "tcp://[::1]:27199", "ws://0.0.0.0:80/mesh", "ws://0.0.0.0:81"}; !slices.Equal(urls, want) {
		t.Errorf("listeners %q, want %q", urls, want)
	}
	if l := c.Listeners[0]; l.Rate != 625_000 || l.Cost != 2000 || l.NodeCost["b"] != 3000 || len(l.AllowedPeers) != 1 {
		t.Errorf("the first listener: %+v", l)
	}
	var addresses [][]string
	var headers []http.Header
	for _, p := range c.Peers {
		addresses, headers = append(addresses, p.Addresses), append(headers, p.Header)
	}
	if diff := cmp.Diff([][]string{
		{"quic://hub:27199"},
		{"wss://hub.example:443/mesh?site=east"},
		{"ws://10.0.0.1:80"},
		{"quic://h:1", "tcp://h:2", "ws://h:3/x", "tcp://h:4"},
	}, addresses); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]http.Header{nil, {"X-Token": {"a:b"}}, {"X-A": {"1", "2"}, "X-B": {"3"}}, {"X-C": {"4"}}}, headers); diff != "" {
		t.Error(diff)
	}
	if c.Peers[1].Redial || !c.Peers[0].Redial || c.Peers[3].Rate != 65536 {
		t.Errorf("peers %+v", c.Peers)
	}
	if len(c.Warnings) != 0 {
		t.Errorf("warnings %q", c.Warnings)
	}
}

// Receptor does not look at the tls of a WebSocket without TLS.
func TestTLSOfAPlainWebSocket(t *testing.T) {
	t.Parallel()
	c, err := Parse("r.conf", []byte("- tls-client: {name: c}\n- ws-peer: {address: 'ws://h:1', tls: c}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if c.Peers[0].TLS != nil || len(c.Warnings) != 1 || !strings.HasPrefix(c.Warnings[0], `r.conf:2: ws-peer: key "tls": has no effect: ws://h:1`) {
		t.Errorf("%+v, %q", c.Peers[0], c.Warnings)
	}
	_, err = Parse("r.conf", []byte("- tls-client: {name: c}\n- ws-peer: {address: ['wss://h:1', 'ws://h:2'], tls: c}\n"))
	if err == nil || !strings.Contains(err.Error(), `key "tls": ws://h:2 is a WebSocket without TLS`) {
		t.Errorf("one of two ways: %v", err)
	}
}

func TestUDPItemsBecomeQUIC(t *testing.T) {
	c, err := Parse("r.conf", []byte("- node: {id: a, insecure: yes}\n- udp-listener: {port: 5, cost: 2.0}\n- udp-peer: h:6\n"))
	if err != nil {
		t.Fatal(err)
	}
	if c.Listeners[0].URL() != "quic://0.0.0.0:5" || c.Peers[0].Addresses[0] != "quic://h:6" {
		t.Errorf("%+v, %+v", c.Listeners, c.Peers)
	}
	want := []string{"r.conf:2: udp-listener: the links are encrypted, over QUIC", "r.conf:3: udp-peer: the links are encrypted"}
	for i, w := range want {
		if len(c.Warnings) != 2 || !strings.HasPrefix(c.Warnings[i], w) || !strings.Contains(c.Warnings[i], "write quic-") {
			t.Errorf("warnings %q", c.Warnings)
		}
	}
}

func TestWrongLinkItems(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"- quic-peer: {address: h}", `key "address": "h" is no host:port`},
		{"- tcp-peer: {address: 'udp://h:1'}", `key "address": "udp://h:1": the scheme "udp" is not one of tcp, quic, ws and wss`},
		{"- tcp-peer: {address: []}", `key "address": the list is empty`},
		{"- tcp-peer:\n    address:\n    - h:1\n    - h:0", `r.conf:5: tcp-peer: key "address": "h:0" has no port`},
		{"- tcp-peer: {address: {a: b}}", `one value is expected`},
		{"- ws-peer: {address: 'wss://u:p@h'}", `a user in the URL is not supported: write an extraheader`},
		{"- ws-peer: {address: 'wss://h/#x'}", `a URL with #`},
		{"- ws-peer: {address: 'wss://h:99999'}", `has no port from 1 to 65535`},
		{"- ws-peer: {address: 'wss://'}", `has no host`},
		{"- ws-peer: {address: 'wss://h', extraheader: novalue}", `"novalue" is no header`},
		{"- ws-peer: {address: 'wss://h', extraheader: 'a b: c'}", `is no header`},
		{"- ws-peer: {address: 'wss://h', extraheader: \"a: b\\r\\nc: d\"}", `is no header`},
		{"- ws-peer: {address: 'wss://h', extraheader: 'Host: x'}", `the header Host is the node's own`},
		{"- ws-peer: {address: 'wss://h', extraheader: 'sec-websocket-key: x'}", `the header Sec-Websocket-Key is the node's own`},
		{"- tcp-peer: {address: 'h:1', extraheader: 'a: b'}", `key "extraheader": there is no such key`},
		{"- ws-listener: {port: 1, path: mesh}", `"mesh" is no path`},
		{"- ws-listener: {port: 1, path: '/a?b'}", `is no path`},
		{"- quic-listener: {port: 1, path: /}", `key "path": there is no such key`},
		{"- udp-peer: {address: 'h:1', tls: x}", `key "tls": there is no tls-client "x"`},
		{"- tcp-peer: {address: 'h:1', rate: 5}", `key "rate": "5" is no rate`},
		{"- tcp-peer: {address: 'h:1', rate: 5Mb}", `"5Mb" is no rate`},
		{"- tcp-peer: {address: 'h:1', rate: 5bps}", `is no rate`},
		{"- tcp-peer: {address: 'h:1', rate: -5Mbit}", `is no rate`},
		{"- tcp-peer: {address: 'h:1', rate: 1.2.3Mbit}", `is no rate`},
		{"- tcp-peer: {address: 'h:1', rate: 1 Tbit}", `is no rate`},
		{"- tcp-peer: {address: 'h:1', rate: 10bit}", `10bit is too little`},
		{"- tcp-peer: {address: 'h:1', rate: 99999999GB}", `more than any link has`},
		{"- tcp-listener: 5\n- ws-listener: 5", `the listener on line 2 has the address 0.0.0.0:5 already`},
	} {
		_, err := Parse("r.conf", []byte("- node: a\n"+tt.text))
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s:\ngot  %v\nwant %s", tt.text, err, tt.want)
		}
	}
}

func TestRates(t *testing.T) {
	for text, want := range map[string]int64{
		"64kbit": 8000, "5Mbit": 625_000, "5mbit/s": 625_000, "1.5 Gbit/s": 187_500_000,
		"1MB/s": 1_000_000, "1MiB": 1 << 20, "20kB": 20_000, "20KB": 20_000, "1gB": 1e9, "80000bit": 10_000, "9000B": 9000,
	} {
		c, err := Parse("r.conf", []byte("- node: a\n- tcp-peer: {address: 'h:1', rate: "+text+"}"))
		if err != nil || c.Peers[0].Rate != want {
			t.Errorf("%s: %v, %v; want %d", text, c, err, want)
		}
	}
}

func TestAnAddressThatStandsTwice(t *testing.T) {
	c, err := Parse("r.conf", []byte("- node: a\n- tcp-peer: {address: ['h:1', 'quic://h:1', 'h:1']}\n- tcp-peer: h:1\n- quic-peer: {address: ['h:1', 'h:2']}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Peers) != 2 || len(c.Peers[0].Addresses) != 2 || len(c.Peers[1].Addresses) != 1 || len(c.Warnings) != 3 {
		t.Errorf("%+v\n%q", c.Peers, c.Warnings)
	}
}
