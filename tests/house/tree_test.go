// Package house holds the tests of the house itself: who may import whom,
// what is documented, and a few habits that reviews should not have to look
// for. Every checker is a function of a file tree, so that each is also shown
// a wrong tree and has to say so.
package house

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

const module = "github.com/ranvier-mesh/ranvier"

// generated are the folders that make and the demo write; git ignores them.
var generated = []string{"bin", "demo/artifacts"}

// A tree is the source of the module, read once. It is read here rather than
// asked of `go list` so that the test cache sees every file that the verdict
// depends on, and so that files of other platforms are read as well.
type tree struct {
	fsys     fs.FS
	fset     *token.FileSet
	files    []string               // every file, slash-separated, sorted
	packages map[string][]*goSource // by folder; "." is the module's root
}

type goSource struct {
	name  string // from the module's root
	test  bool   // a _test.go file
	lines int
	ast   *ast.File
}

func load(fsys fs.FS) (*tree, error) {
	tr := &tree{fsys: fsys, fset: token.NewFileSet(), packages: map[string][]*goSource{}}
	err := fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if skipDir(name) {
				return fs.SkipDir
			}
			return nil
		}
		tr.files = append(tr.files, name)
		if path.Ext(name) != ".go" || strings.Contains("/"+name, "/testdata/") {
			return nil
		}
		return tr.parse(name)
	})
	slices.Sort(tr.files)
	return tr, err
}

func skipDir(name string) bool {
	hidden := name != "." && strings.HasPrefix(path.Base(name), ".") && name != ".ci"
	return hidden || slices.Contains(generated, name)
}

func (tr *tree) parse(name string) error {
	src, err := fs.ReadFile(tr.fsys, name)
	if err != nil {
		return err
	}
	f, err := parser.ParseFile(tr.fset, name, src, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return fmt.Errorf("parse: %w", err)
	}
	dir := path.Dir(name)
	tr.packages[dir] = append(tr.packages[dir], &goSource{
		name:  name,
		test:  strings.HasSuffix(name, "_test.go"),
		lines: strings.Count(string(src), "\n"),
		ast:   f,
	})
	return nil
}

// dirs returns the folders that hold Go files, sorted.
func (tr *tree) dirs() []string {
	var dirs []string
	for dir := range tr.packages {
		dirs = append(dirs, dir)
	}
	slices.Sort(dirs)
	return dirs
}

func (tr *tree) at(n ast.Node) string {
	p := tr.fset.Position(n.Pos())
	return fmt.Sprintf("%s:%d", p.Filename, p.Line)
}

func (tr *tree) exists(name string) bool {
	_, err := fs.Stat(tr.fsys, name)
	return err == nil
}

// ours reads the module's own tree.
func ours(t *testing.T) *tree {
	t.Helper()
	tr, err := load(os.DirFS("../.."))
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// given makes a tree of files: name, content, name, content.
func given(t *testing.T, files ...string) *tree {
	t.Helper()
	m := fstest.MapFS{}
	for i := 0; i < len(files); i += 2 {
		m[files[i]] = &fstest.MapFile{Data: []byte(files[i+1])}
	}
	tr, err := load(m)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// report fails the test with each of the findings.
func report(t *testing.T, findings []string) {
	t.Helper()
	for _, f := range findings {
		t.Error(f)
	}
}

// wantFindings checks that there is one finding for each of want, which holds
// it, in this order, and no other.
func wantFindings(t *testing.T, got []string, want ...string) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d findings, want %d:\n%s", len(got), len(want), strings.Join(got, "\n"))
	}
	for i := range want {
		if !strings.Contains(got[i], want[i]) {
			t.Errorf("finding %d is\n\t%s\nwant one with\n\t%s", i, got[i], want[i])
		}
	}
}
