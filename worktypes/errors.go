package worktypes

import (
	"errors"
	"fmt"
	"strings"
)

// Errors that callers tell apart with errors.Is. What is returned wraps them
// and names the unit, the type or the file.
var (
	// ErrBadSpec is a Spec that no node would take.
	ErrBadSpec = errors.New("invalid work spec")
	// ErrUnknownType is a work type that the node does not have; see
	// UnknownTypeError.
	ErrUnknownType = errors.New("no such work type")
	// ErrForbiddenParams are params that the work type does not take.
	ErrForbiddenParams = errors.New("params not allowed")
	// ErrConflict is a submit under an id that stands for something else.
	ErrConflict = errors.New("unit id already used for something else")
	// ErrUnknownUnit is an id that no unit has, any more or yet.
	ErrUnknownUnit = errors.New("no such work unit")
	// ErrReleased is a submit under the id of a unit that was released.
	ErrReleased = errors.New("the unit was released")
	// ErrForbidden is something that the node's policy, or who owns a unit, does
	// not allow; what wraps it says which.
	ErrForbidden = errors.New("not allowed")
	// ErrOtherStore is a submit that was meant for another data directory: the
	// node was set up anew since, and cannot know what it did before.
	ErrOtherStore = errors.New("the node's data directory is another one than before")
	// ErrNotPending is a payload for, or a start of, a unit that was already
	// started or has ended.
	ErrNotPending = errors.New("the unit is not pending")
	// ErrBusy is something that another caller is doing just now, or a
	// limit that is reached.
	ErrBusy = errors.New("busy")
	// ErrBadPayload is a payload whose size or hash is not what its
	// submitter said.
	ErrBadPayload = errors.New("payload does not match its size and hash")
	// ErrTooLarge is a payload, with its tree, that is larger than the policy
	// allows.
	ErrTooLarge = errors.New("payload is too large")
	// ErrBadOffset is an offset that the output does not have.
	ErrBadOffset = errors.New("no such offset in the output")
	// ErrTruncated is output that was there and is gone: the job, or somebody
	// else, has truncated its stdout file.
	ErrTruncated = errors.New("the job's output was truncated")
	// ErrInUse is a data directory that another process uses.
	ErrInUse = errors.New("data directory is in use")
	// ErrClosed is a Manager that was closed.
	ErrClosed = errors.New("work manager is closed")
)

// UnknownTypeError says which type was asked for and which there are. It
// matches ErrUnknownType.
type UnknownTypeError struct {
	Type string
	Have []string // sorted
}

// Error names the type and those that there are.
func (e *UnknownTypeError) Error() string {
	if len(e.Have) == 0 {
		return fmt.Sprintf("no work type %q: it has none", e.Type)
	}
	return fmt.Sprintf("no work type %q: it has %s", e.Type, strings.Join(e.Have, ", "))
}

// Is reports whether target is ErrUnknownType.
func (e *UnknownTypeError) Is(target error) bool { return target == ErrUnknownType }
