package routing

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var rewrite = flag.Bool("rewrite", false, "rewrite the transcripts in testdata")

// TestTranscripts runs the scripts in testdata. A file holds commands, one a
// line, and indented below each what happens because of it. Lines that begin
// with # are comments.
//
//	boot a b          start nodes; again: restart with the next epoch
//	amnesia a         restart with epoch 1
//	link a b [cost]   a link comes up; cost as people write it
//	cut a b           it breaks
//	peer a x [cost]   a link of a to x, which is no node: the script plays it
//	unpeer a x        it breaks
//	flap a x 70ms 20  it comes and goes, 20 changes 70 ms apart
//	say a x MESSAGE   a gets a message from x, written as transcripts show it
//	set a [drain] [insecure] [services=x,y] [work=z]
//	leaf a x [cost]   a leaf is attached to a
//	unleaf a x
//	run 10s           time passes
//	quiet 1h          the same, and nothing may be sent
//	tables a ...      what a knows
//	route a b [avoid] first hops from a to b
func TestTranscripts(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			t.Parallel()
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := transcribe(t, want)
			if *rewrite {
				if err := os.WriteFile(file, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(string(want), string(got)); diff != "" && !*rewrite {
				t.Errorf("what happens differs from %s (-want +got); -rewrite writes it anew:\n%s", file, diff)
			}
		})
	}
}

// script is a running script.
type script struct {
	*sim
	out   bytes.Buffer
	quiet bool
}

func transcribe(t *testing.T, text []byte) []byte {
	s := &script{sim: newSim(t)}
	s.onSend = func(from NodeID, m Send) {
		if s.quiet {
			t.Errorf("%s sends to %s in quiet time: %s", from, m.To, describe(m.Msg))
		}
		s.printf("%s > %s  %s", from, m.To, describe(m.Msg))
	}
	s.onEvent = func(at NodeID, e Event) {
		s.printf("%s ! %s%+v", at, strings.TrimPrefix(fmt.Sprintf("%T", e), "routing."), e)
	}
	s.onFault = func(_, _ NodeID, err error) { s.printf("fault: %v", err) }
	for line := range strings.Lines(string(text)) {
		line = strings.TrimRight(line, "\n")
		if strings.HasPrefix(line, "\t") {
			continue
		}
		fmt.Fprintln(&s.out, line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if err := s.command(strings.Fields(line)); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
	}
	return s.out.Bytes()
}

func (s *script) printf(format string, args ...any) {
	fmt.Fprintf(&s.out, "\t%.3f  %s\n", s.now.Sub(s.start).Seconds(), fmt.Sprintf(format, args...))
}

func (s *script) command(f []string) error {
	arg := func(i int) NodeID {
		if i < len(f) {
			return NodeID(f[i])
		}
		return ""
	}
	cost, err := CostUnit, error(nil)
	if (f[0] == "link" || f[0] == "peer" || f[0] == "leaf") && len(f) > 3 {
		if cost, err = scriptCost(f[3]); err != nil {
			return err
		}
	}
	a, b := arg(1), arg(2)
	n := s.nodes[a]
	if n == nil && f[0] != "boot" && f[0] != "run" && f[0] != "quiet" {
		return fmt.Errorf("no node %s", a)
	}
	switch f[0] {
	case "boot":
		for _, id := range f[1:] {
			s.boot(NodeID(id))
		}
		return nil
	case "run", "quiet":
		d, err := time.ParseDuration(f[1])
		s.quiet = f[0] == "quiet"
		s.run(d)
		s.quiet = false
		return err
	case "tables":
		for _, id := range f[1:] {
			s.printTable(s.nodes[NodeID(id)].core.Table())
		}
		return nil
	case "route":
		hops, _ := n.core.Table().Route(b, func(id NodeID) bool { return id == arg(3) })
		s.printf("%v", hops)
		return nil
	case "amnesia":
		n.epoch = 0
		s.boot(a)
	case "link":
		s.link(a, b, cost)
	case "cut":
		s.cut(a, b)
	case "peer":
		n.core.AddLink(s.now, b, cost)
	case "unpeer":
		n.core.RemoveLink(s.now, b)
	case "flap":
		return s.flap(n, b, f[3], f[4])
	case "leaf":
		n.core.AddLeaf(s.now, Attachment{Leaf: b, Cost: cost})
	case "unleaf":
		n.core.RemoveLeaf(s.now, b)
	case "set":
		n.core.SetLocal(s.now, parseLocal(f[2:]))
	case "say":
		m, err := parseMessage(f[3:])
		if err != nil {
			return err
		}
		if err := n.core.Receive(s.now, b, m); err != nil {
			s.onFault(a, b, err)
		}
	default:
		return fmt.Errorf("no such command")
	}
	s.pump(s.nodes[a])
	return nil
}

func (s *script) flap(n *simNode, peer NodeID, every, times string) error {
	d, err1 := time.ParseDuration(every)
	count, err2 := strconv.Atoi(times)
	for i := range count {
		if i%2 == 0 {
			n.core.AddLink(s.now, peer, CostUnit)
		} else {
			n.core.RemoveLink(s.now, peer)
		}
		s.pump(n)
		s.run(d)
	}
	return errors.Join(err1, err2)
}

func (s *script) printTable(t *Table) {
	s.printf("%s knows", t.Self())
	for _, n := range t.Nodes() {
		fmt.Fprintf(&s.out, "\t  %s", n.ID)
		if n.Reachable {
			fmt.Fprintf(&s.out, " cost=%s next=%v", showCost(n.Cost), n.NextHops)
		} else {
			fmt.Fprint(&s.out, " UNREACHABLE")
		}
		fmt.Fprintf(&s.out, " since=%s", n.Since.Sub(s.start))
		for _, h := range n.Homes {
			fmt.Fprintf(&s.out, " home=%s:%s", h.To, h.Cost)
		}
		a := &Advert{Draining: n.Draining, Insecure: n.Insecure, Links: n.Links, Services: n.Services, WorkTypes: n.WorkTypes}
		fmt.Fprintln(&s.out, describeEntries(a))
	}
}

func showCost(c uint64) string { return strconv.FormatFloat(float64(c)/float64(CostUnit), 'f', -1, 64) }

func describe(m Message) string {
	switch m := m.(type) {
	case *Advert:
		return "advert " + describeStamp(m.Stamp()) + describeEntries(m)
	case *Digest:
		text := "digest"
		for _, s := range m.Entries {
			text += " " + describeStamp(s)
		}
		if m.More {
			text += " more"
		}
		return text
	case *Ack:
		text := "ack"
		for _, s := range m.Entries {
			text += " " + describeStamp(s)
		}
		return text
	case Hash:
		return fmt.Sprintf("hash %d", uint64(m))
	}
	return fmt.Sprintf("%T", m)
}

func describeStamp(s Stamp) string {
	return fmt.Sprintf("%s.%d@%d.%d", s.Origin, s.Fragment, s.Epoch, s.Seq)
}

func describeEntries(a *Advert) string {
	var b strings.Builder
	list := func(name string, n int, item func(i int) string) {
		for i := range n {
			if i == 0 {
				fmt.Fprintf(&b, " %s=", name)
			} else {
				b.WriteByte(',')
			}
			if i == 6 && n > 8 {
				fmt.Fprintf(&b, "...(%d in all)", n)
				break
			}
			b.WriteString(item(i))
		}
	}
	if a.Draining {
		b.WriteString(" drain")
	}
	if a.Insecure {
		b.WriteString(" insecure")
	}
	list("links", len(a.Links), func(i int) string { return fmt.Sprintf("%s:%s", a.Links[i].To, a.Links[i].Cost) })
	list("leaves", len(a.Leaves), func(i int) string { return fmt.Sprintf("%s:%s", a.Leaves[i].Leaf, a.Leaves[i].Cost) })
	list("services", len(a.Services), func(i int) string { return a.Services[i].Name })
	list("work", len(a.WorkTypes), func(i int) string { return a.WorkTypes[i].Name })
	return b.String()
}

func parseLocal(words []string) Local {
	var l Local
	for _, w := range words {
		name, value, _ := strings.Cut(w, "=")
		switch name {
		case "drain":
			l.Draining = true
		case "insecure":
			l.Insecure = true
		case "services":
			for _, s := range expand(value) {
				l.Services = append(l.Services, Service{Name: s})
			}
		case "work":
			for _, s := range expand(value) {
				l.WorkTypes = append(l.WorkTypes, WorkType{Name: s})
			}
		}
	}
	return l
}

// expand splits at commas; s1..s9 stands for all between.
func expand(list string) []string {
	var all []string
	for _, item := range strings.Split(list, ",") {
		from, to, ok := strings.Cut(item, "..")
		if !ok {
			all = append(all, item)
			continue
		}
		name := strings.TrimRight(from, "0123456789")
		i, _ := strconv.Atoi(from[len(name):])
		end, _ := strconv.Atoi(strings.TrimPrefix(to, name))
		for ; i <= end; i++ {
			all = append(all, fmt.Sprintf("%s%03d", name, i))
		}
	}
	return all
}

func parseMessage(f []string) (Message, error) {
	var stamps []Stamp
	rest := f[1:]
	for ; len(rest) > 0 && strings.Contains(rest[0], "@"); rest = rest[1:] {
		s, err := parseStamp(rest[0])
		if err != nil {
			return nil, err
		}
		stamps = append(stamps, s)
	}
	switch f[0] {
	case "digest":
		return &Digest{Entries: stamps, More: len(rest) > 0}, nil
	case "ack":
		return &Ack{Entries: stamps}, nil
	case "hash":
		n, err := strconv.ParseUint(f[1], 10, 64)
		return Hash(n), err
	case "advert":
		l := parseLocal(rest)
		a := &Advert{
			Key: stamps[0].Key, Version: stamps[0].Version,
			Draining: l.Draining, Insecure: l.Insecure, Services: l.Services, WorkTypes: l.WorkTypes,
		}
		for _, w := range rest {
			name, value, _ := strings.Cut(w, "=")
			for _, item := range strings.Split(value, ",") {
				id, c, _ := strings.Cut(item, ":")
				if name != "links" && name != "leaves" {
					continue
				}
				cost, err := scriptCost(c)
				if err != nil {
					return nil, err
				}
				if name == "links" {
					a.Links = append(a.Links, Adjacency{NodeID(id), cost})
				} else {
					a.Leaves = append(a.Leaves, Attachment{Leaf: NodeID(id), Cost: cost})
				}
			}
		}
		return a, nil
	}
	return nil, fmt.Errorf("no message %q", f[0])
}

func parseStamp(text string) (Stamp, error) {
	key, version, _ := strings.Cut(text, "@")
	dot := strings.LastIndexByte(key, '.')
	fragment, err1 := strconv.ParseUint(key[dot+1:], 10, 16)
	epoch, seq, _ := strings.Cut(version, ".")
	e, err2 := strconv.ParseUint(epoch, 10, 64)
	q, err3 := strconv.ParseUint(seq, 10, 64)
	for _, err := range []error{err1, err2, err3} {
		if err != nil {
			return Stamp{}, err
		}
	}
	return Stamp{Key{NodeID(key[:dot]), uint16(fragment)}, Version{e, q}}, nil
}

// scriptCost reads a cost as people write it; a faulty one is a fault to test.
func scriptCost(text string) (Cost, error) {
	f, err := strconv.ParseFloat(text, 64)
	return Cost(f * float64(CostUnit)), err
}
