package callback_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ranvier-mesh/ranvier/internal/newansible"
	"github.com/ranvier-mesh/ranvier/runner/internal/callback"
)

// each does a test with the installed Ansible, and with the newer one.
func each(t *testing.T, test func(t *testing.T, env []string)) {
	t.Parallel()
	t.Run("installed", func(t *testing.T) {
		t.Parallel()
		test(t, nil)
	})
	t.Run("newer", func(t *testing.T) {
		t.Parallel()
		test(t, newansible.Env(t))
	})
}

// script runs Python code that has the plugin as p, loaded as Ansible loads it.
func script(t *testing.T, code string, env []string, more ...string) string {
	t.Helper()
	dir := t.TempDir()
	if err := callback.Install(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "events"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	head := "import importlib.util, sys, json, os\n" +
		"spec = importlib.util.spec_from_file_location('ranvier_events', sys.argv[1])\n" +
		"p = importlib.util.module_from_spec(spec)\nspec.loader.exec_module(p)\n"
	cmd := exec.Command("/usr/bin/python3", "-c", head+code, filepath.Join(dir, callback.Name+".py"))
	cmd.Env = append(append(os.Environ(), "HOME="+dir, "LC_ALL=C.UTF-8", "AWX_ISOLATED_DATA_DIR="+dir, callback.KeyVariable+"=k"), append(env, more...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return string(out)
}

// What JSON does not know becomes something that says as much as it can.
func TestOddValues(t *testing.T) { each(t, oddValues) }

func oddValues(t *testing.T, env []string) {
	out := script(t, `
import datetime
loop = {"a": 1}
loop["self"] = [loop]
class Vault: yaml_tag = "!vault"
class Odd:
    def __str__(self): return "odd"
for value in (b"a\xff", {3, 1}, datetime.date(2020, 1, 2), Vault(), Odd(), (1, "x"), {1: {None: 2}}, loop, float("nan"), "\udcff", {("a", 1): 1}, range(3), [loop]):
    print(p.encode({"v": value}))
`, env)
	want := []string{`"a\udcff"`, `[1, 3]`, `"2020-01-02"`, `"$encrypted$"`, `"odd"`, `[1, "x"]`, `{"1": {"null": 2}}`,
		`{"a": 1, "self": ["<recursion>"]}`, `NaN`, `"\udcff"`, `{"('a', 1)": 1}`, `[0, 1, 2]`, `[{"a": 1, "self": ["<recursion>"]}]`}
	var got []string
	for line := range strings.Lines(out) {
		got = append(got, strings.TrimSuffix(strings.TrimPrefix(strings.TrimSpace(line), `{"v": `), "}"))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// The key is gone from the environment once the plugin is loaded, and of its
// process only the plugin marks anything.
func TestOnlyOneProcessWrites(t *testing.T) { each(t, onlyOneProcessWrites) }

func onlyOneProcessWrites(t *testing.T, env []string) {
	out := script(t, `
assert "RANVIER_EVENTS_KEY" not in os.environ
d = p.Display()
d.display("one")
if os.fork() == 0:
    d.display("forked")
    sys.stdout.flush()
    os._exit(0)
os.wait()
d.warning("careful")
sys.stdout.flush()
print()
print(open(os.environ["AWX_ISOLATED_DATA_DIR"] + "/events").read(), end="")
`, env)
	marks := strings.Count(out, "\x1b]ranvier;k;")
	var kinds []string
	for line := range strings.Lines(out) {
		var e struct{ Event string }
		if json.Unmarshal([]byte(line), &e) == nil && e.Event != "" {
			kinds = append(kinds, e.Event)
		}
	}
	if marks != 4 || !cmp.Equal(kinds, []string{"verbose", "warning"}) || !strings.Contains(out, "forked\n") {
		t.Errorf("%d marks, %q: %q", marks, kinds, out)
	}
	if out := script(t, `p.Display().display("plain")`, env, callback.KeyVariable+"="); out != "plain\n" {
		t.Errorf("without a key: %q", out)
	}
}

// However an event's text is printed, it is between the marks and in its order,
// and the end mark comes whatever becomes of the method.
func TestTextStaysBetweenTheMarks(t *testing.T) { each(t, textStaysBetweenTheMarks) }

func textStaysBetweenTheMarks(t *testing.T, env []string) {
	out := script(t, `
real = sys.stdout
def body():
    print("one")
    sys.stdout.buffer.write(b"two\n")
    p.Display().display("three", stderr=True)
    sys.stdout.writelines(["four\n", "five"])
    sys.stdout.flush()
    os.write(1, b"six\n")
    print("seven", end="")
    raise KeyError("gone")
try:
    p.JOURNAL.around('{"uuid": "u"}', sys.stdout, body)
except KeyError:
    print(";after")
assert sys.stdout is real and p.JOURNAL.open is None
`, env)
	want := "\x1b]ranvier;k;0,14\aone\ntwo\nthree\nfour\nfivesix\nseven\x1b]ranvier;k;\a;after\n"
	if out != want {
		t.Errorf("got %q, want %q", out, want)
	}
}

// A result that is too large is left out, and it alone.
func TestLargeResults(t *testing.T) { each(t, largeResults) }

func largeResults(t *testing.T, env []string) {
	out := script(t, `
for n in (100, 400):
    print(p.record("runner_on_ok", {"host": "h", "res": {"stdout": "x" * n}}, ident="u"))
p.STATE.only_failed = True
for kind in ("runner_on_ok", "runner_item_on_failed", "runner_on_unreachable"):
    print(p.record(kind, {"res": {}}))
p.STATE.omit = True
print(p.record("runner_on_failed", {"res": {}}))
`, env, "MAX_EVENT_RES=300", "JOB_ID=7", "PROJECT_UPDATE_ID=x")
	var sizes []int
	for line := range strings.Lines(out) {
		var e struct {
			Job    int                        `json:"job_id"`
			Update string                     `json:"project_update_id"`
			Data   map[string]json.RawMessage `json:"event_data"`
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil || e.Job != 7 || e.Update != "x" {
			t.Fatalf("%v: %s", err, line)
		}
		sizes = append(sizes, len(e.Data["res"]))
	}
	if !cmp.Equal(sizes, []int{114, 2, 0, 2, 0, 0}) {
		t.Errorf("results of %v bytes: %s", sizes, out)
	}
}

func TestInstallSaysWhere(t *testing.T) {
	t.Parallel()
	if err := callback.Install("/proc/nowhere"); err == nil || !strings.Contains(err.Error(), "/proc/nowhere") {
		t.Error(err)
	}
}

// The plugin is read by Python 3.8, whatever the one is that runs here.
func TestGrammarOfOldPythons(t *testing.T) {
	t.Parallel()
	script(t, `
import ast
ast.parse(open(sys.argv[1]).read(), feature_version=(3, 8))
try:
    ast.parse("match x:\n  case 1: pass\n", feature_version=(3, 8))
except SyntaxError:
    pass
else:
    sys.exit("a newer grammar is not told apart")
`, nil)
}

// Where the events cannot be written any more (here: no file may be larger), the
// play goes on, prints what it has to print, and says so once.
func TestNoRoomForEvents(t *testing.T) {
	t.Parallel()
	out := script(t, `
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64))
for text in ("one", "two", "three"):
    p.Display().display(text)
sys.stdout.flush()
`, nil)
	if strings.Count(out, "ranvier: events can no longer be written: ") != 1 || !strings.Contains(out, "one\n") || !strings.Contains(out, "two\nthree\n") {
		t.Errorf("%q", out)
	}
}
