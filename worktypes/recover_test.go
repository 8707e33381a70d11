package worktypes

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A unit whose submitter did not come to the end of its payload before the node went
// down waits a moment for him, and then ends.
func TestSubmitterDoesNotComeBack(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		m := open(t, dir)
		ids := map[string]string{}
		for name, spec := range map[string]Spec{"once": {Once: true}, "gone": {}, "back": {}, "back and gone": {}} {
			spec.ID, spec.Type, spec.Params = NewID(), "shell", map[string]string{"script": "echo started"}
			if _, err := m.Submit(spec); err != nil {
				t.Fatal(err)
			}
			ids[name] = spec.ID
		}
		closeNow(t, m)
		m = open(t, dir)
		expect := func(name string, state State, detail string) {
			t.Helper()
			st, err := m.Status(ids[name])
			if err != nil || st.State != state || !strings.Contains(st.Detail, detail) || st.StdoutSize != 0 {
				t.Errorf("%s: %+v, %v; want %v", name, st, err, state)
			}
		}
		expect("once", Failed, "was not started")
		expect("gone", Pending, "")
		time.Sleep(resumeTime / 2)
		if _, err := m.Payload(ids["back"]); err != nil {
			t.Error(err)
		}
		if p, err := m.ResumePayload(ids["back and gone"]); err != nil {
			t.Error(err)
		} else {
			p.Park(resumeTime)
		}
		time.Sleep(resumeTime/2 + 1)
		expect("gone", Failed, "the submitter went away")
		expect("back", Pending, "")
		expect("back and gone", Pending, "")
		time.Sleep(resumeTime / 2)
		expect("back and gone", Failed, "the submitter went away")
		closeNow(t, m)
	})
}

// What was kept too long is released by itself, at a start and while the node runs.
func TestRetentionSweep(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		opt := Options{Retention: Retention{Age: 3 * time.Hour}}
		m := openWith(t, dir, opt)
		canceled := func() string {
			id := submit(t, m, "true")
			if err := m.Cancel(id); err != nil {
				t.Fatal(err)
			}
			return id
		}
		expect := func(id string, want error) {
			t.Helper()
			synctest.Wait()
			if _, err := m.Status(id); !errors.Is(err, want) {
				t.Errorf("%v, want %v", err, want)
			}
		}
		first := canceled()
		time.Sleep(2 * time.Hour)
		second := canceled()
		expect(first, nil)
		time.Sleep(2*time.Hour + time.Minute)
		expect(first, ErrUnknownUnit)
		expect(second, nil)
		closeNow(t, m)
		time.Sleep(2 * time.Hour)
		m = openWith(t, dir, opt)
		expect(second, ErrUnknownUnit)
		closeNow(t, m)
	})
}
