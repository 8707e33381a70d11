package runner_test

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/ranvier-mesh/ranvier/runner"
)

// zipOf is a zip of entries whose mode is that of the kernel.
func zipOf(t *testing.T, entries ...[3]any) []byte {
	t.Helper()
	var buf bytes.Buffer
	zw := zip.NewWriter(&buf)
	for _, e := range entries {
		h := &zip.FileHeader{Name: e[0].(string), CreatorVersion: 3 << 8, ExternalAttrs: uint32(e[1].(int)) << 16, Method: zip.Deflate}
		w, err := zw.CreateHeader(h)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e[2].(string)); err != nil {
			t.Fatal(err)
		}
	}
	if err := zw.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func onStream(archive []byte) string {
	return fmt.Sprintf("{\"zipfile\": %d}\n%s", len(archive), base64.StdEncoding.EncodeToString(archive))
}

// An archive that would do harm ends the job before it begins, at the worker,
// and leaves nothing, at the one who processes.
func TestHostileArchivesAtBothEnds(t *testing.T) {
	t.Parallel()
	const file, link = 0o100644, 0o120777
	for name, c := range map[string]struct {
		archive []byte
		want    error
		says    string
	}{
		"dot dot":       {zipOf(t, [3]any{"../out", file, "x"}), runner.ErrArchiveUnsafe, `"../out"`},
		"absolute":      {zipOf(t, [3]any{"/tmp/ranvier-out", file, "x"}), runner.ErrArchiveUnsafe, `"/tmp/ranvier-out"`},
		"through":       {zipOf(t, [3]any{"l", link, ".."}, [3]any{"l/out", file, "x"}), runner.ErrArchiveUnsafe, `"l/out"`},
		"device":        {zipOf(t, [3]any{"null", 0o020666, ""}), runner.ErrArchiveUnsafe, `"null"`},
		"twice":         {zipOf(t, [3]any{"a", file, ""}, [3]any{"a", file, ""}), runner.ErrArchiveUnsafe, "twice"},
		"bomb":          {zipOf(t, [3]any{"b", file, strings.Repeat("\x00", 3<<20)}), runner.ErrArchiveTooLarge, "1048576 bytes"},
		"many in bombs": {zipOf(t, [3]any{"a", file, strings.Repeat("\x00", 1<<20)}, [3]any{"b", file, "x"}), runner.ErrArchiveTooLarge, "1048576 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			outer := t.TempDir()
			d := work(t, t.Context(), strings.NewReader("{\"kwargs\": {\"playbook\": \"x\"}}\n"+onStream(c.archive)+"{\"eof\": true}\n"),
				runner.WorkOptions{PrivateDataDir: filepath.Join(outer, "in"), MaxBytes: 1 << 20})
			if !errors.Is(d.err, c.want) || !strings.Contains(d.err.Error(), c.says) || d.last().Status != "error" ||
				d.last().Explanation != "Failed to extract private data directory on worker." || !strings.Contains(d.last().Traceback, c.says) {
				t.Errorf("worker: %v; %+v", d.err, d.last())
			}
			said := event(1, "x") + status("successful") + onStream(c.archive) + "{\"eof\": true}\n"
			result, err := runner.Process(t.Context(), strings.NewReader(said), runner.ProcessOptions{PrivateDataDir: filepath.Join(outer, "out"), MaxArtifactBytes: 1 << 20})
			var artifacts *runner.ArtifactsError
			if !errors.Is(err, c.want) || !errors.As(err, &artifacts) || result.RC == 0 || !strings.Contains(err.Error(), c.says) {
				t.Errorf("process: %v, %+v", err, result)
			}
			for _, path := range []string{filepath.Join(outer, "out", "artifacts", "out"), filepath.Join(outer, "artifacts", "out"), "/tmp/ranvier-out"} {
				if _, err := os.Lstat(path); err == nil {
					t.Errorf("%s is there", path)
				}
			}
		})
	}
}

// What is strange and harmless arrives: names that are no text, links that lead
// nowhere or out, without what they lead to; setuid does not.
func TestOddFilesTravel(t *testing.T) {
	t.Parallel()
	dir := privateDataDir(t, map[string]string{"inventory/hosts": local, "project/b\xff\xfe": "bytes", "project/a\nb": "lines", "project/su": "x",
		"project/site.yml": "x"})
	if err := errors.Join(os.Chmod(filepath.Join(dir, "project/su"), 0o755|os.ModeSetuid), os.Symlink("/etc/hostname", filepath.Join(dir, "project/out")),
		os.Symlink("nowhere", filepath.Join(dir, "project/dangling"))); err != nil {
		t.Fatal(err)
	}
	at := filepath.Join(t.TempDir(), "at")
	work(t, t.Context(), bytes.NewReader(ours(t, runner.Options{PrivateDataDir: dir, Binary: "/bin/true", Playbook: "x", Ident: "id1"})), runner.WorkOptions{PrivateDataDir: at})
	got := tree(t, at)
	for name, want := range map[string]string{"project/b\xff\xfe": "-rw-r--r-- bytes", "project/a\nb": "-rw-r--r-- lines", "project/su": "-rwxr-xr-x x",
		"project/out": "Lrwxrwxrwx /etc/hostname", "project/dangling": "Lrwxrwxrwx nowhere"} {
		if got[name] != want {
			t.Errorf("%q is %q, want %q", name, got[name], want)
		}
	}
}

// changing is a directory that changes with each piece that is read of it.
type changing struct {
	t   *testing.T
	dir string
	n   int
}

func (c *changing) Write(p []byte) (int, error) {
	c.n++
	project := filepath.Join(c.dir, "project")
	big := filepath.Join(project, "big")
	err := errors.Join(os.RemoveAll(filepath.Join(project, fmt.Sprintf("f%d", c.n))), os.RemoveAll(filepath.Join(project, fmt.Sprintf("d%d", c.n))),
		os.WriteFile(filepath.Join(project, fmt.Sprintf("new%d", c.n)), []byte("x"), 0o600))
	f, ferr := os.OpenFile(big, os.O_WRONLY|os.O_APPEND, 0)
	if ferr == nil {
		_, ferr = f.Write(p)
		ferr = errors.Join(ferr, f.Close())
	}
	if err = errors.Join(err, ferr); err != nil {
		c.t.Error(err)
	}
	return len(p), nil
}

// A directory that changes while it is packed gives a sound stream. A file of
// it that grows is not followed for ever.
func TestDirectoryThatChangesWhileItIsSent(t *testing.T) {
	t.Parallel()
	files := map[string]string{"project/big": strings.Repeat("0123456789abcdef", 1<<16), "project/site.yml": "x"}
	for i := range 200 {
		files[fmt.Sprintf("project/f%d", i)] = "x"
		files[fmt.Sprintf("project/d%d/f", i)] = "x"
	}
	dir := privateDataDir(t, files)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	changes := make(chan struct{})
	go func() {
		defer close(changes)
		c := &changing{t: t, dir: dir}
		for c.n < 200 && ctx.Err() == nil {
			_, _ = c.Write([]byte("more"))
		}
	}()
	for range 3 {
		var out bytes.Buffer
		if err := runner.Transmit(t.Context(), &out, runner.Options{PrivateDataDir: dir, Binary: "/bin/true", Playbook: "site.yml", Ident: "id1", Warn: func(string) {}}); err != nil {
			t.Fatal(err)
		}
		at := filepath.Join(t.TempDir(), "at")
		d := work(t, t.Context(), &out, runner.WorkOptions{PrivateDataDir: at})
		if d.last().Status != "successful" {
			t.Errorf("%+v", d.last())
		}
		if got := tree(t, at); got["project/site.yml"] != "-rw-r--r-- x" {
			t.Errorf("%d files arrived", len(got))
		}
	}
	cancel()
	<-changes
}

// smallDisk mounts a file system of a few bytes.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("none", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skip("cannot mount a small file system: ", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	return dir
}

// A full disk is told with the file, whoever's it is, and the stream ends as it
// should.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	big := debugPlay("x")
	random := make([]byte, 600<<10)
	for i := range random {
		random[i] = byte(i * i >> 5)
	}
	big["project/big"] = string(random)
	dir := privateDataDir(t, big)
	o := runner.Options{PrivateDataDir: dir, Playbook: "site.yml", Ident: "id1"}
	sent := ours(t, o)

	t.Run("transmit", func(t *testing.T) {
		t.Parallel()
		o := o
		o.TempDir = smallDisk(t, "16k")
		var out bytes.Buffer
		err := runner.Transmit(t.Context(), &out, o)
		if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), o.TempDir) || !strings.HasSuffix(out.String(), "{\"eof\": true}\n") ||
			!strings.Contains(out.String(), `"status": "error"`) {
			t.Errorf("%v: %.500s", err, out.String())
		}
	})
	t.Run("worker's archive", func(t *testing.T) {
		t.Parallel()
		d := work(t, t.Context(), bytes.NewReader(sent), runner.WorkOptions{TempDir: smallDisk(t, "16k")})
		if !errors.Is(d.err, syscall.ENOSPC) || d.last().Status != "error" || !strings.Contains(d.last().Traceback, "no space left") {
			t.Errorf("%v: %+v", d.err, d.last())
		}
	})
	t.Run("worker's directory", func(t *testing.T) {
		t.Parallel()
		d := work(t, t.Context(), bytes.NewReader(sent), runner.WorkOptions{PrivateDataDir: smallDisk(t, "300k")})
		if !errors.Is(d.err, syscall.ENOSPC) || d.last().Status != "error" || !strings.Contains(d.last().Traceback, "big") {
			t.Errorf("%v: %+v", d.err, d.last())
		}
	})
	t.Run("worker's artifacts", func(t *testing.T) {
		t.Parallel()
		long := debugPlay("{{ 'x' * 3000 }}")
		long["project/site.yml"] += "    loop: '{{ range(200) | list }}'\n"
		d := work(t, t.Context(), bytes.NewReader(ours(t, runner.Options{PrivateDataDir: privateDataDir(t, long), Playbook: "site.yml", Ident: "id1"})),
			runner.WorkOptions{PrivateDataDir: smallDisk(t, "400k")})
		if !errors.Is(d.err, syscall.ENOSPC) || d.last().Status != "error" || !strings.Contains(d.last().Explanation, "no space left") {
			t.Errorf("%v: %+v: %.2000s", d.err, d.last(), d.output)
		}
	})
	t.Run("process", func(t *testing.T) {
		t.Parallel()
		var said strings.Builder
		for i := range 300 {
			said.WriteString(event(i+1, strings.Repeat("x", 4000)))
		}
		said.WriteString(status("successful") + "{\"eof\": true}\n")
		result, err := runner.Process(t.Context(), strings.NewReader(said.String()), runner.ProcessOptions{PrivateDataDir: smallDisk(t, "200k")})
		var artifacts *runner.ArtifactsError
		if !errors.Is(err, syscall.ENOSPC) || !errors.As(err, &artifacts) || result.RC == 0 || !strings.Contains(err.Error(), "job_events") {
			t.Errorf("%v, %+v", err, result)
		}
	})
	t.Run("process's artifacts", func(t *testing.T) {
		t.Parallel()
		said := status("successful") + onStream(zipOf(t, [3]any{"stdout", 0o100600, string(random)})) + "{\"eof\": true}\n"
		result, err := runner.Process(t.Context(), strings.NewReader(said), runner.ProcessOptions{PrivateDataDir: smallDisk(t, "200k")})
		if !errors.Is(err, syscall.ENOSPC) || result.RC == 0 || !strings.Contains(err.Error(), "stdout") {
			t.Errorf("%v, %+v", err, result)
		}
	})
}

// An ansible-core that the plugin does not know is refused before the play.
func TestAnsibleTooOld(t *testing.T) {
	t.Parallel()
	old := t.TempDir()
	if err := os.WriteFile(filepath.Join(old, "sitecustomize.py"), []byte("import ansible.release\nansible.release.__version__ = '2.9.27'\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	files := debugPlay("x")
	files["env/envvars"] = "PYTHONPATH: " + old
	d := workDir(t, files, site)
	if d.result.RC == 0 || !strings.Contains(strings.Join(strings.Fields(d.output), " "), "ansible-core 2.9.27 is too old: Ranvier needs 2.13 or newer") {
		t.Errorf("%+v: %s", d.result, d.output)
	}
}
