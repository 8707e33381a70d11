package wire

import "fmt"

// Code says why something was refused or ended. Programs act on the code;
// the reason beside it is for people. A code that is not known is a refusal
// like CodeInternal. See docs/protocol.md section 6.3.
type Code uint16

// The codes. Their numbers never change their meaning.
const (
	CodeOK           Code = 0  // no refusal
	CodeMalformed    Code = 1  // the bytes are no message of this protocol
	CodeVersion      Code = 2  // no common protocol version
	CodeDuplicateID  Code = 3  // another node has this id
	CodeForbidden    Code = 4  // a policy, firewall rule or peer list refuses
	CodeNoRoute      Code = 5  // the target is not known or not reachable
	CodeLinkDown     Code = 6  // the next hop's link broke
	CodeBusy         Code = 7  // a limit is reached; try another way or later
	CodeDraining     Code = 8  // the node is about to go
	CodeLoop         Code = 9  // the open came back to a node on its path
	CodeTimeout      Code = 10 // the open's time is over
	CodeNoService    Code = 11 // the target does not have the service
	CodeShutdown     Code = 12 // the node is stopping
	CodeSuperseded   Code = 13 // a newer link of the same node takes over
	CodeNotRouter    Code = 14 // a leaf or ephemeral node was asked to relay
	CodeBrokenStream Code = 15 // the way of a stream broke
	CodeInternal     Code = 16 // a fault of the node that says it; its log has more
)

var codeNames = [...]string{
	"ok", "malformed message", "protocol version", "duplicate node id", "forbidden",
	"no route", "link down", "busy", "draining", "routing loop", "timed out",
	"no such service", "shutting down", "superseded", "not a router", "stream broken",
	"internal error",
}

// String returns a few words for people.
func (c Code) String() string {
	if int(c) < len(codeNames) {
		return codeNames[c]
	}
	return fmt.Sprintf("code %d", uint16(c))
}
