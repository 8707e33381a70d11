package house

import (
	"fmt"
	"go/ast"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// order says who may know whom: a package imports only from lines above its
// own, its tests too. Packages on one line do not know each other, but for
// those of one "x/...", which is x and all below it: they settle it themselves.
var order = [][]string{
	{"routing"},
	{"internal/freeport", "internal/newansible"},
	{"internal/wire"},
	{"internal/admission"},
	{"internal/identity"},
	{"internal/process"},
	{"internal/jobdir"},
	{"internal/tree"},
	{"internal/journal"},
	{"internal/deadline"},
	{"internal/pipe"},
	{"mesh/link/records"},
	{"mesh/link"},
	{"mesh/link/pace"},
	{"mesh/link/linktest"},
	{"mesh/muxlink"},
	{"mesh/tcplink", "mesh/wslink", "mesh/quiclink", "mesh/memlink"},
	{"mesh/secure"},
	{"mesh/session"},
	{"mesh/firewall"},
	{"mesh"},
	{"mesh/meshtest"},
	{"mesh/proxy"},
	{"worktypes/content"},
	{"worktypes"},
	{"worktypes/worktypetest"},
	{"worktypes/command", "worktypes/kubernetes"},
	{"worktypes/ansiblerunner"},
	{"worktypes/keeper"},
	{"worktypes/remote"},
	{"runner/internal/..."},
	{"runner"},
	{"runner/remote"},
	{"internal/policy"},
	{"internal/worktoken"},
	{"internal/config"},
	{"internal/control"},
	{"internal/metrics"},
	{"node"},
	{"cmd/ranvier"},
	{"config-examples"},
	{"tests/..."},
}

// A rule forbids imports that the order alone would allow. It holds for the
// packages of who without those of but, tests excepted.
type rule struct {
	who   []string // "..." is every package
	but   []string
	never []string // import paths; those of this module without its prefix
	why   string
}

// thirdParty stands for every module but this one and the standard library.
const thirdParty = "third party"

// network is what a package without a network does not import. net/netip and
// net/url only parse and are free.
var network = []string{
	"net", "net/http/...", "net/rpc/...", "net/smtp", "net/textproto", "crypto/tls",
	"golang.org/x/net/...", "mesh/...",
}

var rules = []rule{
	{
		who: []string{"..."}, but: []string{"mesh/muxlink", "tests/..."},
		never: []string{"github.com/hashicorp/yamux"},
		why:   "only mesh/muxlink sees yamux",
	}, {
		who: []string{"..."}, but: []string{"mesh/quiclink", "tests/..."},
		never: []string{"github.com/quic-go/quic-go/..."},
		why:   "only mesh/quiclink sees quic-go",
	}, {
		who: []string{"..."}, but: []string{"node"},
		never: []string{"internal/metrics"},
		why:   "packages expose Stats; only node turns them into metrics",
	}, {
		who:   []string{"routing"},
		never: []string{thirdParty, "net/...", "os/...", "io/...", "log/...", "sync/...", "syscall", "context"},
		why:   "routing is pure: the standard library without I/O, locks or loggers",
	}, {
		who:   []string{"worktypes/...", "runner/..."},
		but:   []string{"worktypes/keeper", "worktypes/remote", "runner/remote"},
		never: network,
		why:   "worktypes and runner know no network",
	}, {
		who:   []string{"worktypes/remote"},
		never: []string{"mesh/..."},
		why:   "the work service takes functions and conns, not a mesh",
	}, {
		who:   []string{"mesh/session"},
		never: []string{"mesh/..."},
		why:   "a session stands on a redial function and knows no mesh",
	},
}

func TestLayering(t *testing.T) {
	t.Parallel()
	report(t, checkLayering(ours(t), order, rules))
}

func TestRoutingIsPure(t *testing.T) {
	t.Parallel()
	tr := ours(t)
	if len(tr.packages["routing"]) == 0 {
		t.Fatal("there is no package routing to look at")
	}
	report(t, checkPure(tr, "routing"))
}

// checkLayering returns one finding per import from the wrong side.
func checkLayering(tr *tree, order [][]string, rules []rule) []string {
	var findings []string
	for _, dir := range tr.dirs() {
		line := lineOf(order, dir)
		if line < 0 {
			findings = append(findings, fmt.Sprintf("package %s has no line in the table: give it one in tests/house/layering_test.go", dir))
			continue
		}
		for _, src := range tr.packages[dir] {
			for _, spec := range src.ast.Imports {
				imported, err := strconv.Unquote(spec.Path.Value)
				if err != nil {
					panic(err) // the parser lets none through
				}
				if why := refused(order, rules, dir, line, imported, src.test); why != "" {
					arrow := dir + " -> " + strings.TrimPrefix(imported, module+"/")
					findings = append(findings, fmt.Sprintf("%s: %s: %s", tr.at(spec), arrow, why))
				}
			}
		}
	}
	return findings
}

// refused says why a package may not have an import, "" when it may.
func refused(order [][]string, rules []rule, dir string, line int, imported string, test bool) string {
	name, ours := strings.CutPrefix(imported, module+"/")
	for _, r := range rules {
		if !test && matchAny(r.who, dir) && !matchAny(r.but, dir) && matchAny(r.never, name) {
			return r.why
		}
	}
	if !ours || name == dir { // dir itself: its external test
		return ""
	}
	switch other := lineOf(order, name); {
	case other < 0:
		return name + " has no line in the table"
	case other == line && !family(order[line], dir, name):
		return "they stand on one line and do not know each other"
	case other > line:
		return fmt.Sprintf("%s stands below %s: a package imports only from lines above its own", name, dir)
	}
	return ""
}

// checkPure finds what an import alone does not tell: goroutines and clocks.
func checkPure(tr *tree, dir string) []string {
	clock := []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker"}
	var findings []string
	for _, src := range tr.packages[dir] {
		if src.test {
			continue
		}
		ast.Inspect(src.ast, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GoStmt:
				findings = append(findings, tr.at(n)+": "+dir+" starts a goroutine; its caller's loop owns it")
			case *ast.SelectorExpr:
				if name, ok := selects(n, "time"); ok && slices.Contains(clock, name) {
					findings = append(findings, tr.at(n)+": "+dir+" uses time."+name+"; now is an argument")
				}
			}
			return true
		})
	}
	return findings
}

// selects returns the name in pkg.name. That no one shadows the package is
// taken for granted.
func selects(n ast.Node, pkg string) (string, bool) {
	sel, ok := n.(*ast.SelectorExpr)
	if !ok {
		return "", false
	}
	x, ok := sel.X.(*ast.Ident)
	return sel.Sel.Name, ok && x.Name == pkg
}

func lineOf(order [][]string, dir string) int {
	for i, line := range order {
		if matchAny(line, dir) {
			return i
		}
	}
	return -1
}

// family reports whether one "x/..." of a line holds both packages.
func family(line []string, a, b string) bool {
	return slices.ContainsFunc(line, func(p string) bool {
		one := []string{p}
		return matchAny(one, a) && matchAny(one, b)
	})
}

// matchAny reports whether one of the patterns is p, or "x/..." with p at or
// below x, or "..." for everything, or thirdParty.
func matchAny(patterns []string, p string) bool {
	first, _, _ := strings.Cut(p, "/")
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		parent, deep := strings.CutSuffix(pattern, "/...")
		return pattern == "..." ||
			parent == p || deep && strings.HasPrefix(p, parent+"/") ||
			pattern == thirdParty && strings.Contains(first, ".")
	})
}

func TestLayeringFindsWrongImports(t *testing.T) {
	t.Parallel()
	file := func(dir string, imports ...string) []string {
		var b strings.Builder
		fmt.Fprintf(&b, "package %s\n", path.Base(dir))
		for _, i := range imports {
			fmt.Fprintf(&b, "import _ %q\n", i)
		}
		return []string{dir + "/x.go", b.String()}
	}
	ownTest := func(dir string, imports ...string) []string {
		f := file(dir, imports...)
		return []string{dir + "/x_test.go", f[1]}
	}
	for name, tc := range map[string]struct {
		file []string
		want []string
	}{
		"downwards is free":     {file("mesh", module+"/routing", module+"/mesh/link", "net"), nil},
		"upwards":               {file("routing", module+"/mesh"), []string{"routing/x.go:2: routing -> mesh: mesh stands below routing"}},
		"upwards in a test":     {ownTest("mesh/link", module+"/mesh"), []string{"mesh/link -> mesh"}},
		"sideways":              {file("mesh/tcplink", module+"/mesh/wslink"), []string{"one line"}},
		"sideways in a family":  {file("runner/internal/a", module+"/runner/internal/b"), nil},
		"own external test":     {ownTest("mesh", module+"/mesh"), nil},
		"not in the table":      {file("utils"), []string{"package utils has no line"}},
		"imports a stranger":    {file("node", module+"/internal/utils"), []string{"internal/utils has no line"}},
		"yamux elsewhere":       {file("mesh/tcplink", "github.com/hashicorp/yamux"), []string{"only mesh/muxlink sees yamux"}},
		"yamux at home":         {file("mesh/muxlink", "github.com/hashicorp/yamux"), nil},
		"yamux as a reference":  {file("tests/bench", "github.com/hashicorp/yamux"), nil},
		"a part of quic-go":     {file("node", "github.com/quic-go/quic-go/http3"), []string{"only mesh/quiclink"}},
		"routing and the disk":  {file("routing", "os"), []string{"pure"}},
		"routing and a lock":    {file("routing", "sync"), []string{"pure"}},
		"routing and a library": {file("routing", "golang.org/x/exp/maps"), []string{"pure"}},
		"runner and sockets":    {file("runner", "net"), []string{"know no network"}},
		"runner and http":       {file("worktypes/command", "net/http"), []string{"know no network"}},
		"runner and the mesh":   {file("runner", module+"/mesh"), []string{"know no network"}},
		"runner parses a url":   {file("runner", "net/url"), nil},
		"runner/remote is free": {file("runner/remote", "net", module+"/mesh", module+"/runner"), nil},
		"remote and the mesh":   {file("worktypes/remote", "net", module+"/mesh"), []string{"functions and conns"}},
		"metrics in the mesh":   {file("cmd/ranvier", module+"/internal/metrics"), []string{"only node"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			wantFindings(t, checkLayering(given(t, tc.file...), order, rules), tc.want...)
		})
	}
}

func TestPureFindsClocksAndGoroutines(t *testing.T) {
	t.Parallel()
	tr := given(t, "routing/x.go", `package routing

import "time"

func f(d time.Duration) time.Time {
	go f(d)
	return time.Now().Add(d)
}
`, "routing/x_test.go", "package routing\n\nfunc g() { go g() }\n")
	wantFindings(t, checkPure(tr, "routing"), "routing/x.go:6: routing starts a goroutine", "routing/x.go:7: routing uses time.Now")
}
