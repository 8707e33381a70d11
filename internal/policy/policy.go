// Package policy decides who may do what at a node: submit work, open a service,
// give a control command. It is pure: it knows names and rules, and no network,
// clock or log. docs/security.md section 8 says what it promises.
package policy

import (
	"fmt"
	"slices"
	"strings"
)

// Kind is what somebody wants something of.
type Kind string

// The kinds.
const (
	Work    Kind = "work type"
	Service Kind = "service"
	Command Kind = "control command"
)

// Who is somebody who wants something.
type Who struct {
	// ID is the member's id: "alice" for each "alice/<random>".
	ID string
	// Proved is true where a certificate of the mesh says so. Without it ID is what
	// the bearer calls himself, and Role and Work are empty.
	Proved bool
	Role   string   // router, leaf or client
	Work   []string // the work types that the certificate names; "*" is all
}

// Ask is what somebody wants.
type Ask struct {
	Kind Kind
	// Name is that of the work type, the service or the command.
	Name string
	// Service is the control service that a Command came to.
	Service string
	// Params are those of a submit.
	Params map[string]string
}

// Rule is one entry of a policy. It is not changed after New.
type Rule struct {
	// Where names the rule in errors, as in "ranvier.conf:7: work-policy".
	Where string
	Kind  Kind   // Work or Service
	Name  string // a pattern
	// From are patterns of ids, "role:router|leaf|client", "members" (all who
	// have a certificate of the mesh) and "certificate" (those whose certificate
	// names the work type). Nil is who may by default.
	From []string
	// Params are patterns of the parameters that may be given; nil: all that the
	// work type takes.
	Params []string
	// Payload is the largest payload in bytes, a tree included; 0: any.
	Payload int64
	// NeedSignature asks for signed work.
	NeedSignature bool
	// Issuers are who may sign: as From, or "key:<key id>". Nil: who submits.
	Issuers []string
}

// Grant is what somebody may do.
type Grant struct {
	Payload       int64 // the largest payload in bytes; 0: any
	NeedSignature bool
	Issuers       []string // see Rule
}

// Refused is the error of Decide.
type Refused struct {
	Who Who
	Ask Ask
	Why string
}

// Error says who may not do what, and why.
func (r *Refused) Error() string {
	who := r.Who.ID
	if who == "" {
		who = "nobody in particular"
	}
	return fmt.Sprintf("%s may not use the %s %.100q: %s", who, r.Ask.Kind, r.Ask.Name, r.Why)
}

// Policy is the rules of a node. It does not change, so any number of goroutines
// may use it.
type Policy struct {
	rules []Rule
	open  bool
}

// New returns the policy of these rules. What no rule names is for who may by
// default: for everybody where open is true, as it is where nodes have no
// identities and where a node behaves as Receptor does; else work types for the
// members whose certificates name them, looking at a node for all members, and
// all other services for nobody.
func New(rules []Rule, open bool) *Policy { return &Policy{rules: rules, open: open} }

// Open reports whether everybody may do what no rule names.
func (p *Policy) Open() bool { return p.open }

// Decide returns what somebody may do, or a *Refused. The first rule that names
// what he wants, and him, decides. Where rules name it and none names him, he may
// not.
func (p *Policy) Decide(w Who, a Ask) (Grant, error) {
	kind, name := a.Kind, a.Name
	if a.Kind == Command {
		if isLook(a.Name) && (p.open || w.Proved) {
			return Grant{}, nil
		}
		kind, name = Service, a.Service
	}
	named := ""
	for i := range p.rules {
		r := &p.rules[i]
		if r.Kind != kind || !Match(r.Name, name) {
			continue
		}
		if r.From == nil && p.byDefault(w, a) == "" || Matches(r.From, w, name) {
			return r.grant(w, a)
		}
		named = r.Where
	}
	if named != "" {
		return Grant{}, &Refused{w, a, "no work-policy item for it names him (the last one is " + named + ")"}
	}
	if why := p.byDefault(w, a); why != "" {
		return Grant{}, &Refused{w, a, why}
	}
	return Grant{}, nil
}

// isLook reports whether a command only looks, or is one of work, whose
// subcommands are for the units' owners and ask again.
func isLook(command string) bool {
	return slices.Contains([]string{"status", "ping", "traceroute", "work"}, command)
}

// byDefault says why somebody may not do what no rule is about; empty: he may.
func (p *Policy) byDefault(w Who, a Ask) string {
	switch {
	case p.open:
		return ""
	case !w.Proved:
		return "he has no certificate of this mesh"
	case a.Kind == Work && namesWork(w, a.Name):
		return ""
	case a.Kind == Work:
		return fmt.Sprintf("the certificate of %s is for work of the types %q (ranvier ca token --work)", w.ID, w.Work)
	case a.Kind == Command:
		return "it is not allowed over the mesh: use the control socket on the node's host, or a work-policy item for the service"
	}
	return "no work-policy item is for this service"
}

func namesWork(w Who, workType string) bool {
	return w.Proved && (slices.Contains(w.Work, "*") || slices.Contains(w.Work, workType))
}

func (r *Rule) grant(w Who, a Ask) (Grant, error) {
	for _, key := range sortedKeys(a.Params) {
		if r.Params != nil && !slices.ContainsFunc(r.Params, func(p string) bool { return Match(p, key) }) {
			return Grant{}, &Refused{w, a, fmt.Sprintf("%s does not allow the parameter %.100q, only %q", r.Where, key, r.Params)}
		}
	}
	return Grant{Payload: r.Payload, NeedSignature: r.NeedSignature, Issuers: r.Issuers}, nil
}

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// Matches reports whether one of a rule's From, or Issuers, names somebody.
func Matches(from []string, w Who, workType string) bool {
	return slices.ContainsFunc(from, func(f string) bool {
		role, isRole := strings.CutPrefix(f, "role:")
		switch {
		case f == "members":
			return w.Proved
		case f == "certificate":
			return namesWork(w, workType)
		case isRole:
			return w.Proved && w.Role == role
		}
		return w.ID != "" && Match(f, w.ID)
	})
}

// Match reports whether a name is that of a pattern, in which each * stands for
// any number of characters.
func Match(pattern, name string) bool {
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return pattern == name
	}
	first, last := parts[0], parts[len(parts)-1]
	if len(name) < len(first)+len(last) || !strings.HasPrefix(name, first) || !strings.HasSuffix(name, last) {
		return false
	}
	name = name[len(first) : len(name)-len(last)]
	for _, part := range parts[1 : len(parts)-1] {
		i := strings.Index(name, part)
		if i < 0 {
			return false
		}
		name = name[i+len(part):]
	}
	return true
}
