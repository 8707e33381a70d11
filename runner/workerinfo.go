package runner

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"
)

// Info is what a worker says of its host.
type Info struct {
	CPUs    int
	Memory  uint64   // bytes
	Errors  []string // why it cannot run jobs
	Version string
	UUID    string // of this user on this host; empty where it cannot be kept
}

// WorkerInfo describes this host. The UUID is in ~/.ansible_runner_uuid, where
// the Python tool has it too; the first call makes it. A missing Ansible is an error
// only where there is no container engine either: AWX gives up a host with errors.
func WorkerInfo(version string) Info {
	i := Info{CPUs: runtime.NumCPU(), Version: version}
	var sys unix.Sysinfo_t
	if err := unix.Sysinfo(&sys); err == nil {
		i.Memory = uint64(sys.Totalram) * uint64(sys.Unit)
	} else {
		i.Errors = append(i.Errors, "memory: "+err.Error())
	}
	if _, err := exec.LookPath("ansible-playbook"); err != nil && !runsContainers() {
		i.Errors = append(i.Errors, notStarted("", "ansible-playbook", err))
	}
	id, err := hostUUID()
	if err != nil {
		i.Errors = append(i.Errors, "uuid: "+err.Error())
	}
	i.UUID = id
	return i
}

// runsContainers tells whether jobs can bring their Ansible in an image, as those
// of AWX do.
func runsContainers() bool {
	for _, engine := range []string{"podman", "docker"} {
		if _, err := exec.LookPath(engine); err == nil {
			return true
		}
	}
	return false
}

// hostUUID reads the file, or makes it; of two that make it at the same time
// both return what the first wrote.
func hostUUID() (string, error) {
	home, err := os.UserHomeDir()
	if err != nil {
		return "", err
	}
	path := filepath.Join(home, ".ansible_runner_uuid")
	for {
		data, err := os.ReadFile(path)
		if err == nil {
			id, err := uuid.Parse(strings.TrimSpace(string(data)))
			if err != nil {
				return "", fmt.Errorf("%s: %w", path, err)
			}
			return id.String(), nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		if err := writeUUID(path); err != nil && !errors.Is(err, fs.ErrExist) {
			return "", err
		}
	}
}

func writeUUID(path string) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".ansible_runner_uuid-") // 0600
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.WriteString(uuid.NewString())
	if err = errors.Join(err, tmp.Close()); err != nil {
		return err
	}
	return os.Link(tmp.Name(), path) // complete or not at all, and never over another
}

// String is a YAML map on one line, as the Python tool writes it.
func (i Info) String() string {
	quoted := make([]string, len(i.Errors))
	for n, text := range i.Errors {
		quoted[n] = "'" + strings.ReplaceAll(text, "'", "''") + "'"
	}
	id := i.UUID
	if id == "" {
		id = "null"
	}
	return fmt.Sprintf("{cpu_count: %d, errors: [%s], mem_in_bytes: %d, runner_version: %s, uuid: %s}",
		i.CPUs, strings.Join(quoted, ", "), i.Memory, i.Version, id)
}
