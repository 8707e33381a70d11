package runner_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/ranvier-mesh/ranvier/runner"
)

// Between two ends of this program nothing is in base64, where the sender says
// that it knows; what arrives is the same.
func TestRawArchives(t *testing.T) {
	t.Parallel()
	files := debugPlay("x")
	files["project/binary"] = "PK\x03\x04\n{\"eof\": true}\n\x00\xff"
	for _, c := range []struct{ archive, results bool }{{false, false}, {true, true}, {true, false}, {false, true}} {
		o := runner.Options{PrivateDataDir: privateDataDir(t, files), Playbook: "site.yml", RawArchive: c.archive, RawResults: c.results}
		sent := ours(t, o)
		if raw := bytes.Contains(sent, []byte(`, "raw": true}`)); raw != c.archive {
			t.Errorf("%+v: sent raw: %v", c, raw)
		}
		d := work(t, t.Context(), bytes.NewReader(sent), runner.WorkOptions{})
		if d.err != nil || d.perr != nil || d.result.RC != 0 || d.last().Status != "successful" {
			t.Errorf("%+v: %v, %v, %+v", c, d.err, d.perr, d.last())
		}
		if raw := strings.Contains(d.stream, `, "raw": true}`); raw != c.results {
			t.Errorf("%+v: answered raw: %v", c, raw)
		}
	}
}

// The Python tool's worker does not mind that it may answer raw.
func TestRawResultsOfPython(t *testing.T) {
	t.Parallel()
	sent := ours(t, runner.Options{PrivateDataDir: privateDataDir(t, debugPlay("x")), Playbook: "site.yml", Ident: "i", RawResults: true})
	said := python(t, sent, "worker", "--private-data-dir", t.TempDir())
	result, err := runner.Process(t.Context(), bytes.NewReader(said), runner.ProcessOptions{PrivateDataDir: t.TempDir()})
	if err != nil || result.Status != "successful" {
		t.Errorf("%+v, %v", result, err)
	}
}
