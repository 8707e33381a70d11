package runner

import (
	"errors"
	"fmt"

	"github.com/ranvier-mesh/ranvier/runner/internal/archive"
)

var (
	// ErrNoPrivateDataDir is returned where the private data directory is
	// missing, is no directory, or was not named.
	ErrNoPrivateDataDir = errors.New("no private data directory")

	// ErrOptions is returned for options that are wrong or do not go together;
	// the text names the option.
	ErrOptions = errors.New("invalid options")

	// ErrNoResult is returned where a stream ended properly but no final status
	// came: the worker gave up before the job.
	ErrNoResult = errors.New("the worker ended the stream without a result")

	// ErrArchiveUnsafe is returned where an archive from the peer would have
	// written outside the directory it belongs in (docs/runner.md §2.2).
	ErrArchiveUnsafe = archive.ErrUnsafe

	// ErrArchiveTooLarge is returned where an archive from the peer unpacks to
	// more than the limit.
	ErrArchiveTooLarge = archive.ErrTooLarge
)

// LinkError says that reading from the worker failed: the link was lost, as
// opposed to the worker having ended or spoken nonsense. It wraps the error of
// the reader given to [Process].
type LinkError struct {
	Events int // received before
	Err    error
}

// Error says after how many events the link was lost, and how.
func (e *LinkError) Error() string {
	return fmt.Sprintf("the link to the worker was lost after %d events: %v", e.Events, e.Err)
}

// Unwrap returns the reader's error.
func (e *LinkError) Unwrap() error { return e.Err }

// TruncatedError says that the stream ended before its last message: the
// worker died, or what carried the stream lost the rest. It wraps
// io.ErrUnexpectedEOF.
type TruncatedError struct {
	Events int    // received before
	Status string // the last one heard of, empty if none
	Err    error
}

// Error says how far the job was known to have come.
func (e *TruncatedError) Error() string {
	status := e.Status
	if status == "" {
		status = "not started"
	}
	return fmt.Sprintf("the worker's stream ended early, after %d events, the job being %s: %v", e.Events, status, e.Err)
}

// Unwrap returns an error that is io.ErrUnexpectedEOF.
func (e *TruncatedError) Unwrap() error { return e.Err }

// LostEventsError says that the stream came to its end, with the job's result,
// but not with all the events that the worker had put into it: something on the
// way, or another program that has read it, kept some back.
type LostEventsError struct {
	Sent   int // by the worker
	Events int // received
}

// Error says how many are missing.
func (e *LostEventsError) Error() string {
	return fmt.Sprintf("the worker sent %d events and %d arrived: something on the way has dropped or added some", e.Sent, e.Events)
}

// MalformedError says that the worker sent a line that is no message, or a
// message with something missing. Line holds the line's first 1000 bytes.
type MalformedError struct {
	Events int // received before
	Line   []byte
	Err    error
}

// Error says what is wrong with the line, and shows its beginning.
func (e *MalformedError) Error() string {
	return fmt.Sprintf("malformed line from the worker after %d events: %v. Line with invalid JSON data: %s",
		e.Events, e.Err, e.Line)
}

// Unwrap returns what is wrong with the line.
func (e *MalformedError) Unwrap() error { return e.Err }

// ArtifactsError says that the artifacts could not be unpacked or an event not
// be saved. It wraps ErrArchiveUnsafe, ErrArchiveTooLarge, a *fs.PathError, or
// an error that says what in the archive is wrong.
type ArtifactsError struct {
	Dir string // the artifact directory
	Err error
}

// Error names the directory and what went wrong there.
func (e *ArtifactsError) Error() string {
	return fmt.Sprintf("artifacts to %s: %v", e.Dir, e.Err)
}

// Unwrap returns the cause.
func (e *ArtifactsError) Unwrap() error { return e.Err }

// WorkerError is what a worker said of itself with the status "error": it
// could not run the job, or not to its end.
type WorkerError struct {
	Explanation string // for people
	Traceback   string // of the worker's program, often empty
}

// Error is the worker's explanation.
func (e *WorkerError) Error() string {
	if e.Explanation == "" {
		return "the worker reports an error without saying which"
	}
	return "the worker reports: " + e.Explanation
}
