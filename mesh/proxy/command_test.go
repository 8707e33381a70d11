package proxy

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ranvier-mesh/ranvier/mesh"
)

// commandStream runs a command for a stream that it returns.
func commandStream(t *testing.T, argv ...string) (*pair, *mesh.Conn) {
	t.Helper()
	p := newPair(t)
	p.serve("cmd", NewCommand(argv, nil, p.log()).Handle)
	conn, err := p.a.Dial(t.Context(), "b", "cmd")
	if err != nil {
		t.Fatal(err)
	}
	conn.SetDeadline(time.Now().Add(patience))
	t.Cleanup(func() { conn.Close() })
	return p, conn
}

func TestACommandHasATerminal(t *testing.T) {
	t.Parallel()
	_, conn := commandStream(t, "sh", "-c", `test -t 0 && test -t 1 && tty; echo done`)
	got, err := io.ReadAll(conn)
	if err != nil || !strings.HasPrefix(string(got), "/dev/pts/") || !strings.HasSuffix(string(got), "done\r\n") {
		t.Errorf("%q, %v", got, err)
	}
}

func TestACommandReadsTheEndOfItsInput(t *testing.T) {
	t.Parallel()
	for _, input := range []string{"one\ntwo\n", "one\ntwo", ""} {
		_, conn := commandStream(t, "sh", "-c", `stty -echo; echo ready; cat; echo over`)
		if _, err := io.ReadFull(conn, make([]byte, len("ready\r\n"))); err != nil {
			t.Fatal(err)
		}
		io.WriteString(conn, input)
		conn.CloseWrite()
		got, err := io.ReadAll(conn)
		want := strings.ReplaceAll(input, "\n", "\r\n") + "over\r\n"
		if err != nil || string(got) != want {
			t.Errorf("%q, %v, want %q", got, err, want)
		}
	}
}

// TestMuchOutputArrivesWhole: a command's last words are not cut, however slowly
// they are read.
func TestMuchOutputArrivesWhole(t *testing.T) {
	t.Parallel()
	_, conn := commandStream(t, "sh", "-c", `stty -opost; seq 200000; echo end`)
	got, err := io.ReadAll(conn)
	if err != nil || strings.Count(string(got), "\n") != 200001 || !strings.HasSuffix(string(got), "\nend\n") {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

// TestACommandEndsWithItsStream: with all that it has started.
func TestACommandEndsWithItsStream(t *testing.T) {
	t.Parallel()
	gate := filepath.Join(t.TempDir(), "pid")
	_, conn := commandStream(t, "sh", "-c", fmt.Sprintf(`trap '' HUP; setsid sleep 1000 & echo $! > %s; echo started; wait`, gate))
	if _, err := io.ReadFull(conn, make([]byte, len("started"))); err != nil {
		t.Fatal(err)
	}
	conn.Close()
	pid := strings.TrimSpace(read(t, gate))
	limit := time.Now().Add(patience)
	for alive(pid) {
		if time.Now().After(limit) {
			t.Fatalf("process %s runs on", pid)
		}
		sleep(t.Context(), 20*time.Millisecond)
	}
}

func alive(pid string) bool {
	text, err := os.ReadFile("/proc/" + pid + "/stat")
	return err == nil && !strings.Contains(string(text), ") Z ")
}

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestACommandThatIsNotThere(t *testing.T) {
	t.Parallel()
	p, conn := commandStream(t, "/no/such/command")
	if _, err := io.ReadAll(conn); err == nil || !strings.Contains(err.Error(), "/no/such/command") {
		t.Errorf("the other end is told %v", err)
	}
	if !strings.Contains(p.logs.String(), "/no/such/command") {
		t.Errorf("the log says %s", p.logs)
	}
}
