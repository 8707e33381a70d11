package identity

import (
	"errors"
	"net"
	"sync"
	"time"
)

const (
	// maxJoins is how many nodes may be about to show a token at a time, and
	// joinsOfHost of these from one host.
	maxJoins, joinsOfHost = 64, 16
	// tokenTime is how long a node may take to show its token.
	tokenTime = 3 * time.Second
	// maxPartings is how many at a time are told that they have lost their place,
	// for at most partingTime each.
	maxPartings = 16
	partingTime = time.Second
)

// errCrowded is what a node hears that had to make room for another one.
var errCrowded = errors.New("too many nodes ask to join at once: try again")

// joinPlaces bounds the connections that have not shown a token yet. They cost
// nothing to who makes them, so whoever comes gets a place, and takes it from the
// oldest one of his own host if that has too many, else of the host that has the
// most: who holds places crowds out himself.
type joinPlaces struct {
	mu    sync.Mutex
	count int
	hosts map[string][]*joinPlace // the oldest first
}

// joinPlace is a connection that has not shown a token yet.
type joinPlace struct {
	host string
	out  func() // makes the connection's reading end; called once at most
	lost bool   // to a later one; joinPlaces.mu guards it
}

// enter gives a connection from addr a place.
func (s *joinPlaces) enter(addr net.Addr, out func()) *joinPlace {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := &joinPlace{host: hostOf(addr), out: out}
	switch own := s.hosts[p.host]; {
	case len(own) >= joinsOfHost:
		s.oust(own[0])
	case s.count >= maxJoins:
		s.oust(s.oldest())
	}
	s.hosts[p.host] = append(s.hosts[p.host], p)
	s.count++
	return p
}

// leave gives a place back, and tells whether it was lost before.
func (s *joinPlaces) leave(p *joinPlace) (lost bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop(p)
	return p.lost
}

// oust takes p's place away. The caller holds mu.
func (s *joinPlaces) oust(p *joinPlace) {
	s.drop(p)
	p.lost = true
	p.out()
}

// drop takes p out if it is there. The caller holds mu.
func (s *joinPlaces) drop(p *joinPlace) {
	all := s.hosts[p.host]
	for i := range all {
		if all[i] == p {
			all = append(all[:i:i], all[i+1:]...)
			s.count--
			break
		}
	}
	if s.hosts[p.host] = all; len(all) == 0 {
		delete(s.hosts, p.host)
	}
}

// oldest returns the first of the host that has the most. The caller holds mu.
func (s *joinPlaces) oldest() *joinPlace {
	var most []*joinPlace
	for _, all := range s.hosts {
		if len(all) > len(most) {
			most = all
		}
	}
	return most[0]
}

// hostOf is the part of an address that somebody cannot choose at will: the
// address of IPv4, the network of 64 bits of IPv6.
func hostOf(addr net.Addr) string {
	text := addr.String()
	if host, _, err := net.SplitHostPort(text); err == nil {
		text = host
	}
	ip := net.ParseIP(text)
	if ip == nil || ip.To4() != nil {
		return text
	}
	return ip.Mask(net.CIDRMask(64, 128)).String()
}
