package config

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/ranvier-mesh/ranvier/internal/policy"
)

// WorkPolicy is who may have work done here, or open a service, and how.
type WorkPolicy struct {
	Pos Pos
	policy.Rule
	// What is for all jobs of the work type, whoever submits; each stands in at
	// most one item for the type.
	Concurrent int           // how many run at once; 0: any number
	Grace      time.Duration // of a canceled job; 0: as the type has it
	RunAs      string        // the user, by name or number; empty: the node's
}

// WorkLimits is how much is kept of work, and how long.
type WorkLimits struct {
	Pos       Pos
	Age       time.Duration // a unit that has ended is kept; 0: no limit
	Size      int64         // of all outputs, in bytes; 0: no limit
	OwnerSize int64         // the same for each owner
	TTL       time.Duration // of units for other nodes that have none; 0: no limit
	Grace     time.Duration // of a canceled job whose type has none; 0: package worktypes'
}

// WorkSigning is what this node signs the work with that it sends, in Receptor's way.
type WorkSigning struct {
	Pos             Pos
	PrivateKey      string        // a file; empty: there is no such item
	TokenExpiration time.Duration // how long a signature counts; 0: package worktoken's
}

// WorkVerification is what this node checks Receptor's signatures of work with.
type WorkVerification struct {
	Pos       Pos
	PublicKey string // a file; empty: there is no such item
}

func workPolicyItems() []item {
	return []item{
		{name: "work-signing", main: "privatekey", once: true, build: func(c *Config, f *fields) {
			c.WorkSigning = WorkSigning{Pos: f.pos, PrivateKey: need(f, "privatekey", asText), TokenExpiration: get(f, "tokenexpiration", 0, asDuration)}
		}},
		{name: "work-verification", main: "publickey", once: true, build: func(c *Config, f *fields) {
			c.WorkVerification = WorkVerification{Pos: f.pos, PublicKey: need(f, "publickey", asText)}
		}},
		{name: "work-policy", ours: true, build: buildWorkPolicy},
		{name: "work-limits", once: true, ours: true, build: func(c *Config, f *fields) {
			c.WorkLimits = WorkLimits{
				Pos: f.pos, Age: get(f, "age", 0, asDuration), Size: get(f, "size", 0, asSize), OwnerSize: get(f, "ownersize", 0, asSize),
				TTL: get(f, "ttl", 0, asDuration), Grace: get(f, "grace", 0, asDuration),
			}
		}},
	}
}

func buildWorkPolicy(c *Config, f *fields) {
	p := WorkPolicy{Pos: f.pos, Rule: policy.Rule{Where: f.pos.String(), Kind: policy.Work}}
	p.Name = get(f, "worktype", "", asName)
	service := get(f, "service", "", asName)
	p.From = get(f, "from", nil, asWho)
	p.Params = get(f, "params", nil, asTexts)
	p.Payload = get(f, "payload", 0, asSize)
	p.NeedSignature = get(f, "needsignature", false, asBool)
	p.Issuers = get(f, "issuers", nil, asWho)
	p.Concurrent = get(f, "concurrent", 0, asCount)
	p.Grace = get(f, "grace", 0, asDuration)
	p.RunAs = get(f, "runas", "", asText)
	switch {
	case (p.Name == "") == (service == ""):
		f.rep.errorf(f.pos, "worktype", "either worktype or service must be given")
	case service != "" && p.From == nil:
		f.rep.errorf(f.pos, "from", "it is missing: who may open the service?")
	case service != "":
		p.Kind, p.Name = policy.Service, service
		for _, key := range []string{"params", "payload", "needsignature", "issuers", "concurrent", "grace", "runas"} {
			if i := f.index(key); i >= 0 {
				f.rep.errorf(f.given[i].pos, key, "it is for work types, not for services")
			}
		}
	case p.Issuers != nil && !p.NeedSignature:
		f.rep.errorf(f.pos, "issuers", "it has no effect without needsignature")
	}
	c.WorkPolicies = append(c.WorkPolicies, p)
}

// checkWorkPolicies finds items that say two things of one work type.
func checkWorkPolicies(c *Config, rep *report) {
	said := map[[2]string]int{}
	for _, p := range c.WorkPolicies {
		for key, given := range map[string]bool{"concurrent": p.Concurrent > 0, "grace": p.Grace > 0, "runas": p.RunAs != ""} {
			if !given || p.Kind != policy.Work {
				continue
			}
			if line := said[[2]string{key, p.Name}]; line > 0 {
				rep.errorf(p.Pos, key, "it is for all jobs of the type %s, and stands on line %d already", p.Name, line)
			}
			said[[2]string{key, p.Name}] = p.Pos.Line
		}
	}
}

// Rules are the rules of all work-policy items.
func (c *Config) Rules() []policy.Rule {
	var rules []policy.Rule
	for _, p := range c.WorkPolicies {
		rules = append(rules, p.Rule)
	}
	return rules
}

// ForType is what all jobs of a work type have to do with: of each key, what the
// first item that names the type says. Pos is that of RunAs.
func (c *Config) ForType(workType string) WorkPolicy {
	var all WorkPolicy
	for _, p := range c.WorkPolicies {
		if p.Kind != policy.Work || !policy.Match(p.Name, workType) {
			continue
		}
		if all.Concurrent == 0 {
			all.Concurrent = p.Concurrent
		}
		if all.Grace == 0 {
			all.Grace = p.Grace
		}
		if all.RunAs == "" {
			all.RunAs, all.Pos = p.RunAs, p.Pos
		}
		if all.Payload == 0 {
			all.Payload = p.Payload
		}
	}
	return all
}

// asTexts is a list of texts; one needs no list.
func asTexts(n *yaml.Node) ([]string, error) {
	nodes := []*yaml.Node{n}
	if n.Kind == yaml.SequenceNode {
		nodes = n.Content
	}
	texts := []string{}
	for _, n := range nodes {
		s, err := asText(deref(n))
		if err != nil {
			return nil, &lineError{n.Line, err}
		}
		texts = append(texts, s)
	}
	return texts, nil
}

// asWho is a list of who is meant: see policy.Rule.
func asWho(n *yaml.Node) ([]string, error) {
	who, err := asTexts(n)
	if err != nil {
		return nil, err
	}
	if len(who) == 0 {
		return nil, errors.New(`nobody is in the list: leave the key out for the default, or write "members" or "*"`)
	}
	for _, w := range who {
		if role, ok := strings.CutPrefix(w, "role:"); ok && role != "router" && role != "leaf" && role != "client" {
			return nil, fmt.Errorf("role %q: router, leaf or client is allowed", role)
		}
		if strings.Contains(w, "/") {
			return nil, fmt.Errorf("%q: write the id of the member, which is the part before the slash", w)
		}
	}
	return who, nil
}

// asCount is a number from 1.
func asCount(n *yaml.Node) (int, error) {
	s, err := asString(n)
	if err != nil {
		return 0, err
	}
	v, err := strconv.ParseUint(s, 10, 31)
	if err != nil || v == 0 {
		return 0, fmt.Errorf("%q is no number from 1", s)
	}
	return int(v), nil
}
