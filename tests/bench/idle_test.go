package bench

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ranvier-mesh/ranvier/mesh"
	"github.com/ranvier-mesh/ranvier/mesh/link"
	"github.com/ranvier-mesh/ranvier/mesh/tcplink"
	"github.com/ranvier-mesh/ranvier/routing"
)

// aloneEnv says that the process has a network of its own.
const aloneEnv = "RANVIER_BENCH_ALONE"

// BenchmarkIdleBytes: what a quiet mesh sends, counted by the kernel with all
// headers on a loopback that nobody else uses: each node has dialled two others.
// The nodes are those of one process, which makes no difference on the wire.
func BenchmarkIdleBytes(b *testing.B) {
	if os.Getenv(aloneEnv) == "" {
		cmd := exec.Command(os.Args[0], "-test.run", "^$", "-test.bench", "IdleBytes", "-test.benchtime", "1x")
		cmd.Env = append(os.Environ(), aloneEnv+"=1")
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}}
		if err := cmd.Run(); err != nil {
			b.Skip("a network of its own is not to be had here: ", err)
		}
		return
	}
	loopbackUp(b)
	for _, nodes := range []int{10, 30, 100} {
		goal(b, fmt.Sprintf("%d nodes, idle bytes per node and minute", nodes), "KiB", idleBytes(b, nodes)/1024, 50)
	}
}

func idleBytes(b *testing.B, nodes int) float64 {
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	var meshes []*mesh.Mesh
	for i := range nodes {
		m, err := mesh.New(ctx, mesh.Config{
			ID: routing.NodeID("w" + strconv.Itoa(i)), Epoch: 1, Transports: map[string]link.Transport{"tcp": tcplink.Transport{}},
			Listeners: []mesh.ListenerConfig{{Address: "tcp://127.0.0.1:0"}},
		})
		if err != nil {
			b.Fatal(err)
		}
		meshes = append(meshes, m)
		all.Go(func() { m.Run(ctx) })
	}
	for i, m := range meshes {
		for _, step := range []int{1, 3} {
			if err := m.AddPeer(mesh.PeerConfig{Address: meshes[(i+step)%nodes].Addrs()[0]}); err != nil {
				b.Fatal(err)
			}
		}
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for _, m := range meshes {
		for known := 0; known < nodes; <-tick.C {
			known = 0
			for _, n := range m.Status().Nodes {
				if n.Reachable {
					known++
				}
			}
		}
	}
	pass(15 * time.Second) // the last adverts and their acknowledgements
	before := loopbackBytes(b)
	pass(time.Minute)
	return float64(loopbackBytes(b)-before) / float64(nodes)
}

func loopbackUp(b *testing.B) {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer unix.Close(s)
	r, err := unix.NewIfreq("lo")
	if err != nil {
		b.Fatal(err)
	}
	r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, r); err != nil {
		b.Fatal("the loopback: ", err)
	}
}

// loopbackBytes is what was sent, with the headers of IP and of the link.
func loopbackBytes(b *testing.B) int64 {
	text, err := os.ReadFile("/proc/self/net/dev")
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 9 && f[0] == "lo:" {
			n, _ := strconv.ParseInt(f[9], 10, 64)
			return n
		}
	}
	b.Fatal("no loopback")
	return 0
}
