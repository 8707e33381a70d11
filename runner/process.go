package runner

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/ranvier-mesh/ranvier/runner/internal/pyjson"
	"github.com/ranvier-mesh/ranvier/runner/internal/stream"
)

// ProcessOptions says where a job's results go. The handlers are called on
// Process's goroutine, one at a time, in the order of the stream.
type ProcessOptions struct {
	// PrivateDataDir gets the artifacts, in artifacts/, or artifacts/Ident
	// where Ident is set. It is made if it is missing.
	PrivateDataDir string
	Ident          string
	ArtifactDir    string // gets the artifacts itself, in place of the above
	// RotateArtifacts is how many runs' directories are kept beside each other
	// in artifacts/, this one included; 0 keeps all. It needs Ident, and does
	// nothing with ArtifactDir, whose neighbours may be anything.
	RotateArtifacts int

	// Output, if set, gets the play's output: each event's text and a newline.
	// It is written to as soon as there is nothing more to read. If it fails
	// the job is processed to its end all the same. A Write that does not return
	// is waited for; once ctx is done for 5 s, and then left behind.
	Output    io.Writer
	JSONMode  bool // write the events themselves, one a line
	Quiet     bool // write nothing
	OmitEmpty bool // no empty line for an event without text: as `ansible-runner run`, not `process`

	// EventHandler sees each event before it is saved; false means not to. The
	// files of the events are there when one of the other handlers is called.
	EventHandler     func(Event) (keep bool)
	StatusHandler    func(Status)
	ArtifactsHandler func(dir string) // after the artifacts have been unpacked
	FinishedHandler  func(Result)     // at the end, however it came

	// MaxArtifactBytes is how much the artifacts may unpack to; 0 means 64 GiB.
	MaxArtifactBytes int64
	// TempDir is where the artifacts' archive is kept while it arrives. Empty
	// means $TMPDIR, else /var/tmp.
	TempDir string
}

// Result is how a job ended.
type Result struct {
	Status      string // see Status.Status; "error" too where the stream was faulty; empty if none came
	RC          int    // an exit code: ansible's own where it is known, see docs/runner.md §7
	Events      int    // how many there were, keepalives aside
	Ident       string // the run's name, as the worker knows it
	ArtifactDir string // absolute
	// Explanation says why a status is what it is, where the worker told: which
	// time limit is over, which signal ended Ansible, what an error was about.
	Explanation string
}

// Process reads what a worker writes, from r to the stream's last message, and
// makes output, calls, events and artifacts of it (docs/runner.md §1.3, §6). A job that failed
// is no error: its Result tells. Errors, told apart with errors.As and
// errors.Is: *LinkError where r failed, *TruncatedError where it ended early,
// *MalformedError where the worker spoke nonsense, *LostEventsError where not all
// that it said came, *WorkerError where it could not run the job, ErrNoResult
// where it did not say how that ended, *ArtifactsError where the results could
// not be stored, ErrNoPrivateDataDir and ErrOptions for o; else an error of
// o.Output, or the cause of ctx's end.
// Result is filled in as far as things got, and its RC is not 0 then.
//
// ctx is looked at between messages and while an archive arrives. It also ends
// a Read that waits, where r has a SetReadDeadline method like that of net.Conn
// and os.File, which then is left with a deadline in the past.
func Process(ctx context.Context, r io.Reader, o ProcessOptions) (Result, error) {
	p, err := newProcessor(ctx, o, nil)
	if err != nil {
		return Result{RC: 1}, err
	}
	defer p.artifacts.close()
	p.in = stream.NewReader(r)
	p.salvage.root = p.artifacts.root
	if d, ok := r.(interface{ SetReadDeadline(time.Time) error }); ok {
		// A reader that cannot do it (a file) is waited for.
		defer context.AfterFunc(ctx, func() { _ = d.SetReadDeadline(time.Unix(1, 0)) })()
	}
	err = p.run()
	err = p.finish(err)
	if o.FinishedHandler != nil {
		o.FinishedHandler(p.result)
	}
	return p.result, err
}

// processor is one run of Process or Run, on its goroutine.
type processor struct {
	ProcessOptions
	ctx       context.Context
	in        *stream.Reader
	out       *bufio.Writer // nil for no output
	outErr    error
	artifacts *artifacts
	salvage   salvage
	unpacked  bool // the worker's artifacts have come
	result    Result
	last      Status
	rc        int
	rcKnown   bool
}

// newProcessor makes the artifact directory; whoever has the processor closes
// its artifacts. hurry is RunOptions.Hurry.
func newProcessor(ctx context.Context, o ProcessOptions, hurry <-chan struct{}) (*processor, error) {
	a, err := openArtifacts(o)
	if err != nil {
		return nil, err
	}
	p := &processor{ProcessOptions: o, ctx: ctx, artifacts: a, result: Result{ArtifactDir: a.dir}}
	if o.Output != nil && !o.Quiet {
		p.out = bufio.NewWriterSize(&outlet{ctx: ctx, hurry: hurry, out: o.Output}, 32<<10)
	}
	return p, nil
}

// run takes messages until the last one. Its errors are faults: the job's
// outcome is unknown, or cannot be stored.
func (p *processor) run() error {
	for {
		if p.ctx.Err() != nil {
			return context.Cause(p.ctx)
		}
		if !p.in.Ready() {
			p.flush()
		}
		m, err := p.in.Next()
		if err != nil {
			return p.streamError(err)
		}
		switch {
		case m.Status != nil:
			err = p.status(m)
		case m.Zipfile != nil:
			err = p.zip(m)
		case m.EOF != nil:
			if err := p.saved(p.artifacts.events.drain()); err != nil {
				return err
			}
			return p.counted()
		case m.Keepalive():
		default:
			err = p.event(m)
		}
		if err != nil {
			return err
		}
	}
}

// streamError gives an error of the stream the type that says whose fault it
// is.
func (p *processor) streamError(err error) error {
	var link *stream.ReadError
	var line *stream.LineError
	switch {
	case p.ctx.Err() != nil: // the deadline set for it, most likely
		return context.Cause(p.ctx)
	case errors.As(err, &link):
		return &LinkError{p.result.Events, link.Err}
	case errors.As(err, &line):
		return &MalformedError{p.result.Events, line.Line, line.Err}
	case errors.Is(err, io.ErrUnexpectedEOF):
		return &TruncatedError{p.result.Events, p.last.Status, err}
	}
	return &MalformedError{p.result.Events, nil, err}
}

// counted holds the events that came to those that were sent.
func (p *processor) counted() error {
	if sent := p.last.EventCount; sent > 0 && sent != p.result.Events {
		return &LostEventsError{sent, p.result.Events}
	}
	return nil
}

func (p *processor) malformed(m stream.Message, err error) error {
	return p.streamError(stream.NewLineError(m.Line, err))
}

// saved gives an error of storing its type.
func (p *processor) saved(err error) error {
	if err == nil {
		return nil
	}
	return &ArtifactsError{p.artifacts.dir, err}
}

func (p *processor) status(m stream.Message) error {
	s, err := parseStatus(m)
	if err != nil {
		return p.malformed(m, err)
	}
	if err := p.artifacts.events.drain(); err != nil {
		return p.saved(err)
	}
	p.setStatus(s)
	return nil
}

func (p *processor) setStatus(s Status) {
	p.last = s
	p.result.Status, p.result.Explanation = s.Status, s.Explanation
	if s.Ident != "" {
		p.result.Ident = s.Ident
	}
	if p.StatusHandler != nil {
		p.flush() // what the handler prints comes after the output so far
		p.StatusHandler(s)
	}
}

// zip unpacks the artifacts. An error of the stream inside the archive is told
// apart from one of the archive by asking the stream.
func (p *processor) zip(m stream.Message) error {
	zip, size, err := p.in.Zip(m)
	if err != nil {
		return p.malformed(m, err)
	}
	p.flush()
	in := &noteError{r: zip}
	rc, known, err := p.artifacts.unpack(p.ctx, in, size, p.ProcessOptions)
	switch {
	case p.ctx.Err() != nil:
		return context.Cause(p.ctx)
	case in.err != nil:
		return p.streamError(in.err)
	case err != nil:
		return p.saved(err)
	}
	p.unpacked = true
	p.salvage.drop()
	if known {
		p.rc, p.rcKnown = rc, true
	}
	if err := p.artifacts.events.drain(); err != nil {
		return p.saved(err)
	}
	if p.ArtifactsHandler != nil {
		p.ArtifactsHandler(p.artifacts.dir)
	}
	return nil
}

func (p *processor) event(m stream.Message) error {
	counter, uuid, err := eventKey(m)
	if err != nil {
		return p.malformed(m, err)
	}
	p.result.Events++
	p.print(m)
	p.salvage.add(m)
	if p.EventHandler != nil && !p.EventHandler(parseEvent(m, counter, uuid)) {
		return nil
	}
	return p.saved(p.artifacts.events.save(counter, uuid, trimLine(m.Line)))
}

// print writes an event's text, and for one whose text is not text nothing, as
// for one that has none.
func (p *processor) print(m stream.Message) {
	if p.out == nil || p.outErr != nil {
		return
	}
	var err error
	if p.JSONMode {
		_, err = p.out.Write(trimLine(m.Line))
	} else {
		text, textErr := pyjson.Unquote(m.Stdout)
		if textErr != nil || text == "" && p.OmitEmpty {
			return
		}
		_, err = p.out.WriteString(text)
	}
	if err == nil {
		err = p.out.WriteByte('\n')
	}
	p.outErr = err
}

func (p *processor) flush() {
	if p.out != nil && p.outErr == nil {
		p.outErr = p.out.Flush()
	}
}

// finish settles the result. fault is run's error.
func (p *processor) finish(fault error) error {
	p.flush()
	if fault == nil && !p.last.final() {
		fault = ErrNoResult
	}
	if fault != nil {
		// The events that came are worth having, though not worth a second error.
		_ = p.artifacts.events.drain()
		if !p.unpacked {
			p.salvage.keep()
		}
		p.salvage.drop()
		p.setStatus(Status{Status: "error", Ident: p.result.Ident, Explanation: explain(fault)})
		p.result.RC = 1
		return fault
	}
	p.salvage.drop()
	p.result.RC = p.exitCode()
	if p.last.Status == "error" {
		return &WorkerError{p.last.Explanation, p.last.Traceback}
	}
	if p.outErr != nil {
		p.result.RC = max(p.result.RC, 1)
		return fmt.Errorf("writing the play's output: %w", p.outErr)
	}
	return nil
}

// explain begins with the words that those who search logs know from the Python
// tool, where the cause is one that it has.
func explain(fault error) string {
	var malformed *MalformedError
	if errors.As(fault, &malformed) {
		return "Failed to JSON parse a line from worker stream. Error: " + fault.Error()
	}
	return fault.Error()
}

// exitCode is the rc among the artifacts, else what the status amounts to
// (docs/runner.md §7). Only success is 0.
func (p *processor) exitCode() int {
	success := p.last.Status == "successful"
	if p.rcKnown && (p.rc != 0 || success) {
		return p.rc
	}
	switch p.last.Status {
	case "successful":
		return 0
	case "canceled", "timeout":
		return 254
	}
	return 1
}

// noteError remembers the error that reading ended with, other than io.EOF.
type noteError struct {
	r   io.Reader
	err error
}

func (n *noteError) Read(p []byte) (int, error) {
	c, err := n.r.Read(p)
	if err != nil && err != io.EOF {
		n.err = err
	}
	return c, err
}
