package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// rawItem is one item of the file before its keys are known to be right.
type rawItem struct {
	pos   Pos
	value *yaml.Node // nil: none
}

// readRaw splits a file into its items. What is no item is reported and left
// out.
func readRaw(name string, data []byte, rep *report) []rawItem {
	pos := Pos{File: name}
	root, err := readYAML(data, &pos)
	if err != nil {
		rep.errorf(pos, "", "%w", err)
		rep.unread = true
		return nil
	}
	if root == nil {
		return nil
	}
	var items []rawItem
	for _, n := range root.Content {
		item, err := readItem(name, deref(n))
		if err != nil {
			rep.errorf(Pos{File: name, Line: n.Line}, "", "%w", err)
			rep.unread = true
			continue
		}
		items = append(items, item)
	}
	return items
}

// readYAML returns the list that the file is, nil when it is empty. It sets
// the line in pos that an error is about.
func readYAML(data []byte, pos *Pos) (*yaml.Node, error) {
	if len(data) > MaxSize {
		return nil, fmt.Errorf("the file is too large: at most %d bytes are allowed", MaxSize)
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc, second yaml.Node
	err := dec.Decode(&doc)
	if errors.Is(err, io.EOF) {
		return nil, nil
	}
	if err == nil {
		if err = dec.Decode(&second); err == nil {
			pos.Line = second.Line
			return nil, errors.New("a second YAML document begins here: the file is one list of items")
		}
	}
	if !errors.Is(err, io.EOF) {
		return nil, syntaxError(err, pos)
	}
	root := deref(doc.Content[0])
	pos.Line = root.Line
	switch {
	case isNull(root):
		return nil, nil
	case root.Kind != yaml.SequenceNode:
		return nil, errors.New(`the file must be a list of items, each of them as "- item: ..."`)
	}
	return root, nil
}

// syntaxError takes the line number out of the library's error text, which is
// the only place that has it.
func syntaxError(err error, pos *Pos) error {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	if rest, ok := strings.CutPrefix(text, "line "); ok {
		if num, what, ok := strings.Cut(rest, ": "); ok {
			if line, err := strconv.Atoi(num); err == nil {
				pos.Line, text = line, what
			}
		}
	}
	return fmt.Errorf("not valid YAML: %s", text)
}

func readItem(file string, n *yaml.Node) (rawItem, error) {
	item := rawItem{pos: Pos{File: file, Line: n.Line}}
	if n.Kind == yaml.ScalarNode && !isNull(n) {
		item.pos.Item = n.Value // "- local-only" is as good as "- local-only: null"
		return item, nil
	}
	if n.Kind != yaml.MappingNode || len(n.Content) == 0 {
		return item, errors.New(`this is no item: write "- item: ..."`)
	}
	name := deref(n.Content[0])
	if name.Kind != yaml.ScalarNode {
		return item, errors.New("the name of an item must be a word")
	}
	if len(n.Content) > 2 {
		return item, fmt.Errorf("%q is beside the item %q: keys of an item are indented deeper than its name, and each item begins with a dash",
			deref(n.Content[2]).Value, name.Value)
	}
	item.pos.Item = name.Value
	if v := deref(n.Content[1]); !isNull(v) {
		item.value = v
	}
	return item, nil
}

// deref follows an alias (*name) to the node with the anchor (&name).
func deref(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }
