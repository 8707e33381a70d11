package runner

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/jobdir"
	"github.com/ranvier-mesh/ranvier/runner/internal/command"
)

// RotateArtifacts removes the oldest runs' directories from artifacts, so that
// keep of them stay, current among them (docs/runner-commands.md §4). A run that
// is going on stays whatever its age. 0 keeps all. The errors are *fs.PathError,
// joined; a directory that cannot be removed does not keep others from being.
func RotateArtifacts(artifacts, current string, keep int) error {
	if keep <= 0 {
		return nil
	}
	entries, err := os.ReadDir(artifacts)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	type run struct {
		name  string
		ended time.Time
	}
	var others []run
	for _, e := range entries {
		// A run's directory is told from artifacts that lie here without an ident.
		if !e.IsDir() || e.Name() == current || e.Name() == "job_events" || e.Name() == "fact_cache" {
			continue
		}
		if info, err := e.Info(); err == nil {
			others = append(others, run{e.Name(), info.ModTime()})
		}
	}
	slices.SortFunc(others, func(a, b run) int { return b.ended.Compare(a.ended) })
	var errs []error
	for _, r := range others[min(keep-1, len(others)):] {
		dir := filepath.Join(artifacts, r.name)
		claim, err := jobdir.Claim(dir)
		if errors.Is(err, jobdir.ErrInUse) || errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil || errors.Is(err, jobdir.ErrNoLocks) {
			err = os.RemoveAll(dir)
			claim.Unlock()
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// WriteCanceled writes rc and status of a canceled run (docs/runner.md §6) into
// its artifact directory, for a job that was killed before it could; where they are
// there, nothing is changed. Errors are *fs.PathError.
func WriteCanceled(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for name, text := range map[string]string{"rc": "254", "status": "canceled"} {
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return err
		}
		_, err = f.WriteString(text)
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	return nil
}

// KillContainer kills the container of the run whose artifacts are in dir, for a
// worker that was killed before it could: a container is no descendant of it.
// It does nothing where the run has none. The error has what the engine said.
func KillContainer(ctx context.Context, dir string) error {
	text, err := os.ReadFile(filepath.Join(dir, "command"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var told struct{ Command []string }
	if err := json.Unmarshal(text, &told); err != nil || len(told.Command) == 0 {
		return nil // not what a worker of ours writes
	}
	// What runs in the container sees the file: no more than the kind of the engine
	// is taken from it.
	engine := filepath.Base(told.Command[0])
	if engine != "podman" && engine != "docker" {
		return nil
	}
	name := command.ContainerName(filepath.Base(dir))
	if out, err := exec.CommandContext(ctx, engine, "kill", name).CombinedOutput(); err != nil {
		return fmt.Errorf("kill container %s: %w: %s", name, err, bytes.TrimSpace(out))
	}
	return nil
}
