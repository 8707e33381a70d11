package command

import "regexp"

// notTheSame are the parts of a Python pattern that RE2 refuses or takes for other
// ones; what is escaped or in brackets is matched first, to be left alone.
var notTheSame = regexp.MustCompile(`(?s)\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\{,\d+\}|\(\?#[^)]*\)`)

// fromPython writes a pattern of Python's re as RE2 has it, as far as it can.
func fromPython(pattern string) string {
	return notTheSame.ReplaceAllStringFunc(pattern, func(part string) string {
		switch {
		case part == `\Z`: // the end of the text
			return `\z`
		case part[0] == '{':
			return "{0" + part[1:]
		case part[0] == '(': // a comment
			return ""
		}
		return part
	})
}
