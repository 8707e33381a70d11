package mesh

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/ranvier-mesh/ranvier/routing"
)

// Who was cut off together does not come back together: redials are at random, and
// fewer the longer nobody answers.
func TestRedialIsSpread(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		attempt int
		failing time.Duration
		bound   time.Duration
	}{
		{0, 0, redialFirst},
		{3, time.Second, 8 * redialFirst},
		{1000, time.Minute, redialCap},
		{1000, redialPatience + 1, redialSlow},
	} {
		quarters := [4]int{}
		for range 4000 {
			d := redialDelay(tt.attempt, tt.failing)
			if d < 0 || d >= tt.bound {
				t.Fatalf("attempt %d: %v, want less than %v", tt.attempt, d, tt.bound)
			}
			quarters[4*d/tt.bound]++
		}
		for i, n := range quarters {
			if n < 500 {
				t.Errorf("attempt %d: %d of 4000 delays are in quarter %d", tt.attempt, n, i)
			}
		}
	}
}

// Who comes late knows all services at once, however long ago they were told.
func TestALatecomerKnowsAllAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet(t)
		first, _ := n.line(1)
		if err := first.Advertise(t.Context(), []routing.Service{{Name: "there", ConnType: 1}}, nil); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		late := n.start("late", "n2")
		time.Sleep(time.Second)
		for _, info := range late.Status().Nodes {
			if info.ID == "n0" && info.Reachable && len(info.Services) == 1 && info.Services[0].Name == "there" {
				return
			}
		}
		t.Errorf("after a second it knows %+v", late.Status().Nodes)
	})
}
