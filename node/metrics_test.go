package node

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ranvier-mesh/ranvier/internal/control"
)

// getHTTP asks a node over its unix socket.
func getHTTP(t *testing.T, socket, path string) (int, string) {
	t.Helper()
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	r, err := c.Get("http://node" + path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(text)
}

// A node tells what it does as metrics, and whether it is well.
func TestMetricsOfANode(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	socket, told := filepath.Join(dir, "s"), filepath.Join(dir, "metrics")
	a := start(t, fmt.Sprintf("- node: {id: a, datadir: %s/a}\n- tcp-listener: {port: 0, bindaddr: 127.0.0.1}\n- tcp-peer: {address: '127.0.0.1:1', redial: false}\n"+
		"- control-service: {filename: %s}\n- work-command: {worktype: cat, command: cat}\n- metrics: {filename: %s, permissions: 0640}\n", dir, socket, told))
	b := start(t, fmt.Sprintf("- node: {id: b, datadir: %s/b}\n- tcp-peer: %s\n- metrics: 127.0.0.1:0\n", dir, strings.TrimPrefix(a.Addrs()[0], "tcp://")))
	pings(t, a, "b")
	id := submit(t, socket, "work submit a cat", "x")
	ended(t, a, id)
	dialSocket(t, socket).expect("work submit a nothing", "ERROR: .*")
	var text string
	within(t, "the metrics of a", func() bool {
		_, text = getHTTP(t, told, "/metrics")
		for _, want := range []string{
			`ranvier_build_info{version="1.2.3"} 1`, "ranvier_links_up 1", "ranvier_peers_down 1", "ranvier_nodes_reachable 2",
			`ranvier_units{state="Succeeded"} 1`, `ranvier_units{state="Running"} 0`, "ranvier_keeper_up 1",
			`ranvier_unit_requests_total{action="submit",outcome="ok"} 1`, `ranvier_unit_requests_total{action="submit",outcome="refused"} 1`,
			`ranvier_refused_total{what="work"} 0`,
		} {
			if !strings.Contains(text, "\n"+want+"\n") {
				return false
			}
		}
		return true
	})
	for _, some := range []string{`ranvier_link_received_bytes_total{node="b"}`, `ranvier_link_sent_bytes_total{node="b"}`, "ranvier_journal_commits_total", "ranvier_streams"} {
		if _, v, ok := strings.Cut(text, "\n"+some+" "); !ok || strings.HasPrefix(v, "0\n") && some != "ranvier_streams" {
			t.Errorf("%s: %.20q", some, v)
		}
	}
	if code, text := getHTTP(t, told, "/healthz"); code != 200 || text != "ok\n" {
		t.Errorf("health: %d %q", code, text)
	}
	if r, err := http.Get("http://" + b.metrics.Addr().String() + "/healthz"); err != nil || r.StatusCode != 200 {
		t.Errorf("over TCP: %v, %v", r, err)
	} else {
		r.Body.Close()
	}
	http.DefaultClient.CloseIdleConnections()

	// one that stops says so, for as long as it still carries a stream
	c, err := control.Dial(t.Context(), socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	a.leaving.Store(true)
	if code, text := getHTTP(t, told, "/healthz"); code != 503 || !strings.Contains(text, "about to stop") {
		t.Errorf("while it stops: %d %q", code, text)
	}
}
