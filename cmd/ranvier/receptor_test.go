package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/ranvier-mesh/ranvier/internal/control"
	"github.com/ranvier-mesh/ranvier/routing"
)

// daemon starts the program and returns when its node is up.
func (tl tool) daemon(t *testing.T, args ...string) (log func() string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	cmd := tl.command(t, args...)
	out, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	up, over := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(over)
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			text.WriteString(lines.Text() + "\n")
			if strings.Contains(lines.Text(), "node is up") {
				close(up)
			}
		}
	}()
	log = func() string {
		cmd.Process.Signal(os.Interrupt)
		<-over
		return text.String()
	}
	t.Cleanup(func() {
		defer cancel()
		log()
		cmd.Wait()
	})
	select {
	case <-up:
	case <-over:
		t.Fatalf("%v did not come up:\n%s", args, text.String())
	case <-ctx.Done():
		cmd.Process.Kill()
		t.Fatalf("%v did not come up", args)
	}
	return log
}

// A node from the command line alone, and as Receptor.
func TestItemsOnTheCommandLine(t *testing.T) {
	t.Parallel()
	for name, args := range map[string][]string{"ranvier": {"node", "--receptor-compat"}, receptorName: {}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			socket := filepath.Join(dir, "s")
			log := named(t, name).daemon(t, append(args, "--node", "id=test", "datadir="+dir+"/data", "--Log-Level", "debug",
				"--tcp-listener", "port=0", "cost=2", `nodecost={"a": 1.5}`, `allowedpeers=["a", "b"]`, "--tcp-listener", "0",
				"--tcp-peer", "address=127.0.0.1:1", "redial=false", "--local-only",
				"--control-service", "service=control", "filename="+socket, "permissions=0660",
				"--work-command", "worktype=echo", "command=echo", "params=-n x", "allowruntimeparams=true")...)
			c, err := control.Dial(t.Context(), socket)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			st, err := c.Status(t.Context(), control.AllFields()...)
			if err != nil || st.NodeID != "test" || !st.Open {
				t.Errorf("%+v, %v", st, err)
			}
			if err := c.Reload(t.Context()); err != nil {
				t.Errorf("reload: %v", err)
			}
			c.Close()
			if text := log(); strings.Count(text, "msg=listening") != 2 || !strings.Contains(text, "as Receptor does, this node lets everybody in") {
				t.Errorf("log:\n%s", text)
			}
		})
	}
}

func TestAsReceptor(t *testing.T) {
	t.Parallel()
	receptor := named(t, receptorName)
	if got := receptor.run(t, "", "--version"); got.code != 0 || strings.Count(got.out, "\n") != 1 || strings.Contains(got.out, " ") {
		t.Errorf("--version: %+v", got)
	}
	if got := receptor.run(t, "", "--help"); got.code != 0 || !strings.Contains(got.out, "--config") {
		t.Errorf("--help: %+v", got)
	}
	for _, tt := range []struct {
		args string
		code int
		says string
	}{
		{"", 2, "a configuration is needed"},
		{"-c /nowhere/x.conf", 1, "/nowhere/x.conf"},
		{"--tcp-lisener port=1", 2, "unknown flag: --tcp-lisener"},
		{"--local-only --tcp-listener prot=1 port=2", 1, `command line: tcp-listener: key "prot": there is no such key`},
		{"--local-only --node id=localhost", 1, `command line: node: key "id": a node cannot be called localhost`},
		{"--local-only --node id=a --node id=b", 1, `command line: node: it may stand only once, and stands on the command line already`},
		{"--local-only --tcp-listener port=5 --tcp-listener port=5", 1, "the listener on the command line has the address 0.0.0.0:5 already"},
		{"--node id=a --local-only --work-command worktype=x extra command=y", 1, `"extra" is no key=value`},
		{"--tcp-listener port=1 nodecost={a", 1, `key "nodecost": a map of node ids to costs is expected`},
		{"--local-only port", 1, "it takes keys with values"},
		{"work list", 2, "is one argument too many"},
	} {
		if got := receptor.run(t, "", strings.Fields(tt.args)...); got.code != tt.code || !strings.Contains(got.errors, tt.says) {
			t.Errorf("%s: %+v, want %d and %q", tt.args, got, tt.code, tt.says)
		}
	}
}

func TestMakeCertificates(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	receptor := named(t, receptorName)
	do := func(stdin string, args ...string) ended {
		t.Helper()
		return receptor.run(t, stdin, args...)
	}
	if got := do("", "--cert-init", "commonname=Site CA", "bits=2048", "outcert="+file("ca.crt"), "outkey="+file("ca.key")); got.code != 0 {
		t.Fatalf("%+v", got)
	}
	if info, err := os.Stat(file("ca.key")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the CA's key: %v, %v", info, err)
	}
	req := []string{"--cert-makereq", "commonname=a", "nodeid=a", "dnsname=a.example", "dnsname=b.example", "ipaddress=127.0.0.1", "outkey=" + file("a.key"), "outreq=" + file("a.req")}
	if got := do("", req...); got.code != 0 {
		t.Fatalf("%+v", got)
	}
	sign := []string{"--cert-signreq", "req=" + file("a.req"), "cacert=" + file("ca.crt"), "cakey=" + file("ca.key"), "outcert=" + file("a.crt")}
	if got := do("no\n", sign...); got.code != 1 || !strings.Contains(got.out, "a.example, b.example") || !strings.Contains(got.errors, "nothing was signed") {
		t.Errorf("no: %+v", got)
	}
	if got := do("", sign...); got.code != 1 || !strings.Contains(got.errors, "verify=true") {
		t.Errorf("nobody there: %+v", got)
	}
	if got := do("yes\n", sign...); got.code != 0 {
		t.Errorf("yes: %+v", got)
	}
	if got := do("", append(sign, "verify=true")...); got.code != 1 || !strings.Contains(got.errors, `key "outcert": `+file("a.crt")+" exists") {
		t.Errorf("again: %+v", got)
	}
	if got := do("", req...); got.code != 1 || !strings.Contains(got.errors, "exists") {
		t.Errorf("a key is written over: %+v", got)
	}
	if got := do("", append(sign, "--local-only")...); got.code != 1 || !strings.Contains(got.errors, "a command line, of their own") {
		t.Errorf("beside a node: %+v", got)
	}
	// in a file, with the key that is there
	conf := file("certs.yml")
	if err := os.WriteFile(conf, []byte("- cert-makereq: {commonname: a2, nodeid: [a2, a3], inkey: "+file("a.key")+", outreq: "+file("a2.req")+"}\n"+
		"- cert-signreq: {req: "+file("a2.req")+", cacert: "+file("ca.crt")+", cakey: "+file("ca.key")+", outcert: "+file("a2.crt")+", verify: true, notafter: '2030-01-01T00:00:00Z'}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := do("", "-c", conf); got.code != 0 {
		t.Errorf("%+v", got)
	}
	// and a node takes them
	named(t, "ranvier").daemon(t, "node", "--node", "id=a", "datadir="+file("data"), "--tls-server", "name=s", "cert="+file("a.crt"), "key="+file("a.key"),
		"clientcas="+file("ca.crt"), "requireclientcert=true", "--tcp-listener", "port=0", "tls=s")
}

func TestWhyJobsDie(t *testing.T) {
	t.Parallel()
	const cgroup = "1:name=systemd:/ignored\n0::/system.slice/ranvier.service\n"
	for name, tt := range map[string]struct {
		pid     int
		invoked bool
		cgroup  string
		mode    string
		err     error
		says    string
	}{
		"a shell":          {pid: 9, cgroup: "0::/user.slice/user-0.slice/session-1.scope\n"},
		"first":            {pid: 1, says: "first process of its container"},
		"kills all":        {pid: 9, invoked: true, cgroup: cgroup, mode: "control-group\n", says: "the unit ranvier.service has KillMode=control-group"},
		"kills the node":   {pid: 9, invoked: true, cgroup: cgroup, mode: "process\n"},
		"not known":        {pid: 9, invoked: true, cgroup: cgroup, err: errors.New("no bus")},
		"below the unit":   {pid: 9, invoked: true, cgroup: "0::/system.slice/receptor.service/node\n", mode: "mixed", says: "receptor.service"},
		"a user's systemd": {pid: 9, invoked: true, cgroup: "0::/user.slice/user-5.slice/user@5.service/app.slice/r.service\n", mode: "mixed", says: "r.service has KillMode=mixed"},
		"a user's shell":   {pid: 9, invoked: true, cgroup: "0::/user.slice/user-5.slice/user@5.service/app.slice/x.scope\n", mode: "mixed"},
	} {
		why := whyJobsDie(tt.pid, tt.invoked, tt.cgroup, func(args ...string) (string, error) {
			if user := args[0] == "--user"; user != strings.Contains(tt.cgroup, "user@") {
				t.Errorf("%s: systemctl %v", name, args)
			}
			return tt.mode, tt.err
		})
		if (why == "") != (tt.says == "") || !strings.Contains(why, tt.says) {
			t.Errorf("%s: %q, want %q", name, why, tt.says)
		}
	}
}

// As Receptor a data directory is one of the node's own in what the file says, where
// the file of several nodes may say the same; else it is what the file says.
func TestDataDirOfTheName(t *testing.T) {
	t.Parallel()
	native, compat := &nodeFlags{}, &nodeFlags{compat: true}
	for _, tt := range []struct {
		f              *nodeFlags
		id             routing.NodeID
		datadir, where string
	}{
		{native, "a", "/srv/x", "/srv/x"},
		{native, "a", "", defaultDataDir()},
		{compat, "a", "/srv/x", "/srv/x/a"},
		{compat, "a/b", "/srv/x", "/srv/x/a_b"},
		{compat, "..", "/srv/x", "/srv/x/_"},
		{compat, "a", "", receptorDataDir() + "/a"},
	} {
		if got := tt.f.dataDir(tt.id, tt.datadir); got != tt.where {
			t.Errorf("compat %v, node %s, datadir %q: %s, want %s", tt.f.compat, tt.id, tt.datadir, got, tt.where)
		}
	}
	if os.Geteuid() == 0 && receptorDataDir() != "/var/lib/ranvier/receptor" {
		t.Errorf("root's is %s", receptorDataDir())
	}
}

// Words of an item stay with it, whatever they look like.
func TestItemWords(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		"--tcp-peer a:1 --tcp-peer b:1":             `[["a:1"] ["b:1"]]`,
		"--tcp-listener=port=1 cost=2 --local-only": `[["port=1" "cost=2"] []]`,
		"--node id=run -c x":                        `[["id=run"]]`,
	} {
		var f nodeFlags
		cmd := &cobra.Command{Use: "node"}
		f.add(cmd)
		cmd.RunE = func(*cobra.Command, []string) error { return nil }
		root := &cobra.Command{Use: "r"}
		root.AddCommand(cmd, &cobra.Command{Use: "run"})
		root.SetOut(io.Discard)
		root.SetErr(io.Discard)
		root.SetArgs(normalize(root, append([]string{"node"}, strings.Fields(line)...), false))
		if err := root.Execute(); err != nil {
			t.Error(err)
		}
		var words [][]string
		for _, a := range f.source.Args {
			words = append(words, a.Words)
		}
		got, _ := json.Marshal(words)
		if text := strings.ReplaceAll(string(got), ",", " "); text != want {
			t.Errorf("%s: %s, want %s", line, text, want)
		}
	}
}

// The units of systemd let jobs outlive their node.
func TestSystemdUnits(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"ranvier.service", "receptor.service.d-ranvier.conf"} {
		text, err := os.ReadFile(filepath.Join("..", "..", "packaging", "systemd", name))
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range []string{"KillMode=process", "OOMPolicy=continue", "Delegate=yes", "PrivateTmp=no"} {
			if !strings.Contains("\n"+string(text), "\n"+line+"\n") {
				t.Errorf("%s: there is no %s", name, line)
			}
		}
	}
}
