package runner

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/ranvier-mesh/ranvier/runner/internal/archive"
	"github.com/ranvier-mesh/ranvier/runner/internal/spool"
	"github.com/ranvier-mesh/ranvier/runner/internal/stream"
)

// Transmit writes the job that o describes to w, for a worker to run: the
// options, then the private data directory as a zip, then the end
// (docs/runner.md §1.1). The directory is not changed. Its zip waits in an
// unlinked file in o.TempDir, since its size comes before it; memory does not
// grow with the files. What there is to hear of meanwhile, o.Warn hears: events, states
// and artifacts are of those who run the job or read its results.
//
// Nothing is written where the error is ErrNoPrivateDataDir or ErrOptions. A
// directory that cannot be read gives an error that wraps a *fs.PathError, and
// a stream that tells the worker so and ends properly. Other errors are w's,
// those of the temporary file and the cause of ctx's end, which is looked at
// before each write.
func Transmit(ctx context.Context, w io.Writer, o Options) error {
	dir, err := checkDir(o.PrivateDataDir)
	if err != nil {
		return err
	}
	o.PrivateDataDir = dir
	if o.Ident == "" {
		o.Ident = NewIdent()
	}
	if err := o.check(); err != nil {
		return err
	}
	in, err := prepare(o, false)
	if err != nil {
		return err
	}
	w = ctxWriter{ctx, w}
	if o.RawResults {
		if err := stream.WriteRawResults(w); err != nil {
			return fmt.Errorf("transmit: %w", err)
		}
	}
	if err := stream.WriteKwargs(w, in.kwargs()); err != nil {
		return fmt.Errorf("transmit: %w", err)
	}
	if !o.OnlyTransmitKwargs {
		if err := transmitDir(ctx, w, in); err != nil {
			return err
		}
	}
	if err := stream.WriteEOF(w); err != nil {
		return fmt.Errorf("transmit: %w", err)
	}
	return nil
}

// transmitDir packs first and writes then, so that a directory that cannot be
// packed leaves a stream that is whole up to there.
func transmitDir(ctx context.Context, w io.Writer, in *inputs) error {
	tmp, size, err := packDir(ctx, in)
	if err != nil {
		err = fmt.Errorf("transmit: %w", err)
		// The worker learns that the job will not come; if it cannot be told,
		// the first error still is the one that counts.
		return errors.Join(err, ignoreDone(ctx, errors.Join(
			stream.WriteError(w, "Failed to pack the private data directory: "+err.Error(), ""),
			stream.WriteEOF(w))))
	}
	defer tmp.Close()
	if err := stream.WriteZip(w, tmp, size, in.RawArchive); err != nil {
		return fmt.Errorf("transmit: %w", err)
	}
	return nil
}

// ignoreDone drops errors that only repeat that ctx is done.
func ignoreDone(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// packDir returns an unlinked file that holds the zip, ready to be read.
func packDir(ctx context.Context, in *inputs) (_ *os.File, size int64, err error) {
	tmp, err := spool.File(in.TempDir)
	if err != nil {
		return nil, 0, err
	}
	defer func() {
		if err != nil {
			tmp.Close()
		}
	}()
	buffered := bufio.NewWriterSize(tmp, 256<<10)
	pack := archive.PackOptions{Extra: in.files, Skipped: in.skipped}
	if in.ContentApart {
		pack.Leave = isContent
	}
	err = archive.Pack(ctx, buffered, in.PrivateDataDir, pack)
	if err == nil {
		err = buffered.Flush()
	}
	if err != nil {
		return nil, 0, err
	}
	if size, err = tmp.Seek(0, io.SeekEnd); err != nil {
		return nil, 0, err
	}
	_, err = tmp.Seek(0, io.SeekStart)
	return tmp, size, err
}

// skipped passes on what was left out.
func (o *Options) skipped(name, reason string) {
	if o.Warn != nil {
		o.Warn(fmt.Sprintf("%s was left out of the archive: %s", name, reason))
	}
}

// ctxWriter ends a long stream when ctx is done.
type ctxWriter struct {
	ctx context.Context
	w   io.Writer
}

func (c ctxWriter) Write(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	return c.w.Write(p)
}
