package runner

import (
	"bytes"
	"io"
	"io/fs"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// A worker that says nothing shows that it lives, from the beginning and between
// messages until the last one, but never inside one, however long that takes.
func TestKeepaliveIsBetweenMessages(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		k := newKeepalive(&out, time.Second)
		time.Sleep(2500 * time.Millisecond)
		if err := k.with(func(w io.Writer) error {
			if k.mu.TryLock() { // which whoever writes a beat has to have
				t.Error("a beat could come inside a message")
			}
			_, err := io.WriteString(w, "message\n")
			return err
		}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(1500 * time.Millisecond)
		if err := k.close(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		k.stop()
		const beat = `{"event": "keepalive", "counter": 0, "uuid": 0}` + "\n"
		if got := strings.ReplaceAll(out.String(), beat, "+"); got != "++message\n+{\"eof\": true}\n" {
			t.Errorf("%q", got)
		}
	})
}

// TestAWorkersErrorIsToldOnce: not once for each write that it keeps from being
// made, nor as one of the job's files, though a pipe has a path too.
func TestAWorkersErrorIsToldOnce(t *testing.T) {
	t.Parallel()
	broken := &fs.PathError{Op: "write", Path: "/dev/stdout", Err: syscall.EPIPE}
	err := Work(t.Context(), strings.NewReader("{{{\n"), io.Discard, WorkOptions{})
	if err == nil || strings.Contains(err.Error(), ".:") {
		t.Errorf("two sentences in one: %v", err)
	}
	k := newKeepalive(failing{broken}, 0)
	if err := k.close(); err == nil || err.Error() != "the worker's stream: write /dev/stdout: broken pipe" {
		t.Errorf("%v", err)
	}
	w := &worker{out: newKeepalive(failing{broken}, 0)}
	if err := w.status(); err == nil || err.Error() != "the worker's stream: write /dev/stdout: broken pipe" {
		t.Errorf("%v", err)
	}
	kwargs := `{"kwargs": {"playbook": "x.yml"}}` + "\n" + `{"eof": true}` + "\n"
	if err := Work(t.Context(), strings.NewReader(kwargs), failing{broken}, WorkOptions{}); err == nil || err.Error() != "the worker's stream: write /dev/stdout: broken pipe" {
		t.Errorf("%v", err)
	}
}

// failing is a writer that fails.
type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }
