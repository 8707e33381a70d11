// Package firewall decides which streams may pass a node, by rules of
// Receptor's kind (docs/config.md "Firewall rules"). It is pure: rules in,
// verdicts out.
package firewall

import (
	"fmt"
	"regexp"
	"strings"
)

// Action is what a rule does with the streams that it matches.
type Action int

// The actions.
const (
	Accept Action = iota
	Reject        // refuse, and say so
	Drop          // say nothing: who opened the stream waits in vain
)

// ParseAction reads an action, in any case. The error names those there are.
func ParseAction(s string) (Action, error) {
	switch strings.ToLower(s) {
	case "accept":
		return Accept, nil
	case "reject":
		return Reject, nil
	case "drop":
		return Drop, nil
	}
	return 0, fmt.Errorf("%q is no action: accept, reject or drop is allowed", s)
}

// String returns the action as ParseAction reads it.
func (a Action) String() string {
	switch a {
	case Accept:
		return "accept"
	case Reject:
		return "reject"
	case Drop:
		return "drop"
	}
	return fmt.Sprintf("Action(%d)", int(a))
}

// Pattern is a name, or a regular expression that a whole name has to match.
// The zero Pattern matches everything.
type Pattern struct {
	literal string
	regexp  *regexp.Regexp
}

// ParsePattern reads a name, or a regular expression between slashes. The
// error says what is wrong with the expression.
func ParsePattern(s string) (Pattern, error) {
	if len(s) < 2 || s[0] != '/' || s[len(s)-1] != '/' {
		return Pattern{literal: s}, nil
	}
	inner := s[1 : len(s)-1]
	// By itself first: "a)|(?:b" becomes valid between the brackets, and then
	// matches what nobody meant.
	if _, err := regexp.Compile(inner); err != nil {
		return Pattern{}, fmt.Errorf("%s is no regular expression: %w", s, err)
	}
	r, err := regexp.Compile(`^(?:` + inner + `)$`)
	if err != nil {
		return Pattern{}, fmt.Errorf("%s is no regular expression: %w", s, err)
	}
	return Pattern{regexp: r}, nil
}

// given tells whether the pattern excludes anything.
func (p Pattern) given() bool { return p.literal != "" || p.regexp != nil }

func (p Pattern) match(name string) bool {
	if p.regexp != nil {
		return p.regexp.MatchString(name)
	}
	return p.literal == "" || p.literal == name
}

func (p Pattern) any(names []string) bool {
	for _, n := range names {
		if p.match(n) {
			return true
		}
	}
	return false
}

// Rule says what happens with the streams that match all of its patterns.
type Rule struct {
	Action                 Action
	FromNode, ToNode       Pattern
	FromService, ToService Pattern
	Name                   string // for the log: where the rule stands
}

// Stream is what rules look at.
type Stream struct {
	From, To string
	// Service is what is opened, and what else a rule may call it.
	Service []string
}

// Verdict is what becomes of a stream, and by which rule; nil: no rule matched,
// and it is accepted.
type Verdict struct {
	Action Action
	Rule   *Rule
}

// opener stands for the service at the end that opens a stream. It has none;
// Receptor gives it a random name of letters, which some expressions match.
var opener = []string{"ephemeral"}

// Rules are asked in their order; the first that matches decides. They may be
// used by several goroutines.
type Rules []Rule

// Decide judges a stream.
//
// The end that opens a stream has no service. A rule with FromService is
// therefore also asked about what comes back, from the service and the node that
// was opened to the one that opened: a stream must be accepted both ways.
func (r Rules) Decide(s Stream) Verdict {
	if len(r) == 0 {
		return Verdict{}
	}
	from, to := names(s.From), names(s.To)
	for i := range r {
		if r[i].match(from, to, opener, s.Service) {
			if r[i].Action != Accept {
				return Verdict{r[i].Action, &r[i]}
			}
			break
		}
	}
	for i := range r {
		if r[i].FromService.given() && r[i].match(to, from, s.Service, opener) {
			return Verdict{r[i].Action, &r[i]}
		}
	}
	return Verdict{}
}

func (r *Rule) match(from, to, fromService, toService []string) bool {
	return r.FromNode.any(from) && r.ToNode.any(to) && r.FromService.any(fromService) && r.ToService.any(toService)
}

// names are the id and, of a short-lived node "<member>/...", its member: a
// rule about a member is one about all that it runs.
func names(id string) []string {
	if member, _, ok := strings.Cut(id, "/"); ok {
		return []string{id, member}
	}
	return []string{id}
}
