package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// withClock builds the program with another clock for certificates: that of the
// environment variable clockEnv. The product has no such thing, so one of its
// source files is replaced for this build.
func withClock(t *testing.T) (bin string) {
	t.Helper()
	program(t) // all else is compiled then
	root, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	source := filepath.Join(root, "internal", "identity", "clock.go")
	text, err := os.ReadFile(source)
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.Replace(string(text), "system = time.Now\n", "system = clockOfTheTest\n", 1)
	if changed == string(text) {
		t.Fatalf("%s has no line to replace", source)
	}
	changed = strings.Replace(changed, `import (`, "import (\n\t\"os\"", 1) + `
func clockOfTheTest() time.Time {
	now, err := time.Parse(time.RFC3339, os.Getenv("` + clockEnv + `"))
	if err != nil {
		return time.Now()
	}
	return now
}
`
	dir := t.TempDir()
	replacement, overlay := filepath.Join(dir, "clock.go"), filepath.Join(dir, "overlay.json")
	write(t, replacement, changed)
	list, err := json.Marshal(map[string]any{"Replace": map[string]string{source: replacement}})
	if err != nil {
		t.Fatal(err)
	}
	write(t, overlay, string(list))
	bin = filepath.Join(dir, "ranvier")
	cmd := exec.Command("go", "build", "-buildvcs=false", "-overlay", overlay, "-o", bin, "./cmd/ranvier")
	cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return bin
}

const clockEnv = "RANVIER_E2E_CLOCK"

// A box whose clock says 1970 joins a mesh, links, works, and still does so
// after a restart. One whose clock says 2100 fails in one line that names the
// clock, whatever it tries.
func TestClocks(t *testing.T) {
	t.Parallel()
	bin := withClock(t)
	h := startHub(t, "")
	in := func(clock string) *host {
		return &host{t: t, home: t.TempDir(), bin: bin, env: []string{clockEnv + "=" + clock}}
	}
	const y1970, y2100 = "1970-01-01T00:00:10Z", "2100-06-01T00:00:00Z"

	box := in(y1970)
	dir := filepath.Join(box.home, "data")
	box.ok("join", h.token("--role", "leaf", "--id", "box"), "--dir", dir)
	node := box.node(dir)
	h.ok("ping", "box", "--socket", h.socket(), "-n", "1", "--wait", patience.String())
	user := in(y1970)
	user.ok("join", h.token("--role", "client", "--id", "user", "--work", "ansible-runner"))
	p := newProject(t, "- debug: {msg: what year is it}\n")
	run := user.start("run", p.dir, "-p", "test.yml", "-i", "early", "--via-receptor", "box", "--receptor-peer", h.addr)
	run.exits(0)
	if !strings.Contains(run.stdout.String(), "what year is it") {
		t.Errorf("output: %s", run.stdout)
	}
	node.signal(syscall.SIGTERM)
	<-node.done
	box.node(dir)
	h.ok("ping", "box", "--socket", h.socket(), "-n", "1", "--wait", patience.String())

	const says = `.*this host's clock says 2100-06-01 00:00:00 UTC.*`
	late := in(y2100)
	token := h.token("--role", "leaf", "--id", "late")
	join := late.start("join", token, "--dir", filepath.Join(late.home, "data"))
	join.exits(1)
	join.says(says)
	inTime := newHost(t)
	dir = filepath.Join(inTime.home, "data")
	inTime.ok("join", h.token("--role", "leaf", "--id", "in-time"), "--dir", dir)
	start := late.start("node", "-c", filepath.Join(dir, "ranvier.yml"))
	start.exits(1)
	start.says(says)
	ping := late.start("ping", "hub", "-n", "1", "--receptor-peer", h.addr, "--identity", filepath.Join(user.home, ".config", "ranvier"))
	if code := ping.wait(); code == 0 {
		t.Error("a user in 2100 is let in")
	}
	ping.says(says)
}
