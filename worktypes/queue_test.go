package worktypes

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func openWith(t *testing.T, dir string, opt Options) *Manager {
	t.Helper()
	opt.Grace = 100 * time.Millisecond
	m, err := Open(dir, registry(t), opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeNow(t, m) })
	return m
}

func TestQueue(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	limits := Options{Limits: map[string]int{"shell": 1}}
	m := openWith(t, dir, limits)
	first := run(t, m, "read x; sleep 600")
	var queued []string
	for range 3 {
		id := submit(t, m, "cat")
		p, err := m.Payload(id)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.Write([]byte("secret")); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(p.Commit(p.Size(), p.Sum()), m.Start(id)); err != nil {
			t.Fatal(err)
		}
		if st, _ := m.Status(id); st.State != Pending || !strings.HasPrefix(st.Detail, "Queued") {
			t.Errorf("%+v", st)
		}
		queued = append(queued, id)
	}
	if err := m.Start(queued[0]); !errors.Is(err, ErrNotPending) {
		t.Errorf("a second start: %v", err)
	}
	if err := m.Cancel(queued[1]); err != nil {
		t.Fatal(err)
	}
	closeNow(t, m) // ends the first; the others wait
	// A machine that goes down may take with it what nobody has synced.
	if err := os.RemoveAll(m.store.path(queued[2])); err != nil {
		t.Fatal(err)
	}
	m = openWith(t, dir, limits)
	if st := wait(t, m, first); st.State != Failed {
		t.Errorf("%+v", st)
	}
	for i, want := range []State{Succeeded, Canceled, Succeeded} {
		if st := wait(t, m, queued[i]); st.State != want || want == Succeeded && st.StdoutSize != 6 {
			t.Errorf("%d: %+v", i, st)
		}
	}
}

func TestExpiry(t *testing.T) {
	t.Parallel()
	m := openWith(t, t.TempDir(), Options{Limits: map[string]int{"shell": 1}})
	run(t, m, "sleep 600")
	id := NewID()
	if _, err := m.Submit(Spec{ID: id, Type: "shell", Params: map[string]string{"script": "true"}, Expires: time.Now().Add(50 * time.Millisecond)}); err != nil {
		t.Fatal(err)
	}
	if err := m.Start(id); err != nil {
		t.Fatal(err)
	}
	if st := wait(t, m, id); st.State != Failed || !strings.HasPrefix(st.Detail, "expired: ") {
		t.Errorf("%+v", st)
	}
}

func TestRetention(t *testing.T) {
	t.Parallel()
	now := time.Now()
	st := func(owner string, size int64, old time.Duration) Status {
		return Status{ID: NewID(), Owner: owner, State: Succeeded, StdoutSize: size, Finished: now.Add(-old)}
	}
	for name, c := range map[string]struct {
		keep  Retention
		units []Status
		gone  []int
	}{
		"none":  {Retention{}, []Status{st("a", 100, time.Hour)}, nil},
		"age":   {Retention{Age: time.Minute}, []Status{st("a", 1, time.Hour), st("a", 1, time.Second)}, []int{0}},
		"bytes": {Retention{Bytes: 100}, []Status{st("a", 60, time.Hour), st("b", 60, time.Minute), st("b", 10, time.Second)}, []int{0}},
		"owner": {Retention{OwnerBytes: 100}, []Status{st("a/1", 60, time.Hour), st("a/2", 60, time.Minute), st("b", 60, time.Second)}, []int{0}},
		"runs":  {Retention{Age: time.Minute}, []Status{{ID: NewID(), State: Running}}, nil},
	} {
		m := &Manager{keep: c.keep, units: map[string]*unit{}}
		var want []string
		for _, s := range c.units {
			m.units[s.ID] = &unit{m: m, spec: Spec{ID: s.ID}, status: s}
		}
		for _, i := range c.gone {
			want = append(want, c.units[i].ID)
		}
		if got := m.tooLong(now); strings.Join(got, " ") != strings.Join(want, " ") {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}

func TestParkedPayloadGoesOn(t *testing.T) {
	t.Parallel()
	m := open(t, t.TempDir())
	id := submit(t, m, "cat")
	p, err := m.Payload(id)
	if err != nil {
		t.Fatal(err)
	}
	p.Write([]byte("one "))
	p.Park(time.Hour)
	again, err := m.ResumePayload(id)
	if err != nil || again.Size() != 4 {
		t.Fatalf("%v, %v", again, err)
	}
	again.Park(time.Hour)
	anew, err := m.Payload(id)
	if err != nil || anew.Size() != 0 {
		t.Fatalf("%v, %v", anew, err)
	}
	anew.Write([]byte("two"))
	anew.Park(time.Millisecond)
	if st := wait(t, m, id); st.State != Failed || !strings.Contains(st.Detail, "after 3 bytes") {
		t.Errorf("%+v", st)
	}
}

func TestAllows(t *testing.T) {
	t.Parallel()
	s := Spec{Owner: "alice/1", Grants: []string{"bob", "carol/2"}}
	for who, want := range map[string]bool{
		"alice": true, "alice/2": true, "alice2": false, "bob": true, "bob/7": true, "carol/2": true, "carol/3": false, "carol": false, "": false, "/": false,
	} {
		if got := s.Allows(who); got != want {
			t.Errorf("%q: %v", who, got)
		}
	}
}

// smallDisk is a directory with a disk of its own, of 4 MiB.
func smallDisk(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("none", dir, "tmpfs", 0, "size=4m"); err != nil {
		t.Skip("cannot mount a small file system: ", err)
	}
	t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
	return dir
}

// On a full disk jobs fail and say why, their ends are written, and the node
// stays up.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	dir := smallDisk(t)
	m := open(t, dir)
	waiting := submit(t, m, "true")
	p, err := m.Payload(waiting)
	if err != nil {
		t.Fatal(err)
	}
	running := run(t, m, "read x; sleep 600")
	_ = os.WriteFile(filepath.Join(dir, "full"), make([]byte, 8<<20), 0o600)
	_, err = p.Write(make([]byte, 64<<10))
	if !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("write: %v", err)
	}
	if st := wait(t, m, waiting); st.State != Failed || !strings.Contains(st.Detail, "no space left on device") {
		t.Errorf("%+v", st)
	}
	if err := m.Cancel(running); err != nil {
		t.Error(err)
	}
	if st := wait(t, m, running); st.State != Canceled {
		t.Errorf("%+v", st)
	}
	if _, err := m.Submit(Spec{ID: NewID(), Type: "absent"}); err == nil {
		t.Log("there is still room for a directory")
	}
	late := submit(t, m, "echo important-output")
	if err := m.Start(late); !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), dir) {
		t.Errorf("start on a full disk: %v", err)
	}
	if st := wait(t, m, late); st.State != Failed || !strings.Contains(st.Detail, "no space left on device") {
		t.Errorf("%+v", st)
	}
	os.Remove(filepath.Join(dir, "full"))
	if err := m.Release(context.Background(), waiting); err != nil {
		t.Error(err)
	}
	if st := wait(t, m, run(t, m, "true")); st.State != Succeeded {
		t.Errorf("after room was made: %+v", st)
	}
}

// A job that fills the disk has not succeeded, whatever it says itself: nobody knows
// what it has written in vain. Its exit status is told all the same.
func TestJobFillsTheDisk(t *testing.T) {
	t.Parallel()
	dir := smallDisk(t)
	m := open(t, dir)
	for script, code := range map[string]int{"head -c 20000000 /dev/zero; exit 0": 0, "head -c 20000000 /dev/zero; exit 3": 3} {
		id := run(t, m, script)
		st := wait(t, m, id)
		if st.State != Failed || st.ExitCode != code || st.StdoutSize == 0 || !strings.HasPrefix(st.Detail, fmt.Sprint("exit status ", code, "; ")) ||
			!strings.Contains(st.Detail, "the disk of the data directory "+dir+" was full") {
			t.Errorf("%s: %+v", script, st)
		}
		// Not even from what the reserve has freed for states.
		if err := m.Start(submit(t, m, "true")); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("start on a full disk: %v", err)
		}
		if err := m.Release(t.Context(), id); err != nil {
			t.Error(err)
		}
	}
	if st := wait(t, m, run(t, m, "echo fits")); st.State != Succeeded || st.StdoutSize != 5 {
		t.Errorf("after room was made: %+v", st)
	}
}
