package terminal

import (
	"regexp"
	"unicode/utf8"
)

const (
	// window is how many characters of the latest output are looked at.
	window = 100
	// kept is how many bytes of output are remembered; marks among them are
	// no output.
	kept = 4 << 10
)

// Prompt is a question and its answer.
type Prompt struct {
	Pattern *regexp.Regexp
	Answer  string
}

// Prompts are what may be asked, in the order of preference. The zero value
// answers nothing.
type Prompts struct {
	List   []Prompt
	Hidden *regexp.Regexp // what of the output nobody sees, if not nil
	tail   []byte
}

// look takes further output and returns the answer to what it asks, if
// anything. What was answered is not looked at again.
func (p *Prompts) look(output []byte) (answer string, ok bool) {
	if len(p.List) == 0 {
		return "", false
	}
	p.tail = append(p.tail, output[max(0, len(output)-kept):]...)
	if p.Hidden != nil {
		p.tail = p.Hidden.ReplaceAll(p.tail, nil)
	}
	p.tail = p.tail[max(0, len(p.tail)-kept):]
	from := len(p.tail)
	for range window {
		_, n := utf8.DecodeLastRune(p.tail[:from])
		from -= n
	}
	first, end := len(p.tail)+1, 0
	for _, prompt := range p.List {
		// All of the tail is given to the pattern, so that ^ is a line's beginning.
		for _, at := range prompt.Pattern.FindAllIndex(p.tail, -1) {
			if at[0] >= from && at[0] < first {
				first, end, answer = at[0], at[1], prompt.Answer
			}
		}
	}
	if first > len(p.tail) {
		return "", false
	}
	p.tail = append([]byte(nil), p.tail[end:]...)
	return answer, true
}
