package pyjson_test

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/ranvier-mesh/ranvier/runner/internal/pyjson"
)

// What Python 3 printed for json.dumps of the same values.
func TestAppendSpellsAsPython(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		value any
		want  string
	}{
		{nil, `null`},
		{true, `true`},
		{-5, `-5`},
		{int64(1) << 60, `1152921504606846976`},
		{1.0, `1.0`},
		{0.25, `0.25`},
		{1e30, `1e+30`},
		{"a\"b\\c/d<&>", `"a\"b\\c/d<&>"`},
		{"\x00\x1f\x7f\b\f\n\r\t", `"\u0000\u001f\u007f\b\f\n\r\t"`},
		{"hé日\u2028😀", `"h\u00e9\u65e5\u2028\ud83d\ude00"`},
		{"\xff\x80a", `"\udcff\udc80a"`},
		{[]string{"a", "b"}, `["a", "b"]`},
		{[]string{}, `[]`},
		{map[string]any{"b": 1, "a": []any{nil, false}}, `{"a": [null, false], "b": 1}`},
		{map[string]string{}, `{}`},
		{[]map[string]any{{"x": 1.5}}, `[{"x": 1.5}]`},
		{struct {
			N int64   `json:"n"`
			F float32 `json:"f"`
		}{1 << 60, 2}, `{"f": 2, "n": 1152921504606846976}`},
	} {
		got, err := pyjson.Append(nil, c.value)
		if err != nil || string(got) != c.want {
			t.Errorf("%#v: %s, %v; want %s", c.value, got, err, c.want)
		}
	}
	if _, err := pyjson.Append(nil, []any{func() {}}); err == nil {
		t.Error("a function became JSON")
	}
}

func TestUnquoteUndoesAppendString(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.OneOf(rapid.String(), rapid.Map(rapid.SliceOf(rapid.Byte()),
			func(b []byte) string { return string(b) })).Draw(t, "s")
		got, err := pyjson.Unquote(pyjson.AppendString(nil, s))
		if err != nil || got != s {
			t.Fatalf("%q came back as %q, %v", s, got, err)
		}
	})
}

func TestUnquote(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		`"\/\"\\\b\f\n\r\t"`:     "/\"\\\b\f\n\r\t",
		`"a\u00e9b\ud83d\ude00"`: "aéb😀",
		`"\udcff"`:               "\xff",
		`"\ud83dx"`:              "\ufffdx",
		`"\udc00\ud83d"`:         "\ufffd\ufffd",
		`"raw é"`:                "raw é",
	} {
		if got, err := pyjson.Unquote([]byte(in)); err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", in, got, err, want)
		}
	}
	for _, in := range []string{``, `"`, `a`, `"\"`, `"\x"`, `"\u12"`, `"\u12g4"`, `"\u+123"`, `12`} {
		if got, err := pyjson.Unquote([]byte(in)); err == nil {
			t.Errorf("%s became %q", in, got)
		}
	}
}

func TestObjectShowsTheMembers(t *testing.T) {
	t.Parallel()
	var got [][2]string
	err := pyjson.Object([]byte(` {"a": {"x": [1, "]}"]}, "b" :NaN, "c":-Infinity,"\u0064": "q\"", "\ud83d\ude00\udcff\"": 1, "": 2, "e": 123456789012345678901234567890, "f": -0.5e+7}`+"\n"),
		func(k, v []byte) { got = append(got, [2]string{string(k), string(v)}) })
	want := [][2]string{{"a", `{"x": [1, "]}"]}`}, {"b", "NaN"}, {"c", "-Infinity"}, {"d", `"q\""`}, {"😀\xff\"", "1"}, {"", "2"},
		{"e", "123456789012345678901234567890"}, {"f", "-0.5e+7"}}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Error(err, diff)
	}
}

func TestObjectRefusesWhatPythonRefuses(t *testing.T) {
	t.Parallel()
	deep := strings.Repeat("[", 1<<20)
	for _, in := range []string{``, ` `, `null`, `"x"`, `5`, `[]`, `{`, `{}}`, `{} {}`, `{"a"}`, `{"a":}`, `{"a":1,}`,
		`{"a":[1,]}`, `{a:1}`, `{"a":01}`, `{"a":1.}`, `{"a":.5}`, `{"a":1e}`, `{"a":-}`, `{"a":nan}`, `{"a":tru}`,
		`{"a":"x`, `{"a":"\`, `{"a":"\q"}`, `{"a":"\u12"}`, "{\"a\":\"\x01\"}", `{"a":1 "b":2}`, `{"a":[1 2]}`, `{'a':1}`,
		`{"a":` + deep} {
		if err := pyjson.Object([]byte(in), nil); err == nil {
			t.Errorf("%.30s was taken", in)
		}
	}
}

// FuzzObject holds the scanner to encoding/json: it takes an object exactly
// where that does, but for NaN and the Infinities.
func FuzzObject(f *testing.F) {
	for _, s := range []string{`{"a": [1, 2.5e-3, {"b": "\ud83d\ude00"}], "c": null}`, `{"a":"\u00e9"} `, `{"":-0}`, `[1]`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		keys := make(map[string]bool)
		err := pyjson.Object(in, func(k, v []byte) {
			keys[string(k)] = true
			if len(v) == 0 {
				t.Fatal("an empty value")
			}
			if v[0] == '"' {
				if _, err := pyjson.Unquote(v); err != nil {
					t.Fatalf("%s: %v", v, err)
				}
			}
		})
		if strings.Contains(string(in), "NaN") || strings.Contains(string(in), "Infinity") || strings.Count(string(in), "[")+strings.Count(string(in), "{") > 900 {
			return
		}
		var want map[string]json.RawMessage
		jerr := json.Unmarshal(in, &want)
		if (err == nil) != (jerr == nil && want != nil) {
			t.Fatalf("%q: %v, encoding/json: %v", in, err, jerr)
		}
		for key := range want { // what is no text has another stand-in there
			if err == nil && !strings.ContainsRune(key, utf8.RuneError) && !keys[key] {
				t.Fatalf("%q: the key %q is not among %v", in, key, keys)
			}
		}
	})
}
