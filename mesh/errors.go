package mesh

import (
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/ranvier-mesh/ranvier/internal/wire"
	"github.com/ranvier-mesh/ranvier/routing"
)

// Code says why a node refused; see the constants of docs/protocol.md section 6.3.
type Code = wire.Code

// Codes that callers tell apart.
const (
	NoRoute   = wire.CodeNoRoute
	NoService = wire.CodeNoService
	Forbidden = wire.CodeForbidden
	Busy      = wire.CodeBusy
	TimedOut  = wire.CodeTimeout
	LinkDown  = wire.CodeLinkDown
)

// RefusedError is a node's refusal of a stream or of a link.
type RefusedError struct {
	Code   Code
	Node   routing.NodeID   // who refused
	Reason string           // for people
	Path   []routing.NodeID // nodes that the request passed, this one first
	Known  []routing.NodeID // NoRoute: some nodes that Node can reach

	what string         // "stream to c", "link to b"
	peer routing.NodeID // of a link that was refused here: its other end
}

// Error names who refused, why, what is known there, and the way.
func (e *RefusedError) Error() string {
	var b strings.Builder
	if e.what != "" {
		fmt.Fprintf(&b, "%s: ", e.what)
	}
	if e.Code == wire.CodeShutdown || e.Code == wire.CodeSuperseded {
		fmt.Fprintf(&b, "node %s said goodbye: %s", e.Node, e.Why())
	} else {
		fmt.Fprintf(&b, "node %s refused: %s", e.Node, e.Why())
	}
	if len(e.Path) > 1 {
		fmt.Fprintf(&b, " (via %s)", joinIDs(e.Path, " → "))
	}
	return b.String()
}

// Why is the reason alone, with the nodes that are known where that helps.
func (e *RefusedError) Why() string {
	why := e.Reason
	if why == "" {
		why = e.Code.String()
	}
	if len(e.Known) > 0 {
		why += ": known are " + joinIDs(e.Known, ", ")
	}
	return why
}

// PeerError tells why a peer could not be reached or did not take the link.
type PeerError struct {
	Address string // as configured
	Err     error
}

// Error names the address and the cause.
func (e *PeerError) Error() string {
	return fmt.Sprintf("cannot reach peer %s: %v", strings.TrimPrefix(e.Address, "tcp://"), e.Err)
}

// Unwrap returns the cause.
func (e *PeerError) Unwrap() error { return e.Err }

// ListenError tells why a listener's address could not be bound.
type ListenError struct {
	Address string // as configured
	Err     error
}

// Error names the address; the cause repeats it where it is the system's.
func (e *ListenError) Error() string {
	err := e.Err
	if op := (*net.OpError)(nil); errors.As(err, &op) {
		err = op.Err
	}
	return fmt.Sprintf("cannot listen on %s: %v", e.Address, err)
}

// Unwrap returns the cause.
func (e *ListenError) Unwrap() error { return e.Err }

func joinIDs(ids []routing.NodeID, sep string) string {
	var b strings.Builder
	for i, id := range ids {
		if i > 0 {
			b.WriteString(sep)
		}
		b.WriteString(string(id))
	}
	return b.String()
}
