package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// Request is one line of a client, in either form: docs/control.md section 3.
type Request struct {
	// Command is the command's name in lower case.
	Command string
	// Rest is what follows the command and, once a handler has it, the words
	// that its Command.Args name. Empty in the JSON form.
	Rest string

	params map[string]any // by name; of the text form once bind has named the words
}

// parseRequest splits a line. It does not know the commands.
func parseRequest(line []byte) (*Request, error) {
	text := strings.TrimSpace(strings.ReplaceAll(string(line), "\r", "")) // as Receptor skips them
	if !strings.HasPrefix(text, "{") {
		name, rest := cutWord(text)
		return &Request{Command: strings.ToLower(name), Rest: rest}, nil
	}
	r := &Request{}
	if err := json.Unmarshal([]byte(text), &r.params); err != nil {
		return nil, fmt.Errorf("the request is not valid JSON: %w", err)
	}
	name, err := r.String("command")
	if err != nil {
		return nil, err
	}
	if name == "" {
		return nil, errors.New(`the request has no "command"`)
	}
	r.Command = strings.ToLower(name)
	return r, nil
}

// bind gives the words of the text form their names. It leaves the JSON form
// alone, whose parameters have names.
func (r *Request) bind(args []string) {
	if r.params != nil {
		return
	}
	r.params = map[string]any{}
	for _, name := range args {
		if r.Rest == "" {
			return
		}
		word, rest := cutWord(r.Rest)
		r.params[name], r.Rest = word, rest
	}
}

// cutWord splits text after its first word, without the space between.
func cutWord(text string) (word, rest string) {
	i := strings.IndexAny(text, " \t")
	if i < 0 {
		return text, ""
	}
	return text[:i], strings.TrimLeft(text[i:], " \t")
}

// String returns a parameter that is a string, "" when it is not given or
// null. The error says that it is something else.
func (r *Request) String(name string) (string, error) {
	switch v := r.params[name].(type) {
	case nil:
		return "", nil
	case string:
		return v, nil
	}
	return "", fmt.Errorf("%q must be a string", name)
}

// Flag returns a parameter that is true or false, as such or as a string; false
// when it is not given or null. The error says that it is something else.
func (r *Request) Flag(name string) (bool, error) {
	switch v := r.params[name].(type) {
	case nil:
		return false, nil
	case bool:
		return v, nil
	case string:
		switch strings.ToLower(v) {
		case "", "false":
			return false, nil
		case "true":
			return true, nil
		}
	}
	return false, fmt.Errorf("%q must be true or false", name)
}

// Need is String for a parameter that must be given.
func (r *Request) Need(name string) (string, error) {
	s, err := r.String(name)
	if err == nil && s == "" {
		err = fmt.Errorf("%s: %q is missing", r.Command, name)
	}
	return s, err
}

// Strings returns a parameter that is a list of strings, nil when it is not
// given or null. The error says that it is something else.
func (r *Request) Strings(name string) ([]string, error) {
	v := r.params[name]
	if v == nil {
		return nil, nil
	}
	elems, ok := v.([]any)
	if !ok {
		return nil, fmt.Errorf("%q must be a list of strings", name)
	}
	var out []string
	for _, e := range elems {
		s, ok := e.(string)
		if !ok {
			return nil, fmt.Errorf("%q must be a list of strings", name)
		}
		out = append(out, s)
	}
	return out, nil
}
