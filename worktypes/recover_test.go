package worktypes

import (
	"errors"
	"fmt"
	"io"
	"os"
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

// Output that was there at a unit's end and is not any more is told, by a node that
// has seen it go and by one that has not; what is left can be read.
func TestOutputIsGone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	m := open(t, dir)
	const size = inlineMax + 1
	shorter, gone, failed := run(t, m, "head -c 16385 /dev/zero"), run(t, m, "head -c 16385 /dev/zero"), run(t, m, "head -c 16385 /dev/zero; exit 3")
	small := run(t, m, "echo small")
	for _, id := range []string{shorter, gone, failed, small} {
		wait(t, m, id)
	}
	err := errors.Join(os.Truncate(unitOutput(m, shorter), 7), os.Truncate(unitOutput(m, failed), 0), os.Remove(unitOutput(m, gone)), os.Remove(unitOutput(m, small)))
	if err != nil {
		t.Fatal(err)
	}
	expectSmall := func() {
		t.Helper()
		if b, err := io.ReadAll(output(t, m, small, 0)); string(b) != "small\n" || err != nil {
			t.Errorf("a small output: %q, %v", b, err)
		}
	}
	expectSmall() // the journal has it
	for _, id := range []string{shorter, gone, failed} {
		if _, err := m.Results(t.Context(), id, 0); !errors.Is(err, ErrTruncated) || !strings.Contains(err.Error(), unitOutput(m, id)) {
			t.Errorf("results: %v, want ErrTruncated and the file", err)
		}
	}
	closeNow(t, m)
	if err := os.Remove(unitOutput(m, small)); err != nil {
		t.Fatal(err)
	}
	m = open(t, dir)
	expectSmall()
	for id, want := range map[string]struct {
		left int64
		job  string
		code int
	}{shorter: {7, "the job: exit status 0", 0}, gone: {0, "the job: exit status 0", 0}, failed: {0, "the job: exit status 3", 3}} {
		st, err := m.Status(id)
		if err != nil || st.State != Failed || st.ExitCode != want.code || st.StdoutSize != want.left || !strings.HasPrefix(st.Detail, "DAMAGED: ") ||
			!strings.Contains(st.Detail, fmt.Sprintf("%d of %d bytes", want.left, size)) || !strings.HasSuffix(st.Detail, want.job) {
			t.Errorf("%+v, %v", st, err)
		}
		if b, err := io.ReadAll(output(t, m, id, 0)); int64(len(b)) != want.left || err != nil {
			t.Errorf("what is left: %d bytes, %v", len(b), err)
		}
		if err := m.Release(t.Context(), id); err != nil {
			t.Error(err)
		}
	}
}
