package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/ranvier-mesh/ranvier/runner"
)

// colours tells whether the terminal wants them (https://no-color.org).
func colours() bool { return os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" }

// summary writes a line a host: how it ended, and how many tasks did what. What
// went wrong comes last, where it is seen.
func summary(w io.Writer, hosts map[string]runner.HostProgress, colour bool) {
	width := 0
	for host := range hosts {
		width = max(width, len(host))
	}
	names := slices.SortedFunc(maps.Keys(hosts), func(a, b string) int {
		if d := severity(hosts[a]) - severity(hosts[b]); d != 0 {
			return d
		}
		return strings.Compare(a, b)
	})
	for _, host := range names {
		h := hosts[host]
		state := outcomes[severity(h)]
		word := fmt.Sprintf("%-11s", state.word)
		if colour {
			word = "\x1b[" + state.colour + "m" + word + "\x1b[0m"
		}
		fmt.Fprintf(w, "%-*s  %s  %s\n", width, host, word, counts(h))
	}
}

// outcomes are the ways a host can end, best first.
var outcomes = []struct{ word, colour string }{
	{"ok", "32"}, {"changed", "33"}, {"failed", "31"}, {"unreachable", "1;31"},
}

func severity(h runner.HostProgress) int {
	switch {
	case h.Unreachable > 0:
		return 3
	case h.Failed > 0:
		return 2
	case h.Changed > 0:
		return 1
	}
	return 0
}

// counts are those that are not 0.
func counts(h runner.HostProgress) string {
	var parts []string
	for _, c := range []struct {
		n    int
		what string
	}{
		{h.OK, "ok"}, {h.Changed, "changed"}, {h.Failed, "failed"}, {h.Unreachable, "unreachable"},
		{h.Skipped, "skipped"}, {h.Rescued, "rescued"}, {h.Ignored, "ignored"},
	} {
		if c.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", c.n, c.what))
		}
	}
	if len(parts) == 0 {
		return "nothing to do"
	}
	return strings.Join(parts, ", ")
}

// progress is a line on a terminal that tells what takes longer than a second,
// until the play's output begins.
type progress struct {
	on bool

	mu    sync.Mutex
	start time.Time
	shown time.Time // when the line was last written; zero: there is none
	done  bool

	part, total int64 // of the content, where it is known
}

func (p *progress) say(format string, args ...any) {
	if p.on {
		fmt.Fprintf(os.Stderr, "\x1b[2m"+format+"\x1b[0m\n", args...)
	}
}

func (p *progress) sent(bytes int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if p.start.IsZero() {
		p.start = now
	}
	if !p.on || p.done || now.Sub(p.start) < time.Second || now.Sub(p.shown) < 100*time.Millisecond {
		return
	}
	p.shown = now
	rate := float64(bytes) / now.Sub(p.start).Seconds()
	of := ""
	if p.total > 0 {
		of = fmt.Sprintf(", %d%% of %s", p.part*100/p.total, bytesText(uint64(p.total)))
	}
	fmt.Fprintf(os.Stderr, "\r\x1b[Ksending the job: %s, %s/s%s", bytesText(uint64(bytes)), bytesText(uint64(rate)), of)
}

// content is how far the files are that the node lacks: packed, they are fewer
// bytes on the way.
func (p *progress) content(bytes, total int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.part, p.total = bytes, total
}

func (p *progress) clear() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.done = true; !p.shown.IsZero() {
		fmt.Fprint(os.Stderr, "\r\x1b[K")
		p.shown = time.Time{}
	}
}

// before returns f with the line cleared before its first byte.
func (p *progress) before(f *os.File) *clearing { return &clearing{f: f, p: p} }

type clearing struct {
	f    *os.File
	p    *progress
	once sync.Once
	gone bool // nobody reads f any more
}

func (c *clearing) Write(b []byte) (int, error) {
	c.once.Do(c.p.clear)
	if c.gone {
		return len(b), nil
	}
	n, err := c.f.Write(b)
	if errors.Is(err, syscall.EPIPE) {
		c.gone = true
		fmt.Fprintln(os.Stderr, "ranvier: nobody reads the output any more; the job goes on to its end, for its artifacts (Ctrl-C cancels it)")
		return len(b), nil
	}
	return n, err
}

// sending is a payload whose progress is shown while it is read.
type sending struct {
	io.Reader
	p *progress
	n int64
}

func (s *sending) Read(b []byte) (int, error) {
	n, err := s.Reader.Read(b)
	if s.n += int64(n); err != nil {
		s.p.clear()
	} else {
		s.p.sent(s.n)
	}
	return n, err
}
