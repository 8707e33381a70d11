package mesh

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"

	"golang.org/x/time/rate"

	"github.com/ranvier-mesh/ranvier/mesh/link"
)

const (
	// maxHandshakes is how many peers of one listener may be unknown at a time.
	maxHandshakes = 256
	// Of what strangers do, so many lines a second go into the log; and so many
	// about the streams that pass.
	strangerLines, strangerBurst = 5, 50
	passingLines, passingBurst   = 20, 500
)

// admission bounds the peers of a listener that are not known yet. Where there
// is no more room, the oldest one of the host that has the most has to go: who
// holds handshakes half done crowds out himself, and not others.
type admission struct {
	limit int

	mu    sync.Mutex
	count int
	hosts map[string][]*entrant // the oldest first
}

// entrant is a link whose other end is not known yet.
type entrant struct {
	link.Link
	host string
}

func newAdmission(limit int) *admission {
	return &admission{limit: limit, hosts: map[string][]*entrant{}}
}

// enter takes a link in, and returns the one that has to be closed for it, or
// nil.
func (a *admission) enter(k link.Link) (e, victim *entrant) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.count >= a.limit {
		victim = a.oldest()
		a.drop(victim)
	}
	e = &entrant{k, hostOf(k.RemoteAddr())}
	a.hosts[e.host] = append(a.hosts[e.host], e)
	a.count++
	return e, victim
}

// leave is called when the peer is known or gone.
func (a *admission) leave(e *entrant) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.drop(e)
}

// drop takes e out if it is there. The caller holds mu.
func (a *admission) drop(e *entrant) {
	all := a.hosts[e.host]
	for i := range all {
		if all[i] == e {
			all[i] = nil
			all = append(all[:i], all[i+1:]...)
			a.count--
			break
		}
	}
	if a.hosts[e.host] = all; len(all) == 0 {
		delete(a.hosts, e.host)
	}
}

// oldest returns the first of the host that has the most. The caller holds mu.
func (a *admission) oldest() *entrant {
	var most []*entrant
	for _, all := range a.hosts {
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

// bounded is a log of what others do: they choose how much that is, so the lines
// are bounded.
type bounded struct {
	log     *slog.Logger
	limit   *rate.Limiter
	skipped atomic.Uint64
}

func newBounded(log *slog.Logger, lines rate.Limit, burst int) *bounded {
	return &bounded{log: log, limit: rate.NewLimiter(lines, burst)}
}

func (s *bounded) warn(msg string, args ...any) { s.say(slog.LevelWarn, msg, args) }
func (s *bounded) info(msg string, args ...any) { s.say(slog.LevelInfo, msg, args) }

func (s *bounded) say(level slog.Level, msg string, args []any) {
	if !s.limit.Allow() {
		s.skipped.Add(1)
		return
	}
	if n := s.skipped.Swap(0); n > 0 {
		args = append(args, "lines left out", n)
	}
	s.log.Log(context.Background(), level, msg, args...)
}
