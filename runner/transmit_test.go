package runner_test

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/ranvier-mesh/ranvier/runner"
)

// TestKwargsAreThoseOfPython compares the first line, to the byte, with what
// the Python command line writes.
func TestKwargsAreThoseOfPython(t *testing.T) {
	t.Parallel()
	dir := privateDataDir(t, map[string]string{
		"project/site.yml": "", "inventory/hosts": "", "env/cmdline": "", "roles/": "", "args/": ""})
	for name, c := range map[string]struct {
		args   []string
		o      runner.Options
		mended string // what stands in our line for what upstream gets wrong
		wrong  string
	}{
		"playbook": {args: []string{"-p", "site.yml"}, o: runner.Options{Playbook: "site.yml"}},
		"absolute paths": {
			args: []string{"-p", dir + "/project/site.yml", "--inventory", dir + "/inventory/hosts"},
			o:    runner.Options{Playbook: dir + "/project/site.yml", Inventory: dir + "/inventory/hosts"},
		},
		"every flag": {
			args: []string{"-p", "site.yml", "-b", "/bin/ap", "-vvv", "-q", "--rotate-artifacts", "3", "-j", "--omit-event-data",
				"--only-failed-event-data", "--omit-env-files", "--forks", "7", "--artifact-dir", "/a", "--project-dir", "/p",
				"--limit", "a:&b", "--cmdline=--become -e 'x=\"hé\"'", "--container-image", "img", "--container-volume-mount", "/a:/b",
				"--container-volume-mount", "/c:/d", "--container-option=--net=host", "--roles-path", "/r"},
			o: runner.Options{Playbook: "site.yml", Binary: "/bin/ap", Verbosity: 3, Quiet: true, RotateArtifacts: 3, JSONMode: true,
				OmitEventData: true, OnlyFailedEventData: true, SuppressEnvFiles: true, Forks: 7, ArtifactDir: "/a", ProjectDir: "/p",
				Limit: "a:&b", Cmdline: "--become -e 'x=\"hé\"'", ContainerImage: "img", ContainerVolumeMounts: []string{"/a:/b", "/c:/d"},
				ContainerOptions: []string{"--net=host"}, RolesPath: []string{"/r"}},
		},
		"cmdline where there is a file": {
			args: []string{"-p", "site.yml", "--cmdline=--check"}, o: runner.Options{Playbook: "site.yml", Cmdline: "--check"},
		},
		"module": {
			args: []string{"-m", "ping", "-a", "data=é\x7f\xff", "--hosts", "all"},
			o:    runner.Options{Module: "ping", ModuleArgs: "data=é\x7f\xff", HostPattern: "all"},
		},
		"role": {
			args:   []string{"-r", "r", "--inventory", "hosts"},
			o:      runner.Options{Role: "r", Inventory: "hosts"},
			mended: `"roles_path": ["../roles"]`, wrong: `"roles_path": null`,
		},
		"roles path inside": {
			args:   []string{"-p", "site.yml", "--roles-path", dir + "/roles"},
			o:      runner.Options{Playbook: "site.yml", RolesPath: []string{dir + "/roles"}},
			mended: `"roles_path": ["../roles"]`, wrong: `"roles_path": ["` + dir + `/roles"]`,
		},
	} {
		// One after the other: upstream writes into the directory meanwhile.
		c.o.PrivateDataDir, c.o.Ident = dir, "id1"
		if c.o.ContainerImage == "" {
			c.o.ContainerImage = runner.DefaultContainerImage
		}
		want, _, _ := strings.Cut(string(python(t, nil, append([]string{"transmit", dir, "-i", "id1"}, c.args...)...)), "\n")
		got, _, _ := strings.Cut(string(ours(t, c.o)), "\n")
		if c.wrong != "" && !strings.Contains(want, c.wrong) {
			t.Errorf("%s: upstream no longer sends %s", name, c.wrong)
		}
		want = strings.ReplaceAll(want, c.wrong, c.mended)
		if c.o.Role != "" { // its playbook has a random name
			playbook := regexp.MustCompile(`"playbook": "[0-9a-f]{32}"`)
			want, got = playbook.ReplaceAllString(want, "P"), playbook.ReplaceAllString(got, "P")
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// split takes a transmit stream apart.
func split(t *testing.T, sent []byte) (kwargs string, archive *zip.Reader) {
	t.Helper()
	m := regexp.MustCompile(`(?s)^([^\n]*)\n\{"zipfile": \d+\}\n([A-Za-z0-9+/]*=*)\{"eof": true\}\n$`).FindSubmatch(sent)
	if m == nil {
		t.Fatalf("not a transmit stream: %.200q ... %q", sent, sent[max(0, len(sent)-40):])
	}
	data, err := base64.StdEncoding.DecodeString(string(m[2]))
	if err != nil {
		t.Fatal(err)
	}
	archive, err = zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	return string(m[1]), archive
}

func TestArchiveIsThatOfPython(t *testing.T) {
	t.Parallel()
	dir := privateDataDir(t, map[string]string{
		"project/site.yml": "x", "project/.git/HEAD": "ref", "artifacts/old/rc": "0", "empty/": "", "inventory/ü 日": "y",
		"project/zeros": strings.Repeat("\x00", 1<<20)})
	for name, mode := range map[string]fs.FileMode{
		"project/site.yml": 0o755 | fs.ModeSetuid, "inventory/ü 日": 0o400, "empty": 0o750 | fs.ModeSetgid | fs.ModeSticky} {
		if err := os.Chmod(filepath.Join(dir, name), mode); err != nil {
			t.Fatal(err)
		}
	}
	for name, target := range map[string]string{"top": "/etc/passwd", "project/dir": "../empty", "project/gone": "no where"} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	type entry struct {
		Attrs   uint32
		Method  uint16
		Creator uint16
		Content string
		Time    string // DOS, all that Python writes
	}
	list := func(sent []byte) map[string]entry {
		entries := make(map[string]entry)
		_, archive := split(t, sent)
		for _, f := range archive.File {
			name := f.Name
			e := entry{Attrs: f.ExternalAttrs, Method: f.Method, Creator: f.CreatorVersion >> 8}
			if !strings.HasSuffix(name, "/") {
				name = path.Clean(name) // "./top"
				r, err := f.Open()
				if err != nil {
					t.Fatal(err)
				}
				data, err := io.ReadAll(r)
				if err != nil {
					t.Fatal(err)
				}
				e.Content = string(data)
			}
			// Upstream gives no time to symlinks.
			if f.Mode().Type() != fs.ModeSymlink {
				e.Time = f.Modified.In(f.Modified.Location()).Format("2006-01-02 15:04")
			}
			entries[name] = e
		}
		return entries
	}
	want := list(python(t, nil, "transmit", dir, "-p", "site.yml"))
	got := list(ours(t, runner.Options{PrivateDataDir: dir, Playbook: "site.yml"}))
	// Ours has the time in UTC as well, which archive/zip then shows.
	for name, e := range got {
		e.Time = want[name].Time
		got[name] = e
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestTransmitRefusesBadOptions(t *testing.T) {
	t.Parallel()
	dir := privateDataDir(t, map[string]string{"project/site.yml": "", "file": ""})
	outside := privateDataDir(t, map[string]string{"hosts": ""})
	for name, c := range map[string]struct {
		o    runner.Options
		is   error
		says string
	}{
		"no dir named": {runner.Options{Playbook: "x"}, runner.ErrNoPrivateDataDir, "none was named"},
		"dir missing":  {runner.Options{PrivateDataDir: dir + "/no", Playbook: "x"}, runner.ErrNoPrivateDataDir, dir + "/no does not exist"},
		"dir a file":   {runner.Options{PrivateDataDir: dir + "/file", Playbook: "x"}, runner.ErrNoPrivateDataDir, "no directory"},
		"nothing":      {runner.Options{PrivateDataDir: dir}, runner.ErrOptions, "playbook"},
		"too much":     {runner.Options{PrivateDataDir: dir, Playbook: "x", Module: "y"}, runner.ErrOptions, "only one"},
		"hosts":        {runner.Options{PrivateDataDir: dir, Playbook: "x", HostPattern: "y"}, runner.ErrOptions, "hosts"},
		"role vars":    {runner.Options{PrivateDataDir: dir, Playbook: "x", RoleVars: "y=z"}, runner.ErrOptions, "role"},
		"bad role var": {runner.Options{PrivateDataDir: dir, Role: "x", RoleVars: "y"}, runner.ErrOptions, `"y"`},
		"forks":        {runner.Options{PrivateDataDir: dir, Playbook: "x", Forks: -1}, runner.ErrOptions, "forks"},
		"ident":        {runner.Options{PrivateDataDir: dir, Playbook: "x", Ident: "../x"}, runner.ErrOptions, "../x"},
		"inventories":  {runner.Options{PrivateDataDir: dir, Playbook: "x", Inventory: "a", Inventories: []string{"b"}}, runner.ErrOptions, "more than one"},
		"no inventory": {runner.Options{PrivateDataDir: dir, Playbook: "x", Inventory: "inventory/gone"}, runner.ErrOptions, "inventory/gone"},
		"relative inventory outside": {runner.Options{PrivateDataDir: dir, Playbook: "x",
			Inventory: "../../" + filepath.Base(outside) + "/hosts"}, runner.ErrOptions, "/hosts does not exist"},
		"no JSON": {runner.Options{PrivateDataDir: dir, Playbook: "x",
			ExtraVars: map[string]any{"f": func() {}}}, runner.ErrOptions, "env/extravars"},
	} {
		var out bytes.Buffer
		err := runner.Transmit(t.Context(), &out, c.o)
		if !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.says) || out.Len() > 0 {
			t.Errorf("%s: error %v, %d bytes written", name, err, out.Len())
		}
	}
}

func TestInventoryAsTextOrPath(t *testing.T) {
	t.Parallel()
	dir := privateDataDir(t, map[string]string{"project/site.yml": "", "inventory/hosts": "old", "inventory/b/x": ""})
	for in, want := range map[string]string{
		"hosts":                `"inventory/hosts" old`,
		"inventory/hosts":      `"inventory/hosts" old`,
		dir + "/inventory/b":   `"inventory/b" old`,
		"/etc/hosts.of.worker": `"/etc/hosts.of.worker" old`,
		"a,b,":                 `"inventory/hosts" a` + "\nb\n",
		"[g]\nh x=1\n":         `"inventory/hosts" [g]` + "\nh x=1\n",
		"other,":               `"inventory/hosts" other` + "\n",
	} {
		kwargs, archive := split(t, ours(t, runner.Options{PrivateDataDir: dir, Playbook: "site.yml", Inventory: in}))
		data, err := fs.ReadFile(archive, "inventory/hosts")
		if err != nil {
			t.Fatal(err)
		}
		_, got, _ := strings.Cut(kwargs, `"inventory": `)
		got, _, _ = strings.Cut(got, `, "forks"`)
		if got += " " + string(data); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
	kwargs := string(ours(t, runner.Options{PrivateDataDir: dir, Playbook: "site.yml", OnlyTransmitKwargs: true,
		Inventories: []string{"hosts", "/x"}, Cmdline: "-v", Timeout: 5,
		EnvVars: map[string]string{"ANSIBLE_ROLES_PATH": dir + "/roles:/usr/roles"}}))
	for _, want := range []string{`"inventory": ["inventory/hosts", "/x"]`, `"cmdline": "-v"`, `"timeout": 5`,
		`"envvars": {"ANSIBLE_ROLES_PATH": "../roles:/usr/roles"}`, "}}\n{\"eof\": true}\n"} {
		if !strings.Contains(kwargs, want) {
			t.Errorf("no %s in %s", want, kwargs)
		}
	}
}

// What is neither there nor a list of hosts is no inventory. One of the current
// directory is one for a job that runs here.
func TestInventoryThatIsNotInTheDirectory(t *testing.T) {
	dir := privateDataDir(t, map[string]string{"project/site.yml": ""})
	t.Chdir(privateDataDir(t, map[string]string{"hosts2": ""}))
	for in, want := range map[string]string{
		"nonesuch":   "inventory: " + dir + "/nonesuch does not exist, and neither does it in inventory/ (a host is written with a comma: nonesuch,)",
		"./nonesuch": "inventory: " + dir + "/nonesuch does not exist",
		"./hosts2":   "inventory: ./hosts2 is not in " + dir + ", so it does not reach the worker",
	} {
		err := runner.Transmit(t.Context(), io.Discard, runner.Options{PrivateDataDir: dir, Playbook: "site.yml", Inventory: in})
		if !errors.Is(err, runner.ErrOptions) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", in, err, want)
		}
	}
	here, err := filepath.Abs("hosts2")
	if err != nil {
		t.Fatal(err)
	}
	out, _ := runHere(t, dir, runner.Options{Binary: "/bin/echo", Playbook: "site.yml", Inventory: "./hosts2"})
	if !strings.Contains(out, "-i "+here) {
		t.Errorf("the job has %q, want -i %s", out, here)
	}
}

func TestUnreadableFileEndsTheStreamProperly(t *testing.T) {
	t.Parallel()
	dir := privateDataDir(t, map[string]string{"project/site.yml": "", "project/secret": ""})
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	secret := filepath.Join(dir, "project/secret")
	if err := os.Chmod(secret, 0); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread has lost root's rights
		_ = unix.Setfsuid(65534)
		done <- runner.Transmit(context.Background(), &out, runner.Options{PrivateDataDir: dir, Playbook: "site.yml"})
	}()
	err := <-done
	var perr *fs.PathError
	if !errors.Is(err, fs.ErrPermission) || !errors.As(err, &perr) || perr.Path != secret {
		t.Errorf("error %v", err)
	}
	lines := strings.SplitAfter(out.String(), "\n")
	if len(lines) != 4 || !strings.HasPrefix(lines[1], `{"status": "error", "job_explanation": "Failed to pack`) ||
		!strings.Contains(lines[1], secret) || lines[2] != "{\"eof\": true}\n" {
		t.Errorf("the stream is %q", lines)
	}
}

func TestTransmitWarnsOfWhatStaysAtHome(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "s") // a socket's name has at most 108 bytes
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	l, err := net.Listen("unix", filepath.Join(dir, "agent"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var warned []string
	ours(t, runner.Options{PrivateDataDir: dir, Playbook: "site.yml", Warn: func(m string) { warned = append(warned, m) }})
	if diff := cmp.Diff([]string{"agent was left out of the archive: it is a socket"}, warned); diff != "" {
		t.Error(diff)
	}
}

// failingWriter fails after n bytes.
type failingWriter struct{ n int }

var errPipe = errors.New("pipe broke")

func (w *failingWriter) Write(p []byte) (int, error) {
	if w.n -= len(p); w.n < 0 {
		return 0, errPipe
	}
	return len(p), nil
}

func TestTransmitPassesOnTheWritersError(t *testing.T) {
	t.Parallel()
	dir := privateDataDir(t, map[string]string{"project/site.yml": ""})
	o := runner.Options{PrivateDataDir: dir, Playbook: "site.yml", Ident: "i"}
	whole := len(ours(t, o))
	for _, n := range []int{0, 10, whole - 200, whole - 1} {
		if err := runner.Transmit(t.Context(), &failingWriter{n}, o); !errors.Is(err, errPipe) {
			t.Errorf("after %d of %d bytes: error %v", n, whole, err)
		}
	}
	why := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	if err := runner.Transmit(ctx, io.Discard, o); !errors.Is(err, why) {
		t.Errorf("canceled: error %v", err)
	}
	o.TempDir = filepath.Join(dir, "gone")
	if err := runner.Transmit(t.Context(), io.Discard, o); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), o.TempDir) {
		t.Errorf("no temporary directory: error %v", err)
	}
}

func TestTransmitMemoryDoesNotGrowWithTheProject(t *testing.T) {
	dir := privateDataDir(t, map[string]string{"project/site.yml": ""})
	f, err := os.Create(filepath.Join(dir, "project", "large"))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Truncate(300<<20), f.Close()); err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if err := runner.Transmit(t.Context(), io.Discard, runner.Options{PrivateDataDir: dir, Playbook: "site.yml"}); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > 32<<20 {
		t.Errorf("%d MiB were allocated", got>>20)
	}
}

func TestNewIdent(t *testing.T) {
	t.Parallel()
	a, b := runner.NewIdent(), runner.NewIdent()
	if !regexp.MustCompile(`^[0-9a-f]{12}4[0-9a-f]{3}[89ab][0-9a-f]{15}$`).MatchString(a) || a == b {
		t.Errorf("%s, %s", a, b)
	}
}
