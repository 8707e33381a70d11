package interop

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// isolations are jobs in isolation; BASE stands for a directory of the test.
var isolations = map[string]struct {
	args, settings string // of transmit
	mended         []string
}{
	"podman": {args: "--process-isolation --container-image img:1"},
	"podman, all flags": {args: "--process-isolation --process-isolation-executable podman --container-image img:1 " +
		"--container-volume-mount BASE/data:/data:ro,Z --container-volume-mount BASE/gone:/gone --container-volume-mount BASE/data/file:/etc/one/file " +
		"--container-option=--network=host --container-option=--user=root -i my:job -vv --forks 3 --limit h1"},
	"docker":           {args: "--process-isolation --process-isolation-executable docker --container-image img:1"},
	"podman, settings": {settings: `{"process_isolation": true, "container_image": "img:2", "container_options": ["--cpus=1"]}`},
	"bwrap":            {args: "--process-isolation --process-isolation-executable bwrap", mended: []string{"--symlink", "usr/lib", "/lib"}},
	"bwrap, all flags": {args: "--process-isolation --process-isolation-executable bwrap --process-isolation-path BASE/tmp " +
		"--process-isolation-hide-paths BASE/secret BASE/data/file BASE/gone --process-isolation-show-paths BASE/more " +
		"--process-isolation-ro-paths BASE/data", mended: []string{"--symlink", "usr/lib", "/lib"}},
}

// TestIsolationArguments holds the command lines of podman, docker and bwrap
// to Python's, word by word, with programs in their places that only write down
// how they were called.
func TestIsolationArguments(t *testing.T) {
	t.Parallel()
	for name, c := range isolations {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			base := lay(t, map[string]string{"data/file": "x", "secret/s": "x", "more/m": "x", "tmp/": "", "bin/": ""})
			for _, program := range []string{"podman", "docker", "bwrap"} {
				if err := os.WriteFile(filepath.Join(base, "bin", program), []byte("#!/bin/sh\n"+
					`[ "$1 $2" = "run --rm" ] || [ $0 != ${0%bwrap} ] || exit 0`+"\n"+
					`printf '%s\n' "$0" "$@" > "$RECORD/argv"; for a; do case $a in *env.list) cp "$a" "$RECORD/env";; esac; done`+"\n"), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			files := map[string]string{"inventory/hosts": one, "project/site.yml": "- hosts: all\n", "env/envvars": "A: b c\nJOB_ID: 7\n"}
			if c.settings != "" {
				files["env/settings"] = c.settings
			}
			dir := lay(t, files)
			args := strings.Fields(strings.ReplaceAll(c.args, "BASE", base))
			// The Python tool's transmit does not know these flags; ours sends what its library would.
			sent := ours.run(t, nil, nil, append([]string{"transmit", dir, "-p", "site.yml"}, args...)...)
			called := make(map[tool]string)
			for _, w := range installed {
				record, work := t.TempDir(), filepath.Join(base, w.name)
				w.run(t, sent, []string{"RECORD=" + record, "PATH=" + filepath.Join(base, "bin") + ":" + os.Getenv("PATH")}, "worker", "--private-data-dir", work)
				called[w] = isolated(t, record, work, base)
			}
			want := called[python]
			if c.mended != nil {
				want = strings.Replace(want, "usr/lib64\n/lib64\n", "usr/lib64\n/lib64\n"+strings.Join(c.mended, "\n")+"\n", 1)
			}
			if diff := cmp.Diff(want, called[ours]); diff != "" {
				t.Errorf("called differently from Python's (-): %s", diff)
			}
		})
	}
}

var (
	sandboxFile = regexp.MustCompile(`ansible_runner_pi_\w+/\S+|runner_di_\w+`)
	pythons     = regexp.MustCompile(`PLUGINS=?\S*`)
)

// isolated returns a call and the environment in the container, without what
// differs by rights.
func isolated(t *testing.T, record, work, base string) string {
	t.Helper()
	argv, err := os.ReadFile(filepath.Join(record, "argv"))
	if err != nil {
		t.Fatal(err)
	}
	env, _ := os.ReadFile(filepath.Join(record, "env")) // podman's and docker's
	lines := strings.Split(strings.TrimSpace(string(env)), "\n")
	lines = slices.DeleteFunc(lines, func(l string) bool { // the plugin's key, and the terminal that the Python tool does not provide for
		return strings.HasPrefix(l, "RANVIER_EVENTS_KEY=") || strings.HasPrefix(l, "TERM=") || l == ""
	})
	slices.Sort(lines)
	text := strings.ReplaceAll(string(argv)+"env\n"+strings.Join(lines, "\n"), work, "WORK")
	text = sandboxFile.ReplaceAllString(strings.ReplaceAll(text, base, "BASE"), "RANDOM")
	return pythons.ReplaceAllString(normal(text, work), "PLUGINS")
}

const isolatedPlay = `
- hosts: all
  gather_facts: false
  tasks:
  - debug: msg="in {{ playbook_dir }}"
  - command: ls {{ hidden }}
    register: r
  - debug: msg="{{ r.stdout_lines | length }} files there"
  - copy: {content: made, dest: "{{ playbook_dir }}/made"}
`

// TestBubblewrap runs a play in a sandbox that cannot see or change what is
// outside of it.
func TestBubblewrap(t *testing.T) {
	t.Parallel()
	if out, err := exec.Command("bwrap", "--dev-bind", "/", "/", "true").CombinedOutput(); err != nil {
		t.Skipf("bubblewrap cannot run here: %v: %s", err, out)
	}
	outside := lay(t, map[string]string{"secret": "x", "other": "x"})
	base, artifacts := t.TempDir(), t.TempDir()
	dir := lay(t, map[string]string{"inventory/hosts": one + "[all:vars]\nhidden=" + outside + "\n", "project/site.yml": isolatedPlay})
	for _, args := range [][]string{{}, {"--artifact-dir", artifacts}, {"--directory-isolation-base-path", base}} {
		out := ours.run(t, nil, nil, append([]string{"run", dir, "-p", "site.yml", "-i", "id1", "--process-isolation",
			"--process-isolation-executable", "bwrap", "--process-isolation-show-paths", outside + "/other", "--process-isolation-hide-paths", outside}, args...)...)
		if !bytes.Contains(out, []byte("1 files there")) || !bytes.Contains(out, []byte("failed=0")) {
			t.Errorf("%v: %s", args, out)
		}
	}
	if found, err := filepath.Glob(filepath.Join(artifacts, "id1", "job_events", "*.json")); err != nil || len(found) < 10 {
		t.Errorf("%d events, %v", len(found), err)
	}
	if left, err := os.ReadDir(base); err != nil || len(left) > 0 {
		t.Errorf("the copy of the project stays: %v, %v", left, err)
	}
}

// TestPodman runs plays in containers whose image is made of Debian's packages.
func TestPodman(t *testing.T) {
	if testing.Short() {
		t.Skip("it makes an image first")
	}
	image := debianImage(t)
	dir := lay(t, map[string]string{"inventory/hosts": one,
		"env/passwords": `{"Who.*:\\s*$": "grün"}`,
		"project/site.yml": `
- hosts: all
  gather_facts: false
  vars_prompt: [{name: who, prompt: Who, private: false}]
  tasks:
  - debug: msg="{{ who }} in {{ playbook_dir }} {{ lookup('env', 'RANVIER_EVENTS_KEY') }}."
  - stat: {path: /data/file}
    register: r
  - debug: msg="data {{ r.stat.exists }}"
  - set_stats: {data: {a: 1}}
`,
		"project/long.yml": "- hosts: all\n  gather_facts: false\n  tasks:\n  - command: sleep 600\n"})
	data := lay(t, map[string]string{"file": "x"})
	isolation := []string{"-i", "id1", "--process-isolation", "--container-image", image, "--container-option=--network=host"}

	sent := ours.run(t, nil, nil, append([]string{"transmit", dir, "-p", "site.yml", "--container-volume-mount", data + ":/data:ro"}, isolation...)...)
	work := filepath.Join(t.TempDir(), "worker")
	said := ours.run(t, sent, nil, "worker", "--private-data-dir", work)
	to := t.TempDir()
	out := string(ours.run(t, said, nil, "process", to, "-i", "id1"))
	if !strings.Contains(out, "grün in /runner/project .") || !strings.Contains(out, "data True") || !strings.Contains(out, "failed=0") {
		t.Fatalf("%s\n%.3000s", out, said)
	}
	got := tree(t, filepath.Join(to, "artifacts", "id1"))
	stats := false
	for name, text := range got {
		var e struct {
			Data struct {
				Stats map[string]any `json:"artifact_data"`
			} `json:"event_data"`
		}
		if strings.HasPrefix(name, "job_events/") && json.Unmarshal([]byte(text), &e) == nil && e.Data.Stats["a"] == 1.0 {
			stats = true
		}
	}
	if got["rc"] != "0" || !stats || strings.Contains(out, "ranvier;") {
		t.Errorf("rc %q, events: %v", got["rc"], len(got))
	}
	if left := slices.Collect(names(filepath.Join(work, "artifacts", "id1"))); slices.Contains(left, "env.list") || slices.Contains(left, "callback") {
		t.Errorf("the worker leaves %v", left)
	}

	cmd := ours.command(t, nil, append([]string{"run", dir, "-p", "long.yml", "--artifact-dir", t.TempDir()}, isolation...)...)
	canceled(t, cmd, "TASK [command]")
	// The engine takes the container out of its books behind the kill; each look takes it a while.
	left, err := []byte("x"), error(nil)
	for tries := 0; tries < 100 && err == nil && len(bytes.TrimSpace(left)) > 0; tries++ {
		left, err = exec.Command("podman", "ps", "-aq", "--filter", "name=ansible_runner_id1").CombinedOutput()
	}
	if err != nil || len(bytes.TrimSpace(left)) > 0 {
		t.Errorf("containers left: %s, %v", left, err)
	}
}

// canceled cancels a job that has said something, and waits for its end.
func canceled(t *testing.T, cmd *exec.Cmd, said string) {
	t.Helper()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() && !strings.Contains(lines.Text(), said) {
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, out)
	if _ = cmd.Wait(); cmd.ProcessState.ExitCode() != 254 {
		t.Errorf("a canceled job ended with %v", cmd.ProcessState)
	}
}

// debianImage makes an image of the installed packages that ansible-core needs,
// in the local storage, and sets up podman for machines on which its defaults
// do not work. Where no container runs at all the test is skipped.
func debianImage(t *testing.T) string {
	t.Helper()
	podman := func(in io.Reader, args ...string) (string, error) {
		cmd := exec.Command("podman", args...)
		cmd.Stdin = in
		out, err := cmd.CombinedOutput()
		return strings.TrimSpace(string(out)), err
	}
	if out, err := podman(nil, "info"); err != nil {
		t.Skipf("podman cannot run here: %v: %s", err, out)
	}
	image := fmt.Sprintf("localhost/ranvier-test:%d", os.Getpid())
	pack := exec.Command("sh", "-c", `
set -e
cd "$1"
mkdir -p usr/bin etc proc sys dev run root tmp var/tmp
for d in bin sbin lib lib64; do ln -s usr/$d $d; done
{ apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces --no-enhances ansible-core
  printf '%s\n' libc-bin coreutils dash base-files openssh-client; } | grep '^[a-z0-9]' | sort -u |
while read p; do dpkg -L $p 2>/dev/null || true; done |
grep -vE '^/usr/share/(doc|man|locale)/|^/(bin|sbin|lib|lib64)$' | sort -u |
while read f; do if [ -L "$f" ] || [ -f "$f" ]; then echo ".$f"; fi; done |
sed -E 's,^\./(bin|sbin|lib|lib64)/,./usr/\1/,' | sort -u > ../files
tar -C / --no-recursion -cf ../image.tar -T ../files
tar -rf ../image.tar .
`, "sh", filepath.Join(t.TempDir(), "root"))
	tmp := filepath.Dir(pack.Args[len(pack.Args)-1])
	if err := os.Mkdir(filepath.Join(tmp, "root"), 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := pack.CombinedOutput(); err != nil {
		t.Fatalf("pack the packages: %v: %s", err, out)
	}
	if out, err := podman(nil, "import", "-q", "--change", "ENV=LC_ALL=C.UTF-8", filepath.Join(tmp, "image.tar"), image); err != nil {
		t.Fatalf("podman import: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := podman(nil, "rmi", "-f", image); err != nil {
			t.Errorf("podman rmi: %v: %s", err, out)
		}
	})
	out, err := podman(nil, "run", "--rm", "--network=host", image, "true")
	if err != nil {
		// In a container or a small virtual machine: no right to raise limits, an older hierarchy of cgroups.
		conf := filepath.Join(tmp, "containers.conf")
		if err := os.WriteFile(conf, []byte("[containers]\ndefault_ulimits = [\"nofile=4096:4096\", \"nproc=4096:4096\"]\n[engine]\nruntime = \"runc\"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		t.Setenv("CONTAINERS_CONF", conf)
		var second string
		if second, err = podman(nil, "run", "--rm", "--network=host", image, "true"); err != nil {
			t.Skipf("podman runs no container here: %s; %s", out, second)
		}
	}
	return image
}
