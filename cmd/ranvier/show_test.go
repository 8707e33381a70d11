package main

import (
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ranvier-mesh/ranvier/runner"
)

func TestSummary(t *testing.T) {
	t.Parallel()
	hosts := map[string]runner.HostProgress{
		"web1": {OK: 3, Changed: 1, Ignored: 1}, "db.example": {OK: 1, Failed: 1, Skipped: 2}, "web2": {OK: 2, Rescued: 1},
		"gone": {Unreachable: 1}, "idle": {}, "a": {OK: 1},
	}
	var plain, coloured strings.Builder
	summary(&plain, hosts, false)
	const want = `a           ok           1 ok
idle        ok           nothing to do
web2        ok           2 ok, 1 rescued
web1        changed      3 ok, 1 changed, 1 ignored
db.example  failed       1 ok, 1 failed, 2 skipped
gone        unreachable  1 unreachable
`
	if diff := cmp.Diff(want, plain.String()); diff != "" {
		t.Error(diff)
	}
	summary(&coloured, map[string]runner.HostProgress{"web1": {Failed: 1}}, true)
	if got := coloured.String(); got != "web1  \x1b[31mfailed     \x1b[0m  1 failed\n" {
		t.Errorf("%q", got)
	}
	plain.Reset()
	if summary(&plain, nil, false); plain.String() != "" {
		t.Errorf("of no hosts: %q", plain.String())
	}
}

// What is shown of a payload on its way is over before anything else is.
func TestSending(t *testing.T) {
	t.Parallel()
	s := &sending{Reader: strings.NewReader("payload"), p: &progress{}}
	if out, err := io.ReadAll(s); string(out) != "payload" || err != nil || s.n != 7 || !s.p.done {
		t.Errorf("%q, %v, %d bytes told, over: %v", out, err, s.n, s.p.done)
	}
}
