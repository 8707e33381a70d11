package worktypes

import (
	"fmt"
	"time"
)

// State is where a unit is in its life; the numbers are Receptor's. The
// transitions are drawn in the package comment.
type State int

const (
	Pending   State = 0 // accepted, not started
	Running   State = 1 // its process was or is about to be started
	Succeeded State = 2 // its process exited with status 0
	Failed    State = 3 // anything else; Status.Detail says what
	Canceled  State = 4 // Cancel came before the end
)

var stateNames = [...]string{"Pending", "Running", "Succeeded", "Failed", "Canceled"}

// String is the state's name as Receptor writes it.
func (s State) String() string {
	if s >= 0 && int(s) < len(stateNames) {
		return stateNames[s]
	}
	return fmt.Sprintf("State(%d)", int(s))
}

// Terminal reports whether the state is a last one.
func (s State) Terminal() bool { return s == Succeeded || s == Failed || s == Canceled }

// MarshalText writes the state's name.
func (s State) MarshalText() ([]byte, error) {
	if s < 0 || int(s) >= len(stateNames) {
		return nil, fmt.Errorf("no such state: %d", int(s))
	}
	return []byte(stateNames[s]), nil
}

// UnmarshalText reads a state's name.
func (s *State) UnmarshalText(text []byte) error {
	for i, name := range stateNames {
		if name == string(text) {
			*s = State(i)
			return nil
		}
	}
	return fmt.Errorf("no such state: %q", text)
}

// Status is what a unit tells of itself.
type Status struct {
	ID       string
	WorkType string
	Owner    string // who submitted it
	Job      string // the id that the job has in log lines
	State    State
	// Detail is a line for people: "exit status 0", "Canceled", or what went
	// wrong and where.
	Detail string
	// ExitCode is the process's exit status; -1 when it has not ended, was
	// ended by a signal or never started.
	ExitCode int
	// Signal is the number of the signal that ended the process, else 0.
	Signal int
	// StdoutSize is how many bytes of output there are. It grows while the
	// unit runs and is final, to the byte, in a terminal state.
	StdoutSize int64
	Created    time.Time
	Started    time.Time // zero until Running
	Finished   time.Time // zero until terminal
}
