package main

import (
	"strings"
	"testing"
)

func TestByteSize(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int64{"1": 1, "500MB": 5e8, "2GiB": 2 << 30, "1.5k": 1500, "64 GiB": 64 << 30, "3T": 3e12,
		"": 0, "0": 0, "-1": 0, "x": 0, "1XB": 0, "1kkB": 0, "1iB": 0, "NaN": 0, "1e40": 0, "Inf": 0} {
		var got int64
		if err := (byteSize{&got}).Set(text); got != want || (err == nil) != (want > 0) {
			t.Errorf("%q: %d, %v, want %d", text, got, err, want)
		}
	}
}

// TestMaxSize: neither side unpacks more than it is told to.
func TestMaxSize(t *testing.T) {
	t.Parallel()
	dir := privateDataDir(t, map[string]string{"project/zeros": strings.Repeat("\x00", 100_000), "args": "sh -c 'head -c 90000 /dev/zero > ../artifacts/id1/zeros'"})
	job := named(t, "ranvier").run(t, "", "transmit", dir, "-i", "id1")
	if end := named(t, "ranvier").run(t, job.out, "worker", "--max-size", "50kB"); end.code != 1 || !strings.Contains(end.errors, "50000") {
		t.Errorf("worker: %d %s", end.code, end.errors)
	}
	said := named(t, "ranvier").run(t, job.out, "worker", "--max-size", "1MB")
	if said.code != 0 {
		t.Fatalf("worker: %+v", said)
	}
	if end := named(t, "ranvier").run(t, said.out, "process", t.TempDir(), "--max-size=50kB"); end.code != 1 || !strings.Contains(end.errors, "50000") {
		t.Errorf("process: %d %s", end.code, end.errors)
	}
	if end := named(t, "ranvier").run(t, said.out, "process", t.TempDir()); end.code != 0 {
		t.Errorf("process: %d %s", end.code, end.errors)
	}
}
