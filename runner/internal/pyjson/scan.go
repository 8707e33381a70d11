package pyjson

import (
	"bytes"
	"errors"
	"fmt"
)

// maxDepth is how deep values may nest. Python's own reader gives up a little
// below 1000, so nothing it could read is refused.
const maxDepth = 1000

// Object checks that line is one JSON object as Python's json.loads takes it
// (NaN and the Infinities are numbers) and calls field for each of its
// top-level members, in order, with the key, decoded and without its quotes, and
// the undecoded value. Both may be parts of line. Nested values are checked but not decoded. The error tells at which byte the
// text is wrong; field may have been called for what came before.
func Object(line []byte, field func(key, value []byte)) error {
	s := scanner{in: line}
	s.space()
	if s.peek() != '{' {
		if err := s.value(0); err != nil {
			return err
		}
		return errors.New("not a JSON object")
	}
	if err := s.object(0, field); err != nil {
		return err
	}
	s.space()
	if s.at != len(line) {
		return s.fail("text after the object")
	}
	return nil
}

// scanner walks over in; at is the next byte to look at.
type scanner struct {
	in []byte
	at int
}

func (s *scanner) fail(what string) error {
	if s.at >= len(s.in) {
		return fmt.Errorf("%s at byte %d, where the text ends", what, s.at)
	}
	return fmt.Errorf("%s at byte %d, before %.20q", what, s.at, s.in[s.at:])
}

// peek returns the next byte, or 0 at the end: no JSON token begins with it.
func (s *scanner) peek() byte {
	if s.at < len(s.in) {
		return s.in[s.at]
	}
	return 0
}

func (s *scanner) space() {
	for s.at < len(s.in) {
		switch s.in[s.at] {
		case ' ', '\t', '\n', '\r':
			s.at++
		default:
			return
		}
	}
}

func (s *scanner) value(depth int) error {
	if depth > maxDepth {
		return s.fail("nesting too deep")
	}
	switch c := s.peek(); {
	case c == '"':
		return s.str()
	case c == '{':
		return s.object(depth, nil)
	case c == '[':
		return s.array(depth)
	case c == '-' || c >= '0' && c <= '9':
		return s.number()
	}
	for _, word := range [...]string{"null", "true", "false", "NaN", "Infinity"} {
		if bytes.HasPrefix(s.in[s.at:], []byte(word)) {
			s.at += len(word)
			return nil
		}
	}
	return s.fail("no JSON value")
}

func (s *scanner) object(depth int, field func(key, value []byte)) error {
	s.at++
	s.space()
	if s.peek() == '}' {
		s.at++
		return nil
	}
	for {
		start := s.at
		if s.peek() != '"' {
			return s.fail("no key")
		}
		if err := s.str(); err != nil {
			return err
		}
		key := s.in[start:s.at]
		s.space()
		if s.peek() != ':' {
			return s.fail("no colon")
		}
		s.at++
		s.space()
		start = s.at
		if err := s.value(depth + 1); err != nil {
			return err
		}
		if field != nil {
			if err := s.member(key, s.in[start:s.at], field); err != nil {
				return err
			}
		}
		if done, err := s.next('}'); done || err != nil {
			return err
		}
	}
}

// member hands a member to field. Nearly no key has an escape.
func (s *scanner) member(key, value []byte, field func(key, value []byte)) error {
	if bytes.IndexByte(key, '\\') < 0 {
		field(key[1:len(key)-1], value)
		return nil
	}
	text, err := Unquote(key)
	if err != nil {
		return err
	}
	field([]byte(text), value)
	return nil
}

func (s *scanner) array(depth int) error {
	s.at++
	s.space()
	if s.peek() == ']' {
		s.at++
		return nil
	}
	for {
		if err := s.value(depth + 1); err != nil {
			return err
		}
		if done, err := s.next(']'); done || err != nil {
			return err
		}
	}
}

// next takes the comma or the closing bracket after a member.
func (s *scanner) next(closing byte) (done bool, err error) {
	s.space()
	switch s.peek() {
	case closing:
		s.at++
		return true, nil
	case ',':
		s.at++
		s.space()
		return false, nil
	}
	return false, s.fail("neither comma nor " + string(closing))
}

// str is most of the work: it runs on local variables, which the compiler keeps
// in registers.
func (s *scanner) str() error {
	in, i := s.in, s.at+1
	for i < len(in) {
		c := in[i]
		if c != '"' && c != '\\' && c >= ' ' {
			i++
			continue
		}
		s.at = i
		switch c {
		case '"':
			s.at++
			return nil
		case '\\':
			if err := s.escape(); err != nil {
				return err
			}
			i = s.at
		default:
			return s.fail("control character in a string")
		}
	}
	s.at = i
	return s.fail("unfinished string")
}

func (s *scanner) escape() error {
	s.at++
	switch s.peek() {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		s.at++
		return nil
	case 'u':
		if _, ok := unicodeEscape(s.in[s.at-1:]); ok {
			s.at += 5
			return nil
		}
	}
	return s.fail("bad escape")
}

func (s *scanner) number() error {
	if s.peek() == '-' {
		s.at++
		if bytes.HasPrefix(s.in[s.at:], []byte("Infinity")) {
			s.at += len("Infinity")
			return nil
		}
	}
	if s.peek() == '0' {
		s.at++
	} else if !s.digits() {
		return s.fail("no digit")
	}
	if s.peek() == '.' {
		s.at++
		if !s.digits() {
			return s.fail("no digit after the point")
		}
	}
	if c := s.peek(); c == 'e' || c == 'E' {
		s.at++
		if c := s.peek(); c == '+' || c == '-' {
			s.at++
		}
		if !s.digits() {
			return s.fail("no digit in the exponent")
		}
	}
	return nil
}

func (s *scanner) digits() bool {
	start := s.at
	for s.at < len(s.in) && s.in[s.at] >= '0' && s.in[s.at] <= '9' {
		s.at++
	}
	return s.at > start
}

// Plain returns text with NaN and the Infinities, which only Python takes for
// numbers, replaced by null, so that encoding/json takes it. text must be
// what Object accepts.
func Plain(text []byte) []byte {
	var out []byte
	copied := 0
	for s := (scanner{in: text}); s.at < len(text); {
		if s.in[s.at] == '"' {
			if s.str() != nil {
				return text
			}
			continue
		}
		for _, word := range [...]string{"-Infinity", "Infinity", "NaN"} {
			if bytes.HasPrefix(text[s.at:], []byte(word)) {
				out = append(append(out, text[copied:s.at]...), "null"...)
				s.at += len(word) - 1
				copied = s.at + 1
				break
			}
		}
		s.at++
	}
	if copied == 0 {
		return text
	}
	return append(out, text[copied:]...)
}
