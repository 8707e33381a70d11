package remote_test

import (
	"io"
	"testing"

	"github.com/ranvier-mesh/ranvier/worktypes"
)

const bulk = 200 << 20

// zeros is a payload of so many zero bytes.
type zeros int64

func (z *zeros) Read(b []byte) (int, error) {
	if *z == 0 {
		return 0, io.EOF
	}
	n := int(min(int64(len(b)), int64(*z)))
	clear(b[:n])
	*z -= zeros(n)
	return n, nil
}

func benchmark(b *testing.B, script string, payload, want int64) {
	n := newNode(b, "tcp")
	b.SetBytes(max(payload, want))
	b.ReportAllocs()
	for b.Loop() {
		z := zeros(payload)
		job, err := n.client().Submit(b.Context(), shell(script), &z)
		if err != nil {
			b.Fatal(err)
		}
		if got, err := io.Copy(io.Discard, job.Results); err != nil || got != want || job.Status().State != worktypes.Succeeded {
			b.Fatalf("%d bytes, %v, %+v", got, err, job.Status())
		}
	}
}

func BenchmarkStdin200MB(b *testing.B)  { benchmark(b, "exec cat > /dev/null", bulk, 0) }
func BenchmarkStdout200MB(b *testing.B) { benchmark(b, "exec head -c 209715200 /dev/zero", 0, bulk) }
func BenchmarkTrue(b *testing.B)        { benchmark(b, "true", 0, 0) }
