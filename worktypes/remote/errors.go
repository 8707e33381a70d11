package remote

import (
	"errors"
	"fmt"

	"github.com/ranvier-mesh/ranvier/internal/wire"
	"github.com/ranvier-mesh/ranvier/worktypes"
)

// Code says why a request was refused (docs/work.md section 4.5).
type Code uint16

// The codes. All but the first and the last stand for an error of package
// worktypes, which errors.Is finds.
const (
	CodeMalformed       Code = 1  // the bytes are no request of this protocol
	CodeBadSpec         Code = 2  // worktypes.ErrBadSpec
	CodeUnknownType     Code = 3  // worktypes.ErrUnknownType
	CodeForbiddenParams Code = 4  // worktypes.ErrForbiddenParams
	CodeConflict        Code = 5  // worktypes.ErrConflict
	CodeUnknownUnit     Code = 6  // worktypes.ErrUnknownUnit
	CodeNotPending      Code = 7  // worktypes.ErrNotPending
	CodeBusy            Code = 8  // worktypes.ErrBusy
	CodeBadPayload      Code = 9  // worktypes.ErrBadPayload
	CodeBadOffset       Code = 10 // worktypes.ErrBadOffset
	CodeTruncated       Code = 11 // worktypes.ErrTruncated
	CodeClosed          Code = 12 // worktypes.ErrClosed: the node is stopping
	CodeInternal        Code = 13 // a fault of the node; its log has more
	CodeForbidden       Code = 14 // worktypes.ErrForbidden
	CodeReleased        Code = 15 // worktypes.ErrReleased
	CodeOtherStore      Code = 16 // worktypes.ErrOtherStore
	CodeTooLarge        Code = 17 // worktypes.ErrTooLarge
)

// codes pairs what the Manager returns with what travels.
func codes() map[Code]error {
	return map[Code]error{
		CodeMalformed:       wire.ErrMalformed,
		CodeBadSpec:         worktypes.ErrBadSpec,
		CodeUnknownType:     worktypes.ErrUnknownType,
		CodeForbiddenParams: worktypes.ErrForbiddenParams,
		CodeConflict:        worktypes.ErrConflict,
		CodeUnknownUnit:     worktypes.ErrUnknownUnit,
		CodeNotPending:      worktypes.ErrNotPending,
		CodeBusy:            worktypes.ErrBusy,
		CodeBadPayload:      worktypes.ErrBadPayload,
		CodeBadOffset:       worktypes.ErrBadOffset,
		CodeTruncated:       worktypes.ErrTruncated,
		CodeClosed:          worktypes.ErrClosed,
		CodeForbidden:       worktypes.ErrForbidden,
		CodeReleased:        worktypes.ErrReleased,
		CodeOtherStore:      worktypes.ErrOtherStore,
		CodeTooLarge:        worktypes.ErrTooLarge,
	}
}

func codeOf(err error) Code {
	for code, sentinel := range codes() {
		if errors.Is(err, sentinel) {
			return code
		}
	}
	return CodeInternal
}

// Refusal is the error that the other node answered with. errors.Is matches it
// with the worktypes error of its code: worktypes.ErrUnknownType and so on.
type Refusal struct {
	Node   string // who refused
	Code   Code
	Reason string // for people
}

// Error names the node and the reason.
func (r *Refusal) Error() string { return fmt.Sprintf("node %s: %s", r.Node, r.Reason) }

// Is reports whether target is the error that the code stands for.
func (r *Refusal) Is(target error) bool {
	sentinel := codes()[r.Code]
	return sentinel != nil && sentinel == target
}

// BrokenError is a connection that ended before its answer did. The unit goes
// on at the other node: Follow with ID and Offset reads the rest. A unit whose
// payload was not whole by then is never started.
type BrokenError struct {
	Node   string
	ID     string // of the unit; empty where the request has none
	Offset int64  // how many bytes of results were read
	Err    error  // what the connection said
}

// Error names the node, the unit and how far it came.
func (e *BrokenError) Error() string {
	if e.ID == "" {
		return fmt.Sprintf("the connection to node %s broke: %v", e.Node, e.Err)
	}
	return fmt.Sprintf("the connection to node %s broke %d bytes into the results of unit %s: %v", e.Node, e.Offset, e.ID, e.Err)
}

// Unwrap returns what the connection said.
func (e *BrokenError) Unwrap() error { return e.Err }
