package e2e

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// twoWays is a mesh a -- r1 -- c with a dearer way through r2. A TCP connection
// to entry at a comes out at an address of the test's behind c.
type twoWays struct {
	a, c, r1, r2 *node
	entry        string
}

func startTwoWays(t *testing.T, address string) twoWays {
	t.Helper()
	w := twoWays{r1: startNode(t, "r1", listener), r2: startNode(t, "r2", listener)}
	both := w.r1.peer() + "- tcp-peer: {address: '" + w.r2.addr + "', cost: 10}\n"
	w.c = startNode(t, "c", both+"- tcp-client: {service: there, address: '"+address+"'}\n")
	w.a = startNode(t, "a", both+"- tcp-server: {bindaddr: 127.0.0.1, port: 0, remotenode: c, remoteservice: there}\n")
	w.entry = w.a.await(w.a.stderr, `a service of the mesh is served here" .*bound=(\S+)`)[1]
	for _, n := range []*node{w.a, w.c} {
		n.await(n.stderr, `link up" node=r1`)
		n.await(n.stderr, `link up" node=r2`)
	}
	w.r2.reaches("a")
	w.r2.reaches("c")
	w.r1.reaches("a")
	w.r1.reaches("c")
	w.a.reaches("c")
	return w
}

// sink takes one connection, hashes what comes and counts it.
type sink struct {
	addr  string
	bytes atomic.Int64
	hash  chan string
}

func newSink(t *testing.T) *sink {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	s := &sink{addr: l.Addr().String(), hash: make(chan string, 1)}
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		h := sha256.New()
		_, err = io.Copy(h, io.TeeReader(conn, counter{&s.bytes}))
		s.hash <- fmt.Sprintf("%s %v", hex.EncodeToString(h.Sum(nil)), err)
	}()
	return s
}

type counter struct{ n *atomic.Int64 }

func (c counter) Write(p []byte) (int, error) {
	c.n.Add(int64(len(p)))
	return len(p), nil
}

// eventually waits until f is true. Only who looks from outside the processes
// has to look again and again.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	late := time.After(patience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !f() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("waited %v for %s", patience, what)
		}
	}
}

// The relay of a transfer is taken out of service: it carries nothing any more
// before it ends, and not a byte is lost.
func TestDrainedRelay(t *testing.T) {
	t.Parallel()
	for name, drain := range map[string]func(t *testing.T, n *node){
		"drain":   func(t *testing.T, n *node) { ranvierOK(t, "drain", "--socket", n.socket) },
		"SIGTERM": func(_ *testing.T, n *node) { n.signal(syscall.SIGTERM) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSink(t)
			w := startTwoWays(t, s.addr)
			conn, err := net.Dial("tcp", w.entry)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			stop, sent := make(chan struct{}), make(chan string, 1)
			go func() { sent <- feed(conn, stop) }()
			eventually(t, "the first MiB", func() bool { return s.bytes.Load() > 1<<20 })

			drain(t, w.r1)
			w.r1.exits(0)
			if strings.Contains(w.r1.stderr.String(), "streams of other nodes are cut") {
				t.Error("the relay ended with the stream")
			}
			before := s.bytes.Load()
			eventually(t, "a further MiB", func() bool { return s.bytes.Load() > before+1<<20 })
			close(stop)
			if here, there := <-sent, <-s.hash; here != there {
				t.Errorf("sent %s, received %s", here, there)
			}
		})
	}
}

// feed writes until stop, half-closes, and returns the hash of what was written.
func feed(conn net.Conn, stop chan struct{}) string {
	h := sha256.New()
	block := make([]byte, 32<<10)
	for i := 0; ; i++ {
		select {
		case <-stop:
			err := conn.(*net.TCPConn).CloseWrite()
			return fmt.Sprintf("%s %v", hex.EncodeToString(h.Sum(nil)), err)
		default:
		}
		copy(block, fmt.Sprintf("block %d\n", i))
		h.Write(block)
		if _, err := conn.Write(block); err != nil {
			return err.Error()
		}
	}
}

// A session of ssh through the mesh goes on when the relay in the middle is killed.
func TestSSHOutlivesItsRelay(t *testing.T) {
	t.Parallel()
	addr, login := sshd(t)
	w := startTwoWays(t, addr)
	w.r1.jobsGoOn = true // it is killed
	_, port, err := net.SplitHostPort(w.entry)
	if err != nil {
		t.Fatal(err)
	}
	ssh := exec.Command("ssh", append(login, "-p", port, "127.0.0.1", "echo ready; exec cat")...)
	in, err := ssh.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := ssh.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	said := newTranscript()
	ssh.Stderr = said
	if err := ssh.Start(); err != nil {
		t.Fatal(err)
	}
	late := time.AfterFunc(patience, func() { ssh.Process.Kill() })
	defer late.Stop()
	lines := bufio.NewReader(out)
	says := func(want string) {
		t.Helper()
		if line, err := lines.ReadString('\n'); err != nil || line != want+"\n" {
			ssh.Process.Kill()
			t.Fatalf("%q, %v; want %q; ssh says %s", line, err, want, said)
		}
	}
	says("ready")
	fmt.Fprintln(in, "before")
	says("before")

	w.r1.signal(syscall.SIGKILL)
	<-w.r1.done
	fmt.Fprintln(in, "after")
	says("after")
	in.Close()
	if err := ssh.Wait(); err != nil {
		t.Errorf("ssh: %v: %s", err, said)
	}
}

// sshd serves OpenSSH on loopback with keys of its own, one process a
// connection, and returns its address and ssh's options for it.
func sshd(t *testing.T) (addr string, options []string) {
	t.Helper()
	const server = "/usr/sbin/sshd"
	if _, err := os.Stat(server); err != nil {
		t.Fatalf("%v: `make setup` installs it", err)
	}
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, key := range []string{"host", "user"} {
		if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(dir, key)).CombinedOutput(); err != nil {
			t.Fatal(err, string(out))
		}
	}
	config := filepath.Join(dir, "sshd_config")
	write(t, config, fmt.Sprintf("HostKey %[1]s/host\nAuthorizedKeysFile %[1]s/user.pub\nStrictModes no\nUsePAM no\nPermitRootLogin yes\n"+
		"PasswordAuthentication no\nPidFile none\n", dir))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	t.Cleanup(func() { l.Close(); all.Wait() })
	all.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				if !errors.Is(err, net.ErrClosed) {
					t.Error(err)
				}
				return
			}
			if os.Getuid() == 0 { // sshd's own wish, which Debian's service unit fulfils
				_ = os.MkdirAll("/run/sshd", 0o755)
			}
			file, err := conn.(*net.TCPConn).File()
			conn.Close()
			if err != nil {
				t.Error(err)
				continue
			}
			cmd := exec.CommandContext(t.Context(), server, "-i", "-e", "-f", config)
			cmd.Stdin, cmd.Stdout = file, file
			all.Go(func() {
				defer file.Close()
				_ = cmd.Run() // what goes wrong ssh tells
			})
		}
	})
	return l.Addr().String(), []string{"-F", "none", "-i", filepath.Join(dir, "user"), "-l", me.Username, "-o", "StrictHostKeyChecking=no",
		"-o", "UserKnownHostsFile=/dev/null", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o", "LogLevel=ERROR"}
}

// Rules at a relay refuse a neighbour's streams, or let it wait; one that
// cannot be read keeps the node from starting.
func TestFirewallRules(t *testing.T) {
	t.Parallel()
	b := prepareNode(t, "b", listener)
	rules := "firewallrules: [{action: reject, fromnode: a, tonode: c, toservice: ping}, {action: drop, fromnode: /a+/, tonode: d, toservice: ping}]"
	write(t, b.file(), strings.Replace(read(t, b.file()), "{id: b,", "{id: b, "+rules+",", 1))
	b.process = start(t, b.env(), "node", "-c", b.file())
	t.Cleanup(b.stop)
	b.addr = b.await(b.stderr, `msg=listening address=tcp://(\S+)`)[1]
	a, c := startNode(t, "a", b.peer()), startNode(t, "c", b.peer())
	startNode(t, "d", b.peer())
	a.reaches("b")
	c.reaches("d") // nobody speaks of these two
	for _, n := range []string{"c", "d"} {
		a.await(a.stderr, `node reachable" node=`+n)
	}

	rejected := ranvier(t, "ping", "c", "--socket", a.socket, "--count", "1")
	rejected.exits(69)
	if text := rejected.stdout.String() + rejected.stderr.String(); !strings.Contains(text, "node b refused: a firewall rule refuses it") {
		t.Errorf("rejected: %s", text)
	}
	dropped := ranvier(t, "ping", "d", "--socket", a.socket, "--count", "1")
	dropped.exits(69)
	if text := dropped.stdout.String() + dropped.stderr.String(); strings.Contains(text, "firewall") || !strings.Contains(text, "in time") {
		t.Errorf("dropped: %s", text)
	}

	bad := prepareNode(t, "bad", "")
	write(t, bad.file(), strings.Replace(read(t, bad.file()), "{id: bad,", "{id: bad, firewallrules: [{action: reject, tonode: '/(/'}],", 1))
	p := ranvier(t, "node", "-c", bad.file())
	if p.exits(1); !strings.Contains(p.stderr.String(), "ranvier.yml") || !strings.Contains(p.stderr.String(), "tonode") {
		t.Errorf("a rule that is none: %s", p.stderr)
	}
}
