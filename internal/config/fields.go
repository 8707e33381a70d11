package config

import (
	"errors"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// fields are the keys that one item of the file has. An item's build function
// takes out those it knows; what is left is unknown.
type fields struct {
	pos   Pos
	given []field
	asked []string // every key that was asked for, given or not
	rep   *report
	ours  bool // the item is not Receptor's
}

type field struct {
	key   string // in lower case
	name  string // as the file has it
	pos   Pos
	value *yaml.Node
	taken bool
}

// readFields turns the value of an item into keys. A bare value is the item's
// main key. What has no keys at all is reported, and the item left out.
func readFields(it item, raw rawItem, rep *report) (f *fields, ok bool) {
	f = &fields{pos: raw.pos, rep: rep, ours: it.ours}
	n := raw.value
	switch {
	case n == nil, it.any:
	case n.Kind == yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			f.add(deref(n.Content[i]), deref(n.Content[i+1]))
		}
	case n.Kind == yaml.ScalarNode && it.main != "":
		f.given = append(f.given, field{key: it.main, name: it.main, pos: at(raw.pos, n.Line), value: n})
	default:
		what := "a list"
		if n.Kind == yaml.ScalarNode {
			what = strconv.Quote(n.Value)
		}
		rep.unread = true
		rep.errorf(raw.pos, "", "it takes keys with values, not %s", what)
		return f, false
	}
	return f, true
}

func (f *fields) add(key, value *yaml.Node) {
	pos := at(f.pos, key.Line)
	if key.Kind != yaml.ScalarNode {
		f.rep.errorf(pos, "", "a key must be a word")
		return
	}
	lower := strings.ToLower(key.Value)
	if i := f.index(lower); i >= 0 {
		f.rep.errorf(pos, key.Value, "it stands on %s already", f.given[i].pos.Place())
		return
	}
	f.given = append(f.given, field{key: lower, name: key.Value, pos: pos, value: value})
}

func (f *fields) index(key string) int {
	return slices.IndexFunc(f.given, func(g field) bool { return g.key == key })
}

// has tells whether a key is given a value.
func (f *fields) has(key string) bool {
	i := f.index(key)
	return i >= 0 && !f.empty(f.given[i].value)
}

// empty tells whether a value is none. In its items Receptor takes the empty text,
// too, for a key that is left out, and programs write files so; in items of ours it
// is a mistake.
func (f *fields) empty(n *yaml.Node) bool {
	return isNull(n) || !f.ours && n.Kind == yaml.ScalarNode && n.Value == ""
}

// keys returns what is given, in lower case.
func (f *fields) keys() []string {
	var keys []string
	for _, g := range f.given {
		keys = append(keys, g.key)
	}
	return keys
}

// take returns a key that is given a value, and marks it as known.
func (f *fields) take(key string) (field, bool) {
	f.asked = append(f.asked, key)
	i := f.index(key)
	if i < 0 {
		return field{}, false
	}
	f.given[i].taken = true
	return f.given[i], !f.empty(f.given[i].value)
}

// wrong tells whether a key was given and could not be read, which has been
// reported.
func (f *fields) wrong(key string) bool {
	for _, e := range f.rep.errs {
		if e.Item == f.pos.Item && strings.EqualFold(e.Key, key) && e.Line >= f.pos.Line {
			return true
		}
	}
	return false
}

func (f *fields) reportUnknown() {
	for _, g := range f.given {
		if !g.taken {
			f.rep.errorf(g.pos, g.name, "there is no such key%s", didYouMean(g.key, f.asked))
		}
	}
}

func (f *fields) warnf(key, format string, args ...any) {
	g := f.given[f.index(key)]
	f.rep.warnf(g.pos, g.name, format, args...)
}

// get returns the value of a key, or def when it is not given or wrong; what
// is wrong is reported.
func get[T any](f *fields, key string, def T, parse func(*yaml.Node) (T, error)) T {
	g, ok := f.take(key)
	if !ok {
		return def
	}
	v, err := parse(g.value)
	if err != nil {
		pos := g.pos
		if inner := (*lineError)(nil); errors.As(err, &inner) {
			pos.Line = inner.line
		}
		f.rep.errorf(pos, g.name, "%w", err)
		return def
	}
	return v
}

// need is get for a key that must be given.
func need[T any](f *fields, key string, parse func(*yaml.Node) (T, error)) T {
	var zero T
	if !f.has(key) {
		f.rep.errorf(f.pos, key, "it is missing")
	}
	return get(f, key, zero, parse)
}

// mode returns a key that is a file mode. It warns of a decimal number: 432 is
// what some programs make of 0660 when they write YAML, but a person who
// writes 400 does not mean 0620.
func (f *fields) mode(key string, def fs.FileMode) fs.FileMode {
	m := get(f, key, def, asMode)
	i := f.index(key)
	if i < 0 {
		return m
	}
	if text := f.given[i].value.Value; text != "" && text[0] != '0' && m != def {
		f.warnf(key, "%s is a decimal number, which means mode %#o: write modes with a leading zero", text, m)
	}
	return m
}

func at(p Pos, line int) Pos {
	p.Line = line
	return p
}
