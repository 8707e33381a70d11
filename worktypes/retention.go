package worktypes

import (
	"context"
	"slices"
	"time"
)

// Retention says how long and how much is kept of units that have ended. What is
// zero is no limit.
type Retention struct {
	Age   time.Duration // after the end
	Bytes int64         // of output, of all units together; the oldest go first
	// OwnerBytes is the same for the units of each owner.
	OwnerBytes int64
}

// sweepEvery is how often units are looked at that were kept too long.
const sweepEvery = time.Hour

// startSweep looks at once, and then every sweepEvery.
func (m *Manager) startSweep() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sweep = time.AfterFunc(0, func() {
		for _, id := range m.tooLong(m.now()) {
			m.log.Info("work unit is released: it was kept as long as the retention says", "unit", id)
			if err := m.Release(context.Background(), id); err != nil {
				m.log.Warn("cannot release a work unit", "unit", id, "error", err)
			}
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		if !m.shut {
			m.sweep.Reset(sweepEvery)
		}
	})
}

// tooLong returns the units that the retention does not keep.
func (m *Manager) tooLong(now time.Time) []string {
	if m.keep == (Retention{}) {
		return nil
	}
	ended := slices.DeleteFunc(m.List(), func(s Status) bool { return !s.State.Terminal() })
	slices.SortFunc(ended, func(a, b Status) int { return b.Finished.Compare(a.Finished) }) // newest first
	var all int64
	owners := map[string]int64{}
	var gone []string
	for _, s := range ended {
		owner := Base(s.Owner)
		all += s.StdoutSize
		owners[owner] += s.StdoutSize
		switch {
		case m.keep.Age > 0 && now.Sub(s.Finished) > m.keep.Age,
			m.keep.Bytes > 0 && all > m.keep.Bytes,
			m.keep.OwnerBytes > 0 && owners[owner] > m.keep.OwnerBytes:
			gone = append(gone, s.ID)
			all -= s.StdoutSize
			owners[owner] -= s.StdoutSize
		}
	}
	return gone
}
