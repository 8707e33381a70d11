package e2e

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Everything that is wrong with a file is told at once, with its place.
func TestWrongConfiguration(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "wrong.yml")
	write(t, file, `---
- node: {id: "no id", datadri: /tmp/x}
- tcp-listener: {port: 123456}
- tcp-peer: {address: "here", cost: much}
- tcp-lisener: {port: 1}
- log-level: loud
`)
	p := ranvier(t, "node", "-c", file)
	p.exits(1)
	var says []string
	for _, want := range []string{
		`2: node: key "id": .*no id.*`, `2: node: key "datadri": .*did you mean "datadir"\?`,
		`3: tcp-listener: key "port": .*123456.*`,
		`4: tcp-peer: key "address": .*here.*`, `4: tcp-peer: key "cost": .*much.*`,
		`5: unknown item "tcp-lisener", did you mean "tcp-listener"\?`,
		`6: log-level: .*loud.*`,
	} {
		says = append(says, regexp.QuoteMeta(file)+":"+want)
	}
	p.says(strings.Join(says, "\n"))
}

// A node that cannot start says what stands in its way, and where.
func TestNodesThatCannotStart(t *testing.T) {
	t.Parallel()
	n := startNode(t, "n", listener)
	_, port, err := net.SplitHostPort(n.addr)
	if err != nil {
		t.Fatal(err)
	}
	// second is the file of another node, with other directories.
	second := func(items string) string { return prepareNode(t, "m", items).file() }
	absent := filepath.Join(t.TempDir(), "absent.yml")
	sameDir := filepath.Join(t.TempDir(), "same.yml")
	write(t, sameDir, fmt.Sprintf("- node: {id: m, datadir: %s}\n- control-service: {filename: %s}\n%s", n.dataDir(), sameDir+".s", listener))
	sameSocket := filepath.Join(t.TempDir(), "socket.yml")
	write(t, sameSocket, fmt.Sprintf("- node: {id: m, datadir: %s}\n- control-service: {filename: %s}\n%s", sameSocket+".d", n.socket, listener))

	for name, test := range map[string]struct{ file, says string }{
		"no file":               {absent, `configuration file: open .*absent.yml: no such file or directory`},
		"data directory in use": {sameDir, `.*` + regexp.QuoteMeta(n.dataDir()) + ` is used by process \d+; stop it, or give this node a data directory of its own`},
		"port in use":           {second("- tcp-listener: {bindaddr: 127.0.0.1, port: " + port + "}\n"), `.*/ranvier.yml:4: tcp-listener: cannot listen on tcp://` + regexp.QuoteMeta(n.addr) + `: .*address already in use`},
		"control socket in use": {sameSocket, regexp.QuoteMeta(sameSocket) + `:2: control-service: key "filename": .*` + regexp.QuoteMeta(n.socket) + `.*`},
		"open to everybody":     {second("- tcp-listener: {port: 0}\n"), `.*:4: tcp-listener: .*insecure.*`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := ranvier(t, "node", "-c", test.file)
			p.exits(1)
			p.says(test.says)
		})
	}
	t.Cleanup(func() { ranvierOK(t, "ping", "n", "--socket", n.socket, "--count", "1") })
}

// A node that was killed starts again where it was, and so does one whose
// socket was left.
func TestNodeComesBack(t *testing.T) {
	t.Parallel()
	n := startNode(t, "n", listener)
	n.cmd.Process.Kill()
	<-n.done
	if _, err := os.Stat(n.socket); err != nil {
		t.Fatalf("nothing was left to come back to: %v", err)
	}
	n.process = start(t, n.env(), "node", "-c", n.file())
	t.Cleanup(n.stop)
	n.await(n.stderr, "node is up")
	ranvierOK(t, "ping", "n", "--socket", n.socket, "--count", "1")
}
