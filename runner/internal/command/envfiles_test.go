package command

import (
	"fmt"
	"strings"
	"testing"
)

// A map of env/ may take over the entries of others, as Python's YAML has it: its
// own go before, and so do those of the first one of a list.
func TestMergeKeys(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"<<: {A: base, B: base}\nB: own\n":                 "[A=base B=own]",
		"B: own\n<<: {A: base, B: base}\n":                 "[A=base B=own]",
		"<<: [{A: first}, {A: second, C: second}]\nB: x\n": "[A=first C=second B=x]",
		"<<: {<<: {A: inner, B: inner}, B: outer}\n":       "[A=inner B=outer]",
		"<<: 5\n":              "env/envvars: line 1: <<: a map is expected",
		"&x\n<<: [*x]\nA: 1\n": "contains itself",
		"&x\n<<: *x\nA: 1\n":   "contains itself",
	} {
		entries, err := readMap(lay(t, map[string]string{"env/envvars": text}), "env/envvars")
		var got []string
		for _, e := range entries {
			got = append(got, fmt.Sprintf("%s=%v", e.Key, e.Value))
		}
		said := fmt.Sprint(got)
		if err != nil {
			said = err.Error()
		}
		if !strings.Contains(said, want) {
			t.Errorf("%q: %s, want %s", text, said, want)
		}
	}
}
