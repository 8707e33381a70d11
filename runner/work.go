package runner

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/jobdir"
	"github.com/ranvier-mesh/ranvier/runner/internal/archive"
	"github.com/ranvier-mesh/ranvier/runner/internal/command"
	"github.com/ranvier-mesh/ranvier/runner/internal/spool"
	"github.com/ranvier-mesh/ranvier/runner/internal/stream"
)

// WorkOptions says how a worker does what it is sent. The zero value is a
// worker with a directory of its own for each job.
type WorkOptions struct {
	// PrivateDataDir is where the job's directory is unpacked, beside what is
	// there. Empty means a temporary one, which is removed at the end.
	PrivateDataDir string
	// Delete removes PrivateDataDir before the job, and after it. Where another
	// job uses it, that is an error before, and left to that one after.
	Delete bool
	// Keepalive, if not 0, is how long nothing is written before an event
	// "keepalive" is: for links that close when they are idle.
	Keepalive time.Duration
	// MaxBytes is how much the archive may unpack to; 0 means 64 GiB.
	MaxBytes int64
	// Node is what this machine is called in messages; empty: its host name.
	Node string
	// TempDir is where archives wait until they are whole. Empty means
	// $TMPDIR, else /var/tmp.
	TempDir string
	Log     *slog.Logger // nil for none
	// Hurry, if not nil, is closed by who does not want to wait for a job that
	// is canceled: it is killed without the second that it has to end by itself,
	// its artifacts are not sent, and a stream that nobody reads is given up.
	Hurry <-chan struct{}

	// The handlers are called on Work's goroutine, one at a time. EventHandler
	// sees each event before it is sent; false means not to.
	EventHandler     func(Event) (keep bool)
	StatusHandler    func(Status)     // after it was sent
	ArtifactsHandler func(dir string) // before they are sent
	FinishedHandler  func(Result)     // at the end, however it came
}

// WorkError is what kept a worker from running a job, or from running it to its
// end. The stream has said the same to whoever processes it: a status "error"
// with the explanation, and the end. Err may wrap ErrOptions (the job is
// described wrongly), ErrArchiveUnsafe, ErrArchiveTooLarge, exec.ErrNotFound
// (Ansible is not installed) or *fs.PathError.
type WorkError struct {
	Explanation string // for people
	Err         error
}

// Error is the explanation, and the cause where that says more.
func (e *WorkError) Error() string {
	if e.Err == nil || errors.Is(e.Err, exec.ErrNotFound) || strings.HasSuffix(e.Err.Error(), e.Explanation) || strings.HasSuffix(e.Explanation, e.Err.Error()) {
		return e.Explanation
	}
	return strings.TrimSuffix(e.Explanation, ".") + ": " + e.Err.Error()
}

// Unwrap returns the cause.
func (e *WorkError) Unwrap() error { return e.Err }

// Work is the worker: it reads from in what Transmit writes, runs the job, and
// writes to out what Process reads (docs/runner.md §1). A job that failed is no
// error. Errors are *WorkError; the cause of ctx's end, with a stream that
// says "canceled"; else those of out.
//
// When ctx is done, the job and all that it has started are ended at once. A
// Read of in that waits then is ended by SetReadDeadline where in has it, and
// left alone where not. A Write to out that does not return is left behind 5 s
// after ctx is done.
func Work(ctx context.Context, in io.Reader, out io.Writer, o WorkOptions) error {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	w := &worker{WorkOptions: o, out: newKeepalive(&outlet{ctx: ctx, hurry: o.Hurry, out: out}, o.Keepalive)}
	defer w.out.stop()
	err := w.work(ctx, in)
	if err != nil {
		w.explain(ctx, err)
	}
	w.tellFinished(err)
	if err == nil {
		return w.out.close()
	}
	if cerr := w.out.close(); cerr != nil && !isWorkError(err) {
		return cerr
	}
	return err
}

func isWorkError(err error) bool {
	var fault *WorkError
	return errors.As(err, &fault)
}

// worker is one run of Work.
type worker struct {
	WorkOptions
	out  *keepalive
	raw  bool // the archive of the artifacts need not be base64
	told bool // the last status
	sent int  // events

	result Result // for FinishedHandler, as far as it is known
}

// explain ends the stream of a job that has not come to its end.
func (w *worker) explain(ctx context.Context, err error) {
	if w.told {
		return
	}
	// If out fails too, err is the one that counts.
	if ctx.Err() != nil && !isWorkError(err) {
		_ = w.status(stream.Field{Key: "status", Value: "canceled"})
		return
	}
	fields := []stream.Field{{Key: "status", Value: "error"}, {Key: "job_explanation", Value: err.Error()}}
	var fault *WorkError
	if errors.As(err, &fault) {
		fields[1].Value = fault.Explanation
		if fault.Err != nil && fault.Error() != fault.Explanation {
			fields = append(fields, stream.Field{Key: "result_traceback", Value: fault.Err.Error()})
		}
	}
	_ = w.status(fields...)
}

func (w *worker) work(ctx context.Context, in io.Reader) (err error) {
	own := &privateDir{memory: memoryDir()}
	if w.PrivateDataDir == "" {
		own.sweep(w.Log)
	}
	dir, remove, err := w.directory(own)
	if err != nil {
		return fault("Failed to make the private data directory.", err)
	}
	defer func() { err = errors.Join(err, remove()) }()
	kwargs, dir, err := w.receive(ctx, in, dir, own)
	if err != nil {
		return err
	}
	return w.run(ctx, dir, kwargs)
}

func fault(explanation string, err error) error { return &WorkError{explanation, err} }

// directory makes the private data directory that was asked for, and returns how to
// remove it, or own, which is made later.
func (w *worker) directory(own *privateDir) (dir string, remove func() error, err error) {
	if w.PrivateDataDir == "" {
		return "", own.remove, nil
	}
	if dir, err = filepath.Abs(w.PrivateDataDir); err != nil {
		return "", nil, err
	}
	if w.Delete {
		if err := removeUnused(dir); err != nil {
			return "", nil, err
		}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", nil, err
	}
	lock, err := jobdir.Use(dir + "/") // which leads through a link: that one is the caller's
	return dir, func() error {
		lock.Unlock()
		if !w.Delete {
			return nil
		}
		err := removeUnused(dir)
		if errors.Is(err, jobdir.ErrInUse) {
			w.Log.Warn("the directory is left to another job", "dir", dir)
			return nil
		}
		return err
	}, err
}

// removeUnused removes a directory, unless a job runs there: ErrInUse.
func removeUnused(dir string) error {
	claim, err := jobdir.Claim(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil && !errors.Is(err, jobdir.ErrNoLocks) {
		return err
	}
	defer claim.Unlock()
	return os.RemoveAll(dir)
}

// receive reads the job. It goes on reading in a goroutine of its own, so that
// a cancel need not wait for a sender that says nothing. An empty dir is own.
func (w *worker) receive(ctx context.Context, in io.Reader, dir string, own *privateDir) ([]byte, string, error) {
	type received struct {
		kwargs []byte
		dir    string
		err    error
	}
	done := make(chan received, 1)
	go func() {
		r := received{dir: dir}
		if r.kwargs, r.err = w.messages(ctx, stream.NewReader(in), dir, own); r.err == nil && dir == "" {
			r.dir, _, r.err = own.place(0)
		}
		done <- r
	}()
	select {
	case r := <-done:
		if ctx.Err() != nil {
			return nil, "", context.Cause(ctx)
		}
		return r.kwargs, r.dir, r.err
	case <-ctx.Done():
		if d, ok := in.(interface{ SetReadDeadline(time.Time) error }); ok && d.SetReadDeadline(time.Unix(1, 0)) == nil {
			<-done
		}
		select {
		case <-done: // what is being unpacked ends by itself,
		case <-time.After(time.Second): // unlike a Read that waits
		}
		return nil, "", context.Cause(ctx)
	}
}

// messages reads up to the last one and returns the kwargs: the last ones win.
func (w *worker) messages(ctx context.Context, in *stream.Reader, dir string, own *privateDir) (kwargs []byte, err error) {
	for {
		m, err := in.Next()
		if err != nil {
			return nil, fault("Failed to JSON parse a line from transmit stream.", err)
		}
		switch {
		case m.Kwargs != nil:
			kwargs = m.Kwargs
		case m.Zipfile != nil:
			zip, size, err := in.Zip(m)
			if err == nil {
				err = w.unpack(ctx, zip, size, dir, own)
			}
			if err != nil {
				return nil, fault("Failed to extract private data directory on worker.", err)
			}
		case m.Results != nil:
			w.raw = m.RawResults()
		case m.Status != nil: // the sender has a fault to tell
			s, err := parseStatus(m)
			if err == nil && s.Status == "error" {
				return nil, fault("The sender gave up: "+s.Explanation, nil)
			}
		case m.EOF != nil:
			if kwargs == nil {
				return nil, fault("The stream ended without saying what to run: kwargs are missing.", nil)
			}
			return kwargs, nil
		}
	}
}

// unpack takes an archive to dir, or, where that is empty, to own.
func (w *worker) unpack(ctx context.Context, zip io.Reader, size int64, dir string, own *privateDir) error {
	o := archive.UnpackOptions{MaxBytes: w.MaxBytes, TempDir: w.TempDir}
	if dir == "" {
		o.Place = own.place
		if o.TempDir == "" && fits(own.memory, size) {
			o.TempDir = own.memory // what is secret in the zip is so there
		}
	}
	return archive.UnpackStream(ctx, zip, size, dir, o)
}

// run runs what was received, and sends what came of it.
func (w *worker) run(ctx context.Context, dir string, raw []byte) error {
	kwargs, err := command.ParseKwargs(raw)
	if err != nil {
		return fault(err.Error(), optionsError(err))
	}
	if kwargs.Ident == "" {
		kwargs.Ident = NewIdent()
	}
	job, err := command.Prepare(ctx, command.Input{Kwargs: kwargs, Dir: dir, Sent: true, Environ: os.Environ()})
	if err != nil {
		for _, left := range job.Remove {
			err = errors.Join(err, os.RemoveAll(left))
		}
		return fault(err.Error(), optionsError(err))
	}
	for _, text := range job.Warnings {
		w.Log.Warn(text)
	}
	e := &engine{job: job, to: w, log: w.Log, node: w.Node, hurry: w.Hurry}
	defer e.close()
	if err := e.run(ctx, dir); err != nil {
		var path *fs.PathError
		if errors.As(err, &path) && w.out.failed() == nil { // a broken pipe has a path too
			return fault("The job's files on the worker failed: "+err.Error(), err)
		}
		return err
	}
	final := append(e.final(), stream.Field{Key: "event_count", Value: w.sent})
	if err := w.status(final...); err != nil {
		return err
	}
	w.told = true
	w.result.RC = e.outcome.rc
	w.tellArtifacts(job.ArtifactDir)
	if err := e.files.InPlace(); err != nil {
		return fault("The artifacts could not be packed.", err)
	}
	if !isClosed(w.Hurry) {
		if err := w.sendArtifacts(job.ArtifactDir); err != nil {
			return err
		}
	}
	switch {
	case e.outcome.status == "error":
		return fault(e.outcome.explanation, e.outcome.err)
	case e.outcome.status == "canceled":
		return context.Cause(ctx)
	}
	return nil
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// optionsError makes what the job's description has wrong an ErrOptions.
func optionsError(err error) error {
	if errors.Is(err, command.ErrJob) {
		return fmt.Errorf("%w: %w", ErrOptions, err)
	}
	return err
}

// sendArtifacts packs first: the size comes before the zip.
func (w *worker) sendArtifacts(dir string) error {
	tmp, err := spool.File(w.TempDir)
	if err != nil {
		return fault("The artifacts could not be packed.", err)
	}
	defer tmp.Close()
	buffered := bufio.NewWriterSize(tmp, 256<<10)
	// Not bound to ctx: what a canceled job leaves is worth having.
	err = archive.Pack(context.Background(), buffered, dir, archive.PackOptions{})
	if err == nil {
		err = buffered.Flush()
	}
	size, serr := tmp.Seek(0, io.SeekEnd)
	if _, err2 := tmp.Seek(0, io.SeekStart); errors.Join(err, serr, err2) != nil {
		return fault("The artifacts could not be packed.", errors.Join(err, serr, err2))
	}
	return w.out.with(func(out io.Writer) error { return stream.WriteZip(out, tmp, size, w.raw) })
}

// status implements sink. A status is out when it returns.
func (w *worker) status(fields ...stream.Field) error {
	line, err := stream.AppendObject(nil, fields...)
	if err != nil {
		return err
	}
	if err := w.send(line); err != nil {
		return err
	}
	if err := w.flush(); err != nil {
		return err
	}
	return w.tellStatus(line)
}

// event implements sink.
func (w *worker) event(line []byte) error {
	w.result.Events++
	if keep, err := w.tellEvent(line); err != nil || !keep {
		return err
	}
	w.sent++
	return w.send(line)
}

// send writes a line.
func (w *worker) send(line []byte) error {
	return w.out.with(func(out io.Writer) error {
		if _, err := out.Write(line); err != nil {
			return err
		}
		_, err := out.Write([]byte{'\n'})
		return err
	})
}

// flush implements sink.
func (w *worker) flush() error { return w.out.flush() }
