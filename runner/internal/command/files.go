package command

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ranvier-mesh/ranvier/runner/internal/callback"
	"github.com/ranvier-mesh/ranvier/runner/internal/pyjson"
)

// Files are what lies in the artifact directory while a job runs and is no
// artifact.
type Files struct {
	Events *os.File // what the callback plugin writes
	job    *Job
	root   *os.Root // the artifact directory
	pipe   *keyPipe
}

// Lay makes the artifact directory and the files that the job needs. key is
// that of the plugin's marks. Clear and Close are the caller's to call. Errors are
// those of files.
func (j *Job) Lay(key string) (*Files, error) {
	f := &Files{job: j}
	if err := f.lay(key); err != nil {
		f.Clear()
		f.Close()
		return nil, fmt.Errorf("artifacts: %w", err)
	}
	return f, nil
}

func (f *Files) lay(key string) error {
	j := f.job
	var err error
	if f.root, err = j.place(); err != nil {
		return err
	}
	if err := errors.Join(f.clearWay(), f.root.MkdirAll("job_events", 0o700)); err != nil {
		return err
	}
	argv, env := j.Told()
	command, err := pyjson.Append([]byte(`{"command": `), argv)
	if err != nil {
		return err
	}
	command = pyjson.AppendString(append(command, `, "cwd": `...), j.Dir)
	if command, err = pyjson.Append(append(command, `, "env": `...), env); err != nil {
		return err
	}
	if err := f.Write("command", append(command, '}')); err != nil {
		return err
	}
	if j.ExtraVars != nil {
		if err := f.Write(extraVarsName, j.ExtraVars); err != nil {
			return err
		}
	}
	if f.Events, err = f.root.OpenFile("events", os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
		return err
	}
	if err := callback.Install(f.path("callback")); err != nil {
		return err
	}
	if j.Engine != "" {
		var lines []string
		for _, name := range slices.Sorted(maps.Keys(j.Env)) {
			if strings.Contains(j.Env[name], "\n") {
				lines = append(lines, name) // the file has no way to write it: the engine's own has it
				continue
			}
			lines = append(lines, name+"="+j.Env[name])
		}
		lines = append(lines, callback.KeyVariable+"="+key)
		if err := f.Write("env.list", []byte(strings.Join(lines, "\n"))); err != nil {
			return err
		}
	}
	if j.SSHKeyPipe != "" {
		f.pipe, err = openKeyPipe(j.SSHKeyPipe, j.SSHKey)
	}
	return err
}

func (f *Files) path(name string) string { return filepath.Join(f.job.ArtifactDir, name) }

// Clear removes all of it, and what the job's isolation has left. What cannot
// be removed is told in the error.
func (f *Files) Clear() error {
	if f.Events != nil {
		f.Events.Close()
	}
	f.pipe.close()
	var errs []error
	for _, path := range f.job.Remove {
		errs = append(errs, os.RemoveAll(path))
	}
	if f.root == nil {
		return errors.Join(errs...)
	}
	for _, name := range []string{"events", "callback", "env.list", "ssh_key_data", tempName, extraVarsName} {
		errs = append(errs, f.root.RemoveAll(name))
	}
	return errors.Join(errs...)
}

// Told returns the command line and the environment as JSON values, which keep
// bytes that are no UTF-8.
func (j *Job) Told() (argv []any, env map[string]any) {
	for _, arg := range j.Argv {
		argv = append(argv, arg)
	}
	env = make(map[string]any, len(j.Env))
	for k, v := range j.Env {
		env[k] = v
	}
	return argv, env
}

// keyPipe is a named pipe that says a key once, to whoever opens it first. It
// waits for that in the kernel, in a goroutine of its own.
type keyPipe struct {
	handle *os.File // of the pipe, whatever its name has become
	done   chan struct{}
}

func openKeyPipe(path, key string) (*keyPipe, error) {
	_ = os.Remove(path)
	if err := unix.Mkfifo(path, 0o600); err != nil {
		return nil, &os.PathError{Op: "mkfifo", Path: path, Err: err}
	}
	fd, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	p := &keyPipe{handle: os.NewFile(uintptr(fd), path), done: make(chan struct{})}
	go func() {
		defer close(p.done)
		w, err := os.OpenFile(p.name(), os.O_WRONLY, 0)
		if err != nil {
			return
		}
		defer w.Close()
		_, _ = w.WriteString(key) // ssh-add says what it makes of half a key
	}()
	return p, nil
}

func (p *keyPipe) name() string { return fmt.Sprintf("/proc/self/fd/%d", p.handle.Fd()) }

// close frees a writer that nobody has come to listen to.
func (p *keyPipe) close() {
	if p == nil {
		return
	}
	r, err := os.OpenFile(p.name(), os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err == nil {
		<-p.done // a key fits into the pipe
		r.Close()
	}
	p.handle.Close()
}
