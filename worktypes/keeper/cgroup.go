package keeper

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const cgroupPrefix = "ranvier-"

// cgroups gives each job a cgroup (v2) of its own, where the kernel and the
// rights allow it: nothing that a job starts can leave it. Its methods are called
// with keeper.mu held.
type cgroups struct {
	base string   // the keeper's own cgroup; empty: none can be made
	full []string // those of jobs that left processes running
}

// openCgroups finds out whether cgroups can be made and killed, and removes those
// that a killed keeper of the same data directory has left empty.
func openCgroups(dataDir string) *cgroups {
	base := ownCgroup()
	if base == "" {
		return &cgroups{}
	}
	probe := filepath.Join(base, cgroupPrefix+"probe-"+strconv.Itoa(os.Getpid()))
	if err := os.Mkdir(probe, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return &cgroups{}
	}
	_, err := os.Stat(filepath.Join(probe, "cgroup.kill"))
	_ = os.Remove(probe)
	if err != nil {
		return &cgroups{}
	}
	units, _ := os.ReadDir(filepath.Join(dataDir, "units"))
	for _, u := range units {
		_ = os.Remove(filepath.Join(base, cgroupPrefix+u.Name()))
	}
	return &cgroups{base: base}
}

// ownCgroup is the directory of this process's cgroup; empty when there is none of
// version 2.
func ownCgroup() string {
	mount, err := cgroupMount()
	if err != nil || mount == "" {
		return ""
	}
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		if path, ok := strings.CutPrefix(line, "0::"); ok {
			return filepath.Join(mount, strings.TrimSpace(path))
		}
	}
	return ""
}

// cgroupMount is where cgroup2 is mounted.
func cgroupMount() (string, error) {
	f, err := os.Open("/proc/self/mounts")
	if err != nil {
		return "", err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if fields := strings.Fields(lines.Text()); len(fields) > 2 && fields[2] == "cgroup2" {
			return fields[1], nil
		}
	}
	return "", lines.Err()
}

// String is where the jobs' cgroups are.
func (c *cgroups) String() string {
	if c.base == "" {
		return "none: descendants are looked for in /proc"
	}
	return c.base
}

// make makes a unit's cgroup; empty when it cannot be done.
func (c *cgroups) make(unit string) string {
	if c.base == "" {
		return ""
	}
	c.sweep()
	path := filepath.Join(c.base, cgroupPrefix+unit)
	if err := os.Mkdir(path, 0o755); err != nil {
		return ""
	}
	return path
}

// remove removes a cgroup when it is empty, and remembers it otherwise.
func (c *cgroups) remove(path string) {
	if path == "" {
		return
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		c.full = append(c.full, path)
	}
}

// sweep tries again to remove those that were not empty.
func (c *cgroups) sweep() {
	full := c.full
	c.full = nil
	for _, path := range full {
		c.remove(path)
	}
}

// killCgroup kills all that is in a cgroup, and returns when it is empty.
func killCgroup(ctx context.Context, path string) error {
	err := os.WriteFile(filepath.Join(path, "cgroup.kill"), []byte("1"), 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil // it was empty before
	}
	if err != nil {
		return fmt.Errorf("kill cgroup: %w", err)
	}
	pause := time.NewTimer(0)
	defer pause.Stop()
	for wait := time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		b, err := os.ReadFile(filepath.Join(path, "cgroup.events"))
		if err != nil || strings.Contains(string(b), "populated 0") {
			return nil
		}
		pause.Reset(wait)
		select {
		case <-pause.C:
		case <-ctx.Done():
			return fmt.Errorf("processes in %s do not go: %w", path, ctx.Err())
		}
	}
}
