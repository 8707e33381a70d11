package session

import "testing"

// A share is taken from the whole, and neither lends what it does not have.
func TestShareOfABudget(t *testing.T) {
	t.Parallel()
	whole := NewBudget(100)
	a, b := whole.Share(50), whole.Share(80)
	for _, step := range []struct {
		of         *Budget
		n          int
		want       bool
		used, left int64
	}{
		{a, 51, false, 0, 0}, // more than the share
		{a, 50, true, 50, 50},
		{b, 60, false, 0, 50}, // more than is left of the whole
		{b, 40, true, 40, 90},
		{a, 1, false, 50, 90},
	} {
		if got := step.of.take(step.n, 0); got != step.want || step.of.Used() != step.used || whole.Used() != step.left {
			t.Errorf("take %d: %v, %d used of the share and %d of the whole, want %+v", step.n, got, step.of.Used(), whole.Used(), step)
		}
	}
	a.give(50)
	b.give(40)
	if a.Used()+b.Used()+whole.Used() != 0 {
		t.Errorf("%d, %d, %d are used", a.Used(), b.Used(), whole.Used())
	}
}
