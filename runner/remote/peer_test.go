package remote

import "testing"

func TestPeerAddress(t *testing.T) {
	for in, want := range map[string]string{
		"host:1234":             "tcp://host:1234",
		"host":                  "tcp://host:8888",
		"receptor://localhost":  "tcp://localhost:8888",
		"receptor://h:27199":    "tcp://h:27199",
		"tcp://10.0.0.1:5":      "tcp://10.0.0.1:5",
		"tcp://10.0.0.1:5/":     "tcp://10.0.0.1:5",
		"[::1]:99":              "tcp://[::1]:99",
		"tcp://[2001:db8::1]":   "tcp://[2001:db8::1]:8888",
		"":                      "",
		":1234":                 "",
		"host:0":                "",
		"host:65536":            "",
		"host:port":             "",
		"quic://host":           "quic://host:8888",
		"quic://[::1]:5":        "quic://[::1]:5",
		"ws://host:1":           "ws://host:1",
		"ws://host/":            "ws://host:80",
		"wss://host":            "wss://host:443",
		"wss://host/mesh/a?b=c": "wss://host:443/mesh/a?b=c",
		"wss://[::1]/mesh":      "wss://[::1]:443/mesh",
		"wss:///mesh":           "",
		"wss://u:p@host/mesh":   "",
		"udp://host:1":          "",
		"quic://host/path":      "",
		"host:1:2":              "",
		"receptor://":           "",
		"receptor://host:1/abc": "",
	} {
		got, err := PeerAddress(in)
		if got != want || (err == nil) == (want == "") {
			t.Errorf("%q: got %q, %v; want %q", in, got, err, want)
		}
	}
}
