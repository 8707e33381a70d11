package wire

import (
	"fmt"

	"github.com/ranvier-mesh/ranvier/routing"
)

// digestBody is one part of a digest (docs/protocol.md section 3.9).
//
//	key  field    type     limits
//	 1   entries  [stamp]  at most 1000
//	 2   more     bool     further parts follow
type digestBody struct {
	Entries []stamp `cbor:"1,keyasint,omitempty"`
	More    bool    `cbor:"2,keyasint,omitempty"`
}

// stamp is the version of one fragment: [text origin, uint fragment (16 bits),
// uint epoch (64 bits), uint sequence (64 bits)].
type stamp struct {
	_        struct{} `cbor:",toarray"`
	Origin   routing.NodeID
	Fragment uint16
	Epoch    uint64
	Seq      uint64
}

const (
	// maxPart is how many bytes of entries a part of a digest or ack may
	// have, so that what is urgent has not to wait behind a long one.
	maxPart = 32 << 10
	// stampOverhead is the most that a stamp needs beside its origin: the
	// heads of array and text, 16 bits, and twice 64 bits.
	stampOverhead = 1 + 3 + 3 + 9 + 9
)

// cutPart returns how many of the entries go into the next part: as many as
// surely fit, and no more than the peer's core takes.
func cutPart(entries []routing.Stamp) int {
	size := 0
	for i := range entries {
		size += stampOverhead + len(entries[i].Origin)
		if i == routing.MaxStamps || size > maxPart {
			return i
		}
	}
	return len(entries)
}

// AppendDigest appends d in as many frames as it needs: one if it is short or
// empty, else parts of which all but the last have More set, and the last has
// d's. The error names an entry that breaks a rule.
func AppendDigest(dst []byte, d *routing.Digest) ([]byte, error) {
	rest, out := d.Entries, dst
	for {
		n := cutPart(rest)
		w := digestBody{Entries: convert(rest[:n], toStamp), More: d.More || n < len(rest)}
		var err error
		if out, err = appendMessage(out, TypeDigest, w); err != nil {
			return dst, err
		}
		if rest = rest[n:]; len(rest) == 0 {
			return out, nil
		}
	}
}

// ParseDigest decodes the body of a Digest: one part. Errors wrap ErrMalformed.
func ParseDigest(body []byte) (*routing.Digest, error) {
	w, err := parseMessage[digestBody](TypeDigest, body)
	if err != nil {
		return nil, err
	}
	return &routing.Digest{Entries: convert(w.Entries, fromStamp), More: w.More}, nil
}

func (w digestBody) check() error { return checkStamps(w.Entries) }

func checkStamps(entries []stamp) error {
	if err := checkLen("entries", "stamps", len(entries), 0, routing.MaxStamps); err != nil {
		return err
	}
	for i := range entries {
		if err := entries[i].Origin.Validate(); err != nil {
			return fmt.Errorf("entries[%d]: origin: %w", i, err)
		}
	}
	return nil
}

func toStamp(s routing.Stamp) stamp {
	return stamp{Origin: s.Origin, Fragment: s.Fragment, Epoch: s.Epoch, Seq: s.Seq}
}

func fromStamp(s stamp) routing.Stamp {
	return routing.Stamp{
		Key:     routing.Key{Origin: s.Origin, Fragment: s.Fragment},
		Version: routing.Version{Epoch: s.Epoch, Seq: s.Seq},
	}
}
