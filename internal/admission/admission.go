// Package admission bounds the connections whose other end is not known yet.
// They cost nothing to who makes them, so a bound alone would let one host keep
// all others out.
package admission

import (
	"net"
	"sync"
)

// share is the part of the free places that Ask gives one host at most.
const share = 4

// Places are what connections that are not known yet have to have. Its methods
// may be called from several goroutines.
type Places struct {
	limit, ofHost int

	mu    sync.Mutex
	count int
	hosts map[string][]*Place // the oldest first
}

// Place is one connection's.
type Place struct {
	host string
	out  func()
	lost bool // to a later one; Places.mu guards it
}

// New returns so many places, of which one host may have at most ofHost.
func New(limit, ofHost int) *Places {
	return &Places{limit: limit, ofHost: ofHost, hosts: map[string][]*Place{}}
}

// Enter gives a connection from addr a place, always. Where there is none left it
// is the oldest one's of his own host if that has too many, else of the host that
// has the most: who holds places crowds out himself, and not others. The one that
// loses its place has its out called, which must make an end of the connection,
// and neither wait nor call Places.
func (p *Places) Enter(addr net.Addr, out func()) *Place {
	p.mu.Lock()
	defer p.mu.Unlock()
	host := hostOf(addr)
	switch own := p.hosts[host]; {
	case len(own) >= p.ofHost:
		p.oust(own[0])
	case p.count >= p.limit:
		p.oust(p.oldest())
	}
	return p.add(host, out)
}

// Ask gives a connection from addr a place, or nil where its host has a quarter of
// what the others leave: one host cannot take them all, nor can a dozen. It is for
// connections that cannot be ended for a later one.
func (p *Places) Ask(addr net.Addr) *Place {
	p.mu.Lock()
	defer p.mu.Unlock()
	host := hostOf(addr)
	own := len(p.hosts[host])
	if free := p.limit - p.count + own; own >= p.ofHost || own >= (free+share-1)/share {
		return nil
	}
	return p.add(host, nil)
}

// Leave gives a place back: the peer is known, or gone. It tells whether the place
// was lost before. To leave twice does no harm.
func (p *Places) Leave(place *Place) (lost bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drop(place)
	return place.lost
}

// Taken is how many places are taken.
func (p *Places) Taken() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.count
}

// The methods below are called with mu held.

func (p *Places) add(host string, out func()) *Place {
	place := &Place{host: host, out: out}
	p.hosts[host] = append(p.hosts[host], place)
	p.count++
	return place
}

func (p *Places) oust(place *Place) {
	p.drop(place)
	place.lost = true
	place.out()
}

// drop takes a place out if it is there.
func (p *Places) drop(place *Place) {
	all := p.hosts[place.host]
	for i := range all {
		if all[i] == place {
			all[i] = nil
			all = append(all[:i:i], all[i+1:]...)
			p.count--
			break
		}
	}
	if p.hosts[place.host] = all; len(all) == 0 {
		delete(p.hosts, place.host)
	}
}

// oldest returns the first of the host that has the most.
func (p *Places) oldest() *Place {
	var most []*Place
	for _, all := range p.hosts {
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
