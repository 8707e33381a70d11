package stream

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
)

// MaxLine is the longest line a Reader takes. The format has no limit; this one
// keeps a peer from filling the memory with a line that never ends.
const MaxLine = 64 << 20

const bufferSize = 128 << 10

// ReadError is an error of the reader below, other than its end: the link to
// the peer failed, as opposed to the peer having said something wrong.
type ReadError struct{ Err error }

// Error is that of the reader below.
func (e *ReadError) Error() string { return e.Err.Error() }

// Unwrap returns the error of the reader below.
func (e *ReadError) Unwrap() error { return e.Err }

// LineError is a line that is not a message. Line holds its first 1000 bytes.
type LineError struct {
	Line []byte
	Err  error
}

// Error says what is wrong with the line, and shows its beginning.
func (e *LineError) Error() string {
	return fmt.Sprintf("malformed line: %v; the line begins: %s", e.Err, e.Line)
}

// Unwrap returns what is wrong with the line.
func (e *LineError) Unwrap() error { return e.Err }

// NewLineError describes line, of which it keeps a copy of the beginning.
func NewLineError(line []byte, err error) *LineError {
	return &LineError{Line: bytes.Clone(line[:min(len(line), 1000)]), Err: err}
}

// Reader reads messages and zips. It is for one goroutine.
type Reader struct {
	br  *bufio.Reader
	max int
}

// NewReader returns a Reader of r. It reads ahead, so that what follows the
// last message in r is not to be read by others.
func NewReader(r io.Reader) *Reader {
	return &Reader{br: bufio.NewReaderSize(markErrors{r}, bufferSize), max: MaxLine}
}

// Next returns the next message. Its bytes are the caller's to keep. Errors:
// io.ErrUnexpectedEOF where the stream ends, since only a message can end it
// properly; *ReadError where reading failed; *LineError for a line that is no
// message, an empty one too, or too long, and for an end that is not even the
// beginning of a message.
func (r *Reader) Next() (Message, error) {
	line, err := r.line()
	if err == io.EOF && len(line) > 0 {
		// Python takes a last line that lacks only its newline, so try it.
		m, perr := Parse(line)
		if perr == nil {
			return m, nil
		}
		if start := bytes.TrimLeft(line, " \t\r"); len(start) > 0 && start[0] != '{' {
			return Message{}, NewLineError(line, perr)
		}
	}
	if err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return Message{}, err
	}
	m, err := Parse(line)
	if err != nil {
		return Message{}, NewLineError(line, err)
	}
	return m, nil
}

// Ready tells whether Next would return without waiting for the peer: a good
// moment to flush what is buffered for others is when it would not.
func (r *Reader) Ready() bool {
	waiting, _ := r.br.Peek(r.br.Buffered()) // no error: they are there
	return bytes.IndexByte(waiting, '\n') >= 0
}

// line returns a copy of the next line, or what there was of it with io.EOF.
func (r *Reader) line() ([]byte, error) {
	part, err := r.br.ReadSlice('\n')
	line := bytes.Clone(part)
	for errors.Is(err, bufio.ErrBufferFull) {
		part, err = r.br.ReadSlice('\n')
		if len(line)+len(part) > r.max {
			return nil, NewLineError(line, fmt.Errorf("longer than %d bytes", r.max))
		}
		line = append(line, part...)
	}
	return line, err
}

// Zip returns a reader of the zip that follows the zipfile message m, and its size;
// it has to be read to its end before Next. It ends with io.EOF after exactly that
// many bytes; other errors are io.ErrUnexpectedEOF where the stream ends
// before, *ReadError, and one that says what in the base64 is wrong. The error is
// that of a size that is none.
func (r *Reader) Zip(m Message) (zip io.Reader, size int64, err error) {
	n, err := m.ZipSize()
	if err != nil {
		return nil, 0, err
	}
	if string(m.Raw) == "true" {
		return &rawReader{r.br, n}, n, nil
	}
	return &zipReader{br: r.br, encoded: (n + 2) / 3 * 4, decoded: n}, n, nil
}

// rawReader reads the next left bytes.
type rawReader struct {
	br   *bufio.Reader
	left int64
}

func (r *rawReader) Read(p []byte) (int, error) {
	if r.left == 0 {
		return 0, io.EOF
	}
	n, err := r.br.Read(p[:min(int64(len(p)), r.left)])
	r.left -= int64(n)
	if err == io.EOF && r.left > 0 {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// markErrors wraps all errors but io.EOF as *ReadError, so that they are told
// apart from what the layers above find wrong. An error that wraps io.EOF is
// such an error too: only the bare one is the end of the stream.
type markErrors struct{ r io.Reader }

func (m markErrors) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	if err != nil && err != io.EOF {
		err = &ReadError{err}
	}
	return n, err
}
