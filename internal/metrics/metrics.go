// Package metrics tells programs that watch a node how it is, over HTTP: /metrics in
// Prometheus' form, and /healthz. It asks for a Snapshot at each request and keeps
// nothing.
package metrics

import (
	"bytes"
	"fmt"
	"maps"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

// Snapshot is a node at one moment. What counts only grows while the node is up.
type Snapshot struct {
	Version   string
	Links     []Link // to routers and leaves
	Ephemeral int    // links to short-lived nodes, which are not told one by one
	Down      int    // configured peers without a link
	Streams   int    // that go over the links
	Reachable int    // nodes, this one included
	Known     int    // nodes, those that are gone included

	Units    map[string]int     // by state
	Requests map[Request]uint64 // of submit, cancel, release and attach
	Refused  map[string]uint64  // by the policy and its limits, by what

	Commits uint64 // of the journal
	Keeper  bool   // the keeper of jobs is there
}

// Link is a link to a neighbour.
type Link struct {
	Node           string
	Since          time.Time
	Received, Sent uint64 // bytes
}

// Request is what somebody wanted of a unit.
type Request struct {
	Action string // "submit", ...
	OK     bool
}

// Handler serves what read tells, and whether the node is well: healthy's error is
// the reason why not. Both are called by many goroutines at once.
func Handler(read func() Snapshot, healthy func() error) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		var t text
		t.node(read())
		t.process()
		_, _ = w.Write(t.Bytes())
	})
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		if err := healthy(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	return mux
}

// text is Prometheus' text format. It is written here since the library for it costs
// every process of the program megabytes at its start, the keeper of jobs too
// (docs/adr/0011-metrics-without-a-library.md).
type text struct{ bytes.Buffer }

const (
	gauge   = "gauge"
	counter = "counter"
)

// metric begins a metric; its values come next.
func (t *text) metric(name, kind, help string) {
	fmt.Fprintf(t, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
}

// value is one value of a metric, with labels as name, value, name, ...
func (t *text) value(name string, v float64, labels ...string) {
	t.WriteString(name)
	for i := 0; i+1 < len(labels); i += 2 {
		t.WriteByte("{,"[min(i, 1)])
		fmt.Fprintf(t, `%s="%s"`, labels[i], escape.Replace(labels[i+1]))
	}
	if len(labels) > 0 {
		t.WriteByte('}')
	}
	fmt.Fprintf(t, " %v\n", v)
}

var escape = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

// one is a metric with one value.
func (t *text) one(name, kind, help string, v float64, labels ...string) {
	t.metric(name, kind, help)
	t.value(name, v, labels...)
}

func (t *text) node(s Snapshot) {
	t.one("ranvier_build_info", gauge, "Always 1; the label has the version.", 1, "version", s.Version)
	t.one("ranvier_links_up", gauge, "Links to routers and leaves.", float64(len(s.Links)))
	t.one("ranvier_links_ephemeral", gauge, "Links to short-lived nodes.", float64(s.Ephemeral))
	t.one("ranvier_peers_down", gauge, "Configured peers without a link.", float64(s.Down))
	t.links(s.Links)
	t.one("ranvier_streams", gauge, "Streams that go over the links, relayed ones twice.", float64(s.Streams))
	t.one("ranvier_nodes_reachable", gauge, "Nodes that there is a way to, this one included.", float64(s.Reachable))
	t.one("ranvier_nodes_known", gauge, "Nodes, those that are gone included.", float64(s.Known))
	t.metric("ranvier_units", gauge, "Work units of this node.")
	for _, state := range slices.Sorted(maps.Keys(s.Units)) {
		t.value("ranvier_units", float64(s.Units[state]), "state", state)
	}
	t.requests(s.Requests)
	t.metric("ranvier_refused_total", counter, "What the policy and its limits have refused.")
	for _, what := range slices.Sorted(maps.Keys(s.Refused)) {
		t.value("ranvier_refused_total", float64(s.Refused[what]), "what", what)
	}
	t.one("ranvier_journal_commits_total", counter, "Commits of the journal to the disk.", float64(s.Commits))
	up := 0.0
	if s.Keeper {
		up = 1
	}
	t.one("ranvier_keeper_up", gauge, "1: the keeper of jobs is there. 0: the next job brings it up.", up)
}

func (t *text) links(links []Link) {
	for _, m := range []struct {
		name, kind, help string
		of               func(Link) float64
	}{
		{"ranvier_link_since_seconds", gauge, "When the link came up, in Unix time.", func(l Link) float64 { return float64(l.Since.Unix()) }},
		{"ranvier_link_received_bytes_total", counter, "What came in over the link.", func(l Link) float64 { return float64(l.Received) }},
		{"ranvier_link_sent_bytes_total", counter, "What went out over the link.", func(l Link) float64 { return float64(l.Sent) }},
	} {
		t.metric(m.name, m.kind, m.help)
		for _, l := range links {
			t.value(m.name, m.of(l), "node", l.Node)
		}
	}
}

func (t *text) requests(requests map[Request]uint64) {
	const name = "ranvier_unit_requests_total"
	t.metric(name, counter, "What was wanted of units, by outcome.")
	for _, r := range slices.SortedFunc(maps.Keys(requests), func(a, b Request) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) }) {
		outcome := "refused"
		if r.OK {
			outcome = "ok"
		}
		t.value(name, float64(requests[r]), "action", r.Action, "outcome", outcome)
	}
}

// process tells of the program itself, by the names that Prometheus' users know.
func (t *text) process() {
	t.one("go_goroutines", gauge, "Goroutines.", float64(runtime.NumGoroutine()))
	var pages float64
	if b, err := os.ReadFile("/proc/self/statm"); err == nil {
		if _, err := fmt.Sscan(string(b), new(float64), &pages); err == nil {
			t.one("process_resident_memory_bytes", gauge, "Resident memory.", pages*float64(os.Getpagesize()))
		}
	}
	if fds, err := os.ReadDir("/proc/self/fd"); err == nil {
		t.one("process_open_fds", gauge, "Open file descriptors.", float64(len(fds)))
	}
}
