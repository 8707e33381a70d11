package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A job of a type with runas is another user's: it cannot read the node's key,
// what is kept of another unit, or ask the node's control socket. A job without
// reads all of that, so the test can tell.
func TestRunAs(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can run jobs as another user")
	}
	program(t)
	hub := newHost(t)
	dir := filepath.Join(hub.home, "data")
	addr := freePort(t)
	hub.ok("ca", "init", "--mesh", "example", "--id", "hub", "--dir", dir, "--listen", addr)
	// What keeps the job out shall be the node's doing, not the test's directories.
	for _, d := range []string{os.Getenv(buildDir), filepath.Dir(hub.home), hub.home} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	conf, err := os.OpenFile(filepath.Join(dir, "ranvier.yml"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(conf, `
- work-command: {worktype: kept, command: cat}
- work-command: {worktype: root, command: sh}
- work-command: {worktype: other, command: sh}
- work-command: {worktype: ansible-runner, command: ansible-runner, params: worker}
- work-policy: {worktype: other, runas: nobody}
- work-policy: {worktype: ansible-runner, runas: nobody}
`)
	conf.Close()
	hub.node(dir)
	socket := filepath.Join(dir, "control.sock")
	if err := os.WriteFile(hub.home+"/secret", []byte(strings.Repeat("secret\n", 5000)), 0o600); err != nil {
		t.Fatal(err)
	}
	unit := strings.TrimSpace(hub.ok("work", "submit", "hub", "kept", "--payload", hub.home+"/secret", "--detach", "--socket", socket))
	_, id, _ := strings.Cut(unit, "/")
	hub.ok("work", "results", unit, "--socket", socket)
	script := fmt.Sprintf(`cd / ; id -un
head -c1 %[1]s/identity/node.key >/dev/null 2>&1 && echo READ key
head -c1 %[1]s/units/%[2]s.stdout >/dev/null 2>&1 && echo READ unit
ls %[1]s/units >/dev/null 2>&1 && echo READ units
head -c1 %[1]s/journal >/dev/null 2>&1 && echo READ journal
python3 -c 'import socket; s = socket.socket(socket.AF_UNIX); s.connect("%[3]s"); s.recv(1)' 2>/dev/null && echo READ socket
python3 -c 'import socket; s = socket.socket(socket.AF_UNIX); s.connect("%[1]s/keeper/socket"); s.recv(1)' 2>/dev/null && echo READ keeper
exit 0
`, dir, id, socket)
	if err := os.WriteFile(hub.home+"/script", []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(kind string) string {
		return hub.ok("work", "submit", "hub", kind, "--payload", hub.home+"/script", "--socket", socket)
	}
	if out := run("root"); out != "root\nREAD key\nREAD unit\nREAD units\nREAD journal\nREAD socket\nREAD keeper\n" {
		t.Errorf("the node's user reads %q", out)
	}
	if out := run("other"); out != "nobody\n" {
		t.Errorf("another user reads %q", out)
	}

	// A type with a directory of its own, below the node's: the way there shows no more.
	alice := newHost(t)
	alice.ok("join", strings.TrimSpace(hub.ok("ca", "token", "--dir", dir, "--role", "client", "--id", "alice", "--work", "ansible-runner")))
	p := newProject(t, "- command: id -un\n  register: me\n  vars: {ansible_remote_tmp: \"{{ lookup('env', 'HOME') }}/tmp\"} # he has no home\n- debug: {msg: 'it is {{ me.stdout }}'}\n")
	play := alice.start("run", p.dir, "-p", "test.yml", "-i", "job", "--via-receptor", "hub", "--receptor-peer", addr)
	play.exits(0)
	if !strings.Contains(play.stdout.String(), "it is nobody") {
		t.Errorf("the play's output: %s", play.stdout)
	}
	if out := run("other"); out != "nobody\n" {
		t.Errorf("after a play another user reads %q", out)
	}
}
