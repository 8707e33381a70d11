// Package bench measures the whole product against references that run in the
// same process or beside it: each benchmark prints our figure, the reference's
// and the ratio. `make bench PKG=./tests/bench` runs them.
package bench

import (
	"fmt"
	"slices"
	"testing"
)

// median of a non-empty list.
func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}

// report prints a line of the table: medians and their ratio.
func report(b *testing.B, what, unit string, ours, reference []float64) {
	o, r := median(ours), median(reference)
	b.ReportMetric(o, "ours_"+unit)
	b.ReportMetric(r, "ref_"+unit)
	b.ReportMetric(o/r, "ratio")
	b.ReportMetric(0, "ns/op")
	fmt.Printf("%-44s ours %9.1f %s   reference %9.1f %s   ratio %.2f\n", what, o, unit, r, unit, o/r)
}
