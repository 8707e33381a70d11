package house

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// TestExamplesThatPagesName: an example that a page links to is in the file that
// the link leads to.
func TestExamplesThatPagesName(t *testing.T) {
	t.Parallel()
	pages, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	link := regexp.MustCompile(`\[([^\]]*` + "`Example[^`]*`" + `)\]\(([^)]+_test\.go)\)`)
	name := regexp.MustCompile("`(Example[A-Za-z_]*)`")
	found := 0
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range link.FindAllSubmatch(text, -1) {
			source, err := os.ReadFile(filepath.Join(filepath.Dir(page), string(l[2])))
			if err != nil {
				t.Errorf("%s: %v", page, err)
			}
			for _, n := range name.FindAllSubmatch(l[1], -1) {
				found++
				if !bytes.Contains(source, append([]byte("func "), append(n[1], '(')...)) {
					t.Errorf("%s: %s has no %s", page, l[2], n[1])
				}
			}
		}
	}
	if found < 5 {
		t.Errorf("only %d examples found: the test does not see them", found)
	}
}
