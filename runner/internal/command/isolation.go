package command

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// containerized tells whether the job runs in a container: the engines are told
// by their names, everything else isolates as bwrap does.
func (b *builder) containerized() bool {
	return b.settings.isolate && (b.settings.executable == "podman" || b.settings.executable == "docker")
}

func (b *builder) sandboxed() bool { return b.settings.isolate && !b.containerized() }

// isolateDir copies the project, for a sandbox that shall not change it.
func (b *builder) isolateDir() error {
	if !b.sandboxed() || b.settings.directory == "" {
		return nil
	}
	dir, err := os.MkdirTemp(b.settings.directory, "runner_di_")
	if err != nil {
		return fmt.Errorf("%w: directory_isolation_base_path: %w", ErrJob, err)
	}
	b.settings.isolatedDir = dir
	if !b.settings.keepDirectory {
		b.job.Remove = append(b.job.Remove, dir)
	}
	if err := copyTree(dir, b.project); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: copy the project: %w", ErrJob, err)
	}
	return nil
}

// wrap puts the command line into what isolates it, from the inside out.
func (b *builder) wrap() error {
	if b.job.SSHKeyPipe != "" {
		b.wrapAgent()
	}
	switch {
	case b.sandboxed():
		return b.wrapSandbox()
	case b.containerized():
		return b.wrapContainer()
	}
	return nil
}

// wrapAgent has an agent of ssh hold the key. The key comes through a pipe,
// read on the terminal, so that a passphrase can be asked for. The trap keeps
// the pipe from outliving an ssh-add that fails.
func (b *builder) wrapAgent() {
	pipe := b.job.SSHKeyPipe
	if b.containerized() {
		pipe = "/runner/artifacts/" + b.Ident + "/ssh_key_data"
	}
	script := strings.Join([]string{
		quote("trap", "rm -f "+quote(pipe), "EXIT"), quote("ssh-add", pipe), "rm -f " + quote(pipe), quote(b.job.Argv...),
	}, " && ")
	b.job.Argv = []string{"ssh-agent", "sh", "-c", script}
}

// wrapSandbox is bubblewrap's command line.
func (b *builder) wrapSandbox() error {
	s := &b.settings
	own, err := os.MkdirTemp(s.path, "ansible_runner_pi_")
	if err != nil {
		return fmt.Errorf("%w: process_isolation_path: %w", ErrJob, err)
	}
	b.job.Remove = append(b.job.Remove, own)
	argv := []string{s.executable, "--die-with-parent", "--unshare-pid", "--dev-bind", "/dev", "dev", "--proc", "/proc",
		"--dir", "/tmp", "--ro-bind", "/bin", "/bin", "--ro-bind", "/etc", "/etc", "--ro-bind", "/usr", "/usr",
		"--ro-bind", "/opt", "/opt", "--symlink", "usr/lib64", "/lib64"}
	argv = append(argv, libraries("/lib")...)
	for i, path := range existing(s.hide) {
		cover := filepath.Join(own, fmt.Sprintf("hidden%d", i))
		info, err := os.Stat(path)
		if err == nil && info.IsDir() {
			err = os.Mkdir(cover, 0o700)
		} else if err == nil {
			err = os.WriteFile(cover, nil, 0o600)
		}
		if err != nil {
			return fmt.Errorf("%w: process_isolation_hide_paths: %w", ErrJob, err)
		}
		argv = append(argv, "--bind", cover, path)
	}
	for _, path := range existing(s.readOnly) {
		argv = append(argv, "--ro-bind", path, path)
	}
	for _, path := range existing(append([]string{b.Dir}, s.show...)) {
		argv = append(argv, "--bind", path, path)
	}
	if b.artifactsElsewhere() {
		argv = append(argv, "--bind", b.job.ArtifactDir, b.job.ArtifactDir)
	}
	if s.isolatedDir != "" {
		argv = append(argv, "--bind", s.isolatedDir, s.isolatedDir)
	}
	dir := ""
	switch {
	case b.raw:
	case b.adHoc:
		dir = b.Dir
	default:
		dir = b.project
		if s.isolatedDir != "" {
			dir = s.isolatedDir
		}
	}
	if dir != "" {
		if real, err := filepath.EvalSymlinks(dir); err == nil {
			dir = real
		}
		argv = append(argv, "--chdir", dir)
	}
	b.job.Argv = append(argv, b.job.Argv...)
	return nil
}

// libraries makes the sandbox's directory of libraries what the host's is: a
// link into /usr, or a directory. Without it no program starts on Debian, where
// the loader in /lib64 is a link to there.
func libraries(path string) []string {
	if target, err := os.Readlink(path); err == nil {
		return []string{"--symlink", target, path}
	}
	if _, err := os.Stat(path); err == nil {
		return []string{"--ro-bind", path, path}
	}
	return nil
}

// artifactsElsewhere tells whether the artifact directory is not where the
// isolated job sees it with the private data directory. It has to: the events
// are written there.
func (b *builder) artifactsElsewhere() bool {
	rel, err := filepath.Rel(b.Dir, b.job.ArtifactDir)
	if b.containerized() {
		return rel != filepath.Join("artifacts", b.Ident)
	}
	return err != nil || !filepath.IsLocal(rel)
}

// existing returns those of paths that are there, resolved, sorted, each once.
func existing(paths []string) []string {
	paths = slices.Compact(slices.Sorted(slices.Values(paths)))
	var found []string
	for _, path := range paths {
		if real, err := filepath.EvalSymlinks(path); err == nil {
			if abs, err := filepath.Abs(real); err == nil {
				found = append(found, abs)
			}
		}
	}
	return found
}

var notInNames = regexp.MustCompile(`[^a-zA-Z0-9_-]`)

// ContainerName is what the container of a run is called.
func ContainerName(ident string) string {
	return "ansible_runner_" + notInNames.ReplaceAllString(ident, "_")
}

// wrapContainer is the command line of podman or docker.
func (b *builder) wrapContainer() error {
	s, j := &b.settings, b.job
	podman := s.executable == "podman"
	argv := []string{s.executable}
	var auth string
	if len(s.auth) > 0 {
		var err error
		if auth, err = b.authFile(podman); err != nil {
			return err
		}
		if !podman {
			argv = append(argv, "--config="+filepath.Dir(auth))
		}
	}
	argv = append(argv, "run", "--rm", "--tty", "--interactive")
	workdir := b.ContainerWorkdir
	if workdir == "" && b.HostCWD != "" && b.exists(b.HostCWD) {
		workdir = b.HostCWD
		var err error
		if argv, err = mount(argv, b.HostCWD, b.HostCWD, ""); err != nil {
			return err
		}
	}
	if workdir == "" {
		workdir = "/runner/project"
	}
	j.Dir = workdir
	argv = append(argv, "--workdir", workdir)
	argv, err := mount(argv, b.Dir, "/runner", ":Z")
	if err != nil {
		return err
	}
	if b.artifactsElsewhere() { // the directory is made when the job begins
		argv = append(argv, "-v", j.ArtifactDir+"/:/runner/artifacts/"+b.Ident+"/:Z")
	}
	if podman && auth != "" {
		argv = append(argv, "--authfile="+auth)
	}
	for _, mapping := range s.mounts {
		from, rest, ok := strings.Cut(mapping, ":")
		to, labels, _ := strings.Cut(rest, ":")
		if !ok || to == "" {
			return fmt.Errorf("%w: container_volume_mounts: %q is not host:container", ErrJob, mapping)
		}
		if labels != "" {
			labels = ":" + labels
		}
		if !filepath.IsAbs(to) {
			to = filepath.Join(b.ContainerWorkdir, to)
		}
		if argv, err = mount(argv, from, to, labels); err != nil {
			return err
		}
	}
	argv = append(argv, "--env-file", filepath.Join(j.ArtifactDir, "env.list"))
	if podman {
		argv = append(argv, "--quiet")
	} else {
		argv = append(argv, fmt.Sprintf("--user=%d", os.Getuid()))
	}
	j.Container = ContainerName(b.Ident)
	j.Engine = s.executable
	argv = append(append(argv, "--name", j.Container), s.options...)
	if s.image == "" {
		return fmt.Errorf("%w: container_image: an image is needed for process isolation with %s", ErrJob, s.executable)
	}
	argv = append(argv, s.image)
	j.Argv = append(argv, j.Argv...)
	j.StartDir = "" // the engine runs where the worker does
	return nil
}

// mount appends a directory, or that of a file, if it is there. The root,
// /home and /usr of the host would be relabelled, and what is in those of the
// container would be hidden: they are refused.
func mount(argv []string, from, to, labels string) ([]string, error) {
	abs, err := filepath.Abs(os.ExpandEnv(from))
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrJob, from, err)
	}
	info, err := os.Stat(abs)
	if err != nil {
		return argv, nil // as the Python tool: what is not there is not mounted
	}
	if !info.IsDir() {
		abs, to = filepath.Dir(abs), filepath.Dir(to)
	}
	if to, err = filepath.Abs(os.ExpandEnv(to)); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrJob, to, err)
	}
	never := []string{"/", "/home", "/usr"}
	if slices.Contains(never, abs) {
		return nil, fmt.Errorf("%w: cannot mount %s into a container", ErrJob, abs)
	}
	if slices.Contains(never, to) {
		return nil, fmt.Errorf("%w: cannot mount %s as a container's %s", ErrJob, abs, to)
	}
	volume := abs + "/:" + to + "/" + labels
	if slices.Contains(argv, volume) {
		return argv, nil
	}
	return append(argv, "-v", volume), nil
}

// authFile writes the registry's credentials where the engine reads them.
func (b *builder) authFile(podman bool) (string, error) {
	get := func(key string) string { s, _ := pyString(b.settings.auth[key]); return s }
	dir, err := os.MkdirTemp("", "ansible_runner_registry_"+notInNames.ReplaceAllString(b.Ident, "_")+"_")
	if err != nil {
		return "", fmt.Errorf("%w: container_auth_data: %w", ErrJob, err)
	}
	b.job.Remove = append(b.job.Remove, dir)
	token := base64.StdEncoding.EncodeToString([]byte(get("username") + ":" + get("password")))
	data, err := json.MarshalIndent(map[string]any{"auths": map[string]any{get("host"): map[string]any{"auth": token}}}, "", "    ")
	if err != nil {
		return "", fmt.Errorf("%w: container_auth_data: %w", ErrJob, err)
	}
	name := "config.json"
	if podman {
		name = "auth.json"
	}
	path := filepath.Join(dir, name)
	err = os.WriteFile(path, data, 0o600)
	if b.settings.auth["verify_ssl"] == false && err == nil {
		registries := filepath.Join(dir, "registries.conf")
		b.job.EngineEnv = append(b.job.EngineEnv, "CONTAINERS_REGISTRIES_CONF="+registries, "REGISTRIES_CONFIG_PATH="+registries)
		err = os.WriteFile(registries, fmt.Appendf(nil, "[[registry]]\nlocation = %q\ninsecure = true", get("host")), 0o600)
	}
	if err != nil {
		return "", fmt.Errorf("%w: container_auth_data: %w", ErrJob, err)
	}
	return path, nil
}
