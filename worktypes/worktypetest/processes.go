package worktypetest

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Processes returns the ids of the living processes of a job.
func Processes(t *testing.T, id string) []int {
	t.Helper()
	var pids []int
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range dirs {
		env, _ := os.ReadFile(dir + "/environ")
		if slices.ContainsFunc(bytes.Split(env, []byte{0}), func(v []byte) bool { return string(v) == "RANVIER_JOB="+id }) {
			pid, _ := strconv.Atoi(filepath.Base(dir))
			pids = append(pids, pid)
		}
	}
	return pids
}

// killMain kills the process of the job that is this process's child. While a
// process executes another program it has no environment to be known by.
func killMain(t *testing.T, id string) {
	t.Helper()
	for began := time.Now(); time.Since(began) < time.Minute; {
		for _, pid := range Processes(t, id) {
			stat, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
			_, rest, _ := strings.Cut(string(stat), ") ")
			if f := strings.Fields(rest); len(f) > 1 && f[1] == strconv.Itoa(os.Getpid()) {
				if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
				return
			}
		}
	}
	t.Fatalf("job %s has no main process", id)
}

// Transmit returns the stream that the real `ansible-runner transmit` writes
// for a playbook on the given local hosts. It fails the test where the tool is
// not installed: a test of this project that runs no real job is none.
func Transmit(t *testing.T, playbook string, hosts ...string) []byte {
	t.Helper()
	tool, err := exec.LookPath("ansible-runner")
	if err != nil {
		t.Fatalf("this test needs ansible-runner and ansible-core (apt-get install python3-ansible-runner ansible-core): %v", err)
	}
	dir := t.TempDir()
	files := map[string]string{
		"project/test.yml": playbook,
		"inventory/hosts":  strings.Join(hosts, " ansible_connection=local\n") + " ansible_connection=local\n",
	}
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(tool, "transmit", dir, "-p", "test.yml")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("ansible-runner transmit: %v: %s", err, &stderr)
	}
	return out
}
