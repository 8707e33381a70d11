package mesh

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// However ticks jitter and whatever else is sent: a link on which bytes may be
// missed for three seconds is given up, so there must be some in any two.
func TestPaceKeepsTheLinkAlive(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		const frame = 29 // a heartbeat with its framing
		start := time.Unix(0, 0)
		p := pace{start, 0}
		left, last := uint64(0), start // bytes so far, and when the last ones left
		idle := 0                      // ticks in a row with nothing but heartbeats
		for k := range 100 {
			jitter := time.Duration(rapid.IntRange(-50, 50).Draw(t, "jitter")) * time.Millisecond
			now := start.Add(time.Duration(k+1)*time.Second + jitter)
			idle++
			if n := rapid.SampledFrom([]uint64{0, 0, 0, 12, 70, 9000}).Draw(t, "bytes"); n > 0 {
				left += n
				idle = 0
				last = now.Add(-900 * time.Millisecond) // just after the tick before
			}
			if p.due(now, left, heartbeat) {
				left += frame
				last = now
			} else if idle > 1 {
				t.Fatalf("tick %d: no heartbeat on an idle link", k)
			}
			if quiet := now.Sub(last); quiet > 2*time.Second {
				t.Fatalf("tick %d: nothing sent for %v", k, quiet)
			}
		}
	})
}

// What carries bytes carries no heartbeats, and a quiet link few.
func TestPaceIsFrugal(t *testing.T) {
	t.Parallel()
	start := time.Unix(0, 0)
	busy, quiet := pace{start, 0}, pace{start, 0}
	beats := 0
	for k := 1; k <= 150; k++ {
		now := start.Add(time.Duration(k) * time.Second)
		if busy.due(now, uint64(k)*1000, heartbeat) {
			t.Errorf("tick %d: a heartbeat beside traffic", k)
		}
		if quiet.due(now, uint64(beats*29), quietHeartbeat) {
			beats++
		}
	}
	if beats < 9 || beats > 11 {
		t.Errorf("%d heartbeats in 150 s of a link that needs one in %v", beats, quietHeartbeat)
	}
}
