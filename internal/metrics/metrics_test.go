package metrics

import (
	"errors"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"
)

func get(t *testing.T, read func() Snapshot, healthy error, method, path string) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	Handler(read, func() error { return healthy }).ServeHTTP(w, httptest.NewRequest(method, path, nil))
	return w.Code, w.Body.String()
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	s := Snapshot{
		Version: "1.2", Links: []Link{{"b", time.Unix(1000, 0), 10, 20}, {"c", time.Unix(1001, 0), 30, 40}}, Ephemeral: 3, Down: 4, Streams: 5, Reachable: 6, Known: 7,
		Units: map[string]int{"Running": 8, "Failed": 0}, Requests: map[Request]uint64{{"submit", true}: 9, {"submit", false}: 10}, Refused: map[string]uint64{"work": 11},
		Commits: 12, Keeper: true,
	}
	code, text := get(t, func() Snapshot { return s }, nil, "GET", "/metrics")
	for _, want := range strings.Fields(`ranvier_build_info{version="1.2"}=1 ranvier_links_up=2 ranvier_links_ephemeral=3 ranvier_peers_down=4
		ranvier_link_since_seconds{node="b"}=1000 ranvier_link_received_bytes_total{node="b"}=10 ranvier_link_sent_bytes_total{node="c"}=40 ranvier_streams=5
		ranvier_nodes_reachable=6 ranvier_nodes_known=7 ranvier_units{state="Running"}=8 ranvier_units{state="Failed"}=0
		ranvier_unit_requests_total{action="submit",outcome="ok"}=9 ranvier_unit_requests_total{action="submit",outcome="refused"}=10
		ranvier_refused_total{what="work"}=11 ranvier_journal_commits_total=12 ranvier_keeper_up=1`) {
		i := strings.LastIndex(want, "=")
		if line := want[:i] + " " + want[i+1:] + "\n"; code != 200 || !strings.Contains(text, "\n"+line) {
			t.Errorf("there is no %q in\n%s", line, text)
		}
	}
	s.Keeper = false
	if _, text := get(t, func() Snapshot { return s }, nil, "GET", "/metrics"); !strings.Contains(text, "\nranvier_keeper_up 0\n") || !strings.Contains(text, "\ngo_goroutines ") ||
		!strings.Contains(text, "\nprocess_resident_memory_bytes ") || !strings.Contains(text, "\nprocess_open_fds ") {
		t.Errorf("without a keeper:\n%s", text)
	}
}

// Each line is one that Prometheus reads: a comment, or a name with labels and a
// number; each metric is told of before its values, and once.
func TestMetricsAreWellFormed(t *testing.T) {
	t.Parallel()
	s := Snapshot{Version: "a\\b\"c\nd", Links: []Link{{Node: "b"}, {Node: "c"}}, Units: map[string]int{"Running": 1 << 40}, Requests: map[Request]uint64{{"submit", true}: 1}}
	_, text := get(t, func() Snapshot { return s }, nil, "GET", "/metrics")
	value := regexp.MustCompile(`^([a-z_]+)(\{[a-z]+="(\\[\\"n]|[^\\"\n])*"(,[a-z]+="(\\[\\"n]|[^\\"\n])*")*\})? -?[0-9.]+(e[+-][0-9]+)?$`)
	told, now := map[string]bool{}, ""
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if name, ok := strings.CutPrefix(line, "# HELP "); ok {
			if now, _, _ = strings.Cut(name, " "); told[now] {
				t.Errorf("%s is told of twice", now)
			}
			told[now] = true
			continue
		}
		if rest, ok := strings.CutPrefix(line, "# TYPE "); ok {
			if rest != now+" gauge" && rest != now+" counter" {
				t.Errorf("within %s: %s", now, line)
			}
			continue
		}
		if m := value.FindStringSubmatch(line); m == nil || m[1] != now {
			t.Errorf("within %s: %s", now, line)
		}
	}
	if len(told) < 15 {
		t.Errorf("there are only %d metrics", len(told))
	}
}

func TestHealth(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		healthy            error
		method, path, want string
		code               int
	}{
		{nil, "GET", "/healthz", "ok\n", 200},
		{errors.New("the journal cannot be written"), "GET", "/healthz", "the journal cannot be written\n", 503},
		{nil, "POST", "/healthz", "Method Not Allowed\n", 405},
		{nil, "GET", "/debug/pprof/", "404 page not found\n", 404},
	} {
		if code, text := get(t, func() Snapshot { return Snapshot{} }, tt.healthy, tt.method, tt.path); code != tt.code || text != tt.want {
			t.Errorf("%s %s: %d %q", tt.method, tt.path, code, text)
		}
	}
}
