package config

import (
	"cmp"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/ranvier-mesh/ranvier/routing"
)

// Source is where a node's configuration comes from. The zero value of each
// field is that there is none.
type Source struct {
	File string // a configuration file
	Args []Arg  // items of the command line, as if they stood at the file's end
	// DataDir says where a node keeps its data whose configuration says datadir,
	// or nothing; nil is there, or in DefaultDataDir.
	DataDir func(id routing.NodeID, datadir string) string
}

// Arg is an item of a command line: --tcp-listener port=2222 cost=2.
type Arg struct {
	Item  string   // without the dashes
	Words []string // key=value, or one bare value; maps and lists are JSON
}

// commandLine stands for the file in the positions of Args.
const commandLine = "command line"

// ItemNames returns the names of all items.
func ItemNames() []string {
	var names []string
	for _, it := range table() {
		names = append(names, it.name)
	}
	return names
}

// Load reads and checks everything. Its errors are those of Parse, or of the
// file system wrapped with the path.
func (s Source) Load() (*Config, error) {
	var data []byte
	if s.File != "" {
		f, err := os.Open(s.File)
		if err != nil {
			return nil, fmt.Errorf("configuration file: %w", err)
		}
		defer f.Close()
		// One byte more than is accepted shows that a file is too large.
		if data, err = io.ReadAll(io.LimitReader(f, MaxSize+1)); err != nil {
			return nil, fmt.Errorf("configuration file: %w", err)
		}
	}
	return s.parse(data, os.Hostname)
}

func (s Source) parse(data []byte, hostname func() (string, error)) (*Config, error) {
	name := s.File
	if name == "" {
		name = commandLine
	}
	rep := &report{file: name}
	c := &Config{
		File:     name,
		LogLevel: slog.LevelInfo,
		Node:     Node{Pos: Pos{File: name, Item: "node"}},
	}
	raws := readRaw(name, data, rep)
	for _, a := range s.Args {
		if raw, err := a.raw(); err != nil {
			rep.unread = true
			rep.errorf(raw.pos, "", "%w", err)
		} else {
			raws = append(raws, raw)
		}
	}
	build(c, raws, rep)
	check(c, rep, hostname)
	if err := rep.err(); err != nil {
		return nil, err
	}
	if s.DataDir != nil {
		c.Node.DataDir = s.DataDir(c.Node.ID, c.Node.DataDir)
	}
	c.Node.DataDir = cmp.Or(c.Node.DataDir, DefaultDataDir)
	c.Warnings = rep.sortedWarnings()
	return c, nil
}

// raw turns the words into what the file would have.
func (a Arg) raw() (rawItem, error) {
	item := rawItem{pos: Pos{File: commandLine, Item: a.Item}}
	if len(a.Words) == 0 {
		return item, nil
	}
	if len(a.Words) == 1 && !strings.Contains(a.Words[0], "=") {
		item.value = argValue(a.Words[0])
		return item, nil
	}
	item.value = &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
	for _, w := range a.Words {
		key, value, ok := strings.Cut(w, "=")
		if !ok || key == "" {
			return item, fmt.Errorf("%.100q is no key=value", w)
		}
		addWord(item.value, key, argValue(value))
	}
	return item, nil
}

// addWord adds a key to a map. One that is there already becomes a list of both:
// Receptor's lists are written so on the command line.
func addWord(item *yaml.Node, key string, value *yaml.Node) {
	for i := 0; i < len(item.Content); i += 2 {
		if !strings.EqualFold(item.Content[i].Value, key) {
			continue
		}
		all := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}
		for _, n := range []*yaml.Node{item.Content[i+1], value} {
			if n.Kind == yaml.SequenceNode {
				all.Content = append(all.Content, n.Content...)
			} else {
				all.Content = append(all.Content, n)
			}
		}
		item.Content[i+1] = all
		return
	}
	item.Content = append(item.Content, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: key}, value)
}

// argValue is a text, or what JSON says where it begins as a map or a list.
func argValue(text string) *yaml.Node {
	plain := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: text}
	if !strings.HasPrefix(text, "{") && !strings.HasPrefix(text, "[") {
		return plain
	}
	var doc yaml.Node
	if yaml.Unmarshal([]byte(text), &doc) != nil || len(doc.Content) != 1 {
		return plain // the key's own error says what is expected
	}
	forgetLines(doc.Content[0])
	return doc.Content[0]
}

// forgetLines takes the lines out, which are none of a file's.
func forgetLines(n *yaml.Node) {
	n.Line = 0
	for _, c := range n.Content {
		forgetLines(c)
	}
}
