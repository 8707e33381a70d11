package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/ranvier-mesh/ranvier/mesh"
	"github.com/ranvier-mesh/ranvier/worktypes"
)

func TestWayTo(t *testing.T) {
	t.Parallel()
	err := wayTo(&mesh.PeerError{Address: "tcp://localhost:8888", Err: errors.New("connection refused")}, nil)
	if !strings.Contains(err.Error(), "--socket") || !errors.As(err, new(*mesh.PeerError)) {
		t.Error(err)
	}
	if err := wayTo(&mesh.PeerError{Err: errors.New("no")}, []string{"there"}); strings.Contains(err.Error(), "--socket") {
		t.Errorf("of a peer that was named: %v", err)
	}
	if err := wayTo(nil, nil); err != nil {
		t.Error(err)
	}
}

// What keeps a unit from its start is said once.
func TestTellWaiting(t *testing.T) {
	t.Parallel()
	var said []string
	tell := tellWaiting(func(format string, args ...any) { said = append(said, fmt.Sprintf(format, args...)) })
	for _, detail := range []string{"Waiting for node b", "Waiting for node b", "Queued"} {
		tell(worktypes.Status{State: worktypes.Pending, Detail: detail})
	}
	tell(worktypes.Status{State: worktypes.Running, Detail: "Running"})
	if !slices.Equal(said, []string{"Waiting for node b", "Queued"}) {
		t.Errorf("%q", said)
	}
}
