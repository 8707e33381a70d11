package policy

import (
	"errors"
	"path"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func alice() Who { return Who{ID: "alice", Proved: true, Role: "client", Work: []string{"cat"}} }

func work(name string, params ...string) Ask {
	a := Ask{Kind: Work, Name: name, Params: map[string]string{}}
	for _, p := range params {
		a.Params[p] = "x"
	}
	return a
}

// TestDefault is what a node says whose file says nothing.
func TestDefault(t *testing.T) {
	t.Parallel()
	stranger := Who{ID: "alice"}
	for _, c := range []struct {
		name    string
		open    bool
		who     Who
		ask     Ask
		allowed bool
	}{
		{"what her certificate names", false, alice(), work("cat"), true},
		{"what it does not", false, alice(), work("id"), false},
		{"who only says to be her", false, stranger, work("cat"), false},
		{"all types", false, Who{ID: "n", Proved: true, Work: []string{"*"}}, work("id"), true},
		{"a service", false, alice(), Ask{Kind: Service, Name: "shell"}, false},
		{"a look", false, alice(), Ask{Kind: Command, Name: "status", Service: "control"}, true},
		{"a stranger's look", false, stranger, Ask{Kind: Command, Name: "status", Service: "control"}, false},
		{"a change", false, alice(), Ask{Kind: Command, Name: "reload", Service: "control"}, false},
		{"an unknown command", false, alice(), Ask{Kind: Command, Name: "", Service: "control"}, false},
		{"open: work", true, stranger, work("id"), true},
		{"open: a service", true, stranger, Ask{Kind: Service, Name: "shell"}, true},
		{"open: a change", true, stranger, Ask{Kind: Command, Name: "reload", Service: "control"}, true},
	} {
		_, err := New(nil, c.open).Decide(c.who, c.ask)
		if (err == nil) != c.allowed {
			t.Errorf("%s: %v", c.name, err)
		}
		if refused := (*Refused)(nil); err != nil && !errors.As(err, &refused) {
			t.Errorf("%s: a %T", c.name, err)
		}
	}
}

// TestRules holds that the first rule which names thing and person decides.
func TestRules(t *testing.T) {
	t.Parallel()
	p := New([]Rule{
		{Where: "1", Kind: Work, Name: "cat", From: []string{"bob"}, Payload: 1},
		{Where: "2", Kind: Work, Name: "cat", From: []string{"ops-*", "role:router"}, Params: []string{"params"}, NeedSignature: true},
		{Where: "3", Kind: Work, Name: "id"},
		{Where: "4", Kind: Service, Name: "control", From: []string{"root"}},
		{Where: "5", Kind: Service, Name: "web-*", From: []string{"members"}},
	}, false)
	member := func(id, role string, work ...string) Who { return Who{ID: id, Proved: true, Role: role, Work: work} }
	for _, c := range []struct {
		name string
		who  Who
		ask  Ask
		want string // of the grant or the error
	}{
		{"first rule", member("bob", "client"), work("cat", "other"), "1 false"},
		{"pattern", member("ops-1", "client"), work("cat", "params"), "0 true"},
		{"role", member("hub", "router"), work("cat"), "0 true"},
		{"other params", member("hub", "router"), work("cat", "other"), `2 does not allow the parameter "other"`},
		{"a rule for others", alice(), work("cat"), "names him (the last one is 2)"},
		{"a rule without from is for who may by default", member("x", "client", "id"), work("id"), "0 false"},
		{"and for nobody else", alice(), work("id"), "names him"},
		{"no rule", alice(), work("true"), "certificate of alice"},
		{"a command of the service", member("root", "client"), Ask{Kind: Command, Name: "reload", Service: "control"}, "0 false"},
		{"of another service", member("root", "client"), Ask{Kind: Command, Name: "reload", Service: "other"}, "control socket"},
		{"looking stays allowed", alice(), Ask{Kind: Command, Name: "ping", Service: "control"}, "0 false"},
		{"a service", alice(), Ask{Kind: Service, Name: "web-1"}, "0 false"},
		{"no member", Who{ID: "alice"}, Ask{Kind: Service, Name: "web-1"}, "names him"},
	} {
		g, err := p.Decide(c.who, c.ask)
		got := strings.TrimSpace(string(rune('0'+g.Payload))) + " " + map[bool]string{true: "true", false: "false"}[g.NeedSignature]
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// TestMatch holds Match to path.Match on names without path.Match's other signs.
func TestMatch(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		pattern := rapid.StringMatching(`[ab*]{0,8}`).Draw(t, "pattern")
		name := rapid.StringMatching(`[ab]{0,8}`).Draw(t, "name")
		want, err := path.Match(pattern, name)
		if err != nil {
			t.Fatal(err)
		}
		if got := Match(pattern, name); got != want {
			t.Fatalf("Match(%q, %q) = %v", pattern, name, got)
		}
	})
}
