package runner

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// stuck takes what fits and then nothing until it is freed.
type stuck struct {
	bytes.Buffer
	fits  int
	freed chan struct{}
}

func (s *stuck) Write(p []byte) (int, error) {
	if s.Len()+len(p) > s.fits {
		<-s.freed
	}
	return s.Buffer.Write(p)
}

// A reader that takes nothing is waited for, as long as nobody cancels the job;
// then for a while, which a hurry cuts short. What comes later is not written.
func TestOutletLeavesWhoReadsNothing(t *testing.T) {
	t.Parallel()
	const canceledAfter = time.Hour
	for name, c := range map[string]struct {
		hurryAfter, freedAfter, want time.Duration // 0: never
	}{
		"stuck":          {0, 0, canceledAfter + patience},
		"hurry":          {canceledAfter + time.Second, 0, canceledAfter + time.Second + hurried},
		"slow":           {0, canceledAfter + patience - 1, canceledAfter + patience - 1},
		"slow, no hurry": {0, canceledAfter - 1, canceledAfter - 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), canceledAfter)
				defer cancel()
				s := &stuck{fits: maxWrite, freed: make(chan struct{})}
				hurry := make(chan struct{})
				if c.hurryAfter > 0 {
					time.AfterFunc(c.hurryAfter, func() { close(hurry) })
				}
				if c.freedAfter > 0 {
					time.AfterFunc(c.freedAfter, func() { close(s.freed) })
				}
				began := time.Now()
				o := &outlet{ctx: ctx, hurry: hurry, out: s}
				n, err := o.Write([]byte(strings.Repeat("x", maxWrite+1)))
				if took := time.Since(began); took != c.want {
					t.Errorf("it took %v, want %v", took, c.want)
				}
				if c.freedAfter > 0 {
					if n != maxWrite+1 || err != nil || s.Len() != n {
						t.Errorf("%d, %v", n, err)
					}
					return
				}
				if _, again := o.Write([]byte("y")); n != maxWrite || !errors.Is(err, errUnread) || !errors.Is(again, errUnread) {
					t.Errorf("%d, %v, then %v", n, err, again)
				}
				close(s.freed)
			})
		})
	}
}
