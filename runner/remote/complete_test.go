package remote

import (
	"testing"

	"github.com/ranvier-mesh/ranvier/runner"
)

// Where the artifacts go is this machine's business: the node is not told.
func TestArtifactDirIsHere(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for given, want := range map[string]string{"": "", "/srv/out": "/srv/out/id1", "out": dir + "/out/id1"} {
		o := Options{ViaReceptor: "n", Options: runner.Options{PrivateDataDir: dir, Playbook: "x", Ident: "id1", ArtifactDir: given}}
		if err := o.complete(); err != nil || o.ArtifactDir != "" || o.Process.ArtifactDir != want {
			t.Errorf("%q: here %q, want %q; told the node: %q; %v", given, o.Process.ArtifactDir, want, o.ArtifactDir, err)
		}
	}
}
