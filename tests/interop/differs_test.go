package interop

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// The closed list of what differs between two runs of a job, whoever does them.
// row is its line in the table that docs/moving-from-ansible-runner.md has for
// people.
var differs = []struct {
	row  string
	what *regexp.Regexp
	with string
}{
	{"uuids", regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`), "UUID"},
	{"process ids", regexp.MustCompile(`"pid": \d+`), `"pid": 0`},
	{"times", regexp.MustCompile(`\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d\.\d+(\+00:00)?`), "TIME"}, // the zone is of later versions
	{"times", regexp.MustCompile(`("(ctime|mtime|atime)\\*": )[0-9.]+`), "${1}0"},
	{"durations", regexp.MustCompile(`"duration": [0-9.e-]+`), `"duration": 0`},
	{"durations", regexp.MustCompile(`\d:\d\d:\d\d\.\d+`), "DELTA"},
	{"durations", regexp.MustCompile(`("delta\\*": )\d+`), "${1}0"}, // of pause
	{"durations", regexp.MustCompile(`Paused for [0-9.]+ (seconds|minutes)`), "PAUSED"},
	{"names that are made up", regexp.MustCompile(`\b[0-9a-f]{32}\b`), "HEX"}, // a role's playbook
	{"names that are made up", regexp.MustCompile(`\bj?\d{9,}\.\d+`), "JOB"},  // asynchronous
	{"names that are made up", regexp.MustCompile(`[\w./-]*ansible-(local|tmp)-[\w.-]+(/tmp\w+)?`), "TMP"},
	{"names that are made up", regexp.MustCompile(`(_original_basename\\*": \\*")[^"\\]+`), "${1}TMP"},
	{"names that are made up", regexp.MustCompile(`\(([0-9]+), b?'`), "(N, '"}, // of -vvv
	{"names that are made up", regexp.MustCompile(`ESTABLISH LOCAL CONNECTION FOR USER: \w+`), "ESTABLISHED"},
	{"names that are made up", regexp.MustCompile(`(PUT|EXEC) [^"]*`), "$1"}, // of -vvv
	{"the plugin", regexp.MustCompile(`awx_display|ranvier_events`), "PLUGIN"},
	{"the plugin", regexp.MustCompile(`[\w./-]*/usr/lib/python3/dist-packages/ansible_runner/display_callback/callback|DIR/artifacts/id1/callback`), "PLUGINS"},
	{"the plugin", regexp.MustCompile(`\s*\\*"ANSIBLE_LOCAL_TEMP\\*": \\*"[\w/-]+\\*",`), ""},
	{"the plugin", regexp.MustCompile(`\s*\\*"RANVIER_JOB\\*": \\*"[\w/-]+\\*",`), ""},
}

// The rows whose differences are taken out by the functions below, not by the
// expressions above.
const (
	rowDir      = "paths of the host"                           // normal
	rowPolls    = "how often an asynchronous task is looked at" // without
	rowRole     = "`resolved_role`"                             // mended
	rowHandlers = "repeats of a handler"                        // mended
	rowForks    = "empty warnings"                              // mended
	rowErrant   = "warnings of data from forks"                 // without
	rowPrompts  = "text without a line end"                     // mended
	rowBytes    = "bytes that are no UTF-8"                     // compare
	rowCount    = "`event_count`"                               // parse
	rowReturns  = "line ends outside of events"                 // compare
	rowOrder    = "the order among hosts"                       // compare, unbanner
)

func normal(s, dir string) string {
	s = strings.ReplaceAll(s, dir, "DIR")
	for _, d := range differs {
		s = d.what.ReplaceAllString(s, d.with)
	}
	return s
}

// polls are the lines of the artifact stdout that tell of them, and errant those
// of a newer Ansible about what the Python tool's plugin writes in its forks.
var (
	polls  = regexp.MustCompile(`(?m)^.*ASYNC POLL on .*\n`)
	errant = regexp.MustCompile(`(?m)^.*errantly sent data directly to stdout.*\n.*\n.*\n`)
	colour = regexp.MustCompile(`^(\x1b\[[0-9;]*m)*$`)
)

// without takes the polls of asynchronous tasks out of the events, as if their
// lines had not been printed: how many there are depends on the machine. And it takes
// out what errant are the lines of.
func without(events []map[string]any) (rest []map[string]any) {
	gone, erring := 0.0, false
	for _, e := range events {
		start, end := e["start_line"].(float64), e["end_line"].(float64)
		text, _ := e["stdout"].(string)
		// The plugin's marks cut this warning into several events.
		erring = strings.Contains(text, "errantly sent data directly to stdout") || erring && e["event"] == "verbose" && colour.MatchString(text)
		if erring || e["event"] == "runner_on_async_poll" {
			gone += end - start
			continue
		}
		e["start_line"], e["end_line"] = start-gone, end-gone
		rest = append(rest, e)
	}
	return rest
}

// answers are the lines of the artifact stdout on which pause cleans up behind
// an answer.
var answers = regexp.MustCompile(`(?m)^.*\x1b\[\x1b\[K$`)

// partial tells whether an event is of text without a line end.
func partial(e map[string]any) bool {
	return e["event"] == "verbose" && e["start_line"] == e["end_line"]
}

// samePart gives want's text without a line end to got where it is the beginning
// of got's: the Python tool cuts the last two characters as if they were its line
// end, or more of an answer.
func samePart(want, got map[string]any) {
	w, _ := want["stdout"].(string)
	if g, _ := got["stdout"].(string); partial(want) && partial(got) && strings.HasPrefix(g, w) {
		got["stdout"] = w
	}
}

// oneAnswer makes one event of what the Python tool makes two of: it also takes
// a carriage return for the end of a line, where pause cleans up behind an
// answer. Before the question it has one without any text, which mended drops.
func oneAnswer(events []map[string]any) (rest []map[string]any) {
	for i, e := range events {
		if i > 0 && partial(e) && partial(events[i-1]) && e["stdout"] != "" && events[i-1]["stdout"] != "" {
			continue
		}
		rest = append(rest, e)
	}
	return rest
}

// mended takes out what ours does otherwise on purpose (docs/runner.md §8), and
// tells whether the event counts at all. by is who has made it.
func mended(by tool, e map[string]any) bool {
	if data, ok := e["event_data"].(map[string]any); ok {
		delete(data, "resolved_role") // of later versions
		if data["is_conditional"] == true {
			// The Python tool does not number the repeats of a handler.
			data["uuid"], e["uuid"], e["parent_uuid"] = "UUID", "UUID", "UUID"
		}
	}
	// The Python tool's plugin marks what its forks print, which is nothing, as
	// they send it to the process that has the terminal.
	switch e["event"] {
	case "warning", "deprecated", "error", "debug", "system_warning":
		if e["stdout"] == "" {
			return false
		}
	}
	if text, _ := e["stdout"].(string); partial(e) && (text == "" || by.ours() && utf8.RuneCountInString(text) < 3) {
		return false // the Python tool leaves nothing of it
	}
	delete(e, "counter") // parse has looked at it
	return true
}

// unbanner takes its task's heading off a host's result. With the strategy
// "free" the callback repeats it where the start of another task came between.
func unbanner(e map[string]any) {
	text, _ := e["stdout"].(string)
	data, _ := e["event_data"].(map[string]any)
	task, _ := data["task"].(string)
	banner := regexp.MustCompile(`^\r\n(TASK|RUNNING HANDLER) \[` + regexp.QuoteMeta(task) + `\] \*+\r\n`)
	if name, _ := e["event"].(string); strings.HasPrefix(name, "runner_on_") {
		e["stdout"] = text[len(banner.FindString(text)):]
	}
}

// TestDifferencesAreTold holds the list to what people read of it.
func TestDifferencesAreTold(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/moving-from-ansible-runner.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(page), "\n## 7. What may differ in events and artifacts\n")
	if !found {
		t.Fatal("the section is missing")
	}
	section, _, _ = strings.Cut(section, "\n## ")
	var told []string
	for line := range strings.Lines(section) {
		if cells := strings.Split(line, "|"); len(cells) > 2 && !strings.Contains(line, "|---") {
			told = append(told, strings.TrimSpace(cells[1]))
		}
	}
	want := []string{"what", rowDir, rowPolls, rowRole, rowHandlers, rowForks, rowErrant, rowPrompts, rowBytes, rowCount, rowReturns, rowOrder}
	for _, d := range differs {
		want = append(want, d.row)
	}
	slices.Sort(told)
	slices.Sort(want)
	if want = slices.Compact(want); !slices.Equal(told, want) {
		t.Errorf("the page tells of %q,\nthe tests let pass %q", told, want)
	}
}
