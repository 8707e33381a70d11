package e2e

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A project is sent once: the next run brings what has changed, and another
// user's run all of it again.
func TestUnchangedFilesAreNotSentAgain(t *testing.T) {
	t.Parallel()
	b := startNode(t, "b", listener)
	a := startNode(t, "a", listener+b.peer())
	a.reaches("b")
	p := newProject(t, "- command: sha256sum {{ playbook_dir }}/large {{ playbook_dir }}/files/f7\n- command: ls -l {{ playbook_dir }}/../env\n")
	p.write("env/passwords", "'^secret-of-env:': hunter2\n")
	big := make([]byte, 30<<20)
	random := rand.NewChaCha8([32]byte{2})
	random.Read(big)
	p.write("project/large", string(big))
	for n := range 400 {
		random.Read(big[:2000])
		p.write(fmt.Sprintf("project/files/f%d", n), fmt.Sprintf("%x", big[:2000]))
	}
	send := func(more ...string) (sent uint64) {
		t.Helper()
		before := linkBytes(t, a)
		run := p.run(a, "b", more...)
		run.exits(0)
		p.status("successful", "0")
		os.RemoveAll(filepath.Join(p.dir, "artifacts"))
		return linkBytes(t, a) - before
	}
	if n := send(); n < 30<<20 || n > 36<<20 { // as base64 it would be 42 MB
		t.Errorf("the first run has sent %d bytes of 33 MB", n)
	}
	p.write("project/files/f7", "changed")
	large, err := os.OpenFile(filepath.Join(p.dir, "project", "large"), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	large.WriteAt([]byte("changed"), 20<<20)
	large.Close()
	n := send()
	t.Logf("the second run has sent %d bytes", n)
	if n > 1_000_000 {
		t.Errorf("the second run has sent %d bytes", n)
	}
	if n := send("--whole-job"); n < 30<<20 {
		t.Errorf("a run that asks for nothing has sent %d bytes of 33 MB", n)
	}

	kept := 0
	err = filepath.WalkDir(filepath.Join(b.dataDir(), "content"), func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", name, info.Mode())
		}
		if d.IsDir() {
			return nil
		}
		kept++
		if text := read(t, name); strings.Contains(text, "hunter2") || strings.Contains(text, "ansible_connection") {
			t.Errorf("%s keeps what belongs to one job", name)
		}
		return nil
	})
	if err != nil || kept == 0 {
		t.Errorf("%d pieces, %v", kept, err)
	}

	// Another user knows the hashes, but not the key.
	t.Run("another user", func(t *testing.T) {
		before := linkBytes(t, a)
		other := start(t, []string{"XDG_STATE_HOME=" + t.TempDir()}, "run", p.dir, "-p", "test.yml", "--ident", "job", "--via-receptor", "b", "--receptor-peer", a.addr)
		other.exits(0)
		if n := linkBytes(t, a) - before; n < 30<<20 {
			t.Errorf("another user's first run has sent %d bytes of 31 MB", n)
		}
	})
	b.leftNothing()
}

// What the node has no room for travels in pieces too, and the user is told why it
// will all come again. A node that passes the job on asks the other one.
func TestContentThatIsNotKeptAndContentPassedOn(t *testing.T) {
	t.Parallel()
	b := startNode(t, "b", listener)
	full := prepareNode(t, "full", listener)
	write(t, full.file(), strings.Replace(read(t, full.file()), "datadir:", "contentlimit: 0, datadir:", 1))
	full.begin(t)
	a := startNode(t, "a", listener+b.peer()+full.peer())
	a.reaches("b")
	a.reaches("full")
	p := newProject(t, "- command: wc -c {{ playbook_dir }}/large\n")
	big := make([]byte, 10<<20)
	random := rand.NewChaCha8([32]byte{3})
	random.Read(big)
	p.write("project/large", string(big))
	send := func(args ...string) (sent uint64, run *process) {
		t.Helper()
		before := linkBytes(t, a)
		run = start(t, nil, append([]string{"run", p.dir, "-p", "test.yml", "--ident", "job"}, args...)...)
		run.exits(0)
		p.status("successful", "0")
		os.RemoveAll(filepath.Join(p.dir, "artifacts"))
		return linkBytes(t, a) - before, run
	}
	for range 2 {
		sent, run := send("--via-receptor", "full", "--receptor-peer", a.addr)
		run.await(run.stderr, "all of the job is sent: node full keeps nothing of it for the next one")
		if sent < 10<<20 || sent > 12<<20 { // as base64 it would be 14 MB
			t.Errorf("%d bytes of 10.5 MB were sent to a node that keeps nothing", sent)
		}
	}
	if sent, _ := send("--via-receptor", "b", "--socket", a.socket); sent < 10<<20 || sent > 12<<20 {
		t.Errorf("the first job that was passed on has sent %d bytes of 10.5 MB", sent)
	}
	if sent, _ := send("--via-receptor", "b", "--socket", a.socket); sent > 1<<20 {
		t.Errorf("the second one has sent %d bytes", sent)
	}
	b.leftNothing()
}

// linkBytes is what a node has sent on its links to nodes so far.
func linkBytes(t *testing.T, n *node) (sent uint64) {
	t.Helper()
	var s struct {
		Links []struct {
			BytesOut uint64
		}
	}
	text := ranvierOK(t, "status", "--json", "--socket", n.socket)
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	for _, l := range s.Links {
		sent += l.BytesOut
	}
	return sent
}
