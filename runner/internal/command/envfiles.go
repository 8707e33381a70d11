package command

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/ranvier-mesh/ranvier/runner/internal/pyjson"
)

// maxFile is how large a file of env/ may be.
const maxFile = 64 << 20

// readText returns what is in a file of the private data directory, and
// whether there is one.
func readText(dir, name string) (string, bool, error) {
	path := filepath.Join(dir, name)
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", false, nil
	}
	if err == nil && info.Size() > maxFile {
		err = fmt.Errorf("%d bytes are more than can be meant", info.Size())
	}
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("no regular file")
	}
	if err != nil {
		return "", false, fmt.Errorf("%w: %s: %w", ErrJob, name, err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return "", false, fmt.Errorf("%w: %s: %w", ErrJob, name, err)
	}
	return string(data), true, nil
}

// readMap reads a file of JSON or YAML that holds a map. Errors name the file
// and the line; for what is in JSON and of the wrong type, the key.
func readMap(dir, name string) ([]Entry, error) {
	data, there, err := readText(dir, name)
	if err != nil || !there || strings.TrimSpace(data) == "" {
		return nil, err
	}
	if trimmed := strings.TrimSpace(data); trimmed[0] == '{' {
		var entries []Entry
		if parseObject([]byte(trimmed), &entries) == nil {
			return entries, nil
		}
	}
	top, err := topMap(data, name)
	if err != nil || top == nil {
		return nil, err
	}
	return mapEntries(top, name)
}

// checkMap refuses a file that Ansible could not read as a map, before it is
// started. Values are left to Ansible, which has tags of its own for them, and so
// is what ansible-vault has encrypted.
func checkMap(dir, name string) error {
	data, there, err := readText(dir, name)
	if err != nil || !there || strings.HasPrefix(data, "$ANSIBLE_VAULT;") {
		return err
	}
	var entries []Entry
	if trimmed := strings.TrimSpace(data); strings.HasPrefix(trimmed, "{") && parseObject([]byte(trimmed), &entries) == nil {
		return nil
	}
	top, err := topMap(data, name)
	if err == nil && top == nil {
		err = fmt.Errorf("%w: %s: line 1: a map is expected, and there is nothing", ErrJob, name)
	}
	return err
}

// topMap parses YAML that holds a map, or nothing: then it is nil.
func topMap(data, name string) (*yaml.Node, error) {
	var doc yaml.Node
	in := yaml.NewDecoder(strings.NewReader(data))
	err := in.Decode(&doc)
	if err == nil { // nothing may come behind it
		if err = in.Decode(new(yaml.Node)); err == nil {
			err = errors.New("more than one document")
		}
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: %s: neither JSON nor YAML: %s", ErrJob, name, yamlFault(err, data))
	}
	if len(doc.Content) == 0 {
		return nil, nil
	}
	top := resolve(doc.Content[0])
	if top.Kind != yaml.MappingNode {
		return nil, fmt.Errorf("%w: %s: line %d: a map is expected", ErrJob, name, top.Line)
	}
	return top, nil
}

// mapEntries are those of a map; what it takes over from others (<<) its own go
// before.
func mapEntries(top *yaml.Node, name string) ([]Entry, error) {
	var entries, others []Entry
	for i := 0; i+1 < len(top.Content); i += 2 {
		key, value := resolve(top.Content[i]), resolve(top.Content[i+1])
		if key.Tag == "!!merge" {
			more, err := takenOver(value, name)
			if err != nil {
				return nil, err
			}
			others = merge(others, more)
			continue
		}
		if key.Kind != yaml.ScalarNode {
			return nil, fmt.Errorf("%w: %s: line %d: a key is no text", ErrJob, name, key.Line)
		}
		v, err := yamlValue(value)
		if err != nil {
			return nil, fmt.Errorf("%w: %s: line %d: %s: %w", ErrJob, name, value.Line, key.Value, err)
		}
		entries = append(entries, Entry{Key: key.Value, Value: v, Line: key.Line})
	}
	return merge(others, entries), nil
}

// takenOver are the entries of the map, or of the list of maps of which the first
// goes before, that a merge key names.
func takenOver(n *yaml.Node, name string) (entries []Entry, err error) {
	if err := n.Decode(new(any)); err != nil { // such as a map that takes over itself
		return nil, fmt.Errorf("%w: %s: line %d: <<: %w", ErrJob, name, n.Line, err)
	}
	maps := []*yaml.Node{n}
	if n.Kind == yaml.SequenceNode {
		maps = n.Content
	}
	for _, m := range maps {
		if m = resolve(m); m.Kind != yaml.MappingNode {
			return nil, fmt.Errorf("%w: %s: line %d: <<: a map is expected", ErrJob, name, m.Line)
		}
		more, err := mapEntries(m, name)
		if err != nil {
			return nil, err
		}
		entries = merge(more, entries)
	}
	return entries, nil
}

// yamlFault is the library's message with the line as people count. Its parser,
// unlike its scanner, begins with 0; neither tells of the first line; and what
// reads the characters tells of none.
func yamlFault(err error, data string) string {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	var line int
	rest := text
	if n, _ := fmt.Sscanf(text, "line %d:", &line); n == 1 {
		_, rest, _ = strings.Cut(text, ": ")
		if strings.HasPrefix(rest, "did not find") {
			line++
		}
	} else if at := faultAt(rest, data); at >= 0 {
		line = 1 + strings.Count(data[:at], "\n")
	} else if rest == "more than one document" {
		return rest
	}
	// A text that is never closed ends behind the last line.
	line = min(max(line, 1), 1+strings.Count(strings.TrimRight(data, "\r\n"), "\n"))
	return fmt.Sprintf("line %d: %s", line, rest)
}

// faultAt finds where in data a fault is that has no line, or -1.
func faultAt(fault, data string) int {
	var anchor string
	switch {
	case strings.HasPrefix(fault, "control characters"):
		return strings.IndexFunc(data, func(r rune) bool {
			return r < ' ' && r != '\t' && r != '\n' && r != '\r' || r >= 0x7f && r < 0xa0 && r != 0x85
		})
	case strings.Contains(fault, "UTF-8"):
		for i, r := range data {
			if r == utf8.RuneError && !strings.HasPrefix(data[i:], "\uFFFD") {
				return i
			}
		}
	default:
		if n, _ := fmt.Sscanf(fault, "unknown anchor '%s", &anchor); n == 1 {
			return strings.Index(data, "*"+strings.TrimSuffix(anchor, "'"))
		}
	}
	return -1
}

func resolve(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

// yamlValue reads a value as Python's YAML does, to which yes and off are true
// and false.
func yamlValue(n *yaml.Node) (any, error) {
	if n.Kind == yaml.ScalarNode && n.Style == 0 && n.Tag == "!!str" {
		switch strings.ToLower(n.Value) {
		case "yes", "on":
			return true, nil
		case "no", "off":
			return false, nil
		}
	}
	if n.Kind == yaml.ScalarNode && (n.Tag == "!!int" || n.Tag == "!!float") && json.Valid([]byte(n.Value)) {
		return json.Number(n.Value), nil
	}
	if n.Kind == yaml.ScalarNode && n.Tag == "!!timestamp" {
		return n.Value, nil
	}
	var v any
	if err := n.Decode(&v); err != nil {
		return nil, err
	}
	raw, err := json.Marshal(v)
	if err != nil {
		return nil, errors.New("what is in it cannot be understood")
	}
	return anyValue(raw)
}

func anyValue(raw []byte) (any, error) {
	if len(raw) > 0 && raw[0] == '"' {
		return pyjson.Unquote(raw)
	}
	dec := json.NewDecoder(bytes.NewReader(pyjson.Plain(raw)))
	dec.UseNumber()
	var v any
	err := dec.Decode(&v)
	return v, err
}

// pyString is Python's str() of a value that is no collection.
func pyString(v any) (string, bool) {
	switch v := v.(type) {
	case nil:
		return "None", true
	case string:
		return v, true
	case bool:
		if v {
			return "True", true
		}
		return "False", true
	case json.Number:
		return v.String(), true
	}
	return "", false
}

// merge returns the entries of both; those of later go before.
func merge(earlier, later []Entry) []Entry {
	var all []Entry
	at := make(map[string]int)
	for _, e := range append(append([]Entry(nil), earlier...), later...) {
		if i, there := at[e.Key]; there {
			all[i] = e
			continue
		}
		at[e.Key] = len(all)
		all = append(all, e)
	}
	return all
}

// where says which entry of which file is meant, for an error.
func (e Entry) where(file string) string {
	if e.Line > 0 {
		return fmt.Sprintf("%s: line %d: %s", file, e.Line, e.Key)
	}
	return file + ": " + e.Key
}
