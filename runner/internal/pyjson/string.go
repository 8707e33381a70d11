package pyjson

import (
	"bytes"
	"fmt"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// Unquote returns the text of a JSON string, quotes included in raw. It undoes
// Python's "surrogateescape": a lone U+DC80 to U+DCFF is the byte that Python
// could not decode, so binary output comes out as it went in. Other lone
// surrogates become U+FFFD. The error says that raw is not a JSON string.
func Unquote(raw []byte) (string, error) {
	if len(raw) < 2 || raw[0] != '"' || raw[len(raw)-1] != '"' {
		return "", fmt.Errorf("JSON string: %.40q has no quotes", raw)
	}
	raw = raw[1 : len(raw)-1]
	at := bytes.IndexByte(raw, '\\')
	if at < 0 {
		return string(raw), nil
	}
	out := make([]byte, 0, len(raw))
	for at >= 0 {
		out = append(out, raw[:at]...)
		raw = raw[at:]
		size := 0
		if out, size = appendUnescaped(out, raw); size == 0 {
			return "", fmt.Errorf("JSON string: bad escape %.6q", raw)
		}
		raw = raw[size:]
		at = bytes.IndexByte(raw, '\\')
	}
	return string(append(out, raw...)), nil
}

// appendUnescaped decodes the escape at the start of s and tells how many bytes
// it took, 0 for one that JSON does not have.
func appendUnescaped(out, s []byte) ([]byte, int) {
	if len(s) < 2 {
		return out, 0
	}
	switch s[1] {
	case '"', '\\', '/':
		return append(out, s[1]), 2
	case 'b':
		return append(out, '\b'), 2
	case 'f':
		return append(out, '\f'), 2
	case 'n':
		return append(out, '\n'), 2
	case 'r':
		return append(out, '\r'), 2
	case 't':
		return append(out, '\t'), 2
	}
	r, ok := unicodeEscape(s)
	if !ok {
		return out, 0
	}
	if utf16.IsSurrogate(r) {
		if low, ok := unicodeEscape(s[6:]); ok {
			if pair := utf16.DecodeRune(r, low); pair != utf8.RuneError {
				return utf8.AppendRune(out, pair), 12
			}
		}
		if r >= 0xdc80 && r <= 0xdcff {
			return append(out, byte(r-0xdc00)), 6
		}
	}
	return utf8.AppendRune(out, r), 6
}

func unicodeEscape(s []byte) (rune, bool) {
	if len(s) < 6 || s[0] != '\\' || s[1] != 'u' || s[2] == '+' || s[2] == '-' {
		return 0, false
	}
	n, err := strconv.ParseUint(string(s[2:6]), 16, 16)
	return rune(n), err == nil
}
