package mitogen

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// sshd serves ssh on loopback with keys of its own until the test ends, and
// returns the inventory variables to log in as this user. It is OpenSSH's, one
// process a connection: so the listener can have any port.
func sshd(t *testing.T) string {
	t.Helper()
	server, err := exec.LookPath("/usr/sbin/sshd")
	if err != nil {
		t.Fatal("a real sshd is needed (Debian: openssh-server): ", err)
	}
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, key := range []string{"host", "user"} {
		out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(dir, key)).CombinedOutput()
		if err != nil {
			t.Fatal(err, string(out))
		}
	}
	config := filepath.Join(dir, "sshd_config")
	text := fmt.Sprintf("HostKey %[1]s/host\nAuthorizedKeysFile %[1]s/user.pub\nStrictModes no\nUsePAM no\nPermitRootLogin yes\n"+
		"PasswordAuthentication no\nPidFile none\nSubsystem sftp internal-sftp\n", dir)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if os.Getuid() == 0 { // sshd's own wish, which Debian's service unit fulfils
		_ = os.MkdirAll("/run/sshd", 0o755) // it stays: another test may need it now
	}
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	serve(t, l, server, config)
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("ansible_host=127.0.0.1 ansible_port=%s ansible_user=%s ansible_ssh_private_key_file=%s/user "+
		"ansible_ssh_common_args='-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null' "+
		"ansible_python_interpreter=/usr/bin/python3", port, me.Username, dir)
}

func serve(t *testing.T, l *net.TCPListener, server, config string) {
	ctx, cancel := context.WithCancel(context.Background())
	var served sync.WaitGroup
	t.Cleanup(func() {
		l.Close()
		cancel()
		served.Wait()
	})
	served.Go(func() {
		for {
			conn, err := l.AcceptTCP()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				t.Error(err)
				return
			}
			file, err := conn.File()
			conn.Close()
			if err != nil {
				t.Error(err)
				continue
			}
			cmd := exec.CommandContext(ctx, server, "-i", "-e", "-f", config)
			cmd.Stdin, cmd.Stdout = file, file
			served.Go(func() {
				_ = cmd.Run() // what goes wrong, the play tells
				file.Close()
			})
		}
	})
}

// play shows whose child a command is: with Mitogen that is an interpreter whose
// name says so.
const play = `
- hosts: all
  gather_facts: false
  tasks:
  - shell: tr '\\0' ' ' < /proc/$PPID/cmdline; echo "$SSH_CONNECTION"
    register: parent
  - debug: msg="run by {{ parent.stdout }}"
`

// byMitogen is what the play shows then; the end is SSH_CONNECTION.
var byMitogen = regexp.MustCompile(`run by .*mitogen:.*127\.0\.0\.1 \d+ 127\.0\.0\.1 \d+`)

// TestMitogenRunsOverSSH is the real thing: Debian's ansible-mitogen and OpenSSH.
func TestMitogenRunsOverSSH(t *testing.T) {
	t.Parallel()
	dir := files(t, map[string]string{"site.yml": play, "hosts": "there " + sshd(t) + "\n"})
	home := t.TempDir()
	for _, strategy := range []string{"mitogen", "mitogen_linear", "mitogen_free", "mitogen_host_pinned", "linear"} {
		t.Run(strategy, func(t *testing.T) {
			if testing.Short() && strategy != "mitogen_linear" {
				t.Skip("one is enough in short tests")
			}
			p := Play{Program: "ansible-playbook", Dir: dir, Env: map[string]string{
				"PATH": "/usr/bin:/bin", "HOME": home, "LC_ALL": "C.UTF-8", "ANSIBLE_STRATEGY": strategy, "ANSIBLE_HOST_KEY_CHECKING": "False"}}
			add, err := Prepare(t.Context(), p)
			if err != nil {
				t.Fatal(err)
			}
			p.Env["ANSIBLE_STRATEGY_PLUGINS"] = add["ANSIBLE_STRATEGY_PLUGINS"]
			if want := strategy != "linear"; want != strings.HasSuffix(p.Env["ANSIBLE_STRATEGY_PLUGINS"], "/ansible_mitogen/plugins/strategy") {
				t.Errorf("added %v", add)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx, p.Program, "-i", "hosts", "site.yml")
			cmd.Dir, cmd.Env = dir, p.environ()
			var out bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &out
			if err := cmd.Run(); err != nil || byMitogen.Match(out.Bytes()) != (strategy != "linear") {
				t.Errorf("%v\n%s", err, out.String())
			}
		})
	}
}
