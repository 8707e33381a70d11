package config

import (
	"strings"
	"testing"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/policy"
)

func TestWorkPolicy(t *testing.T) {
	t.Parallel()
	c, err := Parse("x.conf", []byte(`- local-only
- work-policy: {worktype: cat, from: [alice, 'ops-*', role:router], params: params, payload: 1kB, concurrent: 2, needsignature: true, issuers: 'key:ab'}
- work-policy: {worktype: '*', grace: 3s, runas: nobody, params: []}
- work-policy: {service: shell, from: members}
- work-limits: {age: 24h, size: 1GB, ownersize: 1MB, ttl: 1h, grace: 5s}
`))
	if err != nil {
		t.Fatal(err)
	}
	rules := c.Rules()
	if len(rules) != 3 || rules[0].Where != "x.conf:2: work-policy" || rules[0].Payload != 1000 || len(rules[0].From) != 3 ||
		rules[1].Params == nil || rules[2].Kind != policy.Service || rules[2].Name != "shell" {
		t.Errorf("rules %+v", rules)
	}
	if all := c.ForType("cat"); all.Concurrent != 2 || all.Grace != 3*time.Second || all.RunAs != "nobody" || all.Pos.Line != 3 {
		t.Errorf("for cat: %+v", all)
	}
	if l := c.WorkLimits; l.Age != 24*time.Hour || l.Size != 1e9 || l.OwnerSize != 1e6 || l.TTL != time.Hour || l.Grace != 5*time.Second {
		t.Errorf("limits %+v", l)
	}
}

func TestWorkPolicyErrors(t *testing.T) {
	t.Parallel()
	for item, want := range map[string]string{
		"{from: alice}":                                                   "either worktype or service",
		"{worktype: a, service: b, from: c}":                              "either worktype or service",
		"{service: shell}":                                                "who may open",
		"{service: shell, from: x, runas: nobody}":                        "not for services",
		"{worktype: a, from: []}":                                         "nobody is in the list",
		"{worktype: a, from: role:king}":                                  `role "king"`,
		"{worktype: a, from: alice/1}":                                    "before the slash",
		"{worktype: a, concurrent: 0}":                                    "no number from 1",
		"{worktype: a, payload: much}":                                    "no size",
		"{worktype: a, issuers: x}":                                       "without needsignature",
		"{worktype: a, user: x}":                                          "no such key",
		"{worktype: a, runas: x}\n- work-policy: {worktype: a, runas: y}": "stands on line 2 already",
	} {
		_, err := Parse("x.conf", []byte("- local-only\n- work-policy: "+item))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", item, err, want)
		}
	}
}
