package main

import (
	"strings"
	"testing"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/control"
)

// Reasons are sentences: they stand below the table, whose columns stay narrow.
func TestShowStatus(t *testing.T) {
	t.Parallel()
	now := time.Now()
	var b strings.Builder
	err := showStatus(&b, control.Status{NodeID: "a", Software: "ranvier 1", Links: []control.LinkStatus{
		{NodeID: "b", Address: "10.0.0.2:8888", Direction: "in", Cost: 1, State: "up", Since: now.Add(-time.Minute), BytesIn: 2_500},
		{Address: "tcp://10.0.0.3:8888", Direction: "out", State: "dialing", LastError: "cannot reach peer 10.0.0.3:8888: " + strings.Repeat("long ", 30)},
	}}, now)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(b.String(), "\n")
	for _, l := range lines {
		if len(l) > 100 && !strings.HasPrefix(l, "tcp://10.0.0.3:8888: cannot reach peer") {
			t.Errorf("a line of %d bytes: %s", len(l), l)
		}
	}
	for _, want := range []string{"b     10.0.0.2:8888        in         1     up       1m     2.5 kB  0 B", "\ntcp://10.0.0.3:8888: cannot reach peer"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is not in\n%s", want, b.String())
		}
	}
}
