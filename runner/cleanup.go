package runner

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/jobdir"
)

// DefaultGracePeriod is for how long the command line spares a directory after
// its last change.
const DefaultGracePeriod = time.Hour

// ErrForbidden is returned for a pattern that matches a directory of the
// system. Nothing has been removed then.
var ErrForbidden = errors.New("the pattern would remove directories of the system")

// CleanupOptions says what earlier jobs have left (docs/runner-commands.md §3).
type CleanupOptions struct {
	// FilePattern matches private data directories, as a shell would; empty
	// matches none.
	FilePattern string
	// ExcludeStrings spare each directory that has one of them in its path.
	ExcludeStrings []string
	// GracePeriod spares directories that changed this recently; 0 spares none.
	GracePeriod time.Duration
	// RemoveImages are tags of container images to remove.
	RemoveImages []string
	// PruneImages removes the images without a tag, after that.
	PruneImages bool
	// Executable is the container engine; empty means podman.
	Executable string
	// Say, if set, hears of what is removed or spared, a line each.
	Say func(line string)
}

// Cleaned is what Cleanup has removed.
type Cleaned struct {
	Dirs   int
	Images int
	Pruned bool
}

// Changed tells whether anything was removed.
func (c Cleaned) Changed() bool { return c.Dirs > 0 || c.Images > 0 || c.Pruned }

// Cleanup removes what earlier jobs have left. The directory of a job that runs
// is never removed: that is one with a job's lock, with a live process in its
// pid file, or with a process working in it. What cannot be removed does not
// keep the rest from being: the errors are joined. They are ErrForbidden, *fs.PathError,
// and an engine's failure with what it said; or the cause of ctx's end.
func Cleanup(ctx context.Context, o CleanupOptions) (Cleaned, error) {
	if o.Say == nil {
		o.Say = func(string) {}
	}
	if o.Executable == "" {
		o.Executable = "podman"
	}
	var done Cleaned
	var errs [3]error
	if o.FilePattern != "" {
		done.Dirs, errs[0] = o.dirs(ctx)
		if errors.Is(errs[0], ErrForbidden) {
			return done, errs[0]
		}
	}
	if len(o.RemoveImages) > 0 {
		done.Images, errs[1] = o.images(ctx)
	}
	if o.PruneImages {
		done.Pruned, errs[2] = o.prune(ctx)
	}
	return done, errors.Join(errs[:]...)
}

func (o CleanupOptions) dirs(ctx context.Context) (removed int, err error) {
	matches, err := filepath.Glob(o.FilePattern)
	if err != nil {
		return 0, fmt.Errorf("%w: file pattern %q: %w", ErrOptions, o.FilePattern, err)
	}
	if bad := slices.DeleteFunc(slices.Clone(matches), func(m string) bool { return !forbidden(m) }); len(bad) > 0 {
		return 0, fmt.Errorf("%w: file pattern %q matches %s", ErrForbidden, o.FilePattern, strings.Join(bad, ", "))
	}
	var errs []error
	for _, dir := range matches {
		if ctx.Err() != nil {
			return removed, errors.Join(append(errs, context.Cause(ctx))...)
		}
		if o.spared(dir, time.Now()) {
			continue
		}
		switch err := removeDir(dir); {
		case errors.Is(err, jobdir.ErrInUse):
			o.Say(fmt.Sprintf("Excluding running project %s from cleanup", dir))
		case errors.Is(err, fs.ErrNotExist): // somebody was faster
		case err != nil:
			errs = append(errs, err)
		default:
			removed++
		}
	}
	if removed > 0 {
		o.Say(fmt.Sprintf("Removed %d private data dir(s) in pattern %s", removed, o.FilePattern))
	}
	return removed, errors.Join(errs...)
}

// spared tells whether dir is excluded, too young, or no directory.
func (o CleanupOptions) spared(dir string, now time.Time) bool {
	if slices.ContainsFunc(o.ExcludeStrings, func(s string) bool { return s != "" && strings.Contains(dir, s) }) {
		return true
	}
	info, err := os.Lstat(dir)
	return err != nil || !info.IsDir() || o.GracePeriod > 0 && now.Sub(info.ModTime()) < o.GracePeriod
}

// removeDir removes a private data directory in which no job runs. The claim
// keeps one from beginning meanwhile.
func removeDir(dir string) error {
	claim, err := jobdir.Claim(dir)
	if err != nil && !errors.Is(err, jobdir.ErrNoLocks) {
		return err
	}
	defer claim.Unlock()
	switch d, err := jobdir.Find(dir); {
	case err == nil && d.Alive:
		return jobdir.ErrInUse
	case errors.Is(err, fs.ErrPermission):
		return err // whoever it belongs to may be running
	}
	inside, err := jobdir.Inside(dir)
	if err != nil {
		return err
	}
	if len(inside) > 0 {
		return jobdir.ErrInUse
	}
	removeRegistryAuth(dir)
	return os.RemoveAll(dir)
}

// removeRegistryAuth removes the registry credentials that the Python tool
// keeps in directories of their own, named after the runs in dir.
func removeRegistryAuth(dir string) {
	runs, err := os.ReadDir(filepath.Join(dir, "artifacts"))
	if err != nil {
		return // no runs
	}
	temp, err := os.ReadDir(os.TempDir())
	if err != nil {
		return
	}
	for _, run := range runs {
		for _, d := range temp {
			if strings.HasPrefix(d.Name(), "ansible_runner_registry_"+run.Name()+"_") && d.IsDir() {
				_ = os.RemoveAll(filepath.Join(os.TempDir(), d.Name())) // the next cleanup tries again
			}
		}
	}
}

// forbidden tells whether a path is a directory that a system cannot lose, or
// has one of them in it.
func forbidden(path string) bool {
	abs, err := filepath.Abs(path)
	if err != nil {
		return true
	}
	resolved, err := filepath.EvalSymlinks(abs)
	if err != nil {
		resolved = abs
	}
	never := []string{"/", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib64", "/mnt", "/opt", "/proc", "/root",
		"/run", "/sbin", "/srv", "/sys", "/usr", "/var", "/var/lib", "/var/tmp", "/tmp", "/dev/shm", os.TempDir()}
	if home, err := os.UserHomeDir(); err == nil {
		never = append(never, home)
	}
	for _, dir := range never {
		real, err := filepath.EvalSymlinks(dir)
		if err != nil {
			real = dir
		}
		for _, d := range []string{filepath.Clean(dir), real} {
			if abs == d || resolved == d || strings.HasPrefix(d, strings.TrimSuffix(resolved, "/")+"/") {
				return true
			}
		}
	}
	for _, kernel := range []string{"/proc/", "/sys/", "/dev/"} {
		if strings.HasPrefix(resolved, kernel) && !strings.HasPrefix(resolved, "/dev/shm/") {
			return true
		}
	}
	return false
}
