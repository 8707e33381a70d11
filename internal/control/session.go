package control

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"time"
)

const (
	// readBuffer is all that an idle connection keeps. It holds nearly every
	// request; a longer one takes memory while it is read.
	readBuffer = 512
	// lineTime is how long a line may take that is longer than readBuffer.
	lineTime = time.Minute
	// writeTime is how long a client may take to read the next writeChunk
	// bytes of a reply.
	writeTime  = 30 * time.Second
	writeChunk = 64 << 10
	// lineBudget is what all long lines of a server take together, in bytes.
	lineBudget = 64 << 20
)

// Session is one connection, as a Command's handler sees it. Reading gives
// what follows the request line, from the line reader's buffer first; writing
// goes to the client as it is and without a time limit. One goroutine reads
// and one writes at a time.
type Session struct {
	conn   net.Conn
	in     *bufio.Reader
	budget *atomic.Int64              // what is left of lineBudget
	permit func(command string) error // nil: all
}

func newSession(conn net.Conn, budget *atomic.Int64) *Session {
	return &Session{conn: conn, in: bufio.NewReaderSize(conn, readBuffer), budget: budget}
}

// Conn returns the connection, to look at who is there. Bytes are read from
// the Session, since the Conn has lost those that are buffered.
func (s *Session) Conn() net.Conn { return s.conn }

// Read reads raw bytes that follow the request line.
func (s *Session) Read(p []byte) (int, error) { return s.in.Read(p) }

// WriteTo copies the raw bytes to w until the client ends them.
func (s *Session) WriteTo(w io.Writer) (int64, error) { return s.in.WriteTo(w) }

// Write sends raw bytes.
func (s *Session) Write(p []byte) (int, error) { return s.conn.Write(p) }

// CloseWrite ends what the client reads. A connection that cannot be closed
// on one way only is closed.
func (s *Session) CloseWrite() error { return closeWrite(s.conn) }

func closeWrite(c net.Conn) error {
	if h, ok := c.(Stream); ok {
		return h.CloseWrite()
	}
	return c.Close()
}

// Reply sends v as one line of JSON. A client that does not read it in time
// gets an error, and the connection is of no use any more.
func (s *Session) Reply(v any) error {
	var line bytes.Buffer
	enc := json.NewEncoder(&line) // it ends with a newline
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("encode the reply: %w", err)
	}
	return s.send(line.Bytes())
}

// Say sends one line of text. Line ends within it become spaces.
func (s *Session) Say(text string) error {
	return s.send([]byte(strings.NewReplacer("\r", " ", "\n", " ").Replace(text) + "\n"))
}

// send writes in chunks, so that its time limit is for a client that does not
// read and not for one that is slow.
func (s *Session) send(p []byte) error {
	defer s.conn.SetWriteDeadline(time.Time{})
	for len(p) > 0 {
		n := min(len(p), writeChunk)
		s.conn.SetWriteDeadline(time.Now().Add(writeTime))
		if _, err := s.conn.Write(p[:n]); err != nil {
			return &brokenError{err}
		}
		p = p[n:]
	}
	return nil
}

// brokenError says that the connection failed, so that there is nobody to
// send an ERROR line to.
type brokenError struct{ err error }

func (e *brokenError) Error() string { return "control connection: " + e.err.Error() }
func (e *brokenError) Unwrap() error { return e.err }

// Errors of a line that cannot be read to its end. The server tells them, and
// closes the connection since it does not know where the next line begins.
var (
	errLongLine = fmt.Errorf("a line has more than %d bytes", MaxLine)
	errSlowLine = fmt.Errorf("a line took more than %v", lineTime)
	errBusy     = errors.New("too many long lines at once: try again later")
)

// request reads the next line that is not empty; the end of input ends the last
// one. The error is io.EOF at the
// end of input, one of the above, or the connection's. A line that is
// no request gives a *requestError; the next line can be read.
func (s *Session) request() (*Request, error) {
	for {
		line, release, err := s.line()
		if err != nil {
			release()
			return nil, err
		}
		var req *Request
		empty := len(bytes.TrimSpace(line)) == 0
		if !empty {
			req, err = parseRequest(line) // copies what it keeps
		}
		release()
		if err != nil {
			return nil, &requestError{err}
		}
		if !empty {
			return req, nil
		}
	}
}

type requestError struct{ err error }

func (e *requestError) Error() string { return e.err.Error() }
func (e *requestError) Unwrap() error { return e.err }

// line reads one line. The line is valid until release is called.
func (s *Session) line() (line []byte, release func(), err error) {
	release = func() {}
	chunk, err := s.in.ReadSlice('\n')
	switch {
	case err == io.EOF && len(chunk) > 0:
		return chunk, release, nil
	case err != bufio.ErrBufferFull:
		return chunk, release, err
	}
	taken := int64(0)
	release = func() { s.budget.Add(taken) }
	s.conn.SetReadDeadline(time.Now().Add(lineTime))
	defer s.conn.SetReadDeadline(time.Time{})
	for err == bufio.ErrBufferFull {
		if need := len(line) + len(chunk); need > MaxLine {
			return nil, release, errLongLine
		} else if need > cap(line) {
			grown := min(max(4*readBuffer, 2*cap(line)), MaxLine)
			taken += int64(grown - cap(line))
			if s.budget.Add(int64(cap(line)-grown)) < 0 {
				return nil, release, errBusy
			}
			line = append(make([]byte, 0, grown), line...)
		}
		line = append(line, chunk...)
		chunk, err = s.in.ReadSlice('\n')
	}
	switch e := net.Error(nil); {
	case errors.As(err, &e) && e.Timeout():
		return nil, release, errSlowLine
	case err != nil && err != io.EOF:
		return nil, release, err
	case len(line)+len(chunk) > MaxLine:
		return nil, release, errLongLine
	}
	return append(line, chunk...), release, nil
}
