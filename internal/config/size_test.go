package config

import (
	"strings"
	"testing"
)

func TestContentLimit(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int64{
		"": 0, "contentlimit: 0": -1, "contentlimit: 2GiB": 2 << 30, "contentlimit: 500 MB": 500e6,
		"contentlimit: 1048576": 1 << 20, "contentlimit: 1.5kib": 1536, "contentlimit: 0MB": -1,
	} {
		c, err := Parse("f", []byte("- node: {id: a, "+text+"}\n- local-only:\n"))
		if err != nil || c.Node.ContentLimit != want {
			t.Errorf("%s: %+v, %v; want %d", text, c, err, want)
		}
	}
	for _, text := range []string{"-1", "GiB", "2 GHz", "1e400", "NaN", "Inf", "[]", "2 2GiB", "99999999999TiB"} {
		_, err := Parse("f", []byte("- node: {id: a, contentlimit: "+text+"}\n- local-only:\n"))
		if err == nil || !strings.Contains(err.Error(), "contentlimit") {
			t.Errorf("%s: %v", text, err)
		}
	}
}
