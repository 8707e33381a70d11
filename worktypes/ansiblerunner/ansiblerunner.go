// Package ansiblerunner is the work type that runs plays, in this program's own
// worker or the Python tool's: its
// payload is the stream that `ansible-runner transmit` writes, its results are
// the stream that `ansible-runner process` reads.
package ansiblerunner

import (
	"fmt"
	"maps"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/ranvier-mesh/ranvier/worktypes"
)

// Name is what submitters call the type.
const Name = "ansible-runner"

// Grace is how long the worker has to end a play that is canceled. The Python
// one looks for its signal once in up to five seconds, then kills the play; either
// still has to pack the artifacts.
const Grace = 20 * time.Second

// Find returns the type if this machine can run plays: with program, a ranvier
// executable, as the worker where ansible-playbook is installed; else with the
// Python tool's worker; else, for jobs that bring Ansible in an image, with
// program where there is an engine for containers. An empty program is none. Ours
// calls this machine node in its messages. The error, which wraps exec.ErrNotFound,
// says what to install.
func Find(program, node string) (worktypes.Type, error) {
	ours := runner{argv: []string{program, "worker", "--node", node}, name: filepath.Base(program) + " worker", binary: true}
	if program != "" && installed("ansible-playbook") {
		return ours, nil
	}
	path, err := exec.LookPath("ansible-runner")
	switch {
	case err == nil:
		return runner{argv: []string{path, "worker"}, name: "ansible-runner worker"}, nil
	case program != "" && (installed("podman") || installed("docker")):
		return ours, nil // jobs bring Ansible in their image
	}
	return nil, fmt.Errorf("no ansible-playbook on PATH: install ansible-core (Debian and pip: ansible-core), ansible-runner with it, or podman for jobs in containers: %w", err)
}

func installed(program string) bool {
	_, err := exec.LookPath(program)
	return err == nil
}

// runner is the type by means of the worker that argv starts.
type runner struct {
	argv   []string
	name   string
	binary bool // it is ours
}

// Name implements worktypes.Type.
func (runner) Name() string { return Name }

// Plan implements worktypes.Type. The private data directory lies in the unit's
// scratch directory, so that it goes with the unit even when the worker is
// killed before it can remove it. Standard error is kept out of the results:
// a warning in the middle of the stream would end it for every reader.
func (r runner) Plan(spec worktypes.Spec, scratch string) (worktypes.Plan, error) {
	for _, key := range slices.Sorted(maps.Keys(spec.Params)) {
		return worktypes.Plan{}, fmt.Errorf("%w: work type %q takes no %q: all that it needs is in the payload", worktypes.ErrForbiddenParams, Name, key)
	}
	dir := scratch + "/private"
	worker := append(slices.Clip(r.argv), "--private-data-dir", dir)
	return worktypes.Plan{
		Name:    r.name,
		Argv:    append(slices.Clip(worker), "--delete"),
		Scratch: true,
		Binary:  r.binary,
		// A worker that is told to delete the directory does so first of all.
		Tree:           &worktypes.TreePlan{Dir: dir, Argv: worker},
		Grace:          Grace,
		SeparateStderr: true,
	}, nil
}
