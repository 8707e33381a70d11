package bench

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/config"
	"github.com/ranvier-mesh/ranvier/mesh/link"
	"github.com/ranvier-mesh/ranvier/mesh/tcplink"
	"github.com/ranvier-mesh/ranvier/node"
)

const trivialPlay = `- hosts: all
  gather_facts: false
  tasks:
    - debug: msg=hello
`

// BenchmarkTrivialPlay runs a play of one task over two links, through the
// Python tool's own pipe, and with ansible-playbook alone, in turn.
func BenchmarkTrivialPlay(b *testing.B) {
	dir := privateDataDir(b)
	bin := buildRanvier(b)
	peer := startLine(b, "a", "b", "c")
	if out, err := exec.Command(bin, "ping", "c", "--count", "1", "--wait", "10s", "--receptor-peer", peer).CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	var ours, python, plain []float64
	for range max(b.N, 5) {
		ours = append(ours, wall(b, dir, bin+" run . -p test.yml --via-receptor c --receptor-peer "+peer))
		os.RemoveAll(filepath.Join(dir, "artifacts")) // it would travel with the next run
		python = append(python, wall(b, dir, "ansible-runner transmit . -p test.yml | ansible-runner worker | ansible-runner process "+b.TempDir()))
		plain = append(plain, wall(b, filepath.Join(dir, "project"), "ansible-playbook -i ../inventory test.yml"))
	}
	report(b, "trivial play over 2 links vs Python's pipe", "ms", ours, python)
	report(b, "trivial play over 2 links vs ansible-playbook", "ms", ours, plain)
}

// wall runs a shell's command line and returns its milliseconds.
func wall(b *testing.B, dir, line string) float64 {
	b.Helper()
	cmd := exec.Command("bash", "-o", "pipefail", "-c", line)
	cmd.Dir = dir
	start := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("%s: %v\n%s", line, err, out)
	}
	return float64(time.Since(start).Microseconds()) / 1000
}

func privateDataDir(b *testing.B) string {
	dir := b.TempDir()
	for name, text := range map[string]string{
		"project/test.yml": trivialPlay,
		"inventory/hosts":  "localhost ansible_connection=local\n",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			b.Fatal(err)
		}
	}
	return dir
}

func buildRanvier(b *testing.B) string {
	bin := filepath.Join(b.TempDir(), "ranvier")
	if out, err := exec.Command("go", "build", "-o", bin, "../../cmd/ranvier").CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	return bin
}

// startLine runs nodes in a row in this process and returns the first one's address.
func startLine(b *testing.B, ids ...string) string { return startLineIn(b, b.TempDir(), ids...) }

// startLineIn keeps the nodes' data and control sockets in dir, as ID and ID.sock.
func startLineIn(b *testing.B, dir string, ids ...string) string {
	var first, address string
	for _, id := range ids {
		text := fmt.Sprintf("- node: {id: %s, datadir: %s}\n- tcp-listener: {port: 0, bindaddr: 127.0.0.1}\n"+
			"- control-service: {service: control, filename: %s}\n", id, filepath.Join(dir, id), filepath.Join(dir, id+".sock"))
		if address != "" {
			text += fmt.Sprintf("- tcp-peer: %s\n", address)
		}
		cfg, err := config.Parse(id, []byte(text))
		if err != nil {
			b.Fatal(err)
		}
		n, err := node.New(b.Context(), cfg, node.Options{
			Transports: map[string]link.Transport{"tcp": tcplink.Transport{}}, Version: "bench",
			Log: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			b.Fatal(err)
		}
		ctx, stop := context.WithCancel(context.Background())
		over := make(chan error, 1)
		go func() { over <- n.Run(ctx, nil) }()
		b.Cleanup(func() { stop(); <-over })
		address = n.Addrs()[0][len("tcp://"):]
		if first == "" {
			first = address
		}
	}
	return first
}
