package house

import (
	"fmt"
	"go/ast"
	"go/token"
	"slices"
	"strings"
	"testing"
)

// maxLines is the longest a source file may be; tests may be longer.
const maxLines = 500

func TestSource(t *testing.T) {
	t.Parallel()
	tr := ours(t)
	for name, check := range map[string]func(*tree) []string{
		"exported names have a doc comment": checkComments,
		"files are short":                   checkLength,
		"tests do not sleep":                checkSleeps,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			report(t, check(tr))
		})
	}
}

// checkLength returns the files that are too long to be one idea.
func checkLength(tr *tree) []string {
	var findings []string
	for _, dir := range tr.dirs() {
		for _, src := range tr.packages[dir] {
			if !src.test && src.lines > maxLines {
				findings = append(findings, fmt.Sprintf("%s: %d lines, at most %d: split it by idea", src.name, src.lines, maxLines))
			}
		}
	}
	return findings
}

// checkSleeps returns the sleeps of tests, and of the packages for tests
// (linktest). A sleep is right only in virtual time: within the arguments of
// synctest.Test, or in a helper whose doc comment says that it runs in a bubble.
func checkSleeps(tr *tree) []string {
	var findings []string
	for _, dir := range tr.dirs() {
		for _, src := range tr.packages[dir] {
			if !src.test && !strings.HasSuffix(dir, "test") {
				continue
			}
			for _, decl := range src.ast.Decls {
				if f, ok := decl.(*ast.FuncDecl); ok && strings.Contains(f.Doc.Text(), "bubble") {
					continue
				}
				for _, n := range sleeps(decl) {
					findings = append(findings, tr.at(n)+": a test sleeps: use testing/synctest, or wait for what the sleep hopes for"+
						` (a helper that runs in a bubble says "bubble" in its doc comment)`)
				}
			}
		}
	}
	return findings
}

// sleeps returns the sleeps below n that are not in a synctest bubble.
func sleeps(n ast.Node) []ast.Node {
	var found []ast.Node
	ast.Inspect(n, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.CallExpr:
			if name, ok := selects(n.Fun, "synctest"); ok && name == "Test" {
				return false
			}
			if name, ok := selects(n.Fun, "time"); ok && name == "Sleep" {
				found = append(found, n)
			}
		case *ast.CommClause: // <-time.After(d) in a select is a limit, no sleep
			for _, stmt := range n.Body {
				found = append(found, sleeps(stmt)...)
			}
			return false
		case *ast.ExprStmt: // <-time.After(d) alone in a statement
			if wait, ok := n.X.(*ast.UnaryExpr); ok && wait.Op == token.ARROW {
				if call, ok := wait.X.(*ast.CallExpr); ok {
					if name, ok := selects(call.Fun, "time"); ok && name == "After" {
						found = append(found, n)
					}
				}
			}
		}
		return true
	})
	return found
}

// checkComments returns the packages without a package comment and the
// exported names without a doc comment: functions, methods of exported types
// and of interfaces, types, constants and variables. In a group, a comment of
// the group or one on the name's own line will do.
func checkComments(tr *tree) []string {
	var findings []string
	for _, dir := range tr.dirs() {
		sources := slices.DeleteFunc(slices.Clone(tr.packages[dir]), func(s *goSource) bool { return s.test })
		if len(sources) == 0 {
			continue
		}
		if !slices.ContainsFunc(sources, func(s *goSource) bool { return s.ast.Doc.Text() != "" }) {
			findings = append(findings, "package "+dir+" has no package comment")
		}
		for _, src := range sources {
			for _, decl := range src.ast.Decls {
				for _, id := range undocumented(decl) {
					findings = append(findings, fmt.Sprintf("%s: %s has no doc comment", tr.at(id), id.Name))
				}
			}
		}
	}
	return findings
}

// undocumented returns the exported names that a declaration makes and no
// comment explains.
func undocumented(decl ast.Decl) []*ast.Ident {
	var bare []*ast.Ident
	need := func(id *ast.Ident, comments ...*ast.CommentGroup) {
		explained := slices.ContainsFunc(comments, func(c *ast.CommentGroup) bool { return c.Text() != "" })
		if id.IsExported() && !explained {
			bare = append(bare, id)
		}
	}
	switch d := decl.(type) {
	case *ast.FuncDecl:
		if d.Recv == nil || receiver(d.Recv.List[0].Type).IsExported() {
			need(d.Name, d.Doc)
		}
	case *ast.GenDecl:
		for _, spec := range d.Specs {
			switch s := spec.(type) {
			case *ast.ValueSpec:
				for _, id := range s.Names {
					need(id, d.Doc, s.Doc, s.Comment)
				}
			case *ast.TypeSpec:
				doc := d.Doc
				if d.Lparen.IsValid() { // a group of types is no doc of each
					doc = nil
				}
				need(s.Name, doc, s.Doc, s.Comment)
				if iface, ok := s.Type.(*ast.InterfaceType); ok && s.Name.IsExported() {
					for _, m := range iface.Methods.List {
						for _, id := range m.Names { // none for an embedded one
							need(id, m.Doc, m.Comment)
						}
					}
				}
			}
		}
	}
	return bare
}

// receiver returns the type's name in T, *T, T[P] and *T[P, Q].
func receiver(t ast.Expr) *ast.Ident {
	for {
		switch x := t.(type) {
		case *ast.Ident:
			return x
		case *ast.StarExpr:
			t = x.X
		case *ast.ParenExpr:
			t = x.X
		case *ast.IndexExpr:
			t = x.X
		case *ast.IndexListExpr:
			t = x.X
		default:
			return ast.NewIdent("")
		}
	}
}

func TestLengthFindsALongFile(t *testing.T) {
	t.Parallel()
	long := "package mesh\n" + strings.Repeat("\n", maxLines)
	tr := given(t, "mesh/long.go", long, "mesh/long_test.go", long, "mesh/just.go", long[:len(long)-1])
	wantFindings(t, checkLength(tr), "mesh/long.go: 501 lines")
}

func TestSleepsFindsThoseOfTheWallClock(t *testing.T) {
	t.Parallel()
	tr := given(t, "mesh/mesh_test.go", `package mesh

func TestVirtual(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { time.Sleep(time.Hour); <-time.After(1) })
}

// settle runs in a bubble.
func settle() { time.Sleep(1) }

func TestWall(t *testing.T) {
	time.Sleep(time.Second)
	<-time.After(time.Second)
	select {
	case <-done:
	case <-time.After(time.Second): // a limit
		time.Sleep(time.Second)
	}
}
`, "mesh/link/linktest/linktest.go", "package linktest\n\nfunc wait() { time.Sleep(1) }\n",
		"mesh/mesh.go", "package mesh\n\nfunc backoff() { time.Sleep(1) }\n")
	wantFindings(t, checkSleeps(tr), "mesh_test.go:11", "mesh_test.go:12", "mesh_test.go:16", "linktest.go:3")
}

func TestCommentsFindsWhatHasNone(t *testing.T) {
	t.Parallel()
	tr := given(t, "mesh/bare.go", `package mesh

type T struct{}

func (t *T) M()      {}
func (l *List[E]) P() {}
func (h hidden) M()  {}
func F()             {}
func f()             {}

const C = 1

var a, V = 1, 2

type (
	G  int // said
	G2 int
)

// I is explained, its method is not.
type I interface {
	error
	Do()
	Say() // says
}

//go:generate is no explanation
type D int

// Codes.
const (
	A = 1
	B = 2
)

const (
	X = 1 // said
	Y = 2
)
`, "mesh/x_test.go", "package mesh\n\nfunc TestX() {}\n",
		"cmd/ranvier/main.go", "// Command ranvier.\npackage main\n\nfunc main() {}\n")
	wantFindings(t, checkComments(tr), "package mesh has no package comment",
		":3: T has", ":5: M has", ":6: P has", ":8: F has", ":11: C has", ":13: V has", ":17: G2 has", ":23: Do has", ":28: D has", ":38: Y has")
}
