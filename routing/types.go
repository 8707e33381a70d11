package routing

import (
	"errors"
	"fmt"
	"math"
	"strconv"
)

// NodeID names a node in the mesh. A valid id is 1 to 255 bytes of ASCII
// letters, digits and . _ - @ : / (a client's ephemeral ids are
// "<id>/<random>"). See docs/protocol.md section 2.1.
type NodeID string

// MaxNodeIDLen is the longest node id in bytes.
const MaxNodeIDLen = 255

// ErrBadNodeID is returned by NodeID.Validate, wrapped with what is wrong.
var ErrBadNodeID = errors.New("invalid node id")

// Validate returns nil for a valid id, else an error that wraps ErrBadNodeID.
func (id NodeID) Validate() error {
	if id == "" {
		return fmt.Errorf("%w: it is empty", ErrBadNodeID)
	}
	if len(id) > MaxNodeIDLen {
		return fmt.Errorf("%w: %d bytes, at most %d are allowed", ErrBadNodeID, len(id), MaxNodeIDLen)
	}
	for i := range len(id) {
		switch c := id[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case c == '.', c == '_', c == '-', c == '@', c == ':', c == '/':
		default:
			return fmt.Errorf("%w %q: letters, digits and . _ - @ : / are allowed", ErrBadNodeID, string(id))
		}
	}
	return nil
}

// Cost is what it costs to use a link, in thousandths of the unit that people
// write in configuration files. It is a whole number so that sums are the same
// on every node and that no cost is negative or NaN.
type Cost uint32

const (
	// CostUnit is the Cost of a link whose configured cost is 1.0.
	CostUnit Cost = 1000
	// MaxCost is the highest cost of one link.
	MaxCost Cost = 1_000_000_000
)

// ErrBadCost is returned by ParseCost, wrapped with the value.
var ErrBadCost = errors.New("invalid cost")

// NewCost turns a cost as people write it (1.0 is a common link) into a Cost.
// The error wraps ErrBadCost when f is not a number, below 0.001 or above 1e6.
func NewCost(f float64) (Cost, error) {
	c := math.Round(f * float64(CostUnit))
	if math.IsNaN(c) || c < 1 || c > float64(MaxCost) {
		return 0, fmt.Errorf("%w %v: between 0.001 and 1000000 is allowed", ErrBadCost, f)
	}
	return Cost(c), nil
}

// Float64 returns the cost as people write it.
func (c Cost) Float64() float64 { return float64(c) / float64(CostUnit) }

// String formats the cost as people write it, without trailing zeros.
func (c Cost) String() string { return strconv.FormatFloat(c.Float64(), 'f', -1, 64) }

// Version orders what one origin says: a higher epoch wins, then a higher
// sequence number. The epoch grows by one each time the origin starts.
type Version struct {
	Epoch uint64
	Seq   uint64
}

// Compare returns -1, 0 or 1 as v is older than, the same as or newer than o.
func (v Version) Compare(o Version) int {
	switch {
	case v.Epoch < o.Epoch, v.Epoch == o.Epoch && v.Seq < o.Seq:
		return -1
	case v == o:
		return 0
	}
	return 1
}

// Key names one fragment of what an origin advertises.
type Key struct {
	Origin   NodeID
	Fragment uint16
}

// Advert is one fragment of what a router says of itself, flooded to every
// router. A newer Version of the same Key replaces an older one. Within an
// epoch fragments are independent of each other, and one that became empty is
// flooded empty; the first advert of a new epoch replaces all that the origin
// said before (docs/protocol-routing.md sections 5.1 and 5.2).
type Advert struct {
	Key
	Version
	Draining  bool         // fragment 0 only: avoid this node where there is another way
	Insecure  bool         // fragment 0 only: the node runs without identities
	Links     []Adjacency  // router neighbours
	Leaves    []Attachment // leaves whose home this node is
	Services  []Service    // what streams can be opened to
	WorkTypes []WorkType   // what jobs it can do

	// Raw is the signed form as it travels. The core never looks into it; it
	// is passed on as it came, so that a signature stays valid and keys
	// that this version does not know reach those that do.
	Raw []byte
}

// Entries is the number of entries that count towards MaxEntries.
func (a *Advert) Entries() int {
	return len(a.Links) + len(a.Leaves) + len(a.Services) + len(a.WorkTypes)
}

// MaxEntries is how many entries one fragment may carry.
const MaxEntries = 64

// Adjacency is one end's view of a link between two routers. It counts only
// when both ends advertise it.
type Adjacency struct {
	To   NodeID
	Cost Cost
}

// Attachment says that a leaf can be reached through the advert's origin.
type Attachment struct {
	Leaf NodeID
	Cost Cost
	// Sig is the leaf's signature over {home, home epoch}; empty without identities.
	Sig []byte
}

// Service is a name that streams can be opened to on the origin.
type Service struct {
	Name     string
	ConnType uint8 // Receptor's: 0 datagram, 1 stream, 2 stream with TLS
	Tags     map[string]string
}

// WorkType is a kind of job that the origin takes.
type WorkType struct {
	Name   string
	Secure bool // submits must be signed
}

// Digest is what one router has in its database, exchanged when a link comes
// up so that only what differs has to travel. A long digest is sent in parts.
type Digest struct {
	Entries []Stamp
	More    bool // further parts follow
}

// Stamp is the version of one fragment.
type Stamp struct {
	Key
	Version
}

// Ack tells a neighbour which adverts have arrived on this link.
type Ack struct {
	Entries []Stamp
}

// Hash is a digest of the whole database (docs/protocol-routing.md section
// 5.4.3), sent once a minute: two neighbours whose hashes differ exchange
// digests again.
type Hash uint64
