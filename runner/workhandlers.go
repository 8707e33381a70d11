package runner

import (
	"bytes"
	"fmt"

	"github.com/ranvier-mesh/ranvier/runner/internal/stream"
)

// tellEvent asks the handler about an event. The handler gets a copy: it may
// keep what it is given.
func (w *worker) tellEvent(line []byte) (keep bool, err error) {
	if w.EventHandler == nil {
		return true, nil
	}
	m, err := stream.Parse(bytes.Clone(line))
	if err != nil {
		return false, fmt.Errorf("event: %w", err)
	}
	counter, uuid, err := eventKey(m)
	if err != nil {
		return false, fmt.Errorf("event: %w", err)
	}
	return w.EventHandler(parseEvent(m, counter, uuid)), nil
}

func (w *worker) tellStatus(line []byte) error {
	m, err := stream.Parse(line)
	if err != nil {
		return fmt.Errorf("status: %w", err)
	}
	s, err := parseStatus(m)
	if err != nil {
		return err
	}
	w.result.Status = s.Status
	if s.Ident != "" {
		w.result.Ident = s.Ident
	}
	if w.StatusHandler != nil {
		w.StatusHandler(s)
	}
	return nil
}

func (w *worker) tellArtifacts(dir string) {
	w.result.ArtifactDir = dir
	if w.ArtifactsHandler != nil {
		w.ArtifactsHandler(dir)
	}
}

// tellFinished fills in what a job that did not come to its end amounts to.
func (w *worker) tellFinished(err error) {
	if w.FinishedHandler == nil {
		return
	}
	if err != nil && w.result.RC == 0 {
		w.result.RC = 1
		if w.result.Status == "canceled" {
			w.result.RC = 254
		}
	}
	w.FinishedHandler(w.result)
}
