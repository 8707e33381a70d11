package node

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
)

// idleClients is how many clients of a control socket say nothing.
const idleClients = 10_000

// idleSocket has this program, where it is set, be those clients.
const idleSocket = "RANVIER_TEST_IDLE_SOCKET"

// holdIdle connects, says so, and holds the connections until its input ends.
func holdIdle(socket string) error {
	for range idleClients {
		conn, err := net.Dial("unix", socket)
		if err != nil {
			return err
		}
		defer conn.Close()
		if _, err := conn.Read(make([]byte, 100)); err != nil { // the greeting: the node has it
			return err
		}
	}
	fmt.Println("connected")
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

// openFiles raises the limit of open files.
func openFiles(t *testing.T, n uint64) {
	t.Helper()
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if limit.Cur >= n {
		return
	}
	before := limit
	limit.Cur, limit.Max = n, max(n, limit.Max)
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Skipf("this user may not open %d files: %v", n, err)
	}
	t.Cleanup(func() { syscall.Setrlimit(syscall.RLIMIT_NOFILE, &before) })
}

// Ten thousand clients that hold a connection to the control socket and say nothing
// cost little memory, and keep nobody out.
func TestTenThousandIdleConnections(t *testing.T) {
	openFiles(t, idleClients+1000)
	dir := t.TempDir()
	socket := filepath.Join(dir, "s")
	a := start(t, fmt.Sprintf("- node: {id: a, datadir: %s/a}\n- local-only\n- control-service: {filename: %s}\n- work-command: {worktype: cat, command: cat}\n", dir, socket))
	memory := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapInuse + m.StackInuse)
	}
	empty := memory()
	clients := exec.Command(os.Args[0])
	clients.Env = append(os.Environ(), idleSocket+"="+socket)
	clients.Stderr = os.Stderr
	hold, err := clients.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	say, err := clients.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := clients.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		hold.Close()
		if err := clients.Wait(); err != nil {
			t.Error(err)
		}
	}()
	if line, err := bufio.NewReader(say).ReadString('\n'); line != "connected\n" {
		t.Fatalf("the clients say %q, %v", line, err)
	}
	if each := (memory() - empty) / idleClients; each > 12<<10 {
		t.Errorf("an idle connection takes %d bytes", each)
	} else {
		t.Logf("%d bytes a connection", each)
	}
	id, _ := dialSocket(t, socket).submit("work submit a cat", "one more")
	if st := ended(t, a, id); st.StdoutSize != 8 {
		t.Errorf("a job beside them: %+v", st)
	}
}
