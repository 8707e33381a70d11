package main

import (
	"strings"
	"testing"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/control"
)

// What endangers a mesh stands in the status in words, and is not there where
// all is well.
func TestShowStatusTellsOfDanger(t *testing.T) {
	t.Parallel()
	now := time.Now()
	show := func(s control.Status) string {
		t.Helper()
		var b strings.Builder
		if err := showStatus(&b, s, now); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	calm := show(control.Status{NodeID: "a", Links: []control.LinkStatus{{NodeID: "b", State: "up"}}, Nodes: []control.NodeStatus{{ID: "b", Reachable: true}}})
	for _, word := range []string{"insecure", "open:", "SUSPECT", "refused"} {
		if strings.Contains(calm, word) {
			t.Errorf("%q is in the status where all is well:\n%s", word, calm)
		}
	}
	got := show(control.Status{NodeID: "a", Open: true,
		Links: []control.LinkStatus{{NodeID: "b", State: "up", Insecure: true}}, Nodes: []control.NodeStatus{{ID: "c", Reachable: true, Insecure: true}},
		Suspects: []control.Suspect{{NodeID: "eve", Times: 3, First: now.Add(-2 * time.Minute), Last: now.Add(-time.Second), Why: "a stream to d broke"}},
	})
	for _, want := range []string{
		"open: whoever reaches this node", "up, insecure", "reachable, insecure",
		"SUSPECT  TIMES  FIRST  LAST\neve      3      2m     1s\n",
		"\neve seems to drop or change what it should pass on; other ways are preferred: a stream to d broke\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in\n%s", want, got)
		}
	}
	if got := show(control.Status{NodeID: "a", Insecure: true}); !strings.Contains(got, "\ninsecure: without identities") {
		t.Error(got)
	}
}
