package config

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestMetrics(t *testing.T) {
	t.Parallel()
	for item, want := range map[string]Metrics{
		"9090":                                  {Listen: "127.0.0.1:9090", Permissions: 0o600},
		"'[::1]:9090'":                          {Listen: "[::1]:9090", Permissions: 0o600},
		"{listen: 'localhost:0'}":               {Listen: "localhost:0", Permissions: 0o600},
		"{filename: /run/m, permissions: 0666}": {Filename: "/run/m", Permissions: 0o666},
	} {
		c, err := parseText("- local-only\n- metrics: " + item)
		if err != nil {
			t.Errorf("%s: %v", item, err)
			continue
		}
		if d := cmp.Diff(want, c.Metrics, cmpopts.IgnoreTypes(Pos{})); d != "" {
			t.Errorf("%s: %s", item, d)
		}
	}
	for item, want := range map[string]string{
		"":                               "either listen or filename",
		"{listen: 1, filename: /x}":      "either listen or filename",
		"'0.0.0.0:9090'":                 "anyone who reaches 0.0.0.0:9090 could read",
		"':9090'":                        "anyone who reaches 0.0.0.0:9090 could read",
		"host:x":                         "has no port from 0 to 65535",
		"1\n- metrics: 2":                "it may stand only once",
		"{listen: 1, path: /prometheus}": "there is no such key",
	} {
		if _, err := parseText("- local-only\n- metrics: " + item); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", item, err, want)
		}
	}
	if _, err := parseText("- node: {id: a, insecure: true}\n- local-only\n- metrics: '0.0.0.0:9090'"); err != nil {
		t.Errorf("insecure: %v", err)
	}
}
