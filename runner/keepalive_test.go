package runner

import (
	"bytes"
	"io"
	"strings"
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
