package runner

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/jobdir"
	"github.com/ranvier-mesh/ranvier/runner/internal/callback"
	"github.com/ranvier-mesh/ranvier/runner/internal/command"
	"github.com/ranvier-mesh/ranvier/runner/internal/events"
	"github.com/ranvier-mesh/ranvier/runner/internal/stream"
	"github.com/ranvier-mesh/ranvier/runner/internal/terminal"
)

// sink takes what a job that runs on this machine says, on one goroutine.
type sink interface {
	status(fields ...stream.Field) error
	event(line []byte) error
	flush() error // there is nothing more to say for now
}

// engine runs one job on this machine, on the goroutine of run.
type engine struct {
	job   *command.Job
	files *command.Files
	to    sink
	log   *slog.Logger
	node  string          // for messages; empty: the host name
	hurry <-chan struct{} // RunOptions.Hurry

	filter  *events.Filter
	stdout  *os.File // nil where it is not kept
	outcome ending
}

// ending is how a job ended. An explanation that is not of status "error"
// tells a time limit from another, and a signal from an exit code.
type ending struct {
	status      string
	rc          int
	explanation string
	err         error // what the explanation is about, for the caller
}

// close ends the use of the artifact directory, when what is there has been
// taken.
func (e *engine) close() {
	if e.files != nil {
		e.files.Close()
	}
}

// run runs the job in the private data directory dir and returns its outcome,
// of which rc and status are among the artifacts then. The last status has not
// been told. Errors are the sink's and those of files.
func (e *engine) run(ctx context.Context, dir string) (err error) {
	// Whoever cleans up leaves it alone. The slash leads through a link: that one is the caller's.
	lock, err := jobdir.Use(dir + "/")
	if err != nil {
		return err
	}
	defer lock.Unlock()
	key, err := newKey()
	if err != nil {
		return err
	}
	if e.files, err = e.job.Lay(key); err != nil {
		return err
	}
	defer func() {
		if cerr := e.files.Clear(); cerr != nil {
			e.log.Warn("something of the job stays behind", "ident", e.job.Ident, "err", cerr)
		}
	}()
	if err := e.to.status(e.starting()...); err != nil {
		return err
	}
	if err := RotateArtifacts(filepath.Dir(e.job.ArtifactDir), e.job.Ident, e.job.Rotate); err != nil {
		e.log.Warn("earlier artifacts stay", "err", err)
	}
	if err := e.openOutput(); err != nil {
		return err
	}
	if err := e.to.status(stream.Field{Key: "status", Value: "running"}, e.ident()); err != nil {
		return err
	}
	e.filter = events.NewFilter(events.Options{
		Key: key, Records: e.files.Events, Ident: e.job.Ident, Now: time.Now, Emit: e.emit,
		Damaged: func(err error) { e.log.Warn("an event is lost", "ident", e.job.Ident, "err", err) },
	})
	argv, err := e.argv()
	if err != nil {
		return e.end(terminal.Result{}, err)
	}
	result, err := terminal.Run(ctx, terminal.Spec{
		Argv: argv, Env: append(e.job.Environ(os.Environ()), e.keyEnv(key)...), Dir: e.job.StartDir, Mark: "ansible-" + key,
		Prompts:     terminal.Prompts{List: e.job.Prompts, Hidden: events.Marks(key)},
		IdleTimeout: e.job.IdleTimeout, JobTimeout: e.job.JobTimeout, Output: e.output, Kill: e.killContainer, Hurry: e.hurry,
	})
	return e.end(result, err)
}

// end settles the outcome and writes it down, also where nobody would hear of it.
func (e *engine) end(r terminal.Result, err error) error {
	err = e.settle(r, err)
	if err != nil {
		if e.outcome.status != "" {
			_ = e.finish() // err is what counts
		}
		return err
	}
	return e.finish()
}

// newKey is what no output can guess.
func newKey() (string, error) {
	var b [8]byte
	if _, err := rand.Read(b[:]); err != nil {
		return "", err
	}
	return hex.EncodeToString(b[:]), nil
}

func (e *engine) keyEnv(key string) []string {
	if e.job.Engine != "" {
		return nil // it is in the file that the engine reads
	}
	return []string{callback.KeyVariable + "=" + key}
}

func (e *engine) ident() stream.Field { return stream.Field{Key: "runner_ident", Value: e.job.Ident} }

func (e *engine) starting() []stream.Field {
	argv, env := e.job.Told()
	return []stream.Field{{Key: "status", Value: "starting"}, e.ident(),
		{Key: "command", Value: argv}, {Key: "env", Value: env}, {Key: "cwd", Value: e.job.Dir}}
}

// final is the message of the last status.
func (e *engine) final() []stream.Field {
	fields := []stream.Field{{Key: "status", Value: e.outcome.status}, e.ident()}
	if e.outcome.explanation != "" {
		fields = append(fields, stream.Field{Key: "job_explanation", Value: e.outcome.explanation})
	}
	return fields
}

// openOutput makes the files stdout and stderr. The latter stays empty: a
// terminal has one output.
func (e *engine) openOutput() error {
	if e.job.SuppressOutputFile {
		return nil
	}
	if err := e.files.Write("stderr", nil); err != nil {
		return err
	}
	var err error
	e.stdout, err = e.files.Create("stdout")
	return err
}

// argv has the program's full path, found where the job's PATH says; else the
// error is exec.ErrNotFound.
func (e *engine) argv() ([]string, error) {
	argv := append([]string(nil), e.job.Argv...)
	path, given := e.job.Env["PATH"]
	if e.job.Engine != "" || !given || strings.Contains(argv[0], "/") {
		return argv, nil
	}
	for _, dir := range filepath.SplitList(path) {
		file := filepath.Join(cmp.Or(dir, "."), argv[0])
		if info, err := os.Stat(file); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			argv[0] = file
			return argv, nil
		}
	}
	e.log.Debug("a program is missing", "program", argv[0], "PATH", path)
	return nil, fmt.Errorf("%s: %w", argv[0], exec.ErrNotFound)
}

// output takes what the terminal said.
func (e *engine) output(p []byte) error {
	if err := e.filter.Write(p); err != nil {
		return err
	}
	return e.to.flush()
}

func (e *engine) emit(ev events.Event) error {
	if err := e.keep(ev); err != nil {
		return fmt.Errorf("artifacts: %w", err)
	}
	return e.to.event(ev.Line)
}

// keep writes the artifact stdout: each event's text and a line end.
func (e *engine) keep(ev events.Event) error {
	text := ev.Text
	if e.job.JSONMode {
		text = ev.Line
	}
	if e.stdout == nil || len(text) == 0 && !ev.Outside {
		return nil
	}
	_, err := e.stdout.Write(append(text[:len(text):len(text)], '\n'))
	return err
}

// killContainer ends a container, which is no descendant of this process.
func (e *engine) killContainer(ctx context.Context) {
	if e.job.Engine == "" {
		return
	}
	if out, err := exec.CommandContext(ctx, e.job.Engine, "kill", e.job.Container).CombinedOutput(); err != nil {
		e.log.Warn("the container could not be killed", "container", e.job.Container, "err", err, "output", string(out))
	}
}

// settle turns the program's end into an outcome.
func (e *engine) settle(r terminal.Result, err error) error {
	o := &e.outcome
	switch {
	case err != nil && r.Exit.Code == 0 && r.Exit.Signal == 0 && isStart(err):
		*o = ending{"error", 127, notStarted(e.node, e.job.Argv[0], err), err}
		return nil
	case err == nil:
		err = e.filter.Close()
	}
	if err != nil && r.End == terminal.Exited {
		return err
	}
	switch r.End {
	case terminal.Canceled:
		*o = ending{status: "canceled", rc: 254}
	case terminal.JobTimeout:
		*o = ending{status: "timeout", rc: 254,
			explanation: "the job took longer than its limit of " + command.Seconds(e.job.JobTimeout) + " (timeout or job_timeout)"}
	case terminal.IdleTimeout:
		*o = ending{status: "timeout", rc: 254,
			explanation: "the job said nothing for " + command.Seconds(e.job.IdleTimeout) + " (idle_timeout)"}
	default:
		*o = ending{status: "failed", rc: r.Exit.Code}
		if r.Exit.Success() {
			o.status = "successful"
		}
		if r.Exit.Signal != 0 {
			o.rc = 128 + int(r.Exit.Signal)
			o.explanation = filepath.Base(e.job.Argv[0]) + " was " + r.Exit.String()
		}
	}
	return err
}

// isStart tells whether err says that the program could not be started, as
// opposed to what came of it.
func isStart(err error) bool {
	return errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission)
}

// notStarted says which program is missing where, and what to install.
func notStarted(node, program string, err error) string {
	if node == "" {
		var herr error
		if node, herr = os.Hostname(); herr != nil {
			node = "this machine"
		}
	}
	name := filepath.Base(program)
	if !errors.Is(err, exec.ErrNotFound) && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Sprintf("%s cannot be started on node %s: %v", name, node, err)
	}
	hint := map[string]string{"ansible-playbook": "install ansible-core", "ansible": "install ansible-core",
		"podman": "install podman", "docker": "install docker", "bwrap": "install bubblewrap",
		"ssh-agent": "install openssh-client"}[name]
	return fmt.Sprintf("%s not found on node %s: %s", name, node, cmp.Or(hint, "install it, or correct its name"))
}

// finish writes what the job's end leaves among the artifacts.
func (e *engine) finish() error {
	if e.stdout != nil {
		if err := e.stdout.Close(); err != nil {
			return fmt.Errorf("artifacts: %w", err)
		}
	}
	for name, text := range map[string]string{"rc": strconv.Itoa(e.outcome.rc), "status": e.outcome.status} {
		if err := e.files.Write(name, []byte(text)); err != nil {
			return fmt.Errorf("artifacts: %w", err)
		}
	}
	return e.to.flush()
}
