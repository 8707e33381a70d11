package mitogen

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// files makes files by name and returns their directory.
func files(t *testing.T, content map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range content {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// mitogens are packages that Python finds before the installed ones.
func mitogens(t *testing.T, ansible, limits string) string {
	return files(t, map[string]string{
		"ansible/__init__.py":         "",
		"ansible/release.py":          "__version__ = '" + ansible + "'\n",
		"mitogen/__init__.py":         "__version__ = (9, 8, 7)\n",
		"ansible_mitogen/__init__.py": "",
		"ansible_mitogen/loaders.py":  "import no_such_module\n" + limits,
	})
}

const limits = "X = 1\nANSIBLE_VERSION_MIN = (2, 10)\nANSIBLE_VERSION_MAX = (2, 14)\n"

func TestPrepare(t *testing.T) {
	t.Parallel()
	broken := files(t, map[string]string{"ansible_mitogen/__init__.py": "raise ImportError('it is not there')\n"})
	fits := mitogens(t, "2.14.18", limits)
	plugins := func(before string) map[string]string {
		return map[string]string{"ANSIBLE_STRATEGY_PLUGINS": before + ":" + filepath.Join(fits, "ansible_mitogen/plugins/strategy")}
	}
	const usual = "~/.ansible/plugins/strategy:/usr/share/ansible/plugins/strategy"
	for name, tc := range map[string]struct {
		env  map[string]string // beside PATH and PYTHONPATH
		path string
		cfg  string
		want map[string]string
		err  error
		text string // in the error
	}{
		"nothing said":           {path: broken},
		"another strategy":       {path: broken, env: map[string]string{"ANSIBLE_STRATEGY": "free"}},
		"by the environment":     {path: fits, env: map[string]string{"ANSIBLE_STRATEGY": "mitogen_linear"}, want: plugins(usual)},
		"by ansible.cfg":         {path: fits, cfg: "[defaults]\nstrategy = mitogen_free ; fast\n", want: plugins(usual)},
		"environment goes first": {path: broken, cfg: "[defaults]\nstrategy = mitogen\n", env: map[string]string{"ANSIBLE_STRATEGY": "linear"}},
		"paths of the environment": {path: fits, cfg: "[defaults]\nstrategy_plugins = x\n",
			env: map[string]string{"ANSIBLE_STRATEGY": "mitogen", "ANSIBLE_STRATEGY_PLUGINS": "/own:./x"}, want: plugins("/own:./x")},
		"paths of ansible.cfg": {path: fits, cfg: "[defaults]\nstrategy: mitogen\nstrategy_plugins = x:../y:/z:~/w\n",
			want: plugins("DIR/x:UP/y:/z:~/w")},
		"Ansible's home":         {path: fits, env: map[string]string{"ANSIBLE_STRATEGY": "mitogen", "ANSIBLE_HOME": "/h"}, want: plugins("/h/plugins/strategy:/usr/share/ansible/plugins/strategy")},
		"another section":        {path: broken, cfg: "[persistent]\nstrategy = mitogen\n"},
		"in a comment":           {path: broken, cfg: "[defaults]\n# strategy = mitogen\n;strategy = mitogen\n"},
		"in another value":       {path: broken, cfg: "[defaults]\nx = 1\n strategy = mitogen\n"},
		"not installed":          {path: broken, env: map[string]string{"ANSIBLE_STRATEGY": "mitogen"}, err: ErrMissing, text: "it is not there"},
		"Ansible too new":        {path: mitogens(t, "2.19.0b1", limits), cfg: "[defaults]\nstrategy=mitogen_host_pinned\n", err: ErrVersion, text: "9.8.7"},
		"Ansible too old":        {path: mitogens(t, "2.9.27", limits), cfg: "[defaults]\nstrategy=mitogen\n", err: ErrVersion, text: "2.10 to 2.14"},
		"Mitogen without limits": {path: mitogens(t, "2.30.1", ""), env: map[string]string{"ANSIBLE_STRATEGY": "mitogen", "ANSIBLE_STRATEGY_PLUGINS": "a"}, want: map[string]string{}},
		"Python is broken":       {path: files(t, map[string]string{"json.py": "raise ValueError('no json')"}), env: map[string]string{"ANSIBLE_STRATEGY": "mitogen"}, text: "no json"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			if tc.cfg != "" {
				if err := os.WriteFile(filepath.Join(dir, "ansible.cfg"), []byte(tc.cfg), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			env := map[string]string{"PATH": "/usr/bin:/bin", "PYTHONPATH": tc.path}
			maps.Copy(env, tc.env)
			got, err := Prepare(t.Context(), Play{Program: "ansible-playbook", Dir: dir, Env: env})
			if tc.text != "" {
				if err == nil || tc.err != nil && !errors.Is(err, tc.err) || !strings.Contains(err.Error(), tc.text) {
					t.Errorf("%v, %v", got, err)
				}
				return
			}
			if len(tc.want) == 0 && tc.want != nil {
				tc.want = map[string]string{"ANSIBLE_STRATEGY_PLUGINS": "a:" + filepath.Join(tc.path, "ansible_mitogen/plugins/strategy")}
			}
			for k, v := range tc.want {
				tc.want[k] = strings.NewReplacer("DIR", dir, "UP", filepath.Dir(dir)).Replace(v)
			}
			if diff := cmp.Diff(tc.want, got); err != nil || diff != "" {
				t.Errorf("%v, %s", err, diff)
			}
		})
	}
}

func TestAnMissingAnsibleIsToldLater(t *testing.T) {
	t.Parallel()
	got, err := Prepare(t.Context(), Play{Program: "ansible-playbook", Dir: "/", Env: map[string]string{"PATH": t.TempDir(), "ANSIBLE_STRATEGY": "mitogen"}})
	if got != nil || err != nil {
		t.Errorf("%v, %v", got, err)
	}
}

func TestPythonOfAProgram(t *testing.T) {
	t.Parallel()
	programs, err := filepath.Abs("testdata/programs")
	if err != nil {
		t.Fatal(err)
	}
	shims, err := filepath.Abs("testdata/shims")
	if err != nil {
		t.Fatal(err)
	}
	for program, want := range map[string]string{
		"plain": "/usr/bin/python3", "options": "/usr/bin/python3 -sP", "env": "/usr/bin/python3", "env-S": "/usr/bin/python3 -s",
		"shell": "/opt/python3", "shim": "/opt/chosen", "silent": "", "binary": "", "none": "",
	} {
		got, err := Play{Dir: "/", Env: map[string]string{"PATH": "/usr/bin:/bin:" + shims}}.python(t.Context(), filepath.Join(programs, program))
		if strings.Join(got, " ") != want || (err != nil) != (want == "") {
			t.Errorf("%s: %v, %v, want %s", program, got, err, want)
		}
	}
}

func TestConfigIsFoundWhereAnsibleLooks(t *testing.T) {
	t.Parallel()
	const mitogen = "[defaults]\nstrategy = mitogen\n"
	home := files(t, map[string]string{".ansible.cfg": "[defaults]\nstrategy = home\n", "etc/ansible.cfg": "[defaults]\nstrategy = etc\n", "named": "[defaults]\nstrategy = named\n"})
	cwd := files(t, map[string]string{"ansible.cfg": mitogen})
	open := files(t, map[string]string{"ansible.cfg": mitogen})
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	for want, p := range map[string]Play{
		"mitogen": {Dir: cwd, Env: map[string]string{"HOME": home}},
		"home":    {Dir: open, Env: map[string]string{"HOME": home}},
		"named":   {Dir: cwd, Env: map[string]string{"HOME": home, "ANSIBLE_CONFIG": filepath.Join(home, "named")}},
		"etc":     {Dir: home, Env: map[string]string{"HOME": home, "ANSIBLE_CONFIG": "etc"}},
	} {
		cfg, err := p.config()
		if err != nil || cfg.values["strategy"] != want {
			t.Errorf("%+v: %+v, %v, want %s", p, cfg, err, want)
		}
	}
}

func FuzzReadConfig(f *testing.F) {
	f.Add("[defaults]\nstrategy = mitogen\n")
	f.Add("[defaults\n=\n:\n ;\n[]\n\tx\n=")
	f.Fuzz(func(t *testing.T, text string) {
		file := filepath.Join(t.TempDir(), "ansible.cfg")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, _ = readConfig(file)
	})
}
