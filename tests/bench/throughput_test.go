package bench

import (
	"fmt"
	"testing"
)

const (
	transferred = 512 << 20
	rounds      = 5
)

// BenchmarkThroughput sends bytes over one, 50 and 500 streams through 0, 1
// and 3 relays, in turns with the reference, and sums up the CPU time of all
// processes of the line.
func BenchmarkThroughput(b *testing.B) {
	for _, relays := range []int{0, 1, 3} {
		n := newNodes(b)
		for _, streams := range []int{1, 50, 500} {
			b.Run(fmt.Sprintf("relays=%d/streams=%d", relays, streams), func(b *testing.B) {
				n.b = b
				mesh, bare := n.line("mesh", relays), n.line("reference", relays)
				var speed, refSpeed, cpu, refCPU []float64
				for range max(b.N, rounds) {
					o, r := mesh.send(streams, transferred), bare.send(streams, transferred)
					speed, cpu = append(speed, o.mbPerSecond), append(cpu, o.cpuPerGB)
					refSpeed, refCPU = append(refSpeed, r.mbPerSecond), append(refCPU, r.cpuPerGB)
				}
				what := fmt.Sprintf("%d streams, %d relays", streams, relays)
				report(b, what, "MB/s", speed, refSpeed)
				report(b, what+", CPU", "s/GB", cpu, refCPU)
			})
		}
	}
}
