package keeper

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ranvier-mesh/ranvier/worktypes"
)

// Both ways to end all of a job, each made sure of: its cgroup, which no process
// leaves by itself, and without one what /proc says of descendants and marks.
func TestBothWaysToKill(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can be sure of a cgroup, or have none")
	}
	for name, tt := range map[string]struct {
		keeper []string // before the keeper's own command
		log    string   // what it says of cgroups
		child  string   // leaves the session, and with a cgroup the environment and its parents too
		cgroup bool
	}{
		"cgroup": {log: "cgroup=/", child: "env -i /bin/sh -c '/usr/bin/setsid /bin/sh -c \"echo \\$\\$; exec /bin/sleep 600\" & exit'", cgroup: true},
		"/proc":  {[]string{"unshare", "-m", "sh", "-c", `umount -a -l -t cgroup2; exec "$@"`, "sh"}, `cgroup="none: descendants are looked for in /proc"`, `setsid sh -c 'echo $$; exec sleep 600' &`, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if !tt.cgroup && exec.Command("unshare", "-m", "true").Run() != nil {
				t.Skip("there is no unshare")
			}
			if tt.cgroup && openCgroups(t.TempDir()).base == "" {
				t.Skip("there are no cgroups (v2) here")
			}
			dir := t.TempDir()
			types, err := worktypes.NewRegistry(shell{})
			if err != nil {
				t.Fatal(err)
			}
			m, err := worktypes.Open(dir, types, worktypes.Options{Grace: 100 * time.Millisecond, Keeper: func() (worktypes.Keeper, error) {
				return Open(dir, Options{Command: append(tt.keeper, os.Args[0], "keep", "1"), Version: "1"})
			}})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { m.Close(context.Background()) })
			said, err := os.ReadFile(filepath.Join(dir, "keeper", logName))
			if err != nil || !strings.Contains(string(said), tt.log) {
				t.Fatalf("the keeper's log has no %s: %v\n%s", tt.log, err, said)
			}
			id := run(t, m, "trap '' INT; "+tt.child+"\nwait; sleep 600")
			r, err := m.Results(t.Context(), id, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			var pid int
			if _, err := fmt.Fscanln(r, &pid); err != nil {
				t.Fatal(err)
			}
			in, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
			if err != nil || strings.Contains(string(in), cgroupPrefix+id) != tt.cgroup {
				t.Errorf("the child's cgroup, %v:\n%s", err, in)
			}
			if err := m.Cancel(id); err != nil {
				t.Fatal(err)
			}
			if st, _ := wait(t, m, id); st.State != worktypes.Canceled {
				t.Errorf("%+v", st)
			}
			if stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err == nil && !strings.Contains(string(stat), ") Z ") {
				t.Errorf("the child is still there: %s", stat)
			}
		})
	}
}
