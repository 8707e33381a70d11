// Package pyjson writes JSON as Python's json.dumps does by default, and looks
// into JSON that Python wrote without decoding all of it.
//
// Two things make encoding/json unfit for the job (docs/runner.md §1): the
// spacing and the ASCII escapes are part of the format, because tools search
// the stream for the literal text {"eof": true}; and Python emits NaN,
// Infinity, lone surrogates and integers of any size, which encoding/json
// refuses or alters.
package pyjson

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

const hexDigits = "0123456789abcdef"

// Append appends v as json.dumps writes it: ", " and ": " as separators, every
// character outside printable ASCII escaped. Keys of maps are sorted, since a
// Go map has no order of its own; use AppendString for the keys of an object
// whose order matters. Types other than the JSON ones go through encoding/json
// first. The error is that of encoding/json for a value it cannot encode.
func Append(dst []byte, v any) ([]byte, error) {
	switch v := v.(type) {
	case nil:
		return append(dst, "null"...), nil
	case bool:
		return strconv.AppendBool(dst, v), nil
	case int:
		return strconv.AppendInt(dst, int64(v), 10), nil
	case int64:
		return strconv.AppendInt(dst, v, 10), nil
	case json.Number:
		return append(dst, v...), nil
	case string:
		return AppendString(dst, v), nil
	case []string:
		return appendList(dst, v)
	case []any:
		return appendList(dst, v)
	case []map[string]any:
		return appendList(dst, v)
	case map[string]string:
		return appendMap(dst, v)
	case map[string]any:
		return appendMap(dst, v)
	default:
		return appendOther(dst, v)
	}
}

func appendList[T any](dst []byte, list []T) ([]byte, error) {
	var err error
	dst = append(dst, '[')
	for i, v := range list {
		if i > 0 {
			dst = append(dst, ", "...)
		}
		if dst, err = Append(dst, v); err != nil {
			return dst, err
		}
	}
	return append(dst, ']'), nil
}

func appendMap[T any](dst []byte, m map[string]T) ([]byte, error) {
	var err error
	dst = append(dst, '{')
	for i, k := range slices.Sorted(maps.Keys(m)) {
		if i > 0 {
			dst = append(dst, ", "...)
		}
		dst = append(AppendString(dst, k), ": "...)
		if dst, err = Append(dst, m[k]); err != nil {
			return dst, err
		}
	}
	return append(dst, '}'), nil
}

// appendOther lets encoding/json turn v into JSON and rewrites that in Python's
// spelling. Python tells 1.0 from 1, so floats keep encoding/json's spelling
// plus ".0" where it left the point out.
func appendOther(dst []byte, v any) ([]byte, error) {
	if f, ok := v.(float64); ok {
		text, err := json.Marshal(f)
		if err != nil {
			return dst, fmt.Errorf("JSON value: %w", err)
		}
		dst = append(dst, text...)
		if !bytes.ContainsAny(text, ".eE") {
			dst = append(dst, ".0"...)
		}
		return dst, nil
	}
	text, err := json.Marshal(v)
	if err != nil {
		return dst, fmt.Errorf("JSON value: %w", err)
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	var plain any
	if err := dec.Decode(&plain); err != nil {
		return dst, fmt.Errorf("JSON value: %w", err)
	}
	return Append(dst, plain)
}

// AppendString appends s quoted and escaped as Python does. Bytes that are not
// UTF-8 become the lone surrogates U+DC80 to U+DCFF, Python's "surrogateescape",
// which is how it carries file names and arguments in other encodings.
func AppendString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			dst = appendASCII(dst, c)
			i++
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			dst = appendEscape(dst, 0xdc00+rune(c))
		case r > 0xffff:
			hi, lo := utf16.EncodeRune(r)
			dst = appendEscape(appendEscape(dst, hi), lo)
		default:
			dst = appendEscape(dst, r)
		}
		i += size
	}
	return append(dst, '"')
}

func appendASCII(dst []byte, c byte) []byte {
	switch {
	case c == '"' || c == '\\':
		return append(dst, '\\', c)
	case c >= ' ' && c <= '~':
		return append(dst, c)
	}
	if i := strings.IndexByte("\b\f\n\r\t", c); i >= 0 {
		return append(dst, '\\', "bfnrt"[i])
	}
	return appendEscape(dst, rune(c))
}

func appendEscape(dst []byte, r rune) []byte {
	return append(dst, '\\', 'u',
		hexDigits[r>>12&15], hexDigits[r>>8&15], hexDigits[r>>4&15], hexDigits[r&15])
}
