package runner

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/ranvier-mesh/ranvier/internal/jobdir"
	"github.com/ranvier-mesh/ranvier/runner/internal/archive"
)

// artifacts is the directory that a job's results go to
// (docs/runner.md §6). All names in it come from the worker; root keeps them
// in it.
type artifacts struct {
	dir    string
	root   *os.Root
	events *eventWriter
	locks  []*jobdir.Lock // as long as this run writes, no cleanup or rotation takes it away
}

// openArtifacts makes the directory and its job_events where they are missing.
// A private data directory that is missing is made as well: the job has run,
// and its results are not to be lost for that.
func openArtifacts(o ProcessOptions) (*artifacts, error) {
	dir := o.ArtifactDir
	if dir == "" {
		if o.PrivateDataDir == "" {
			return nil, fmt.Errorf("%w: none was named", ErrNoPrivateDataDir)
		}
		dir = filepath.Join(o.PrivateDataDir, "artifacts", o.Ident)
	}
	if o.Ident != "" {
		if err := checkIdent(o.Ident); err != nil {
			return nil, err
		}
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, &ArtifactsError{dir, err}
	}
	if o.ArtifactDir == "" && o.Ident != "" {
		// What is in artifacts/ may have come from a worker. Where that directory
		// itself leads is the caller's business.
		if info, err := os.Lstat(dir); err == nil && info.Mode().Type() == fs.ModeSymlink {
			return nil, &ArtifactsError{dir, errors.New("it is a link: a run's artifacts are not written through one")}
		}
	}
	a := &artifacts{dir: dir}
	if err := a.open(o.PrivateDataDir); err != nil {
		a.close()
		return nil, &ArtifactsError{dir, err}
	}
	if o.ArtifactDir == "" && o.Ident != "" {
		if err := RotateArtifacts(filepath.Dir(dir), o.Ident, o.RotateArtifacts); err != nil {
			a.close()
			return nil, &ArtifactsError{dir, err}
		}
	}
	return a, nil
}

func (a *artifacts) open(privateDataDir string) error {
	err := os.MkdirAll(a.dir, 0o700)
	if err != nil {
		return err
	}
	for _, dir := range []string{privateDataDir, a.dir} {
		if dir == "" {
			continue
		}
		// The slash leads through a link: that one is the caller's, or root refuses it.
		lock, err := jobdir.Use(dir + "/")
		if err != nil {
			return err
		}
		a.locks = append(a.locks, lock)
	}
	if a.root, err = os.OpenRoot(a.dir); err != nil {
		return err
	}
	if err := a.root.Mkdir("job_events", 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	// A link here was not made by us. It could lead the events elsewhere.
	if info, err := a.root.Lstat("job_events"); err != nil || !info.IsDir() {
		return errors.Join(err, errors.New("job_events is there and no directory"))
	}
	if err := a.root.Chmod("job_events", 0o700); err != nil {
		return err
	}
	dir, err := a.root.Open("job_events")
	if err != nil {
		return err
	}
	a.events = newEventWriter(dir)
	return nil
}

func (a *artifacts) close() {
	if a.events != nil {
		a.events.close()
	}
	if a.root != nil {
		a.root.Close()
	}
	for _, l := range a.locks {
		l.Unlock()
	}
}

// unpack takes the worker's artifacts from r, a zip of size bytes, and returns
// the job's exit code if it is among them.
func (a *artifacts) unpack(ctx context.Context, r io.Reader, size int64, o ProcessOptions) (rc int, known bool, err error) {
	hasRC := false // an rc of an earlier run may lie here as well
	err = archive.UnpackStream(ctx, r, size, a.dir, archive.UnpackOptions{
		MaxBytes: o.MaxArtifactBytes, TempDir: o.TempDir,
		Extracted: func(name string) { hasRC = hasRC || name == "rc" },
	})
	if err != nil || !hasRC {
		return 0, false, err
	}
	f, err := a.root.Open("rc")
	if err != nil {
		return 0, false, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, 64))
	if err != nil {
		return 0, false, err
	}
	rc, err = strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0, false, nil // "None": the worker did not get that far
	}
	return rc, true, nil
}

const (
	eventWriters = 2       // making files is the kernel's work: one more than the reader keeps busy
	queueLength  = 64      // events that may wait to be saved,
	queueable    = 1 << 16 // of at most so many bytes; larger ones are saved at once
)

// eventWriter saves events as files. Its goroutines take from queue; err is guarded by mu.
type eventWriter struct {
	dir     *os.File
	queue   chan savedEvent
	waiting sync.WaitGroup // events not yet saved
	workers sync.WaitGroup
	mu      sync.Mutex
	err     error
}

type savedEvent struct {
	name string
	data []byte
}

func newEventWriter(dir *os.File) *eventWriter {
	w := &eventWriter{dir: dir, queue: make(chan savedEvent, queueLength)}
	for i := range eventWriters {
		w.workers.Add(1)
		go w.work(".saving-" + strconv.Itoa(i))
	}
	return w
}

// work saves what comes, under a name of this worker first.
func (w *eventWriter) work(temp string) {
	defer w.workers.Done()
	for e := range w.queue {
		if err := w.write(temp, e); err != nil {
			w.fail(err)
		}
		w.waiting.Done()
	}
}

func (w *eventWriter) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = err
	}
}

func (w *eventWriter) failed() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// save has data saved as counter-uuid.json; data must not change any more. The
// error may be that of an earlier event.
func (w *eventWriter) save(counter int64, uuid string, data []byte) error {
	e := savedEvent{strconv.FormatInt(counter, 10) + "-" + uuid + ".json", data}
	if len(data) > queueable {
		return errors.Join(w.failed(), w.write(".saving-large", e))
	}
	w.waiting.Add(1)
	w.queue <- e
	return w.failed()
}

// drain waits until all events are saved.
func (w *eventWriter) drain() error {
	w.waiting.Wait()
	return w.failed()
}

func (w *eventWriter) close() {
	close(w.queue)
	w.workers.Wait()
	w.dir.Close()
}

// write goes below os.Root to the system calls: the name has been checked to be
// a plain one, and there are tens of thousands to write. A file gets its name
// once it is whole, so that nobody reads half an event; one that is there, because
// the events come a second time, is replaced.
func (w *eventWriter) write(temp string, e savedEvent) error {
	dir := int(w.dir.Fd())
	err := w.writeFile(dir, temp, e.data)
	if err == nil {
		if err = unix.Renameat(dir, temp, dir, e.name); err != nil {
			_ = unix.Unlinkat(dir, temp, 0)
		}
	}
	if err != nil {
		return &fs.PathError{Op: "save", Path: filepath.Join(w.dir.Name(), e.name), Err: err}
	}
	return nil
}

// writeFile leaves no file that it has made and could not fill.
func (w *eventWriter) writeFile(dir int, name string, data []byte) error {
	fd, err := unix.Openat(dir, name, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	for err == nil && len(data) > 0 {
		var n int
		n, err = unix.Write(fd, data)
		if errors.Is(err, unix.EINTR) {
			n, err = 0, nil
		}
		data = data[max(n, 0):]
	}
	if err = errors.Join(err, unix.Close(fd)); err != nil {
		_ = unix.Unlinkat(dir, name, 0)
	}
	return err
}
