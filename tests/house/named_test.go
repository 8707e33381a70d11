package house

import (
	"fmt"
	"go/ast"
	"path"
	"regexp"
	"strings"
	"testing"
)

// Pages that promise something name the test that shows it, often as
// TestName, sometimes as pkg.TestName where several have the name.
var namedTest = regexp.MustCompile(`(?:\b([a-z][a-z0-9]*)\.)?\b((?:Test|Benchmark|Fuzz)[A-Z][A-Za-z0-9]*)\b`)

func TestNamedTestsExist(t *testing.T) {
	t.Parallel()
	report(t, checkNamedTests(ours(t)))
}

// checkNamedTests returns the tests that pages name and nobody has written.
func checkNamedTests(tr *tree) []string {
	have := map[string]bool{} // TestName, and pkg.TestName by the folder's name
	for dir, sources := range tr.packages {
		for _, src := range sources {
			if !src.test {
				continue
			}
			for _, d := range src.ast.Decls {
				if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil {
					have[f.Name.Name] = true
					have[path.Base(dir)+"."+f.Name.Name] = true
				}
			}
		}
	}
	var findings []string
	for _, f := range tr.markdown() {
		for _, line := range append(f.prose, f.code...) {
			for _, m := range namedTest.FindAllStringSubmatch(line.text, -1) {
				if name := strings.TrimPrefix(m[1]+"."+m[2], "."); !have[name] {
					findings = append(findings, fmt.Sprintf("%s:%d: there is no test %s", f.name, line.n, name))
				}
			}
		}
	}
	return findings
}

func TestNamedTestsFindsWhatIsMissing(t *testing.T) {
	t.Parallel()
	tr := given(t,
		"docs/security.md", "TestThere, x.TestThere and `BenchmarkThere` are, TestGone and x.TestElsewhere are not; TestX is TestThereNot\n",
		"x/a_test.go", "package x\nfunc TestThere() {}\nfunc BenchmarkThere() {}\nfunc TestX() {}\nfunc (t) TestGone() {}\n",
		"y/b_test.go", "package y\nfunc TestElsewhere() {}\n",
		"y/c.go", "package y\nfunc TestThereNot() {}\n")
	wantFindings(t, checkNamedTests(tr), "docs/security.md:1: there is no test TestGone", "no test x.TestElsewhere", "no test TestThereNot")
}
