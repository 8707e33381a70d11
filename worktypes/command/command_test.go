package command_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/ranvier-mesh/ranvier/worktypes"
	"github.com/ranvier-mesh/ranvier/worktypes/command"
	"github.com/ranvier-mesh/ranvier/worktypes/worktypetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newType(t *testing.T, c command.Config) worktypes.Type {
	t.Helper()
	typ, err := command.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return typ
}

func TestConformance(t *testing.T) {
	t.Parallel()
	worktypetest.Run(t, worktypetest.Case{
		Type: newType(t, command.Config{WorkType: "shell", Command: "sh", Params: "-c", AllowRuntimeParams: true}),
		Good: worktypetest.Job{
			Params:  map[string]string{"params": `'read word; echo "out $word"; echo err >&2; echo done' `},
			Payload: []byte("of-the-payload\n"),
		},
		CheckGood: func(t *testing.T, results []byte) {
			if string(results) != "out of-the-payload\nerr\ndone\n" {
				t.Errorf("results %q", results)
			}
		},
		Long:    worktypetest.Job{Params: map[string]string{"params": `'setsid sh -c "setsid sleep 600 & sleep 600" & echo on; exec sleep 600'`}},
		Started: "on\n",
		CheckCanceled: func(t *testing.T, results []byte) {
			if string(results) != "on\n" {
				t.Errorf("results %q", results)
			}
		},
		KilledDetail: "sh was killed by signal 9 (killed)",
		Forbidden:    []map[string]string{{"parms": "x"}, {"params": "x", "other": ""}},
	})
}

func TestArgv(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		params, runtime string
		want            []string
	}{
		{"", "", []string{"cmd"}},
		{"a b", "", []string{"cmd", "a", "b"}},
		{"", "--x=1 'two words'", []string{"cmd", "--x=1", "two words"}},
		{`worker "a b"`, `--dir=/x\ y --delete`, []string{"cmd", "worker", "a b", "--dir=/x y", "--delete"}},
		{"$HOME ; | *", "`id`", []string{"cmd", "$HOME", ";", "|", "*", "`id`"}},
	} {
		typ := newType(t, command.Config{WorkType: "w", Command: "cmd", Params: c.params, AllowRuntimeParams: true})
		// Twice: one plan must not write into the other's words.
		for range 2 {
			plan, err := typ.Plan(worktypes.Spec{Params: map[string]string{"params": c.runtime}}, "")
			if err != nil || !slices.Equal(plan.Argv, c.want) {
				t.Errorf("%q + %q: %q, %v, want %q", c.params, c.runtime, plan.Argv, err, c.want)
			}
		}
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	closed := newType(t, command.Config{WorkType: "w", Command: "cmd", Params: "a"})
	_, err := closed.Plan(worktypes.Spec{Params: map[string]string{"params": "x"}}, "")
	if !errors.Is(err, worktypes.ErrForbiddenParams) || !strings.Contains(err.Error(), "allowruntimeparams") {
		t.Errorf("runtime params: %v", err)
	}
	if _, err := closed.Plan(worktypes.Spec{Params: map[string]string{"params": ""}}, ""); err != nil {
		t.Errorf("empty runtime params: %v", err)
	}
	open := newType(t, command.Config{WorkType: "w", Command: "cmd", AllowRuntimeParams: true})
	if _, err := open.Plan(worktypes.Spec{Params: map[string]string{"params": "'open quote"}}, ""); !errors.Is(err, worktypes.ErrBadSpec) {
		t.Errorf("open quote: %v", err)
	}
	for _, c := range []command.Config{{Command: "x"}, {WorkType: "x"}, {WorkType: "x", Command: "y", Params: "'"}} {
		if _, err := command.New(c); err == nil {
			t.Errorf("%+v: no error", c)
		}
	}
}
