package e2e

import (
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

// A project of 60 MB and a play that prints 20 MB pass through nodes whose
// memory does not grow with them.
func TestLargeJob(t *testing.T) {
	t.Parallel()
	m := startLine(t)
	p := newProject(t, fmt.Sprintf("- stat: {path: '{{ playbook_dir }}/big', checksum_algorithm: sha256}\n  register: big\n"+
		"- debug: {var: big.stat.checksum}\n- debug: {msg: \"{{ 'xyzzy ' * %d }}\"}\n  loop: [1, 2, 3, 4]\n", 5<<20/6))
	sum := p.big(60 << 20)
	run := p.run(m.a, "c")
	run.exits(0)
	p.status("successful", "0")
	run.await(run.stdout, sum)
	if n := len(run.stdout.String()); n < 20<<20 {
		t.Errorf("%d bytes of output", n)
	}
	if n := len(p.artifact("stdout")); n < 20<<20 {
		t.Errorf("%d bytes in artifacts/job/stdout", n)
	}
	for _, n := range []*node{m.a, m.b, m.c} {
		n.bounded(t, 200)
	}
	peak := run.peakOfEnded()
	t.Logf("ranvier run: at most %d MiB", peak)
	if peak > 300 { // it has lines of 5 MB, as text and as JSON
		t.Errorf("ranvier run has had %d MiB", peak)
	}
	m.c.leftNothing()
}

// big puts a file of random bytes into the project, and returns its SHA-256.
func (p *project) big(size int) string {
	p.t.Helper()
	text := make([]byte, size)
	rand.NewChaCha8([32]byte{1}).Read(text)
	if err := os.WriteFile(filepath.Join(p.dir, "project", "big"), text, 0o644); err != nil {
		p.t.Fatal(err)
	}
	return fmt.Sprintf("%x", sha256.Sum256(text))
}
