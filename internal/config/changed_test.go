package config

import (
	"reflect"
	"slices"
	"strings"
	"testing"
)

func parsed(t *testing.T, text string) *Config {
	t.Helper()
	c, err := Parse("r.conf", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

const before = `
- node: {id: a, datadir: /x}
- tcp-peer: h:1
- control-service: {filename: /s}
- work-command: {worktype: cat, command: cat}
`

func TestFixed(t *testing.T) {
	for name, tt := range map[string]struct {
		text string
		want []string
	}{
		"the same":           {before, nil},
		"lines moved":        {"\n\n# comment\n" + before, nil},
		"links and log":      {strings.Replace(before, "- tcp-peer: h:1", "- tcp-peer: h:2\n- log-level: debug\n- tcp-listener: {port: 1}\n- local-only", 1), nil},
		"another id":         {strings.Replace(before, "id: a", "id: b", 1), []string{"node"}},
		"another file":       {strings.Replace(before, "/s", "/t", 1), []string{"control-service"}},
		"one work type more": {before + "- work-command: {worktype: b, command: b}", []string{"work-command"}},
		"one less, another":  {strings.Replace(strings.Replace(before, "- work-command: {worktype: cat, command: cat}", "", 1), "/x", "/y", 1), []string{"node", "work-command"}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Fixed(parsed(t, before), parsed(t, tt.text)); !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestEqual(t *testing.T) {
	const a = "- node: a\n- tcp-listener: {port: 1, nodecost: {b: 2, c: 3}, allowedpeers: [b, c]}\n- ws-peer: {address: 'ws://h', extraheader: 'a: b'}\n"
	x := parsed(t, a)
	for from, to := range map[string]string{"b: 2": "b: 5", "c: 3": "d: 3", "[b, c]": "[b]", "port: 1,": "port: 1, rate: 1MB,", ", c: 3": ""} {
		if y := parsed(t, "\n"+strings.Replace(a, from, to, 1)); Equal(x.Listeners[0], y.Listeners[0]) {
			t.Errorf("%q is taken for %q", from, to)
		}
	}
	if y := parsed(t, "\n\n"+a); !Equal(x.Listeners[0], y.Listeners[0]) || !Equal(x.Peers[0], y.Peers[0]) {
		t.Error("items that moved differ")
	}
	if y := parsed(t, strings.Replace(a, "a: b", "a: c", 1)); Equal(x.Peers[0], y.Peers[0]) {
		t.Error("a header is not compared")
	}
}

// Whatever is added to Config must be of a kind that same can compare.
func TestEveryFieldIsComparable(t *testing.T) {
	var visit func(reflect.Type)
	visit = func(ty reflect.Type) {
		switch ty.Kind() {
		case reflect.Struct:
			for i := range ty.NumField() {
				visit(ty.Field(i).Type)
			}
		case reflect.Slice, reflect.Pointer, reflect.Map:
			visit(ty.Elem())
		case reflect.Func, reflect.Chan, reflect.UnsafePointer:
			t.Errorf("%v in Config", ty)
		}
	}
	visit(reflect.TypeFor[Config]())
}
