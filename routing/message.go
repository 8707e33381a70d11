package routing

// Message is what two routers' cores say to each other over a link: *Advert,
// *Digest, *Ack or Hash. A message that was handed to Receive or taken from
// TakeSends is shared and must not be changed any more.
type Message interface{ message() }

func (*Advert) message() {}
func (*Digest) message() {}
func (*Ack) message()    {}
func (Hash) message()    {}

// Send is a message for a neighbour. Sends to one neighbour must reach it in
// the order in which TakeSends gave them.
type Send struct {
	To  NodeID
	Msg Message
}

// Stamp returns the advert's key and version.
func (a *Advert) Stamp() Stamp { return Stamp{Key: a.Key, Version: a.Version} }

// Compare orders keys by origin, then by fragment. It returns -1, 0 or 1.
func (k Key) Compare(o Key) int {
	switch {
	case k.Origin < o.Origin, k.Origin == o.Origin && k.Fragment < o.Fragment:
		return -1
	case k == o:
		return 0
	}
	return 1
}
