package firewall

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// rules reads "action from to fromservice toservice" lines; "-" is no pattern.
func rules(t testing.TB, text string) Rules {
	t.Helper()
	var all Rules
	for line := range strings.Lines(text) {
		w := strings.Fields(line)
		if len(w) == 0 {
			continue
		}
		a, err := ParseAction(w[0])
		if err != nil {
			t.Fatal(err)
		}
		var p [4]Pattern
		for i := range p {
			if w[i+1] == "-" {
				continue
			}
			if p[i], err = ParsePattern(w[i+1]); err != nil {
				t.Fatal(err)
			}
		}
		all = append(all, Rule{Action: a, FromNode: p[0], ToNode: p[1], FromService: p[2], ToService: p[3]})
	}
	return all
}

func TestDecide(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, rules, from, to, service string
		want                           Action
	}{
		{"no rule", "", "a", "b", "x", Accept},
		{"none matches", "reject c - - -", "a", "b", "x", Accept},
		{"literal", "reject a b - x", "a", "b", "x", Reject},
		{"a literal is whole", "reject a - - -", "aa", "b", "x", Accept},
		{"a literal is no expression", "reject . - - -", "a", "b", "x", Accept},
		{"an expression is anchored", "reject /a/ - - -", "aa", "b", "x", Accept},
		{"alternatives are anchored", "reject /a|b/ - - -", "xb", "b", "x", Accept},
		{"an expression", "drop /web-[0-9]+/ - - -", "web-12", "b", "x", Drop},
		{"the first wins", "accept a - - -\nreject - - - -", "a", "b", "x", Accept},
		{"the first wins, for others too", "accept a - - -\nreject - - - -", "c", "b", "x", Reject},
		{"all of a rule must match", "reject a - - y", "a", "b", "x", Accept},
		{"a member's short-lived nodes", "reject a - - -", "a/01J", "b", "x", Reject},
		{"but not a longer name", "reject a - - -", "ab/01J", "b", "x", Accept},
		{"to a service only", "reject - b - control", "a", "b", "control", Reject},
		{"not what b opens itself", "reject - b - control", "b", "a", "control", Accept},
		{"what comes back from a service", "reject b - control -", "a", "b", "control", Reject},
		{"not what is opened there", "reject b - control -", "b", "a", "control", Accept},
		{"any service of the opener", "reject a - /.+/ -", "a", "b", "x", Reject},
		{"an accept before, for what comes back", "accept b a control -\nreject b - control -", "a", "b", "control", Accept},
		{"accepted there, but not back", "accept a - - -\nreject b - x -", "a", "b", "x", Reject},
	} {
		got := rules(t, c.rules).Decide(Stream{From: c.from, To: c.to, Service: []string{c.service}})
		if got.Action != c.want {
			t.Errorf("%s: %v", c.name, got.Action)
		}
		if (got.Action != Accept) && got.Rule == nil {
			t.Errorf("%s: no rule is named", c.name)
		}
	}
	both := Stream{From: "a", To: "b", Service: []string{"work", "control"}}
	for _, service := range []string{"work", "control"} {
		if v := rules(t, "reject - - - "+service).Decide(both); v.Action != Reject {
			t.Errorf("a rule on %s does not hold for what is called both", service)
		}
	}
}

func TestWhatIsWrong(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"/(/", "/a)|(?:b/", "/[/"} {
		if _, err := ParsePattern(s); err == nil || !strings.Contains(err.Error(), s) {
			t.Errorf("pattern %s: %v", s, err)
		}
	}
	if _, err := ParseAction("allow"); err == nil {
		t.Error("an action that there is not was taken")
	}
	for _, s := range []string{"accept", "REJECT", "Drop"} {
		if a, err := ParseAction(s); err != nil || a.String() != strings.ToLower(s) {
			t.Errorf("%s: %v %v", s, a, err)
		}
	}
}

// TestALastRuleForAll: whatever the rules, one that rejects everything at the
// front refuses everything, and one at the end accepts nothing more.
func TestALastRuleForAll(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		name := rapid.SampledFrom([]string{"a", "b", "a/1"})
		pattern := rapid.Custom(func(r *rapid.T) Pattern {
			p, err := ParsePattern(rapid.SampledFrom([]string{"", "a", "b", "/a|b/", "/.*/", "/[^a]/"}).Draw(r, "pattern"))
			if err != nil {
				r.Fatal(err)
			}
			return p
		})
		rule := rapid.Custom(func(r *rapid.T) Rule {
			return Rule{Action(rapid.IntRange(0, 2).Draw(r, "action")), pattern.Draw(r, "from"), pattern.Draw(r, "to"),
				pattern.Draw(r, "from service"), pattern.Draw(r, "to service"), ""}
		})
		all := Rules(rapid.SliceOfN(rule, 0, 5).Draw(r, "rules"))
		s := Stream{From: name.Draw(r, "from"), To: name.Draw(r, "to"), Service: []string{name.Draw(r, "service")}}
		if v := append(Rules{{Action: Reject}}, all...).Decide(s); v.Action != Reject {
			r.Fatal("a first rule that rejects all lets something through")
		}
		before, after := all.Decide(s), append(all[:len(all):len(all)], Rule{Action: Reject}).Decide(s)
		if before.Action != Accept && after.Action == Accept {
			r.Fatal("a further rule opens the way")
		}
	})
}
