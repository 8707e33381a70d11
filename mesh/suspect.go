package mesh

import (
	"crypto/tls"
	"errors"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ranvier-mesh/ranvier/mesh/session"
	"github.com/ranvier-mesh/ranvier/routing"
)

const (
	// suspectTime is for how long ways around a node are preferred after it was
	// suspected the last time.
	suspectTime = 10 * time.Minute
	// maxSuspects bounds what is remembered: others choose the names.
	maxSuspects = 64
)

// Suspect is a node that seems to drop or change what it should pass on.
type Suspect struct {
	Node  routing.NodeID
	Times int       // it was suspected since First, all within suspectTime of each other
	First time.Time // of these
	Last  time.Time
	Why   string // the last time, for people
}

// suspects are the nodes that this node prefers ways around. Nothing depends on
// them but the order in which ways are tried: who is suspected without cause
// loses some traffic and nothing else.
type suspects struct {
	log *slog.Logger

	mu  sync.Mutex
	all map[routing.NodeID]*Suspect
}

func newSuspects(log *slog.Logger) *suspects {
	return &suspects{log: log, all: map[routing.NodeID]*Suspect{}}
}

// add suspects each of several nodes, of which one has to be at fault.
func (s *suspects) add(now time.Time, nodes []routing.NodeID, why string) {
	if len(nodes) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire(now)
	news := false
	for _, id := range nodes {
		known := s.all[id]
		if known == nil {
			news = true
			if len(s.all) >= maxSuspects {
				s.forgetOldest()
			}
			known = &Suspect{Node: id, First: now}
			s.all[id] = known
		}
		known.Times, known.Last, known.Why = known.Times+1, now, why
	}
	if news {
		s.log.Warn("traffic is lost on its way; other ways are preferred", "one of", joinIDs(nodes, ", "), "why", why, "for", suspectTime)
	}
}

// expire forgets who was not suspected for long. The caller holds mu.
func (s *suspects) expire(now time.Time) {
	maps.DeleteFunc(s.all, func(_ routing.NodeID, k *Suspect) bool { return now.Sub(k.Last) > suspectTime })
}

func (s *suspects) forgetOldest() {
	oldest := slices.MinFunc(slices.Collect(maps.Values(s.all)), func(a, b *Suspect) int { return a.Last.Compare(b.Last) })
	delete(s.all, oldest.Node)
}

// list returns the suspects of now, by id.
func (s *suspects) list(now time.Time) []Suspect {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire(now)
	all := make([]Suspect, 0, len(s.all))
	for _, k := range s.all {
		all = append(all, *k)
	}
	slices.SortFunc(all, func(a, b Suspect) int { return strings.Compare(string(a.Node), string(b.Node)) })
	return all
}

// but returns the ids of the suspects without one.
func (s *suspects) but(now time.Time, to routing.NodeID) []routing.NodeID {
	var ids []routing.NodeID
	for _, k := range s.list(now) {
		if k.Node != to {
			ids = append(ids, k.Node)
		}
	}
	return ids
}

// last puts the neighbours that are suspected behind the others, but for the
// target itself.
func (s *suspects) last(now time.Time, hops []*neighbour, to routing.NodeID) []*neighbour {
	ids := s.but(now, to)
	if len(ids) == 0 {
		return hops
	}
	slices.SortStableFunc(hops, func(a, b *neighbour) int {
		return rank(slices.Contains(ids, a.id)) - rank(slices.Contains(ids, b.id))
	})
	return hops
}

func rank(suspected bool) int {
	if suspected {
		return 1
	}
	return 0
}

// foul tells whether a carrier ended as it does not where a link breaks or a
// node goes: its bytes were held back, or others than were sent.
func foul(err error) bool {
	var op *net.OpError
	var header tls.RecordHeaderError
	return errors.Is(err, session.ErrStalled) || errors.As(err, &header) ||
		errors.As(err, &op) && (op.Op == "local error" || op.Op == "remote error") // of crypto/tls
}

// without returns the ids of all that are not in others.
func without(all, others []routing.NodeID) []routing.NodeID {
	return slices.DeleteFunc(slices.Clone(all), func(id routing.NodeID) bool { return slices.Contains(others, id) })
}
