package runner

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/uuid"

	"github.com/ranvier-mesh/ranvier/runner/internal/archive"
	"github.com/ranvier-mesh/ranvier/runner/internal/command"
	"github.com/ranvier-mesh/ranvier/runner/internal/stream"
)

// RunOptions describes a job for this machine, and what to do with what comes
// of it. Process.PrivateDataDir, Ident and ArtifactDir need not be set: the
// artifacts are where the job's Options put them.
type RunOptions struct {
	Options
	Process ProcessOptions
	Log     *slog.Logger // nil for none
	// Hurry, if not nil, is closed by who does not want to wait for a job that
	// is canceled: it is killed without the second that it has to end by itself,
	// and output that nobody reads is given up.
	Hurry <-chan struct{}
}

// Run runs a job on this machine, in its own private data directory: what
// Transmit, Work and Process do together, without streams and archives between
// them. The artifacts are the same. A job that failed is no error: its Result
// tells. Errors are ErrNoPrivateDataDir and ErrOptions before anything was
// done; *WorkError where the job could not be run, *ArtifactsError where its
// results could not be stored; else an error of Process.Output, or the cause of
// ctx's end, with a Result whose status is "canceled". When ctx is done the job
// and all that it has started are ended.
//
// Files that are needed only by the way (the playbook of a role, an inventory as
// data) are in the directory while the job runs, and removed. What travels as a
// file of env/ otherwise is in none here, so that jobs which share a directory do
// not take each other's; ExtraVars are in one among the artifacts, as long as the
// job runs.
func Run(ctx context.Context, o RunOptions) (Result, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	dir, err := checkDir(o.PrivateDataDir)
	if err != nil {
		return Result{RC: 1}, err
	}
	o.PrivateDataDir = dir
	if o.Ident == "" {
		o.Ident = uuid.NewString()
	}
	if err := o.check(); err != nil {
		return Result{RC: 1}, err
	}
	in, err := prepare(o.Options, true)
	if err != nil {
		return Result{RC: 1}, err
	}
	if err := in.checkInventory(); err != nil && !o.ProcessIsolation {
		return Result{RC: 1}, err
	}
	laid, err := layOut(in)
	defer laid.remove(o.Log)
	if err != nil {
		return Result{RC: 1}, &WorkError{"The job's files could not be written.", err}
	}
	job, err := localJob(ctx, in)
	if job != nil && err != nil {
		for _, left := range job.Remove {
			err = errors.Join(err, os.RemoveAll(left))
		}
	}
	if err != nil {
		return Result{RC: 1}, optionsError(err)
	}
	return o.runJob(ctx, job)
}

// localJob takes the same way as a job that was sent.
func localJob(ctx context.Context, in *inputs) (*command.Job, error) {
	raw, err := stream.AppendObject(nil, in.kwargs()...)
	if err != nil {
		return nil, err
	}
	kwargs, err := command.ParseKwargs(raw)
	if err != nil {
		return nil, err
	}
	return command.Prepare(ctx, command.Input{Kwargs: kwargs, Dir: in.PrivateDataDir, Environ: os.Environ()})
}

func (o RunOptions) runJob(ctx context.Context, job *command.Job) (Result, error) {
	for _, text := range job.Warnings {
		o.Log.Warn(text)
		if o.Warn != nil {
			o.Warn(text)
		}
	}
	po := o.Process
	po.ArtifactDir, po.Ident, po.PrivateDataDir = job.ArtifactDir, "", ""
	if job.Quiet != nil {
		po.Quiet = *job.Quiet
	}
	// Events of an earlier run of this name would be taken for this one's.
	if err := job.ForgetEvents(); err != nil {
		return Result{RC: 1}, &ArtifactsError{job.ArtifactDir, err}
	}
	p, err := newProcessor(ctx, po, o.Hurry)
	if err != nil {
		return Result{RC: 1}, err
	}
	defer p.artifacts.close()
	e := &engine{job: job, to: direct{p}, log: o.Log, hurry: o.Hurry}
	defer e.close()
	err = e.run(ctx, o.PrivateDataDir)
	if err == nil {
		p.rc, p.rcKnown = e.outcome.rc, true
		err = direct{p}.status(e.final()...)
	}
	if err == nil {
		err = p.saved(p.artifacts.events.drain())
	}
	var path *fs.PathError
	var artifacts *ArtifactsError
	if errors.As(err, &path) && !errors.As(err, &artifacts) {
		err = &ArtifactsError{job.ArtifactDir, err}
	}
	if err == nil && p.ArtifactsHandler != nil {
		p.flush()
		p.ArtifactsHandler(p.artifacts.dir)
	}
	err = p.finish(err)
	var worker *WorkerError
	if errors.As(err, &worker) { // there is no other machine to report it
		err = &WorkError{e.outcome.explanation, e.outcome.err}
	}
	if e.outcome.status == "canceled" && err == nil {
		err = context.Cause(ctx)
	}
	if p.FinishedHandler != nil {
		p.FinishedHandler(p.result)
	}
	return p.result, err
}

// direct hands what a job says to the one who processes it.
type direct struct{ p *processor }

// status implements sink.
func (d direct) status(fields ...stream.Field) error {
	line, err := stream.AppendObject(nil, fields...)
	if err != nil {
		return err
	}
	m, err := stream.Parse(line)
	if err != nil {
		return err
	}
	return d.p.status(m)
}

// event implements sink.
func (d direct) event(line []byte) error {
	m, err := stream.Parse(line)
	if err != nil {
		return err
	}
	return d.p.event(m)
}

// flush implements sink.
func (d direct) flush() error {
	d.p.flush()
	return nil
}

// laidOut are the files and directories that were made for a job.
type laidOut struct{ paths []string }

// layOut writes the files that would only travel. One that is there stays as it
// is: the one for the job gets another name beside it.
func layOut(in *inputs) (laidOut, error) {
	var l laidOut
	for i := range in.files {
		f := &in.files[i]
		err := l.write(in.PrivateDataDir, *f)
		if errors.Is(err, fs.ErrExist) {
			in.rename(f)
			err = l.write(in.PrivateDataDir, *f)
		}
		if err != nil {
			return l, err
		}
	}
	return l, nil
}

// rename gives a file a name that is the job's own. It ends as before: Ansible
// goes by that.
func (in *inputs) rename(f *archive.File) {
	kind := filepath.Ext(f.Name)
	name := strings.TrimSuffix(f.Name, kind) + "-" + in.Ident + kind
	switch f.Name {
	case in.inventory:
		in.inventory = name
	case in.playbook:
		in.Playbook = filepath.Base(name)
	}
	f.Name = name
}

func (l *laidOut) write(dir string, f archive.File) error {
	path := f.Name
	if !filepath.IsAbs(path) {
		path = filepath.Join(dir, path)
	}
	if parent := filepath.Dir(path); !isDir(parent) {
		if err := os.Mkdir(parent, 0o700); err != nil {
			return err
		}
		l.paths = append(l.paths, parent)
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, f.Mode.Perm())
	if err != nil {
		return err
	}
	l.paths = append(l.paths, path)
	_, err = bytes.NewReader(f.Data).WriteTo(file)
	return errors.Join(err, file.Close())
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// remove takes them away again, directories only where they are empty.
func (l laidOut) remove(log *slog.Logger) {
	for i := len(l.paths) - 1; i >= 0; i-- {
		if err := os.Remove(l.paths[i]); err != nil && !errors.Is(err, fs.ErrNotExist) {
			log.Warn("a file of the job stays behind", "err", err)
		}
	}
}
