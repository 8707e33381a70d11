package worktypes

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/ranvier-mesh/ranvier/internal/process"
)

// recordsFile is what the keeper of a data directory has written down of its jobs:
// lines of JSON, each a jobRecord.
const recordsFile = "jobs"

// Records are written anew when they have recordsFrom bytes, and more than eight times what
// the jobs take that are not forgotten, about recordSize each.
const (
	recordsFrom = 64 << 10
	recordSize  = 256
)

type jobRecord struct {
	Unit    string
	Started *Started `json:",omitempty"`
	Exit    *Exit    `json:",omitempty"`
}

// Started tells which process a job began as.
type Started struct {
	process.ID
	Boot string // process.Boot
}

// Records is the writer of a keeper's records. They survive everything but the
// machine, and that too after SyncExit. Its methods may be called by any goroutine.
type Records struct {
	path string

	mu   sync.Mutex // guards what is below
	f    *os.File
	size int64
	jobs map[string]jobRecord // those that are not forgotten
}

// OpenRecords opens the records of a data directory for its only keeper.
func OpenRecords(dataDir string) (*Records, error) {
	r := &Records{path: filepath.Join(dataDir, recordsFile)}
	var err error
	if r.jobs, err = readRecords(r.path, ""); err != nil {
		return nil, err
	}
	return r, r.open()
}

func (r *Records) open() (err error) {
	if r.f, err = os.OpenFile(r.path, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600); err != nil {
		return err
	}
	fi, err := r.f.Stat()
	if err != nil {
		return err
	}
	r.size = fi.Size()
	// A line that was torn by the end of its writer ends here.
	if last := make([]byte, 1); r.size > 0 {
		if _, err := r.f.ReadAt(last, r.size-1); err == nil && last[0] != '\n' {
			_, err = r.f.Write([]byte("\n"))
			return err
		}
	}
	return nil
}

// Started writes down that a unit's process is there.
func (r *Records) Started(unit string, s Started) error {
	return r.add(jobRecord{Unit: unit, Started: &s})
}

// Exited writes down how a unit's job ended.
func (r *Records) Exited(unit string, e Exit) error { return r.add(jobRecord{Unit: unit, Exit: &e}) }

func (r *Records) add(next jobRecord) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.jobs[next.Unit] = r.jobs[next.Unit].with(next)
	return r.write(next)
}

func (r *Records) write(j jobRecord) error {
	b, err := json.Marshal(j)
	if err != nil {
		return err
	}
	n, err := r.f.Write(append(b, '\n'))
	r.size += int64(n)
	return err
}

func (j jobRecord) with(next jobRecord) jobRecord {
	return jobRecord{next.Unit, cmp.Or(next.Started, j.Started), cmp.Or(next.Exit, j.Exit)}
}

// SyncExit brings the output of the unit in dir, and then the records, to the disk.
func (r *Records) SyncExit(dir string) error {
	if err := syncFile(outputFile(dir)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	r.mu.Lock()
	f := r.f
	r.mu.Unlock()
	if err := f.Sync(); err != nil && !errors.Is(err, os.ErrClosed) { // closed: it was synced when it was written anew
		return err
	}
	return errors.Join(syncFile(filepath.Dir(dir)), syncFile(filepath.Dir(r.path)))
}

// Forget says that a unit's end is in the journal. Where most of what is written is
// forgotten, the rest is written anew.
func (r *Records) Forget(unit string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.jobs, unit)
	if r.size > recordsFrom && r.size > 8*recordSize*int64(len(r.jobs)) {
		_ = r.rewrite() // the old ones go on
	}
}

func (r *Records) rewrite() error {
	if len(r.jobs) == 0 {
		r.size = 0
		return r.f.Truncate(0)
	}
	anew := Records{path: r.path + ".new"}
	_ = os.Remove(anew.path)
	if err := anew.open(); err != nil {
		return err
	}
	for _, j := range r.jobs {
		if err := anew.write(j); err != nil {
			anew.f.Close()
			return err
		}
	}
	err := anew.f.Sync()
	if err == nil {
		err = os.Rename(anew.path, r.path)
	}
	if err != nil {
		anew.f.Close()
		return err
	}
	r.f.Close()
	r.f, r.size = anew.f, anew.size
	return nil
}

// Close lets go of the file.
func (r *Records) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.f.Close()
}

// readRecords reads the records of one unit, or of all. A line that is torn or
// makes no sense is none.
func readRecords(path, unit string) (map[string]jobRecord, error) {
	all := map[string]jobRecord{}
	b, err := os.ReadFile(path)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return all, err
	}
	for line := range bytes.Lines(b) {
		if unit != "" && !bytes.Contains(line, []byte(unit)) {
			continue
		}
		var next jobRecord
		if json.Unmarshal(line, &next) == nil && next.Unit != "" && (unit == "" || unit == next.Unit) {
			all[next.Unit] = all[next.Unit].with(next)
		}
	}
	return all, nil
}

// readRecord reads the record of the unit in dir.
func readRecord(dir string) jobRecord {
	all, _ := readRecords(filepath.Join(dir, "../..", recordsFile), filepath.Base(dir))
	return all[filepath.Base(dir)]
}

// ClaimStart makes the output of the unit in dir, for appending, unless there is
// one: then the error wraps ErrStarted. Of any number of keepers one succeeds.
func ClaimStart(dir string) (*os.File, error) {
	f, err := os.OpenFile(outputFile(dir), os.O_CREATE|os.O_EXCL|os.O_WRONLY|os.O_APPEND, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("%w: %s", ErrStarted, dir)
	}
	return f, err
}

// ReadStarted reads back whether the start of the unit in dir was claimed, and of
// which process it became; that is zero when nobody had the time to write it down.
func ReadStarted(dir string) (s Started, claimed bool) {
	_, err := os.Lstat(outputFile(dir))
	j := readRecord(dir)
	if j.Started != nil {
		s = *j.Started
	}
	return s, err == nil || !errors.Is(err, fs.ErrNotExist) || j.Unit != ""
}

// ReadExit reads back how the job of the unit in dir ended; false when nobody has
// written that down.
func ReadExit(dir string) (Exit, bool) {
	if j := readRecord(dir); j.Exit != nil {
		return *j.Exit, true
	}
	return Exit{}, false
}
