package keeper

import (
	"log/slog"
	"net"
	"os"
	"testing"

	"github.com/ranvier-mesh/ranvier/worktypes"
)

// A job whose end was told to a node that was about to leave is settled once that has
// left: the keeper has nothing to do any more.
func TestAnEndToldToANodeThatLeaves(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	records, err := worktypes.OpenRecords(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer records.Close()
	l, err := net.Listen("unix", dir+"/socket")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	node, err := net.Dial("unix", dir+"/socket")
	if err != nil {
		t.Fatal(err)
	}
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	unitDir := dir + "/units/a"
	if err := os.Mkdir(dir+"/units", 0o700); err != nil {
		t.Fatal(err)
	}
	stdout, err := worktypes.ClaimStart(unitDir)
	if err != nil {
		t.Fatal(err)
	}
	k := &keeper{records: records, cgroups: &cgroups{}, log: slog.New(slog.DiscardHandler), idle: make(chan struct{}, 1), pids: map[int]*kept{}, nodes: map[*connection]struct{}{}}
	k.jobs = map[string]*kept{
		"a": {job: job{Unit: "a", Exit: &worktypes.Exit{Code: 3}}, dir: unitDir, stdout: stdout},
		"c": {job: job{Unit: "c"}, dir: unitDir, stdout: stdout},
	}
	node.Close()
	k.serve(conn)
	k.kills.Wait()
	if k.jobs["a"] != nil || k.jobs["c"] == nil {
		t.Errorf("left: %v", k.jobs)
	}
}
