package worktypes

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"
)

// MaxSpecSize is the largest Spec in bytes, in its JSON form.
const MaxSpecSize = 64 << 10

// Spec is what a submitter asks for.
type Spec struct {
	// ID names the unit. The submitter picks it (NewID), so that a submit
	// can be repeated safely when its answer was lost.
	ID string
	// Type is the name of a work type of the node that is to do the job.
	Type string
	// Params are the type's parameters.
	Params map[string]string
	// Owner is the identity of the submitter. The side that knows it sets
	// it; what a peer says of itself is not believed.
	Owner string
	// Job is the id of the job in log lines on every node that it touches;
	// empty is ID.
	Job string
	// Node is the node that shall do the job; empty is this one. See Agent.
	Node string `json:",omitempty"`
	// Expires is when the job is not started any more; zero: never. It bounds the
	// start, not the job.
	Expires time.Time `json:",omitzero"`
	// TLSClient names the settings by which this node is to be sure of Node;
	// empty: its identity.
	TLSClient string `json:",omitempty"`
	// SignWork has the node that sends the job to Node sign it.
	SignWork bool `json:",omitempty"`
	// Token is a signature in Receptor's form that the submitter has given, for
	// Node.
	Token string `json:",omitempty"`
	// Once says that the submitter cannot come again for the unit: where the node ends
	// within its payload, the unit is Failed at the next start.
	Once bool `json:",omitempty"`
	// Grants are identities beside Owner that may see and end the unit.
	Grants []string `json:",omitempty"`
}

// Base is the identity that owns what an identity submits: a client's id owns
// "<id>" and "<id>/*", so that each of its runs, a node of its own, can take
// up what another one left.
func Base(identity string) string {
	base, _, _ := strings.Cut(identity, "/")
	return base
}

// Allows reports whether an identity may see and end the unit.
func (s Spec) Allows(identity string) bool {
	if Base(identity) == Base(s.Owner) {
		return true
	}
	for _, g := range s.Grants {
		if g == identity || g == Base(identity) {
			return true
		}
	}
	return false
}

// NewID returns a fresh unit id, a ULID.
func NewID() string { return ulid.Make().String() }

// ValidateID returns nil if id is a unit id, a ULID in its canonical form, else
// an error that wraps ErrBadSpec. A valid id is a file name and no path.
func ValidateID(id string) error {
	u, err := ulid.ParseStrict(id)
	if err != nil || u.String() != id {
		return fmt.Errorf("%w: unit id %.64q is no ULID (26 characters of 0-9 and A-Z without I, L, O, U)", ErrBadSpec, id)
	}
	return nil
}

// Validate returns nil or an error that wraps ErrBadSpec and names the field.
// It does not know whether the type exists or takes the params.
func (s Spec) Validate() error {
	if err := ValidateID(s.ID); err != nil {
		return err
	}
	if s.Type == "" {
		return fmt.Errorf("%w: unit %s names no work type", ErrBadSpec, s.ID)
	}
	b, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("%w: unit %s: %v", ErrBadSpec, s.ID, err)
	}
	if len(b) > MaxSpecSize {
		return fmt.Errorf("%w: unit %s has a spec of %d bytes, at most %d are allowed", ErrBadSpec, s.ID, len(b), MaxSpecSize)
	}
	return nil
}

// equal reports whether a repeated submit asks for the same. Job is left out, which
// is a label, and what is of that submit: how long it waits, and how it is signed.
func (s Spec) equal(o Spec) bool {
	return s.ID == o.ID && s.Type == o.Type && Base(s.Owner) == Base(o.Owner) && s.Node == o.Node && maps.Equal(s.Params, o.Params) &&
		slices.Equal(s.Grants, o.Grants)
}
