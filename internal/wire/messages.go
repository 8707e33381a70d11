package wire

import "github.com/ranvier-mesh/ranvier/routing"

// Role is what a node is on a link.
type Role uint8

const (
	// RoleRouter floods, forwards and is looked up.
	RoleRouter Role = 1
	// RoleLeaf is reachable by id through its homes and never forwards.
	RoleLeaf Role = 2
	// RoleEphemeral opens streams and is told to nobody.
	RoleEphemeral Role = 3
)

// Hello is the first message of each end on the control stream.
type Hello struct {
	Protocol uint8          `cbor:"1,keyasint"`           // 1
	ID       routing.NodeID `cbor:"2,keyasint"`           //
	Epoch    uint64         `cbor:"3,keyasint"`           //
	Nonce    []byte         `cbor:"4,keyasint"`           // 16 random bytes of this run of the process
	Role     Role           `cbor:"5,keyasint"`           //
	Cost     routing.Cost   `cbor:"6,keyasint,omitempty"` // 0: no wish; the link costs the higher wish
	Features []string       `cbor:"7,keyasint,omitempty"` //
	Addrs    []string       `cbor:"8,keyasint,omitempty"` // further addresses of this node
	Software string         `cbor:"9,keyasint,omitempty"` // for people: "ranvier 0.1.0"
	Insecure bool           `cbor:"10,keyasint,omitempty"`
}

// Cert introduces the key that an origin's adverts are signed with, once per
// key and link, before the first of them.
type Cert struct {
	Origin routing.NodeID `cbor:"1,keyasint"`
	KeyID  []byte         `cbor:"2,keyasint"`
	Chain  [][]byte       `cbor:"3,keyasint"` // DER, the node's first
}

// Envelope carries an advert and the signature over exactly its bytes. An
// empty signature is unsigned: accepted only where there are no identities.
type Envelope struct {
	Body  []byte `cbor:"1,keyasint"`
	Sig   []byte `cbor:"2,keyasint,omitempty"`
	KeyID []byte `cbor:"3,keyasint,omitempty"`
}

// Attach is sent by a leaf to a home after Hello, and again when the home's
// epoch grows: it allows the home to say that the leaf is attached there.
type Attach struct {
	Leaf      routing.NodeID `cbor:"1,keyasint"`
	Home      routing.NodeID `cbor:"2,keyasint"`
	HomeEpoch uint64         `cbor:"3,keyasint"`
	Sig       []byte         `cbor:"4,keyasint,omitempty"`
}

// Heartbeat says that the sender lives; once a minute with its database's hash.
type Heartbeat struct {
	Hash    routing.Hash `cbor:"1,keyasint,omitempty"`
	HasHash bool         `cbor:"2,keyasint,omitempty"`
}

// GoAway is the last message on a link that its sender closes on purpose.
type GoAway struct {
	Code   Code           `cbor:"1,keyasint"`
	Node   routing.NodeID `cbor:"2,keyasint"`
	Reason string         `cbor:"3,keyasint,omitempty"`
}

// Open asks for a stream to a service of a node, hop by hop.
type Open struct {
	To       routing.NodeID   `cbor:"1,keyasint"`
	From     routing.NodeID   `cbor:"2,keyasint"`
	Service  string           `cbor:"3,keyasint"`           // "" is the node itself: it answers and ends (ping)
	Path     []routing.NodeID `cbor:"4,keyasint,omitempty"` // nodes passed so far, the originator first
	Avoid    []routing.NodeID `cbor:"5,keyasint,omitempty"`
	Timeout  uint32           `cbor:"6,keyasint"` // milliseconds that remain
	Attempts uint8            `cbor:"7,keyasint"` // how many more next hops may be tried, all relays together
	Job      string           `cbor:"8,keyasint,omitempty"`
}

// Answer accepts (Code 0) or refuses an Open. Each relay puts itself in front
// of Path on the way back.
type Answer struct {
	Code     Code             `cbor:"1,keyasint"`
	Node     routing.NodeID   `cbor:"2,keyasint"` // who answered: the target, or who refused
	Reason   string           `cbor:"3,keyasint,omitempty"`
	Path     []Hop            `cbor:"4,keyasint,omitempty"`
	Known    []routing.NodeID `cbor:"5,keyasint,omitempty"` // CodeNoRoute: some that are known there
	Attempts uint8            `cbor:"6,keyasint,omitempty"` // a refusal: how many attempts are left
}

// Hop is one node of an answered path, and how long it took from there to the
// end and back.
type Hop struct {
	_      struct{} `cbor:",toarray"`
	Node   routing.NodeID
	Micros uint64
}

// Fin says that the sender will send no more data.
type Fin struct {
	Offset uint64 `cbor:"1,keyasint"`           // how many bytes it sent in all
	Closed bool   `cbor:"2,keyasint,omitempty"` // it will not read any more either
}

// Reset ends a stream at once.
type Reset struct {
	Code   Code           `cbor:"1,keyasint"`
	Node   routing.NodeID `cbor:"2,keyasint,omitempty"`
	Reason string         `cbor:"3,keyasint,omitempty"`
}
