package chaos

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// job is a shell script and its gates.
type job struct {
	script, count, arrived, goOn string
	size                         int // of its big output
}

// newJob makes a job that counts its starts, reads its input, stops at a gate,
// writes size bytes, and says how much it has read.
func newJob(t *testing.T, size int) job {
	t.Helper()
	dir := t.TempDir()
	j := job{filepath.Join(dir, "script"), filepath.Join(dir, "count"), filepath.Join(dir, "arrived"), filepath.Join(dir, "go-on"), size}
	for _, f := range []string{j.arrived, j.goOn} {
		if err := syscall.Mkfifo(f, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	text := fmt.Sprintf("echo started >>%s\nread=$(wc -c)\necho first\necho >%s\ncat %s >/dev/null\nhead -c %d /dev/zero\necho \"read $read\"\n",
		j.count, j.arrived, j.goOn, size)
	if err := os.WriteFile(j.script, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return j
}

// atGate returns when the job has come to its gate.
func (j job) atGate() { _, _ = os.ReadFile(j.arrived) }

// atGateUnless is atGate for a job that may end without coming there.
func (j job) atGateUnless(t *testing.T, over func() bool) bool {
	t.Helper()
	f, err := os.OpenFile(j.arrived, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for {
		_ = f.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		if n, _ := f.Read(make([]byte, 1)); n > 0 {
			return true
		}
		if over() {
			return false
		}
	}
}

// open lets the job go on.
func (j job) open() { _ = os.WriteFile(j.goOn, []byte("\n"), 0) }

func (j job) starts(t *testing.T) int {
	t.Helper()
	b, _ := os.ReadFile(j.count)
	return strings.Count(string(b), "started")
}

// mesh is a - b - c: submitted at a, done by c.
type mesh struct{ a, b, c *node }

func startMesh(t *testing.T) mesh { return startMeshWith(t, "") }

// startMeshWith has further items at c.
func startMeshWith(t *testing.T, items string) mesh {
	b := startNode(t, "b", "")
	return mesh{startNode(t, "a", b.peer()), b, startNode(t, "c", b.peer()+items)}
}

// victims are who is killed, and started again unless it is the keeper, whom
// its node starts when it needs one.
var victims = []struct {
	name string
	kill func(m mesh)
}{
	{"submitter", func(m mesh) { m.a.kill(); m.a.start() }},
	{"relay", func(m mesh) { m.b.kill(); m.b.start() }},
	{"executor", func(m mesh) { m.c.kill(); m.c.start() }},
	{"keeper", func(m mesh) { m.c.killKeeper() }},
}

const big = 8 << 20

// ending is how a job ends whose keeper is killed: nobody knows how one ended that ran,
// and whether one has begun that the keeper was to start just then.
type ending int

const (
	succeeds ending = iota
	lost
	either
)

// steps are where in the job's life the kill comes. Each returns the unit's id.
// keeper is how it may end where that is killed.
var steps = []struct {
	name    string
	payload int
	output  int
	keeper  ending
	run     func(t *testing.T, m mesh, j job, stdin io.Reader, kill func()) string
}{
	{"before the submit", 100, 100, succeeds, func(t *testing.T, m mesh, j job, stdin io.Reader, kill func()) string {
		kill()
		id := submit(t, m, j, stdin)
		j.atGate()
		j.open()
		return id
	}},
	{"in stdin", big, 100, either, func(t *testing.T, m mesh, j job, stdin io.Reader, kill func()) string {
		id := submit(t, m, j, stdin)
		m.c.eventually("a part of the payload, or all of it, at c", func() bool {
			there, _ := filepath.Glob(filepath.Join(m.c.data(), "units", id, "std*"))
			return len(there) > 0 || j.starts(t) > 0
		})
		kill()
		j.atGate()
		j.open()
		return id
	}},
	{"between stdin and start", 100, 100, either, func(t *testing.T, m mesh, j job, stdin io.Reader, kill func()) string {
		id := submit(t, m, j, stdin)
		kill()
		if j.atGateUnless(t, func() bool { u, err := m.a.status(id); return err == nil && u.State > 1 }) {
			j.open()
		}
		return id
	}},
	{"while it runs", 100, 100, lost, func(t *testing.T, m mesh, j job, stdin io.Reader, kill func()) string {
		id := submit(t, m, j, stdin)
		j.atGate()
		kill()
		j.open()
		return id
	}},
	{"in the results", 100, big, either, func(t *testing.T, m mesh, j job, stdin io.Reader, kill func()) string {
		id := submit(t, m, j, stdin)
		j.atGate()
		j.open()
		m.a.eventually("a part of the results at a", func() bool {
			fi, err := os.Stat(filepath.Join(m.a.data(), "units", id+".stdout"))
			return err == nil && fi.Size() > int64(len("first\n"))
		})
		kill()
		return id
	}},
}

func submit(t *testing.T, m mesh, j job, stdin io.Reader) string {
	t.Helper()
	id, err := m.a.submit("c", j.script, stdin)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// Whoever is killed at whatever step, the job ends in the same result and is
// started once. Only where its keeper is killed while it runs is its exit status
// lost, and told to be; or, where that is killed when it is to start the job,
// whether it did.
func TestMatrix(t *testing.T) {
	t.Parallel()
	for _, step := range steps {
		for _, v := range victims {
			t.Run(step.name+"/"+v.name, func(t *testing.T) {
				t.Parallel()
				if testing.Short() && step.output != big && step.name != "while it runs" {
					t.Skip("one of the shorter half")
				}
				m := startMesh(t)
				j := newJob(t, step.output)
				id := step.run(t, m, j, bytes.NewReader(make([]byte, step.payload)), func() { v.kill(m) })
				end := succeeds
				if v.name == "keeper" {
					end = step.keeper
				}
				check(t, m, j, id, step.payload, end)
			})
		}
	}
}

// ended waits for a unit's end.
func (n *node) ended(id string) (u unit) {
	n.t.Helper()
	n.eventually("the unit's end", func() (over bool) {
		var err error
		u, err = n.status(id)
		return err == nil && u.State > 1
	})
	return u
}

// check waits for the unit's end at a, and looks at what came of it.
func check(t *testing.T, m mesh, j job, id string, payload int, end ending) {
	t.Helper()
	u := m.a.ended(id)
	isLost := u.StateName == "Failed" && strings.HasPrefix(u.Detail, "LOST: ")
	if isLost && end == succeeds || u.StateName == "Succeeded" && end == lost || u.StateName != "Succeeded" && !isLost {
		t.Errorf("the unit ended as %+v", u)
	}
	n := j.starts(t)
	if n == 0 && isLost && end == either {
		return // its keeper was killed with the order to start it in hand
	}
	if n != 1 {
		t.Errorf("the job was started %d times", n)
	}
	want := "first\n" + strings.Repeat("\x00", j.size) + fmt.Sprintf("read %d\n", payload)
	got, err := os.ReadFile(filepath.Join(m.a.data(), "units", id+".stdout"))
	if err != nil || string(got) != want {
		t.Errorf("%d bytes of results, %v; want %d", len(got), err, len(want))
	}
	if u.StdoutSize != int64(len(want)) {
		t.Errorf("the status says %d bytes", u.StdoutSize)
	}
}

// A cancel that was answered is carried out, whoever is killed then.
func TestCancelMatrix(t *testing.T) {
	t.Parallel()
	for _, v := range victims {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			m := startMesh(t)
			j := newJob(t, 10)
			id := submit(t, m, j, strings.NewReader("x"))
			j.atGate()
			if got := m.a.work(t, "cancel", id); got["cancelled"] != id {
				t.Errorf("cancel: %v", got)
			}
			v.kill(m)
			u := m.a.ended(id)
			if u.StateName != "Canceled" || j.starts(t) != 1 {
				t.Errorf("%+v, started %d times", u, j.starts(t))
			}
		})
	}
}

// A job that waits for its turn gets it, whoever is killed meanwhile.
func TestQueueMatrix(t *testing.T) {
	t.Parallel()
	for _, v := range victims {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			m := startMeshWith(t, "- work-policy: {worktype: sh, concurrent: 1}\n")
			first, second := newJob(t, 10), newJob(t, 10)
			runs := submit(t, m, first, strings.NewReader("x"))
			first.atGate()
			waits := submit(t, m, second, strings.NewReader("x"))
			m.a.eventually("the queue", func() bool {
				u, err := m.a.status(waits)
				return err == nil && strings.HasPrefix(u.Detail, "Queued")
			})
			v.kill(m)
			if second.starts(t) != 0 {
				t.Error("it has not waited")
			}
			first.open()
			second.atGate()
			second.open()
			end := succeeds
			if v.name == "keeper" {
				end = lost
			}
			check(t, m, first, runs, 1, end)
			check(t, m, second, waits, 1, succeeds)
		})
	}
}

// A job for a node that is away waits, and starts on its return; a cancel for one
// that is away is delivered on its return.
func TestStoreAndForward(t *testing.T) {
	t.Parallel()
	m := startMesh(t)
	j := newJob(t, 10)
	m.c.kill()
	id := submit(t, m, j, strings.NewReader("x"))
	if u, err := m.a.status(id); err != nil || u.StateName != "Pending" || u.ExtraData["RemoteNode"] != "c" {
		t.Errorf("%+v, %v", u, err)
	}
	m.a.kill()
	m.a.start()
	m.c.start()
	j.atGate()

	m.c.kill()
	if got := m.a.work(t, "cancel", id); got["cancel pending"] != id {
		t.Errorf("cancel while the node is away: %v", got)
	}
	m.c.start()
	m.a.eventually("the cancel", func() bool {
		u, err := m.a.status(id)
		return err == nil && u.StateName == "Canceled"
	})
	if got := m.a.work(t, "release", id); got["released"] != id {
		t.Errorf("release: %v", got)
	}
	m.c.eventually("the release at c", func() bool {
		left, _ := filepath.Glob(filepath.Join(m.c.data(), "units", "*"))
		return len(left) == 0
	})
	if j.starts(t) != 1 {
		t.Errorf("started %d times", j.starts(t))
	}
}
