package e2e

import (
	"os/exec"
	"strings"
	"testing"
)

// Who stops reading the output (a pipe into head) loses no job.
func TestOutputNobodyReads(t *testing.T) {
	t.Parallel()
	n := startNode(t, "n", listener)
	p := newProject(t, strings.Repeat("- debug: {msg: one of many}\n", 20))
	line := `set -o pipefail; "$0" "$@" | head -1`
	cmd := exec.Command("bash", "-c", line, program(t), "run", p.dir, "-p", "test.yml", "--ident", "job",
		"--via-receptor", "n", "--receptor-peer", n.addr)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	if !strings.Contains(stderr.String(), "nobody reads the output any more; the job goes on") {
		t.Errorf("stderr: %s", stderr.String())
	}
	p.status("successful", "0")
	if got := strings.Count(p.artifact("stdout"), "one of many"); got != 20 {
		t.Errorf("artifacts/job/stdout has %d of 20 messages", got)
	}
	n.released()
}

// A short-lived node cannot take the name of a node of the mesh.
func TestNodeIDThatIsTaken(t *testing.T) {
	t.Parallel()
	a := startNode(t, "a", listener)
	b := startNode(t, "b", listener+a.peer())
	startNode(t, "c", listener+b.peer())
	a.reaches("c")
	p := newProject(t, "- debug: {msg: hello}\n")

	run := p.run(a, "b", "--receptor-node-id", "c") // not a's neighbour
	run.exits(69)
	run.says(`cannot reach peer .*: node a refused: node id c belongs to a node of the mesh: .*`)

	run = p.run(a, "c", "--receptor-node-id", "c")
	run.exits(1)
	run.says(`the short-lived node cannot have the id c of the node to run on`)
}
