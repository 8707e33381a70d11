package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// On a terminal a run ends with a line for each host, coloured unless people do
// not want that; in a pipe there is none.
func TestTerminal(t *testing.T) {
	t.Parallel()
	n := startNode(t, "n", listener)
	p := newProject(t, "- command: 'true'\n- fail: {msg: no}\n  when: inventory_hostname == 'there'\n")
	p.write("inventory/hosts", localhost+strings.Replace(localhost, "here", "there", 1))
	command := fmt.Sprintf("%s run %s -p test.yml --ident job --via-receptor n --receptor-peer %s", program(t), p.dir, n.addr)
	here := fmt.Sprintf("%s run %s -p test.yml --ident here", program(t), p.dir)
	for _, tc := range []struct {
		env, line, want string
	}{
		{"NO_COLOR=", command, "\r\n\r\n" + `here   \x1b\[33mchanged    \x1b\[0m  1 ok, 1 changed, 1 skipped` + "\r\n" +
			`there  \x1b\[31mfailed     \x1b\[0m  1 ok, 1 changed, 1 failed` + "\r\nvia n,"},
		{"NO_COLOR=1", here, "\r\n\r\n" + `here   changed      1 ok, 1 changed, 1 skipped` + "\r\n" + // the same without a mesh
			`there  failed       1 ok, 1 changed, 1 failed` + "\r\nartifacts in "},
		{"NO_COLOR=1", command, `here   changed      1 ok, 1 changed, 1 skipped` + "\r\n"},
		{"NO_COLOR=", command + " -j", `"playbook_on_stats".*` + "\r\n(\x1b" + `\[K)?via n,`},
		{"NO_COLOR=", command + " -q", "^[^\n]*job .* on node n[^\n]*\nranvier: the job [^\n]*\n$"},
	} {
		// script(1) runs its command on a terminal.
		cmd := exec.Command("script", "-qec", tc.line, "/dev/null")
		cmd.Env = append(os.Environ(), tc.env, "TERM=xterm")
		out, err := cmd.Output()
		if cmd.ProcessState.ExitCode() != 2 {
			t.Errorf("%v, want exit code 2", err)
		}
		if !regexp.MustCompile(tc.want).Match(out) {
			t.Errorf("%s %s: no %s in %q", tc.env, tc.line, tc.want, out)
		}
	}
	piped := p.run(n, "n")
	piped.exits(2)
	piped.says(`the job on node n ended with exit code 2 \(failed\)`) // and nothing else
}

// A terminal shows how far a job has been sent that takes longer than a second
// to send, until the play begins. Nothing else has that line.
func TestUploadOnTerminal(t *testing.T) {
	t.Parallel()
	n := startNode(t, "n", listener)
	a := startNode(t, "a", listener+"- tcp-peer: {address: '"+n.addr+"', rate: 3MB/s}\n")
	a.reaches("n")
	p := newProject(t, "- debug: {msg: arrived}\n")
	p.big(12 << 20)
	command := fmt.Sprintf("%s run %s -p test.yml --via-receptor n --receptor-peer %s", program(t), p.dir, a.addr)
	cmd := exec.Command("script", "-qec", command, "/dev/null")
	cmd.Env = append(os.Environ(), "TERM=xterm")
	out, err := cmd.Output()
	if err != nil {
		t.Errorf("%v: %q", err, out)
	}
	if !regexp.MustCompile(`(\r\x1b\[Ksending the job: [0-9.]+ [kKM]i?B, [0-9.]+ [kKM]i?B/s(, [0-9]{1,3}% of 1[23]\.[0-9] Mi?B)?)+\r\x1b\[K\r*\nPLAY `).Match(out) {
		t.Errorf("no progress that ends where the play begins: %q", out)
	}
	if !strings.Contains(string(out), "% of 1") {
		t.Errorf("no total: %q", out)
	}
	p.big(6 << 20)
	piped := p.run(a, "n", "--whole-job")
	piped.exits(0)
	if text := piped.stderr.String() + piped.stdout.String(); strings.Contains(text, "sending the job") {
		t.Errorf("progress in a pipe: %q", text)
	}
}
