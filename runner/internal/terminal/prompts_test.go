package terminal

import (
	"regexp"
	"strings"
	"testing"
)

// A question is looked for in the last 100 characters, whatever bytes they take.
func TestPromptsAreLookedForAtTheEnd(t *testing.T) {
	t.Parallel()
	for behind, want := range map[int]bool{0: true, 94: true, 95: false, 500: false} {
		p := Prompts{List: []Prompt{{regexp.MustCompile(`Name: `), "x"}}}
		if _, ok := p.look([]byte("Name: " + strings.Repeat("ü", behind))); ok != want {
			t.Errorf("%d characters behind the question: answered %v, want %v", behind, ok, want)
		}
	}
}
