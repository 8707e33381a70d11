package routing

import (
	"errors"
	"fmt"
	"unicode/utf8"
)

// Limits of what is advertised (docs/protocol-routing.md section 5.8).
const (
	// MaxFragments is how many fragments one origin may have.
	MaxFragments = 1024
	// MaxStamps is how many entries one Digest or Ack may carry.
	MaxStamps = 1000
	// MaxNameLen is the longest name of a service or a work type in bytes.
	MaxNameLen = 255
	// MaxTags is how many tags a service may have.
	MaxTags = 32
	// MaxTagLen is the longest key or value of a tag in bytes.
	MaxTagLen = 256
	// MaxSigLen is the longest signature of an Attachment in bytes.
	MaxSigLen = 1024
	// MaxRaw is the longest signed form of an advert in bytes.
	MaxRaw = 64 << 10

	// maxMessage bounds the encoded size of a Digest, an Ack or an advert
	// that this node makes, below the 64 KiB of a frame with room for a
	// signature.
	maxMessage = 48 << 10
)

var (
	// ErrLimit is wrapped by errors about too many or too long parts.
	ErrLimit = errors.New("limit exceeded")
	// ErrBadEntry is wrapped by errors about an entry that makes no sense,
	// as a link of a node to itself.
	ErrBadEntry = errors.New("invalid entry")
	// ErrBadVersion is wrapped by errors about a version that no node issues.
	ErrBadVersion = errors.New("invalid version")
	// ErrBadDigest is wrapped by errors about a digest out of order.
	ErrBadDigest = errors.New("invalid digest")
)

// FaultError is what Receive returns when a neighbour sent what no correct
// router sends. The link to Peer is to be closed; the core is unharmed. It
// wraps ErrLimit, ErrBadEntry, ErrBadVersion, ErrBadDigest, ErrBadNodeID or
// ErrBadCost.
type FaultError struct {
	Peer NodeID
	Err  error
}

// Error names the peer and what it sent.
func (e *FaultError) Error() string {
	return fmt.Sprintf("peer %s sent a faulty routing message: %v", e.Peer, e.Err)
}

// Unwrap returns what is wrong with the message.
func (e *FaultError) Unwrap() error { return e.Err }

// Validate returns nil when the advert keeps the limits and every entry makes
// sense. Its errors wrap the same ones as FaultError.
func (a *Advert) Validate() error {
	if err := a.Stamp().validate(); err != nil {
		return err
	}
	if n := a.Entries(); n > MaxEntries {
		return fmt.Errorf("advert of %s: %w: %d entries, at most %d are allowed", a.Origin, ErrLimit, n, MaxEntries)
	}
	if len(a.Raw) > MaxRaw {
		return fmt.Errorf("advert of %s: %w: %d bytes, at most %d are allowed", a.Origin, ErrLimit, len(a.Raw), MaxRaw)
	}
	if err := a.validateEntries(); err != nil {
		return fmt.Errorf("advert of %s, fragment %d: %w", a.Origin, a.Fragment, err)
	}
	return nil
}

func (a *Advert) validateEntries() error {
	for _, l := range a.Links {
		if err := validateEnd("link", a.Origin, l.To, l.Cost); err != nil {
			return err
		}
	}
	for _, l := range a.Leaves {
		if err := l.validate(a.Origin); err != nil {
			return err
		}
	}
	for _, s := range a.Services {
		if err := s.Validate(); err != nil {
			return err
		}
	}
	for _, w := range a.WorkTypes {
		if err := w.Validate(); err != nil {
			return err
		}
	}
	return nil
}

func validateEnd(what string, origin, to NodeID, cost Cost) error {
	if err := to.Validate(); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if to == origin {
		return fmt.Errorf("%w: %s of %s to itself", ErrBadEntry, what, origin)
	}
	if cost < 1 || cost > MaxCost {
		return fmt.Errorf("%s to %s: %w %d thousandths: 1 to %d are allowed", what, to, ErrBadCost, cost, MaxCost)
	}
	return nil
}

func (l Attachment) validate(home NodeID) error {
	if len(l.Sig) > MaxSigLen {
		return fmt.Errorf("leaf %s: %w: a signature of %d bytes, at most %d are allowed", l.Leaf, ErrLimit, len(l.Sig), MaxSigLen)
	}
	return validateEnd("leaf", home, l.Leaf, l.Cost)
}

// Validate returns nil when the service can be advertised, else an error that
// wraps ErrLimit or ErrBadEntry.
func (s Service) Validate() error {
	if err := validateName("service", s.Name); err != nil {
		return err
	}
	if len(s.Tags) > MaxTags {
		return fmt.Errorf("service %q: %w: %d tags, at most %d are allowed", s.Name, ErrLimit, len(s.Tags), MaxTags)
	}
	for k, v := range s.Tags {
		if len(k) > MaxTagLen || len(v) > MaxTagLen {
			return fmt.Errorf("service %q: %w: a tag longer than %d bytes", s.Name, ErrLimit, MaxTagLen)
		}
	}
	return nil
}

// Validate returns nil when the work type can be advertised, else an error
// that wraps ErrLimit or ErrBadEntry.
func (w WorkType) Validate() error { return validateName("work type", w.Name) }

func validateName(what, name string) error {
	switch {
	case name == "" || !utf8.ValidString(name):
		return fmt.Errorf("%w: %s name %q", ErrBadEntry, what, name)
	case len(name) > MaxNameLen:
		return fmt.Errorf("%w: a %s name of %d bytes, at most %d are allowed", ErrLimit, what, len(name), MaxNameLen)
	}
	return nil
}

func (s Stamp) validate() error {
	if err := s.Origin.Validate(); err != nil {
		return fmt.Errorf("origin: %w", err)
	}
	if s.Fragment >= MaxFragments {
		return fmt.Errorf("origin %s: %w: fragment %d, the last allowed is %d", s.Origin, ErrLimit, s.Fragment, MaxFragments-1)
	}
	if s.Epoch == 0 || s.Seq == 0 {
		return fmt.Errorf("origin %s: %w: epoch %d sequence %d, both begin at 1", s.Origin, ErrBadVersion, s.Epoch, s.Seq)
	}
	return nil
}

func validateStamps(what string, entries []Stamp) error {
	if len(entries) > MaxStamps {
		return fmt.Errorf("%s: %w: %d entries, at most %d are allowed", what, ErrLimit, len(entries), MaxStamps)
	}
	for _, s := range entries {
		if err := s.validate(); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
	return nil
}

// Rough sizes, from above, of what is encoded: they decide how much goes into
// one message and how much memory the database takes.
const (
	stampSize  = 40
	entrySize  = 24
	advertSize = 256
)

func (s Stamp) size() int { return stampSize + len(s.Origin) }

func (l Attachment) size() int { return entrySize + len(l.Leaf) + len(l.Sig) }

func (s Service) size() int {
	n := entrySize + len(s.Name)
	for k, v := range s.Tags {
		n += 16 + len(k) + len(v)
	}
	return n
}

// size is about how many bytes of memory an advert takes.
func (a *Advert) size() int {
	n := advertSize + len(a.Origin) + len(a.Raw)
	for _, l := range a.Links {
		n += entrySize + len(l.To)
	}
	for _, l := range a.Leaves {
		n += entrySize + l.size()
	}
	for _, s := range a.Services {
		n += entrySize + s.size()
	}
	for _, w := range a.WorkTypes {
		n += entrySize + len(w.Name)
	}
	return n
}
