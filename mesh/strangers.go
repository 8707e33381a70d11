package mesh

import (
	"context"
	"log/slog"
	"sync/atomic"

	"golang.org/x/time/rate"
)

const (
	// maxHandshakes is how many peers of one listener may be unknown at a time.
	maxHandshakes = 256
	// Of what strangers do, so many lines a second go into the log; and so many
	// about the streams that pass.
	strangerLines, strangerBurst = 5, 50
	passingLines, passingBurst   = 20, 500
)

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
