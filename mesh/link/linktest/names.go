package linktest

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"sync"

	"golang.org/x/net/dns/dnsmessage"
)

// Names is a name server of its own. Its methods may be called from several
// goroutines.
type Names struct {
	mu    sync.Mutex
	names map[string][]netip.Addr
}

// Set gives a name its addresses, instead of those it had.
func (n *Names) Set(name string, addrs ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.names == nil {
		n.names = map[string][]netip.Addr{}
	}
	var ips []netip.Addr
	for _, a := range addrs {
		ips = append(ips, netip.MustParseAddr(a))
	}
	n.names[name+"."] = ips
}

// Resolver returns a resolver that knows the names, and no others.
func (n *Names) Resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		near, far := net.Pipe()
		go n.serve(far)
		return near, nil
	}}
}

// serve answers queries in the framing of DNS over TCP.
func (n *Names) serve(conn net.Conn) {
	defer conn.Close()
	for {
		var size [2]byte
		if _, err := io.ReadFull(conn, size[:]); err != nil {
			return
		}
		query := make([]byte, binary.BigEndian.Uint16(size[:]))
		if _, err := io.ReadFull(conn, query); err != nil {
			return
		}
		answer, err := n.answer(query)
		if err != nil {
			return
		}
		if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...)); err != nil {
			return
		}
	}
}

func (n *Names) answer(query []byte) ([]byte, error) {
	var p dnsmessage.Parser
	head, err := p.Start(query)
	if err != nil {
		return nil, err
	}
	q, err := p.Question()
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	ips, known := n.names[q.Name.String()]
	n.mu.Unlock()
	head.Response, head.Authoritative = true, true
	if !known {
		head.RCode = dnsmessage.RCodeNameError
	}
	m := dnsmessage.Message{Header: head, Questions: []dnsmessage.Question{q}}
	for _, ip := range ips {
		r := dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: dnsmessage.ClassINET}}
		switch {
		case q.Type == dnsmessage.TypeA && ip.Is4():
			r.Body = &dnsmessage.AResource{A: ip.As4()}
		case q.Type == dnsmessage.TypeAAAA && ip.Is6():
			r.Body = &dnsmessage.AAAAResource{AAAA: ip.As16()}
		default:
			continue
		}
		m.Answers = append(m.Answers, r)
	}
	return m.Pack()
}
