// Package mitogen makes an installed ansible_mitogen usable to a play whose
// strategy is one of Mitogen's: it finds where the plugins are, and says before
// the play begins what would keep them from working (docs/runner-commands.md §5).
package mitogen

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
)

var (
	// ErrMissing is returned where the Python that runs Ansible has no
	// ansible_mitogen.
	ErrMissing = errors.New("ansible_mitogen is not installed")
	// ErrVersion is returned where ansible_mitogen does not work with the
	// version of Ansible.
	ErrVersion = errors.New("ansible_mitogen does not fit the version of Ansible")
)

// Play is what the strategy of a play depends on.
type Play struct {
	Program string            // ansible-playbook or ansible: a path, or a name in the PATH of Env
	Dir     string            // where it is started
	Env     map[string]string // all of its environment
}

// Prepare returns the variables to add to p.Env, none where the strategy is not
// Mitogen's. An Ansible that is missing is no error: starting it will be. Errors are
// ErrMissing and ErrVersion, with what was found and what to do, those of
// ansible.cfg's file, and of the Python that was asked.
func Prepare(ctx context.Context, p Play) (map[string]string, error) {
	cfg, err := p.config()
	if err != nil {
		return nil, err
	}
	strategy := p.Env["ANSIBLE_STRATEGY"]
	if strategy == "" {
		strategy = cfg.values["strategy"]
	}
	if !strings.HasPrefix(strategy, "mitogen") {
		return nil, nil
	}
	program, err := p.lookPath()
	if err != nil {
		return nil, nil
	}
	found, err := p.probe(ctx, program)
	if err != nil {
		return nil, fmt.Errorf("strategy %s: %w", strategy, err)
	}
	plugins := append(p.plugins(cfg), filepath.Join(found.Path, "plugins", "strategy"))
	return map[string]string{"ANSIBLE_STRATEGY_PLUGINS": strings.Join(plugins, ":")}, nil
}

// plugins returns where Ansible would look for strategies. What is set in the
// environment replaces all else, so all else has to be said again.
func (p Play) plugins(cfg config) []string {
	if list := p.Env["ANSIBLE_STRATEGY_PLUGINS"]; list != "" {
		return strings.Split(list, ":")
	}
	if list := cfg.values["strategy_plugins"]; list != "" {
		paths := strings.Split(list, ":")
		for i, path := range paths {
			if path != "" && !strings.ContainsAny(path[:1], "/~${") {
				paths[i] = filepath.Join(filepath.Dir(cfg.file), path)
			}
		}
		return paths
	}
	home := "~/.ansible"
	for _, set := range []string{cfg.values["home"], p.Env["ANSIBLE_HOME"]} {
		if set != "" {
			home = set
		}
	}
	return []string{home + "/plugins/strategy", "/usr/share/ansible/plugins/strategy"}
}

// probe is the question to Python. The versions that fit are read from the
// source: importing it would raise an error instead of telling them.
const probe = `
import ast, json, os, sys
sys.path = [p for p in sys.path if p]
said = {"python": sys.executable}
try:
    import ansible.release
    said["ansible"] = ansible.release.__version__
except ImportError as e:
    said["no_ansible"] = str(e)
try:
    import ansible_mitogen, mitogen
    said["path"] = os.path.dirname(os.path.abspath(ansible_mitogen.__file__))
    said["mitogen"] = ".".join(str(n) for n in mitogen.__version__)
    with open(os.path.join(said["path"], "loaders.py")) as f:
        for node in ast.parse(f.read()).body:
            if isinstance(node, ast.Assign) and node.targets[0].id in ("ANSIBLE_VERSION_MIN", "ANSIBLE_VERSION_MAX"):
                said[node.targets[0].id[16:].lower()] = list(ast.literal_eval(node.value))
except (ImportError, OSError, SyntaxError, ValueError, AttributeError) as e:
    said.setdefault("why", str(e))
print(json.dumps(said))
`

// found is the answer.
type found struct {
	Python  string
	Ansible string
	Path    string // of the package ansible_mitogen
	Mitogen string
	Why     string // what kept it from being found
	Min     []int  // of Ansible: major, minor
	Max     []int
}

func (p Play) probe(ctx context.Context, program string) (found, error) {
	python, err := p.python(ctx, program)
	if err != nil {
		return found{}, err
	}
	cmd := exec.CommandContext(ctx, python[0], append(python[1:], "-c", probe)...)
	cmd.Dir, cmd.Env = "/", p.environ()
	var out, complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaints
	var f found
	if err := cmd.Run(); err != nil {
		return f, fmt.Errorf("%s, the Python of %s: %w: %s", python[0], program, err, lastLine(complaints.String()))
	}
	if err := json.Unmarshal(out.Bytes(), &f); err != nil {
		return f, fmt.Errorf("%s, the Python of %s: %w", python[0], program, err)
	}
	if f.Path == "" {
		return f, fmt.Errorf("%w for %s, the Python of %s (%s): install it there (Debian: ansible-mitogen; elsewhere: %s -m pip install mitogen), or use another strategy",
			ErrMissing, f.Python, program, f.Why, f.Python)
	}
	return f, f.fits()
}

// fits compares versions. A Mitogen or an Ansible that does not tell its own is
// tried.
func (f found) fits() error {
	var major, minor int
	if _, err := fmt.Sscanf(f.Ansible, "%d.%d", &major, &minor); err != nil {
		return nil
	}
	have := []int{major, minor}
	below := len(f.Min) >= 2 && less(have, f.Min)
	above := len(f.Max) >= 2 && less(f.Max, have)
	if !below && !above {
		return nil
	}
	return fmt.Errorf("%w: %s in %s works with ansible-core %s to %s, and %s is installed: use one of these, another Mitogen, or another strategy",
		ErrVersion, f.Mitogen, f.Path, versionText(f.Min), versionText(f.Max), f.Ansible)
}

func less(a, b []int) bool { return a[0] < b[0] || a[0] == b[0] && a[1] < b[1] }

func versionText(v []int) string {
	if len(v) < 2 {
		return "any"
	}
	return fmt.Sprintf("%d.%d", v[0], v[1])
}

func lastLine(s string) string {
	s = strings.TrimSpace(s)
	return s[strings.LastIndexByte(s, '\n')+1:]
}
