package runner_test

import (
	"bytes"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/ranvier-mesh/ranvier/runner"
)

// Both benchmarks run the Python tool on the same input right after ours and
// report the ratio, since the machine's own speed says little.

func BenchmarkProcess20000Events(b *testing.B) {
	said, err := io.ReadAll(newManyEvents(20_000, 850))
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(said)))
	var own, theirs time.Duration
	for b.Loop() {
		start := time.Now()
		var out bytes.Buffer
		if _, err := runner.Process(b.Context(), bytes.NewReader(said),
			runner.ProcessOptions{PrivateDataDir: b.TempDir(), Output: &out}); err != nil {
			b.Fatal(err)
		}
		own += time.Since(start)
		b.StopTimer()
		start = time.Now()
		python(b, said, "process", b.TempDir())
		theirs += time.Since(start)
		b.StartTimer()
	}
	b.ReportMetric(theirs.Seconds()/own.Seconds(), "x_python")
}

func BenchmarkTransmit(b *testing.B) {
	random := make([]byte, 1<<20)
	_, _ = rand.NewChaCha8([32]byte{}).Read(random)
	text := make([]byte, 0, 100<<20)
	for n := 0; len(text) < 100<<20; n++ {
		text = strconv.AppendInt(append(text, "the quick brown fox jumps "...), int64(n*n), 10)
	}
	for name, make := range map[string]func(dir string) error{
		"random 100 MB": func(dir string) error {
			f, err := os.Create(filepath.Join(dir, "large"))
			for range 100 {
				if err == nil {
					random[0]++
					_, err = f.Write(random)
				}
			}
			f.Close()
			return err
		},
		"text 100 MB": func(dir string) error { return os.WriteFile(filepath.Join(dir, "large"), text, 0o600) },
		"10000 files": func(dir string) error {
			for n := range 10_000 {
				sub := filepath.Join(dir, strconv.Itoa(n/100))
				if err := os.MkdirAll(sub, 0o700); err != nil {
					return err
				}
				if err := os.WriteFile(filepath.Join(sub, strconv.Itoa(n)), text[n*100:n*100+1000], 0o600); err != nil {
					return err
				}
			}
			return nil
		},
	} {
		b.Run(name, func(b *testing.B) {
			dir := b.TempDir()
			if err := os.Mkdir(filepath.Join(dir, "project"), 0o700); err != nil {
				b.Fatal(err)
			}
			if err := make(filepath.Join(dir, "project")); err != nil {
				b.Fatal(err)
			}
			var own, theirs time.Duration
			for b.Loop() {
				start := time.Now()
				if err := runner.Transmit(b.Context(), io.Discard, runner.Options{PrivateDataDir: dir, Playbook: "x"}); err != nil {
					b.Fatal(err)
				}
				own += time.Since(start)
				b.StopTimer()
				start = time.Now()
				python(b, nil, "transmit", dir, "-p", "x")
				theirs += time.Since(start)
				b.StartTimer()
			}
			b.ReportMetric(theirs.Seconds()/own.Seconds(), "x_python")
		})
	}
}
