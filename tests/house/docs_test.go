package house

import (
	"fmt"
	"go/ast"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
)

func TestDocs(t *testing.T) {
	t.Parallel()
	tr := ours(t)
	for name, check := range map[string]func(*tree) []string{
		"links resolve":        checkLinks,
		"paths named exist":    checkPaths,
		"sections cited exist": checkCitations,
		"merges are done":      checkMerges,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			report(t, check(tr))
		})
	}
}

// A mdFile is a Markdown file in the parts that are looked at.
type mdFile struct {
	name  string
	prose []mdLine // without code
	code  []mdLine // fenced lines and inline spans
	heads []string // headings, without their #
}

type mdLine struct {
	n    int
	text string
}

var (
	inlineCode = regexp.MustCompile("`([^`]+)`")
	heading    = regexp.MustCompile(`^#{1,6} +(.*?)[ #]*$`)
	// [text](target "title") and [label]: target
	inlineLink    = regexp.MustCompile(`\]\(<?([^)\s>]+)>?(?:\s[^)]*)?\)`)
	referenceLink = regexp.MustCompile(`^\[[^\]]+\]:\s+(\S+)`)
)

func (tr *tree) markdown() []mdFile {
	var out []mdFile
	for _, name := range tr.files {
		if path.Ext(name) == ".md" {
			out = append(out, tr.readMarkdown(name))
		}
	}
	return out
}

func (tr *tree) readMarkdown(name string) mdFile {
	f := mdFile{name: name}
	src, err := fs.ReadFile(tr.fsys, name)
	if err != nil {
		return f // that it is missing is told where it is linked
	}
	fenced := false
	for i, text := range strings.Split(string(src), "\n") {
		line := mdLine{i + 1, text}
		switch trimmed := strings.TrimSpace(text); {
		case strings.HasPrefix(trimmed, "```"):
			fenced = !fenced
		case fenced:
			f.code = append(f.code, line)
		default:
			if m := heading.FindStringSubmatch(text); m != nil {
				f.heads = append(f.heads, m[1])
			}
			for _, m := range inlineCode.FindAllStringSubmatch(text, -1) {
				f.code = append(f.code, mdLine{line.n, m[1]})
			}
			f.prose = append(f.prose, mdLine{line.n, inlineCode.ReplaceAllString(text, "code")})
		}
	}
	return f
}

// checkLinks returns the relative links that lead nowhere.
func checkLinks(tr *tree) []string {
	var findings []string
	for _, f := range tr.markdown() {
		for _, line := range f.prose {
			links := inlineLink.FindAllStringSubmatch(line.text, -1)
			links = append(links, referenceLink.FindAllStringSubmatch(line.text, -1)...)
			for _, m := range links {
				if !tr.resolves(f, m[1]) {
					findings = append(findings, fmt.Sprintf("%s:%d: the link %s leads nowhere", f.name, line.n, m[1]))
				}
			}
		}
	}
	return findings
}

func (tr *tree) resolves(f mdFile, link string) bool {
	if strings.Contains(link, "://") || strings.HasPrefix(link, "mailto:") {
		return true
	}
	file, anchor, anchored := strings.Cut(link, "#")
	target := f
	if file != "" {
		name := path.Join(path.Dir(f.name), file)
		if !tr.exists(name) {
			return false
		}
		target = mdFile{name: name}
		if anchored && path.Ext(name) == ".md" {
			target = tr.readMarkdown(name)
		}
	}
	return !anchored || path.Ext(target.name) != ".md" || slices.Contains(anchors(target.heads), anchor)
}

// anchors returns the anchors that GitHub gives to headings.
func anchors(heads []string) []string {
	var out []string
	seen := map[string]int{}
	for _, h := range heads {
		a := strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r == '-', r == '_', unicode.IsLetter(r), unicode.IsDigit(r):
				return unicode.ToLower(r)
			}
			return -1
		}, h)
		if n := seen[a]; n > 0 {
			out = append(out, fmt.Sprintf("%s-%d", a, n))
		} else {
			out = append(out, a)
		}
		seen[a]++
	}
	return out
}

// checkPaths returns the paths that look like paths of this repository and do
// not exist: in code any, in prose those with a slash.
func checkPaths(tr *tree) []string {
	var findings []string
	for _, f := range tr.markdown() {
		for _, line := range f.code {
			findings = append(findings, tr.missingPaths(f, line, 0)...)
		}
		for _, line := range f.prose {
			findings = append(findings, tr.missingPaths(f, line, 1)...)
		}
	}
	return findings
}

// missingPaths looks at the words of a line that have so many slashes at least.
func (tr *tree) missingPaths(f mdFile, line mdLine, slashes int) []string {
	var findings []string
	for _, word := range strings.FieldsFunc(line.text, betweenWords) {
		if strings.Count(word, "/") < slashes {
			continue
		}
		if p, ok := tr.repoPath(word); ok && !tr.pathExists(f.name, p) {
			findings = append(findings, fmt.Sprintf("%s:%d: there is no %s", f.name, line.n, p))
		}
	}
	return findings
}

func betweenWords(r rune) bool {
	return unicode.IsSpace(r) || strings.ContainsRune(`"'=,;|()[]`, r)
}

// repoPath tells whether a word names a path of the repository: its first
// part is a folder at the top, or it is the name of a Go or Markdown file. It
// returns the part of it that can be looked up.
func (tr *tree) repoPath(word string) (string, bool) {
	word = strings.TrimPrefix(word, module+"/")
	word = strings.TrimRight(strings.TrimPrefix(word, "./"), ".:/")
	word, _, _ = strings.Cut(word, ":") // file.go:12
	word, _, _ = strings.Cut(word, "#")
	parts := strings.Split(word, "/")
	for i, part := range parts { // <placeholder>, $VARIABLE
		if strings.ContainsAny(part, "<>{}$…~") {
			parts = parts[:i]
			break
		}
	}
	p := path.Join(parts...)
	if p == "" || !fs.ValidPath(p) || slices.ContainsFunc(generated, func(g string) bool {
		return p == g || strings.HasPrefix(p, g+"/")
	}) {
		return "", false
	}
	if len(parts) == 1 {
		ext := path.Ext(p)
		return p, (ext == ".md" || ext == ".go") && ext != p
	}
	info, err := fs.Stat(tr.fsys, parts[0])
	return p, err == nil && info.IsDir()
}

// pathExists looks for p from the root and from the folder of the file that
// names it. A lone file name may be anywhere; * is a wildcard; pkg.Name is a
// name in a package.
func (tr *tree) pathExists(from, p string) bool {
	if !strings.Contains(p, "/") && slices.ContainsFunc(tr.files, func(name string) bool { return path.Base(name) == p }) {
		return true
	}
	candidates := []string{p, path.Join(path.Dir(from), p)}
	if dir, symbol, ok := strings.Cut(p, "."); ok && ast.IsExported(symbol) {
		candidates = append(candidates, dir)
	}
	return slices.ContainsFunc(candidates, func(c string) bool {
		found, err := fs.Glob(tr.fsys, c)
		return err == nil && len(found) > 0
	})
}

var (
	citation      = regexp.MustCompile(`(docs/[a-z0-9/-]+\.md)(?:,? ?(?:section|§) ?([0-9]+(?:\.[0-9]+)*))?`)
	sectionNumber = regexp.MustCompile(`^([0-9]+(?:\.[0-9]+)*)\.? `)
)

// checkCitations returns the comments that cite a page of docs/, or a numbered
// section of it, that is not there.
func checkCitations(tr *tree) []string {
	var findings []string
	sections := map[string][]string{} // by page
	for _, f := range tr.markdown() {
		for _, h := range f.heads {
			if m := sectionNumber.FindStringSubmatch(h); m != nil {
				sections[f.name] = append(sections[f.name], m[1])
			}
		}
	}
	for _, dir := range tr.dirs() {
		for _, src := range tr.packages[dir] {
			for _, group := range src.ast.Comments {
				text := strings.Join(strings.Fields(group.Text()), " ")
				for _, m := range citation.FindAllStringSubmatch(text, -1) {
					page, section := m[1], m[2]
					switch {
					case !tr.exists(page):
						findings = append(findings, fmt.Sprintf("%s: cites %s, which is not there", tr.at(group), page))
					case section != "" && !slices.Contains(sections[page], section):
						findings = append(findings, fmt.Sprintf("%s: cites %s section %s, which is not there", tr.at(group), page, section))
					}
				}
			}
		}
	}
	return findings
}

// checkMerges returns the marks of two versions that nobody has put together.
// In Go source the compiler finds them.
func checkMerges(tr *tree) []string {
	var findings []string
	for _, f := range tr.markdown() {
		for _, line := range append(slices.Clone(f.prose), f.code...) {
			if strings.HasPrefix(line.text, "<<<<<<< ") || strings.HasPrefix(line.text, ">>>>>>> ") {
				findings = append(findings, fmt.Sprintf("%s:%d: two versions are side by side", f.name, line.n))
			}
		}
	}
	return findings
}

func TestDocsFindsWhatIsMissing(t *testing.T) {
	t.Parallel()
	const md = `# A title: with signs!
[there](docs/there.md), [section](docs/there.md#two-words), [own](#a-title-with-signs), [web](https://example.org/x)
[gone](docs/gone.md) and [no such section](docs/there.md#three)
` + "`mesh/link/` `./mesh/...` `mesh/*.go` `mesh.Dial` `mesh/link.Link` `env/settings` `a.yml` `bin/ranvier` `demo/artifacts/<ident>/rc` `link.go`" + `
` + "`mesh/lnk` `mesh/*.txt` `mesh/link.go` `GONE.md` `mesh/x/<name>`" + `
` + "```" + `
go test ./mesh/link ./mesh/gone
` + "```" + `
[label]: docs/nowhere.md
See mesh/nothere.go, mesh/mesh.go and and/or GONE.md.
`
	tr := given(t, "README.md", md,
		"docs/there.md", "# There\n## Two words\n## 1. One\n### 1.2 Half\n[up](../README.md)\n",
		"demo/project/test.yml", "",
		"mesh/mesh.go", "// Package mesh: see docs/there.md section 1.2, docs/there.md\n// §1, docs/there.md and docs/there.md section 3; docs/none.md §1.\npackage mesh\n",
		"mesh/link/link.go", "package link\n")
	wantFindings(t, checkLinks(tr),
		"README.md:3: the link docs/gone.md", "README.md:3: the link docs/there.md#three", "README.md:9: the link docs/nowhere.md")
	wantFindings(t, checkPaths(tr),
		"README.md:5: there is no mesh/lnk", "no mesh/*.txt", "no mesh/link.go", "no GONE.md", "no mesh/x", "README.md:7: there is no mesh/gone",
		"README.md:3: there is no docs/gone.md", "README.md:9: there is no docs/nowhere.md", "README.md:10: there is no mesh/nothere.go")
	wantFindings(t, checkCitations(tr),
		"mesh/mesh.go:1: cites docs/there.md section 3", "cites docs/none.md")
	wantFindings(t, checkMerges(given(t, "README.md", "# One\n<<<<<<< HEAD\na\n=======\nb\n>>>>>>> 1234567 (b)\n")),
		"README.md:2: two versions", "README.md:6: two versions")
}
