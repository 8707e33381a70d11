package runner

import (
	"bufio"
	"os"

	"github.com/ranvier-mesh/ranvier/runner/internal/pyjson"
	"github.com/ranvier-mesh/ranvier/runner/internal/stream"
)

// partialStdout is where the play's output is kept while it comes.
const partialStdout = ".stdout.partial"

// salvage keeps the play's output as it comes: the worker sends the artifact
// only at the end, and when that end never comes what was printed so far is not
// to be lost. Its own faults are no fault of the job and are not told.
type salvage struct {
	root *os.Root // nil to keep nothing: the job runs here, and writes the artifact itself
	file *os.File
	out  *bufio.Writer
}

// add keeps the text of an event.
func (s *salvage) add(m stream.Message) {
	if s.root == nil {
		return
	}
	text, err := pyjson.Unquote(m.Stdout)
	if err != nil || text == "" {
		return
	}
	if s.file == nil {
		s.file, err = s.root.OpenFile(partialStdout, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
		if err != nil {
			return
		}
		s.out = bufio.NewWriterSize(s.file, 32<<10)
	}
	s.out.WriteString(text)
	s.out.WriteByte('\n')
}

// drop removes what was kept: the artifacts have come, or are to come no more.
func (s *salvage) drop() {
	if s.file != nil {
		s.file.Close()
		s.file = nil
		s.root.Remove(partialStdout)
	}
}

// keep makes artifacts of what came before a fault: stdout, and a status that
// says that nobody knows how the job ended.
func (s *salvage) keep() {
	if s.root == nil {
		return
	}
	if s.file != nil {
		s.out.Flush()
		s.root.Rename(partialStdout, "stdout")
		s.drop() // where something is in the way it is lost
	}
	// A link that the worker has sent would be followed, as far as it stays here.
	s.root.Remove("status")
	if f, err := s.root.OpenFile("status", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600); err == nil {
		f.WriteString("error")
		f.Close()
	}
}
