package command

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// lay makes a private data directory.
func lay(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(name, "/") {
			if err := os.MkdirAll(path, 0o755); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// prepare makes a job of kwargs, whose members are given without the braces.
func prepare(t *testing.T, dir, kwargs string, environ ...string) (*Job, error) {
	t.Helper()
	k, err := ParseKwargs([]byte(`{"ident": "id1"` + kwargs + `}`))
	if err != nil {
		return nil, err
	}
	j, err := Prepare(t.Context(), Input{Kwargs: k, Dir: dir, Environ: environ})
	t.Cleanup(func() {
		for _, path := range j.Remove {
			os.RemoveAll(path)
		}
	})
	return j, err
}

func TestCommandLine(t *testing.T) {
	t.Parallel()
	plain := map[string]string{"inventory/hosts": "h", "project/site.yml": "x"}
	for name, c := range map[string]struct {
		kwargs string
		files  map[string]string
		want   string
	}{
		"playbook":        {`, "playbook": "site.yml"`, plain, "ansible-playbook -i DIR/inventory site.yml"},
		"no inventory":    {`, "playbook": "site.yml"`, nil, "ansible-playbook site.yml"},
		"module":          {`, "module": "ping", "module_args": "a b", "host_pattern": "all"`, plain, "ansible -i DIR/inventory -m ping -a|a b|all"},
		"binary":          {`, "binary": "/x/y", "playbook": "site.yml"`, plain, "/x/y -i DIR/inventory"},
		"inventory":       {`, "playbook": "p", "inventory": "inventory/hosts"`, plain, "ansible-playbook -i DIR/inventory/hosts p"},
		"inventories":     {`, "playbook": "p", "inventory": ["inventory/hosts", "/abs", "h1,"]`, plain, "ansible-playbook -i DIR/inventory/hosts -i /abs -i h1, p"},
		"host list":       {`, "playbook": "p", "inventory": "h1,h2,"`, plain, "ansible-playbook -i h1,h2, p"},
		"order of things": {`, "playbook": "p", "cmdline": "--diff -t 'a b'", "limit": "h*", "extravars": {"a": [1.50, "é"], "b": null}, "verbosity": 3, "tags": "t1", "skip_tags": "t2", "forks": 7, "suppress_env_files": true`, map[string]string{"inventory/hosts": "h", "env/extravars": "x: 1", "env/cmdline": "--check"}, "ansible-playbook --diff -t|a b|-i DIR/inventory --limit h* -e @DIR/env/extravars -e|{\"a\":[1.50, \"é\"],\"b\":null}|-vvv --tags t1 --skip-tags t2 --forks 7 p"},
		"env/cmdline":     {`, "playbook": "p"`, map[string]string{"env/cmdline": "--check \\\n -C\n"}, "ansible-playbook --check|\n|-C p"},
		"extravars here":  {`, "playbook": "p", "extravars": {"a": 1}`, nil, "ansible-playbook -e @DIR/artifacts/id1/extravars p"},
		"extravars' file": {`, "playbook": "p", "extravars": "vars.yml"`, map[string]string{"vars.yml": "x"}, "ansible-playbook -e @DIR/vars.yml p"},
		"args":            {`, "playbook": "p", "limit": "h"`, map[string]string{"args": "prog 'a b' c"}, "prog|a b|c"},
		"numbers as text": {`, "playbook": "p", "forks": "5", "limit": "3"`, nil, "ansible-playbook --limit 3 --forks 5 p"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := lay(t, c.files)
			j, err := prepare(t, dir, c.kwargs, "PATH="+os.Getenv("PATH"))
			if err != nil {
				t.Fatal(err)
			}
			var want []string // words between spaces, and between bars where they have some
			for i, part := range strings.Split(strings.ReplaceAll(c.want, "DIR", dir), "|") {
				if i%2 == 0 {
					want = append(want, strings.Fields(part)...)
				} else {
					want = append(want, part)
				}
			}
			if diff := cmp.Diff(want, j.Argv); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestWhereItRuns(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ kwargs, file, want string }{
		"project":        {`, "playbook": "p"`, "project/p", "project"},
		"none":           {`, "playbook": "p"`, "p", ""},
		"other":          {`, "playbook": "p", "project_dir": "src"`, "src/p", "src"},
		"ad hoc":         {`, "module": "ping"`, "project/p", ""},
		"as if ad hoc":   {`, "playbook": "p", "envvars": {"AD_HOC_COMMAND_ID": 4}`, "project/p", ""},
		"with a command": {``, "args", ""},
	} {
		dir := lay(t, map[string]string{c.file: "x y"})
		j, err := prepare(t, dir, c.kwargs)
		if err != nil || j.StartDir != filepath.Join(dir, c.want) || j.Dir != j.StartDir {
			t.Errorf("%s: %q, %v", name, j.StartDir, err)
		}
	}
}

// Ansible's temporary files are the job's, unless somebody has said where they
// shall be.
func TestLocalTemp(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		files map[string]string
		env   string
		want  string // DIR stands for the private data directory
	}{
		"nothing said": {nil, "", "DIR/artifacts/id1/tmp"},
		"environment":  {nil, "ANSIBLE_LOCAL_TEMP=/mine", "/mine"},
		"envvars":      {map[string]string{"env/envvars": "ANSIBLE_LOCAL_TEMP: /ours\n"}, "ANSIBLE_LOCAL_TEMP=/mine", "/ours"},
		"ansible.cfg":  {map[string]string{"project/ansible.cfg": "[defaults]\nlocal_tmp = /there\n"}, "", ""},
		"podman":       {map[string]string{"env/settings": "process_isolation: true\ncontainer_image: i\n"}, "", ""},
	} {
		files := map[string]string{"project/p": ""}
		for name, text := range c.files {
			files[name] = text
		}
		dir := lay(t, files)
		environ := []string{"HOME=" + dir}
		if c.env != "" {
			environ = append(environ, c.env)
		}
		j, err := prepare(t, dir, `, "playbook": "p"`, environ...)
		if want := strings.ReplaceAll(c.want, "DIR", dir); err != nil || j.Env["ANSIBLE_LOCAL_TEMP"] != want {
			t.Errorf("%s: %q, want %q; %v", name, j.Env["ANSIBLE_LOCAL_TEMP"], want, err)
		}
	}
}

// environ < envvars < env/envvars, and what the job needs.
func TestEnvironment(t *testing.T) {
	t.Parallel()
	dir := lay(t, map[string]string{"project/p": "", "roles/r/tasks/main.yml": "",
		"env/envvars": "C: file\nYES: yes\nN: 1.50\nD: 2020-01-01\nNIL:\nANSIBLE_CALLBACK_PLUGINS: /mine\nANSIBLE_STDOUT_CALLBACK: yaml\n"})
	j, err := prepare(t, dir, `, "playbook": "p", "envvars": {"B": "api", "C": "api", "ANSIBLE_ROLES_PATH": "../roles:/abs"}, "omit_event_data": true`,
		"A=os", "B=os", "C=os", "RANVIER_EVENTS_KEY=outer", "TERM=dumb", "EMPTY=", "=odd", "odd")
	if err != nil {
		t.Fatal(err)
	}
	artifacts := filepath.Join(dir, "artifacts", "id1")
	want := map[string]string{"A": "os", "B": "api", "C": "file", "EMPTY": "", "TERM": "xterm-256color", "YES": "True", "N": "1.50", "D": "2020-01-01", "NIL": "None",
		"ANSIBLE_CALLBACK_PLUGINS": "/mine:" + artifacts + "/callback", "ANSIBLE_STDOUT_CALLBACK": "ranvier_events", "ORIGINAL_STDOUT_CALLBACK": "yaml",
		"ANSIBLE_RETRY_FILES_ENABLED": "False", "ANSIBLE_HOST_KEY_CHECKING": "False", "AWX_ISOLATED_DATA_DIR": artifacts,
		"ANSIBLE_CACHE_PLUGIN": "jsonfile", "ANSIBLE_CACHE_PLUGIN_CONNECTION": artifacts + "/fact_cache", "RUNNER_OMIT_EVENTS": "True",
		"RUNNER_ONLY_FAILED_EVENTS": "False", "ANSIBLE_LOCAL_TEMP": artifacts + "/tmp", "ANSIBLE_ROLES_PATH": filepath.Join(dir, "roles") + ":/abs"}
	if diff := cmp.Diff(want, j.Env); diff != "" {
		t.Error(diff)
	}
	j, err = prepare(t, dir, `, "module": "ping", "roles_path": ["/a", "/b"], "fact_cache_type": "memory", "envvars": {"ANSIBLE_HOST_KEY_CHECKING": "True"}`)
	if err != nil || j.Env["ANSIBLE_LOAD_CALLBACK_PLUGINS"] != "1" || j.Env["AD_HOC_COMMAND_ID"] != "1" || j.Env["ANSIBLE_ROLES_PATH"] != "/a:/b" ||
		j.Env["ANSIBLE_CACHE_PLUGIN"] != "" || j.FactCache != "" || j.Env["ANSIBLE_HOST_KEY_CHECKING"] != "True" {
		t.Errorf("%v, %v", j.Env, err)
	}
}

func TestSettings(t *testing.T) {
	t.Parallel()
	dir := lay(t, map[string]string{"project/p": "", "env/settings": "idle_timeout: 7\nsuppress_output_file: yes\npexpect_timeout: 9\nnosuch: x\nfact_cache: facts\njob_timeout:\n"})
	j, err := prepare(t, dir, `, "playbook": "p", "settings": {"idle_timeout": 1, "job_timeout": 1.5}`)
	if err != nil || j.IdleTimeout != 7*time.Second || j.JobTimeout != 0 || !j.SuppressOutputFile || filepath.Base(j.FactCache) != "facts" {
		t.Errorf("%+v, %v", j, err)
	}
	if want := []string{"env/settings: line 4: nosuch: is no setting, and changes nothing"}; !cmp.Equal(j.Warnings, want) {
		t.Error(cmp.Diff(want, j.Warnings))
	}
	j, err = prepare(t, lay(t, nil), `, "playbook": "p", "settings": {"job_timeout": 1.5}`)
	if err != nil || j.JobTimeout != 1500*time.Millisecond {
		t.Errorf("%+v, %v", j, err)
	}
	j, err = prepare(t, dir, `, "playbook": "p", "timeout": 3, "settings": {"job_timeout": 1.5}`)
	if err != nil || j.JobTimeout != 3*time.Second {
		t.Errorf("%+v, %v", j, err)
	}
}

// Every option of a wrong type is told by its name.
func TestKwargsOfWrongTypes(t *testing.T) {
	t.Parallel()
	for name := range new(Kwargs).fields() {
		if name == "suppress_ansible_output" || name == "ignore_logging" || name == "debug" {
			continue
		}
		wrong := 0
		for _, value := range []string{`"x"`, `-1`, `1.5`, `true`, `{"a": 1}`, `{"a": {}}`, `["a"]`, `[1]`, `[[]]`, `NaN`, `1e999`} {
			k, err := ParseKwargs([]byte(fmt.Sprintf(`{%q: %s}`, name, value)))
			if err == nil {
				continue
			}
			wrong++
			if !errors.Is(err, ErrJob) || !strings.Contains(err.Error(), "kwargs: "+name+": ") {
				t.Errorf("%s: %s: %v, %v", name, value, k, err)
			}
		}
		if wrong < 3 {
			t.Errorf("%s takes anything", name)
		}
		if _, err := ParseKwargs([]byte(fmt.Sprintf(`{%q: null}`, name))); err != nil {
			t.Errorf("%s: null: %v", name, err)
		}
	}
}

// What is wrong with an option is told with what it has to be; what it is not,
// since it may be a secret.
func TestKwargsSayWhatTheyHaveToBe(t *testing.T) {
	t.Parallel()
	for kwarg, want := range map[string]string{
		`"playbook": 5`:         "playbook: has to be a string, and is a number",
		`"cmdline": 5`:          "cmdline: has to be a string, and is a number",
		`"ssh_key": ["secret"]`: "ssh_key: has to be a string, and is a list",
		`"container_image": 5`:  "container_image: has to be a string, and is a number",
		`"timeout": "5"`:        "timeout: has to be a number from 0, and is a string",
		`"timeout": -5`:         "timeout: has to be a number from 0, and is -5",
		`"forks": -1`:           `forks: has to be a whole number from 0, and is "-1"`,
		`"forks": "x"`:          `forks: has to be a whole number from 0, and is "x"`,
		`"forks": 1.5`:          `forks: has to be a whole number from 0, and is "1.5"`,
		`"extravars": 5`:        "extravars: has to be a map, or the path of a file, and is a number",
		`"extravars": "none"`:   "extravars: has to be a map, or the path of a file: there is no ",
		`"ident": true`:         "ident: has to be a string, and is true or false",
		`"inventory": 5`:        "inventory: has to be a string or a list of strings, and is a number",
	} {
		_, err := prepare(t, lay(t, nil), `, "module": "m", `+kwarg)
		if !errors.Is(err, ErrJob) || !strings.Contains(fmt.Sprint(err), "kwargs: "+want) {
			t.Errorf("%s: %v, want %q", kwarg, err, want)
		}
	}
	// AWX names a job by its number, and what is 0 is not set.
	k, err := ParseKwargs([]byte(`{"ident": 5, "forks": 0, "timeout": 1.5}`))
	if err != nil || k.Ident != "5" || k.Forks != "" || k.Timeout != 1.5 {
		t.Errorf("%+v, %v", k, err)
	}
}

// Variables are Ansible's: its own tags and its vault's files are none of ours.
func TestExtraVarsFileThatAnsibleTakes(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"a: !vault |\n  $ANSIBLE_VAULT;1.1;AES256\n  61\nb: !unsafe '{{ x'\nc: {1: {2: x}}\n", `{"a": NaN, "b": "\ud800"}`,
		"$ANSIBLE_VAULT;1.1;AES256\n6162\n", "---\na: &x {b: c}\nd: {<<: *x}\n...\n",
	} {
		if _, err := prepare(t, lay(t, map[string]string{"env/extravars": text}), `, "playbook": "p"`); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestEnvFilesThatDoNotParse(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ file, text, want string }{
		"no YAML":         {"env/envvars", "A: 1\nB: ]\n", "env/envvars: neither JSON nor YAML: line 2: did not find"},
		"indented":        {"env/envvars", "A: 1\n B: 2\n", "env/envvars: neither JSON nor YAML: line 2: mapping values"},
		"first line":      {"env/envvars", "a: b: c\n", "env/envvars: neither JSON nor YAML: line 1: mapping values"},
		"never closed":    {"env/settings", "A: 'x\nB: 1\n", "env/settings: neither JSON nor YAML: line 2: found unexpected end"},
		"never closed []": {"env/envvars", "A: 1\nB: [\n", "env/envvars: neither JSON nor YAML: line 2: did not find"},
		"control":         {"env/envvars", "A: 1\nB: \x01\n", "env/envvars: neither JSON nor YAML: line 2: control characters"},
		"no UTF-8":        {"env/passwords", "A: \uFFFD\nB: \xff\n", "env/passwords: neither JSON nor YAML: line 2: invalid leading"},
		"an anchor":       {"env/envvars", "A: 1\nB: *none\n", "env/envvars: neither JSON nor YAML: line 2: unknown anchor 'none'"},
		"a value in JSON": {"env/envvars", "{\"a\": 1,\n\"b\": {\"c\": 1}}", "env/envvars: b: not a name and a text"},
		"JSON and more":   {"env/envvars", "{\"a\": 1}\n}\n", "env/envvars: neither JSON nor YAML: line 2: did not find"},
		"lookbehind":      {"env/passwords", "x: 1\n(?<!x)y: z\n", "env/passwords: line 2: (?<!x)y: error parsing regexp: invalid named capture: `(?<!x)y` (patterns have RE2's syntax, without lookahead"},
		"back reference":  {"env/passwords", "{\"(a)\\\\1\": \"z\"}", `env/passwords: (a)\1: error parsing regexp: invalid escape sequence: ` + "`\\1` (patterns have RE2's"},
		"no JSON":         {"env/envvars", "{\"a\": 1,\n\"b\": }}\n", "env/envvars: neither JSON nor YAML: line 2"},
		"two documents":   {"env/envvars", "a: 1\n---\nb: 2\n", "env/envvars: neither JSON nor YAML: more than one document"},
		"a list":          {"env/passwords", "\n- a\n", "env/passwords: line 2: a map is expected"},
		"a text":          {"env/settings", "hello", "env/settings: line 1: a map is expected"},
		"extravars":       {"env/extravars", "a: 1\nb: ]\n", "env/extravars: neither JSON nor YAML: line 2: "},
		"a list of vars":  {"env/extravars", "\n- a\n", "env/extravars: line 2: a map is expected"},
		"no vars":         {"env/extravars", "# none\n", "env/extravars: line 1: a map is expected"},
		"a key":           {"env/settings", "a: 1\n[x]: y\n", "env/settings: line 2: a key is no text"},
		"a value":         {"env/envvars", "a: 1\nb: {c: d}\n", "env/envvars: line 2: b: not a name and a text"},
		"a variable":      {"env/envvars", "\"a=b\": 1\n", "env/envvars: line 1: a=b: not a name"},
		"an answer":       {"env/passwords", "x: 1\ny: [1]\n", "env/passwords: line 2: y: the answer is no text"},
		"a pattern":       {"env/passwords", "x: 1\n'(': y\n", "env/passwords: line 2: (: error parsing regexp"},
		"a limit":         {"env/settings", "\n\nidle_timeout: soon\n", "env/settings: line 3: idle_timeout: "},
		"a truth":         {"env/settings", "process_isolation: maybe\n", "env/settings: line 1: process_isolation: "},
		"a quote":         {"env/cmdline", "--limit 'x", "env/cmdline: a ' is never closed"},
		"a command":       {"args", "  \n", "args: there is nothing in it"},
		"a command quote": {"args", `x "y`, `args: a " is never closed`},
		"a directory":     {"env/ssh_key/", "", "env/ssh_key: no regular file"},
		"no directory":    {"env", "x", "env/settings: "},
	} {
		_, err := prepare(t, lay(t, map[string]string{c.file: c.text}), `, "playbook": "p"`)
		if !errors.Is(err, ErrJob) || !strings.Contains(fmt.Sprint(err), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	big := filepath.Join(lay(t, map[string]string{"env/settings": ""}))
	if err := os.Truncate(filepath.Join(big, "env/settings"), maxFile+1); err != nil {
		t.Fatal(err)
	}
	if _, err := prepare(t, big, `, "playbook": "p"`); !errors.Is(err, ErrJob) || !strings.Contains(err.Error(), "more than can be meant") {
		t.Error(err)
	}
}

func TestPrompts(t *testing.T) {
	t.Parallel()
	j, err := prepare(t, lay(t, map[string]string{"env/passwords": "'Vault.*:\\s*?$': file\nb: 5\n"}), `, "playbook": "p", "passwords": {"Vault.*:\\s*?$": "api", "Who\\Z": "me"}`)
	if err != nil || len(j.Prompts) != 3 || j.Prompts[0].Answer != "file" || j.Prompts[1].Answer != "me" || j.Prompts[2].Answer != "5" {
		t.Fatalf("%v, %v", j.Prompts, err)
	}
	if !j.Prompts[0].Pattern.MatchString("x\r\nVault password: ") || !j.Prompts[1].Pattern.MatchString("Who") || j.Prompts[1].Pattern.MatchString("Who\n") {
		t.Errorf("%v", j.Prompts)
	}
}

// What Python's patterns have and RE2 has not, or has otherwise.
func TestPatternsOfPython(t *testing.T) {
	t.Parallel()
	for python, want := range map[string]string{
		`a{,3}: \Z`: `a{0,3}: \z`, `a(?#what, \Z)b`: `ab`, `\{,3}\\Z`: `\{,3}\\Z`, `[{,3}(?#x)]`: `[{,3}(?#x)]`,
		`[]{,3}]{,2}`: `[]{,3}]{0,2}`, `[^]\]{,3}]`: `[^]\]{,3}]`, `\[x{,3}`: `\[x{0,3}`, `a{2,3}(?:b)`: `a{2,3}(?:b)`,
	} {
		if got := fromPython(python); got != want {
			t.Errorf("%s: %s, want %s", python, got, want)
		}
	}
	j, err := prepare(t, lay(t, map[string]string{"env/passwords": "'^Pass{,3}word(?#of the user): $': x\n"}), `, "playbook": "p"`)
	if err != nil || !j.Prompts[0].Pattern.MatchString("Passsword: ") {
		t.Errorf("%+v, %v", j, err)
	}
}

func TestIsolationThatCannotBe(t *testing.T) {
	t.Parallel()
	dir := lay(t, nil)
	const podman = `, "playbook": "p", "process_isolation": true, "container_image": "i"`
	for kwargs, want := range map[string]string{
		`, "playbook": "p", "process_isolation": true`:                      "container_image: an image is needed",
		podman + `, "container_volume_mounts": ["/x"]`:                      "container_volume_mounts: \"/x\" is not host:container",
		podman + `, "container_volume_mounts": ["/usr:/usr"]`:               "cannot mount /usr into a container",
		podman + `, "container_volume_mounts": ["/etc:/usr/"]`:              "cannot mount /etc as a container's /usr",
		podman + `, "container_volume_mounts": ["/etc/hostname:/hostname"]`: "cannot mount /etc as a container's /",
		podman + `, "host_cwd": "/"`:                                        "cannot mount / into a container",
		`, "playbook": "p", "process_isolation": true, "process_isolation_executable": "bwrap", "process_isolation_path": "/nowhere"`:        "process_isolation_path: ",
		`, "playbook": "p", "process_isolation": true, "process_isolation_executable": "bwrap", "directory_isolation_base_path": "/nowhere"`: "directory_isolation_base_path: ",
		`, "playbook": "p", "module": "m"`: "playbook and module exclude each other",
		`, "ident": "a/b"`:                 "cannot be the name of a directory",
	} {
		if _, err := prepare(t, dir, kwargs); !errors.Is(err, ErrJob) || !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("%s: %v, want %q", kwargs, err, want)
		}
	}
}

// Where a container works, and what is mounted relative to that.
func TestContainerWorkdir(t *testing.T) {
	t.Parallel()
	dir, host := lay(t, nil), t.TempDir()
	const podman = `, "playbook": "p", "process_isolation": true, "container_image": "i"`
	for kwargs, want := range map[string]string{
		podman: "--workdir /runner/project ",
		podman + `, "container_workdir": "/w", "container_volume_mounts": ["` + host + `:sub:ro"]`: "--workdir /w -v " + dir + "/:/runner/:Z -v " + host + "/:/w/sub/:ro ",
		podman + `, "host_cwd": "` + host + `"`:                                                    "-v " + host + "/:" + host + "/ --workdir " + host + " ",
	} {
		j, err := prepare(t, dir, kwargs)
		if err != nil || !strings.Contains(strings.Join(j.Argv, " "), want) {
			t.Errorf("%s: %v, %v; want %q", kwargs, j.Argv, err, want)
		}
	}
}

func TestRegistryCredentials(t *testing.T) {
	t.Parallel()
	j, err := prepare(t, lay(t, nil), `, "playbook": "p", "process_isolation": true, "container_image": "i",
		"container_auth_data": {"host": "h:1", "username": "u", "password": "p", "verify_ssl": false}`)
	if err != nil || len(j.Remove) != 1 || len(j.EngineEnv) != 2 {
		t.Fatalf("%+v, %v", j, err)
	}
	auth := filepath.Join(j.Remove[0], "auth.json")
	text, err := os.ReadFile(auth)
	var got map[string]map[string]map[string]string
	if err != nil || json.Unmarshal(text, &got) != nil || got["auths"]["h:1"]["auth"] != "dTpw" || !strings.Contains(strings.Join(j.Argv, " "), "--authfile="+auth) {
		t.Errorf("%s, %v: %q", text, err, j.Argv)
	}
	if info, err := os.Stat(auth); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

// What quote writes, words reads.
func TestWordsReadWhatQuoteWrites(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		args := rapid.SliceOf(rapid.String()).Draw(t, "args")
		got, err := words(quote(args...))
		if err != nil || len(got) != len(args) || strings.Join(got, "\x00") != strings.Join(args, "\x00") {
			t.Fatalf("%q became %q, %v", args, got, err)
		}
	})
	for line, want := range map[string][]string{
		`a  b\ c 'd e' "f \"g\" \h"`: {"a", "b c", "d e", `f "g" \h`}, `a''b "" ''`: {"ab", "", ""}, "": nil, "a\n\tb": {"a", "b"},
	} {
		if got, err := words(line); err != nil || !cmp.Equal(got, want) {
			t.Errorf("%s: %q, %v", line, got, err)
		}
	}
	if _, err := words(`a \`); err == nil {
		t.Error(`a \ at the end was taken`)
	}
}

// FuzzKwargs reads any kwargs, and prepares the job that they describe.
func FuzzKwargs(f *testing.F) {
	f.Add([]byte(`{"ident": "i", "playbook": "p", "extravars": {"a": NaN}, "inventory": ["a"], "envvars": {"A": 1}}`))
	f.Add([]byte(`{"ident": "..", "passwords": {"(": ""}, "settings": {"idle_timeout": 1e400}, "forks": 1}`))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, raw []byte) {
		k, err := ParseKwargs(raw)
		if err != nil {
			if !errors.Is(err, ErrJob) {
				t.Fatal(err)
			}
			return
		}
		k.ProcessIsolation = nil // it makes files
		for _, e := range k.Settings {
			if strings.Contains(e.Key, "isolat") {
				return
			}
		}
		if j, err := Prepare(t.Context(), Input{Kwargs: k, Dir: dir}); err != nil && !errors.Is(err, ErrJob) {
			t.Fatal(err)
		} else if err == nil && filepath.Base(j.ArtifactDir) != k.Ident {
			t.Fatalf("%q for %q", j.ArtifactDir, k.Ident)
		}
	})
}

// FuzzEnvFile reads any file of env/.
func FuzzEnvFile(f *testing.F) {
	for _, seed := range []string{"a: 1\nb: yes", `{"a": "\udcff", "b": NaN}`, "x: &a {b: *a}", "? [a]\n: b", "a: !!binary x", "<<: {a: 1}"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "file"), data, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := readMap(dir, "file"); err != nil && (!errors.Is(err, ErrJob) || !strings.Contains(err.Error(), "file")) {
			t.Fatal(err)
		}
	})
}
