package bench

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/identity"
)

// A benchmark of streams runs each node as a process of its own: this program
// again, told by childEnv what to be. The parent sends orders as lines of JSON and
// gets a line for each (line_test.go); all that is measured is measured here, by
// the same code for our nodes and for the references.

// childEnv names the environment variable with a child's spec as JSON;
// profileEnv that of a directory for CPU profiles, one a process.
const (
	childEnv   = "RANVIER_BENCH_CHILD"
	profileEnv = "RANVIER_BENCH_PROFILE"
)

// spec is what a child is to be.
type spec struct {
	Kind     string   // mesh, reference or chain
	ID       string   // of the node
	Identity string   // the directory of it
	Peers    []string // addresses to dial
	Listen   int      // how many listeners
	Rate     int64    // of each link
	Memory   int64    // mesh.Config.StreamMemory
}

// order is what the parent wants of a child.
type order struct {
	Do      string
	To      string
	Streams int
	Bytes   int64 // of all streams together
	Every   time.Duration
	N       int
}

// report is what came of it.
type answer struct {
	Err        string          `json:",omitempty"`
	Addrs      []string        `json:",omitempty"` // of listeners, in the first line
	Took       time.Duration   `json:",omitempty"`
	Times      []time.Duration `json:",omitempty"`
	CPU        time.Duration   `json:",omitempty"` // since the start, user and system
	RSS        int64           `json:",omitempty"`
	Goroutines int             `json:",omitempty"`
	Sent       uint64          `json:",omitempty"` // on links that it dialled, since the start
	Received   uint64          `json:",omitempty"` // on links that are up
	LinksUp    int             `json:",omitempty"` // how many it dialled with success
}

// fabric carries streams between children: the mesh, or the reference.
type fabric interface {
	addrs() []string
	open(ctx context.Context, to string) (stream, error)
	serve(func(stream)) // every stream that comes in
	ping(ctx context.Context, to string) (time.Duration, error)
	traffic() (sent, received uint64, dialled int)
}

type stream interface {
	net.Conn
	CloseWrite() error
}

type child struct {
	fabric
	mu   sync.Mutex
	held []stream // until "release"
	bulk sync.WaitGroup

	pause atomic.Int64 // the longest one between two reads of a sink
	stop  chan struct{}
}

func childMain(text string) int {
	var s spec
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		fmt.Fprintln(os.Stderr, "bench child:", err)
		return 2
	}
	if dir := os.Getenv(profileEnv); dir != "" {
		f, err := os.Create(dir + "/" + s.Kind + "-" + s.ID + ".pprof")
		if err == nil && pprof.StartCPUProfile(f) == nil {
			defer f.Close()
			defer pprof.StopCPUProfile()
		}
	}
	self, err := identity.Load(s.Identity, nil)
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench child:", err)
		return 1
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var f fabric
	switch s.Kind {
	case "mesh":
		f, err = newMesh(ctx, s, self)
	case "reference":
		f, err = newReference(ctx, s, self)
	case "chain":
		f, err = newChain(s)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench child:", err)
		return 1
	}
	c := &child{fabric: f, stop: closedChan()}
	f.serve(c.handle)
	out := json.NewEncoder(os.Stdout)
	out.Encode(answer{Addrs: f.addrs()})
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		var o order
		if err := json.Unmarshal(in.Bytes(), &o); err != nil {
			fmt.Fprintln(os.Stderr, "bench child:", err)
			return 1
		}
		a, err := c.do(ctx, o)
		if err != nil {
			a.Err = err.Error()
		}
		out.Encode(a)
	}
	return 0
}

func closedChan() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}

func (c *child) do(ctx context.Context, o order) (answer, error) {
	switch o.Do {
	case "ping":
		took, err := c.ping(ctx, o.To)
		return answer{Took: took}, err
	case "pings":
		return c.pings(ctx, o)
	case "send":
		return c.send(o)
	case "sinks":
		all, err := c.openAll(ctx, o, 'S')
		c.held = all
		return answer{}, err
	case "bulk": // endless, until "halt"
		return c.startBulk(ctx, o)
	case "halt":
		close(c.stop)
		c.bulk.Wait()
		c.stop = closedChan()
		return answer{}, nil
	case "hold":
		return c.hold(ctx, o, 'E')
	case "clog":
		return c.hold(ctx, o, 'N')
	case "release":
		c.release()
		return answer{}, nil
	case "first":
		return c.firstBytes(ctx, o)
	case "pause":
		return answer{Took: time.Duration(c.pause.Swap(0))}, nil
	case "gc":
		debug.FreeOSMemory()
	case "stacks":
		pprof.Lookup("goroutine").WriteTo(os.Stderr, 1)
	case "heap":
		pprof.Lookup("heap").WriteTo(os.Stderr, 1)
	}
	return c.stats(), nil
}

func (c *child) stats() answer {
	var r syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &r)
	a := answer{
		CPU:        time.Duration(r.Utime.Nano() + r.Stime.Nano()),
		Goroutines: runtime.NumGoroutine(),
		RSS:        rss(),
	}
	a.Sent, a.Received, a.LinksUp = c.traffic()
	return a
}

// rss is this process's memory as the system sees it.
func rss() int64 {
	b, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "VmRSS:" {
			kib, _ := strconv.ParseInt(f[1], 10, 64)
			return kib << 10
		}
	}
	return 0
}

// handle serves a stream by its first byte: S counts what comes and says how
// much it was, E sends it back, N never reads on.
func (c *child) handle(s stream) {
	defer s.Close()
	var verb [1]byte
	if _, err := io.ReadFull(s, verb[:]); err != nil {
		return
	}
	switch verb[0] {
	case 'S':
		buf := buffers.Get().(*[64 << 10]byte)
		defer buffers.Put(buf)
		n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, &paused{s, &c.pause, time.Now()}, buf[:])
		if err == nil {
			s.Write(binary.BigEndian.AppendUint64(nil, uint64(n)))
			s.CloseWrite()
			s.Read(verb[:]) // until the other end has it
		}
	case 'E':
		var one [1]byte
		for {
			if _, err := s.Read(one[:]); err != nil {
				return
			}
			if _, err := s.Write(one[:]); err != nil {
				return
			}
		}
	case 'N':
		c.mu.Lock()
		c.held = append(c.held, s)
		c.mu.Unlock()
		select {}
	}
}

// paused notes the longest time between two reads.
type paused struct {
	from io.Reader
	most *atomic.Int64
	last time.Time
}

func (r *paused) Read(p []byte) (int, error) {
	n, err := r.from.Read(p)
	now := time.Now()
	for gap, most := int64(now.Sub(r.last)), r.most.Load(); gap > most && !r.most.CompareAndSwap(most, gap); most = r.most.Load() {
	}
	r.last = now
	return n, err
}

var buffers = sync.Pool{New: func() any { return new([64 << 10]byte) }}

func (c *child) release() {
	c.mu.Lock()
	held := c.held
	c.held = nil
	c.mu.Unlock()
	var wg sync.WaitGroup
	for part := range slices.Chunk(held, len(held)/64+1) {
		wg.Go(func() {
			for _, s := range part {
				s.Close()
			}
		})
	}
	wg.Wait()
}

// openAll opens streams and sends each its verb.
func (c *child) openAll(ctx context.Context, o order, verb byte) ([]stream, error) {
	all := make([]stream, max(1, o.Streams))
	var mu sync.Mutex
	var failed error
	var wg sync.WaitGroup
	next := make(chan int)
	for range min(len(all), 32) {
		wg.Go(func() {
			for i := range next {
				s, err := c.open(ctx, o.To)
				if err == nil {
					_, err = s.Write([]byte{verb})
				}
				if err == nil {
					all[i] = s
					continue
				}
				mu.Lock()
				failed = err
				mu.Unlock()
			}
		})
	}
	for i := range all {
		next <- i
	}
	close(next)
	wg.Wait()
	return all, failed
}

// send sends bytes over the streams that "sinks" has opened, and waits until
// all were counted at the other end.
func (c *child) send(o order) (answer, error) {
	all := c.held
	c.held = nil
	var err error
	each := o.Bytes / int64(len(all))
	errs := make(chan error, len(all))
	start := time.Now()
	for _, s := range all {
		go func() { errs <- sendOne(s, each) }()
	}
	for range all {
		if e := <-errs; e != nil {
			err = e
		}
	}
	took := time.Since(start)
	for _, s := range all {
		s.Close()
	}
	return answer{Took: took}, err
}

func sendOne(s stream, n int64) error {
	buf := buffers.Get().(*[64 << 10]byte)
	defer buffers.Put(buf)
	for left := n; left > 0; {
		k, err := s.Write(buf[:min(left, int64(len(buf)))])
		if err != nil {
			return err
		}
		left -= int64(k)
	}
	if err := s.CloseWrite(); err != nil {
		return err
	}
	var got [8]byte
	if _, err := io.ReadFull(s, got[:]); err != nil {
		return fmt.Errorf("the count: %w", err)
	}
	if k := int64(binary.BigEndian.Uint64(got[:])); k != n {
		return fmt.Errorf("%d bytes came of %d", k, n)
	}
	return nil
}

// startBulk keeps streams busy until "halt".
func (c *child) startBulk(ctx context.Context, o order) (answer, error) {
	all, err := c.openAll(ctx, o, 'S')
	if err != nil {
		return answer{}, err
	}
	stop := make(chan struct{})
	c.stop = stop
	for _, s := range all {
		c.bulk.Go(func() {
			defer s.Close()
			var buf [32 << 10]byte
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := s.Write(buf[:]); err != nil {
					return
				}
			}
		})
	}
	return answer{}, nil
}

// hold opens streams that are kept; with N it also writes to each until it is
// held up.
func (c *child) hold(ctx context.Context, o order, verb byte) (answer, error) {
	all, err := c.openAll(ctx, o, verb)
	for _, s := range all {
		if s == nil {
			continue
		}
		c.held = append(c.held, s)
		if verb == 'N' {
			go s.Write(make([]byte, o.Bytes/int64(len(all))))
			continue
		}
		var one [1]byte
		s.Write(one[:])
		io.ReadFull(s, one[:])
	}
	return c.stats(), err
}

// firstBytes opens streams one after the other until a byte came back.
func (c *child) firstBytes(ctx context.Context, o order) (answer, error) {
	var a answer
	one := []byte{'E', 'x'}
	for range o.N {
		start := time.Now()
		s, err := c.open(ctx, o.To)
		if err != nil {
			return a, err
		}
		s.Write(one)
		if _, err := io.ReadFull(s, one[1:]); err != nil {
			return a, err
		}
		a.Times = append(a.Times, time.Since(start))
		s.Close()
	}
	return a, nil
}

// pings pings again and again, Every apart.
func (c *child) pings(ctx context.Context, o order) (answer, error) {
	var a answer
	tick := time.NewTicker(max(o.Every, time.Microsecond))
	defer tick.Stop()
	for range o.N {
		took, err := c.ping(ctx, o.To)
		if err != nil {
			return a, err
		}
		a.Times = append(a.Times, took)
		<-tick.C
	}
	return a, nil
}
