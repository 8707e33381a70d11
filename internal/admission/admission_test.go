package admission

import (
	"fmt"
	"net"
	"strings"
	"testing"
)

func from(host string, n int) net.Addr {
	return &net.TCPAddr{IP: net.ParseIP(host), Port: 1000 + n}
}

func TestEnter(t *testing.T) {
	t.Parallel()
	const limit, ofHost = 64, 16
	p := New(limit, ofHost)
	var lost []string
	enter := func(host string, n int) *Place {
		name := fmt.Sprintf("%s/%d", host, n)
		return p.Enter(from(host, n), func() { lost = append(lost, name) })
	}
	first := enter("10.0.0.1", 0)
	for i := range ofHost {
		enter("10.0.0.1", i+1)
	}
	if strings.Join(lost, " ") != "10.0.0.1/0" || !p.Leave(first) {
		t.Errorf("lost their places: %v", lost)
	}
	for i := range ofHost {
		for h := range 3 {
			enter(fmt.Sprintf("10.0.1.%d", h), i)
		}
	}
	lost = nil
	honest := enter("10.0.9.9", 0)
	if len(lost) != 1 || p.Taken() != limit {
		t.Errorf("lost their places: %v, %d are there", lost, p.Taken())
	}
	if p.Leave(honest) || p.Taken() != limit-1 {
		t.Errorf("an honest one has lost its place; %d are left", p.Taken())
	}
	if p.Leave(honest); p.Taken() != limit-1 {
		t.Error("a place was given back twice")
	}
}

func TestAsk(t *testing.T) {
	t.Parallel()
	const limit = 256
	p := New(limit, limit)
	ask := func(host string) (got []*Place) {
		for i := range 2 * limit {
			if place := p.Ask(from(host, i)); place != nil {
				got = append(got, place)
			}
		}
		return got
	}
	first := ask("10.0.0.1")
	if len(first) != limit/share {
		t.Errorf("one host has %d places of %d", len(first), limit)
	}
	for h := range 12 {
		ask(fmt.Sprintf("10.0.1.%d", h))
	}
	// One network of 64 bits is one host.
	if a, b := ask("2001:db8::1"), ask("2001:db8::2"); len(a) == 0 || len(b) != 0 {
		t.Errorf("%d and %d places for one network", len(a), len(b))
	}
	if len(ask("10.0.9.9")) == 0 {
		t.Error("fourteen hosts keep another one out")
	}
	for h := range limit {
		ask(fmt.Sprintf("10.0.2.%d", h))
	}
	if p.Taken() != limit {
		t.Errorf("%d places are taken, %d are there", p.Taken(), limit)
	}
	if p.Ask(from("10.0.9.10", 1)) != nil {
		t.Error("there is a place beyond all")
	}
	for _, place := range first {
		p.Leave(place)
	}
	if p.Ask(from("10.0.9.10", 1)) == nil {
		t.Error("places that were left are not given again")
	}
}
