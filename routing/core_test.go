package routing

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"
)

var epoch0 = time.Unix(0, 0)

func advert(origin NodeID, v Version, links ...NodeID) *Advert {
	a := &Advert{Key: Key{Origin: origin}, Version: v}
	for _, l := range links {
		a.Links = append(a.Links, Adjacency{l, 1000})
	}
	return a
}

func receive(t *testing.T, c *Core, now time.Time, from NodeID, messages ...Message) {
	t.Helper()
	for _, m := range messages {
		if err := c.Receive(now, from, m); err != nil {
			t.Fatal(err)
		}
	}
}

func advertsTo(sends []Send, to NodeID) (out []*Advert) {
	for _, s := range sends {
		if a, ok := s.Msg.(*Advert); ok && s.To == to {
			out = append(out, a)
		}
	}
	return out
}

// TestWindow has a neighbour that does not acknowledge: no more than a window
// is on its way, and of what waits only the newest version is ever sent.
func TestWindow(t *testing.T) {
	t.Parallel()
	c := New(Config{Self: "self"}, epoch0)
	c.AddLink(epoch0, "slow", 1)
	c.AddLink(epoch0, "feed", 1)
	sent := 0
	for seq := range uint64(10) {
		for i := range 200 {
			receive(t, c, epoch0, "feed", advert(NodeID(fmt.Sprint("n", i)), Version{1, seq + 1}))
			sent += len(advertsTo(c.TakeSends(), "slow"))
		}
	}
	if sent != 64 {
		t.Fatalf("%d adverts without an acknowledgement, want 64", sent)
	}
	if n := waiting(&c.links[1].out); n != 200 {
		t.Fatalf("%d adverts wait, want all 200, held ones too", n)
	}
	receive(t, c, epoch0, "slow", &Ack{Entries: []Stamp{{Key{"self", 0}, Version{1, 1}}, {Key{"n3", 0}, Version{1, 1}}}})
	got := advertsTo(c.TakeSends(), "slow")
	if len(got) != 2 {
		t.Fatalf("%d adverts after two acknowledgements", len(got))
	}
	for _, a := range got {
		if a.Seq != 10 {
			t.Errorf("an outdated advert is sent: %+v", a)
		}
	}
	receive(t, c, epoch0, "slow", &Ack{Entries: []Stamp{{got[0].Key, Version{1, 9}}}})
	if more := advertsTo(c.TakeSends(), "slow"); len(more) != 0 {
		t.Errorf("an acknowledgement of an older version counts: %d more", len(more))
	}
}

// TestLiveFirst: a change overtakes what a new neighbour lacks.
func TestLiveFirst(t *testing.T) {
	t.Parallel()
	c := New(Config{Self: "self", Window: 1}, epoch0)
	c.AddLink(epoch0, "feed", 1)
	far := []NodeID{"feed"}
	for i := range 50 {
		far = append(far, NodeID(fmt.Sprint("n", i)))
		receive(t, c, epoch0, "feed", advert(far[i+1], Version{1, 1}, "feed"))
	}
	receive(t, c, epoch0, "feed", advert("feed", Version{1, 1}, append(far[1:], "self")...))
	c.TakeSends()
	c.Advance(epoch0.Add(time.Second))
	c.AddLink(epoch0.Add(time.Second), "new", 1)
	c.TakeSends()
	receive(t, c, epoch0.Add(time.Second), "new", &Digest{})
	receive(t, c, epoch0.Add(time.Second), "feed", advert("n49", Version{1, 2}, "feed"))
	receive(t, c, epoch0.Add(time.Second), "new", &Ack{Entries: []Stamp{c.self.frags[0].Stamp()}})
	if got := advertsTo(c.TakeSends(), "new"); len(got) != 1 || got[0].Origin != "n49" || got[0].Seq != 2 {
		t.Errorf("the change does not come first: %+v", got)
	}
}

// TestFull: a full database gives up what is not reachable, never what is.
func TestFull(t *testing.T) {
	t.Parallel()
	c := New(Config{Self: "self", MaxOrigins: 4}, epoch0)
	c.AddLink(epoch0, "p", 1)
	receive(t, c, epoch0, "p", advert("p", Version{1, 1}, "self", "q"), advert("q", Version{1, 1}, "p"))
	c.Advance(epoch0.Add(time.Second))
	for i := range 100 {
		receive(t, c, epoch0.Add(time.Second), "p", advert(NodeID(fmt.Sprint("fake", i)), Version{1, 1}))
	}
	c.Advance(epoch0.Add(2 * time.Second))
	if got, want := fmt.Sprint(c.Table().Known(9)), "[p q self]"; got != want {
		t.Errorf("reachable are %v, want %v", got, want)
	}
	if n := len(c.origins); n != 4 {
		t.Errorf("%d origins", n)
	}
	receive(t, c, epoch0.Add(2*time.Second), "p", advert("p", Version{1, 2}, "self", "q", "r"), advert("r", Version{1, 1}, "p"))
	c.Advance(epoch0.Add(3 * time.Second))
	c.TakeEvents()
	receive(t, c, epoch0.Add(3*time.Second), "p", advert("s", Version{1, 1}))
	if got := c.TakeEvents(); !slices.Contains(got, Event(OriginRefused{Origin: "s", From: "p"})) {
		t.Errorf("events %v", got)
	}
}

// TestBigDigest: a digest in parts is compared part by part.
func TestBigDigest(t *testing.T) {
	t.Parallel()
	full := bigMesh(t, 2500, 5000)
	now := epoch0.Add(time.Hour)
	full.AddLink(now, "zz", 1)
	var parts []*Digest
	for _, m := range full.TakeSends() {
		if d, ok := m.Msg.(*Digest); ok && m.To == "zz" {
			parts = append(parts, d)
		}
	}
	if len(parts) < 3 || parts[0].More != true || parts[len(parts)-1].More {
		t.Fatalf("%d parts", len(parts))
	}
	lacks := map[int]bool{3: true, 999: true, 1000: true, 1001: true, 2000: true, 2499: true}
	older, n := map[int]bool{5: true, 1500: true}, 0
	for _, d := range parts {
		var theirs []Stamp
		for _, s := range d.Entries {
			if older[n] {
				s.Seq, s.Epoch = 1<<40, s.Epoch-1
			}
			if !lacks[n] && s.Epoch > 0 {
				theirs = append(theirs, s)
			}
			n++
		}
		receive(t, full, now, "zz", &Digest{Entries: theirs, More: d.More})
	}
	want := len(lacks) + len(older)
	if got := len(advertsTo(full.TakeSends(), "zz")); got != want {
		t.Errorf("%d adverts for %d differences", got, want)
	}
}

// TestTwinsFarApart: two nodes with one id and the same numbers, whose adverts
// meet in between: the other bytes decide, and the loser hears of it.
func TestTwinsFarApart(t *testing.T) {
	t.Parallel()
	c := New(Config{Self: "self"}, epoch0)
	c.AddLink(epoch0, "p", 1)
	c.AddLink(epoch0, "q", 1)
	one, other := advert("twin", Version{1, 1}), advert("twin", Version{1, 1})
	one.Raw, other.Raw = []byte("signed b"), []byte("signed a")
	receive(t, c, epoch0, "p", one)
	c.TakeSends()
	receive(t, c, epoch0, "q", other, &Ack{Entries: []Stamp{one.Stamp()}})
	if got := advertsTo(c.TakeSends(), "q"); len(got) != 1 || string(got[0].Raw) != "signed b" {
		t.Errorf("the one who sent what we do not keep is not told: %+v", got)
	}
	seal := func(a *Advert) { a.Raw = []byte("mine") }
	c = New(Config{Self: "self", Seal: seal}, epoch0)
	c.AddLink(epoch0, "p", 1)
	c.TakeSends()
	mine := *c.self.frags[0].Advert
	mine.Raw = []byte("of the other")
	receive(t, c, epoch0, "p", &mine)
	c.Advance(epoch0.Add(time.Second)) // after the pause between two adverts
	if got := c.TakeEvents(); !slices.Contains(got, Event(EpochJumped{Epoch: 2, Heard: mine.Version, From: "p"})) {
		t.Errorf("events %v", got)
	}
}

// TestAClaimIsNoProof: nobody has signed a digest. What one claims of its reader
// makes the reader say what it has, once, and the advert that follows decides.
func TestAClaimIsNoProof(t *testing.T) {
	t.Parallel()
	c := New(Config{Self: "self", Epoch: 3, Nonce: 8}, epoch0)
	c.AddLink(epoch0, "p", 1)
	c.TakeSends()
	claims := &Digest{}
	for i := range MaxStamps {
		claims.Entries = append(claims.Entries, Stamp{Key{"self", uint16(i)}, Version{Epoch: uint64(i) + 4, Seq: 1}})
	}
	for i := range 9 { // in 8 s, and the first digest on the link counts too
		now := epoch0.Add(time.Duration(i) * time.Second)
		receive(t, c, now, "p", claims)
		c.Advance(now)
		if events := c.TakeEvents(); len(events) > 0 {
			t.Fatalf("events %v", events)
		}
		if sends := c.TakeSends(); len(sends) > 0 {
			t.Fatalf("sent %v", sends)
		}
	}
	now := epoch0.Add(time.Minute)
	receive(t, c, now, "p", claims)
	if sends := c.TakeSends(); len(sends) != 1 {
		t.Errorf("the claims are answered with %v, not with a digest", sends)
	}
	for i := range 100 {
		receive(t, c, now, "p", advert("self", Version{Epoch: uint64(i) + 4, Seq: 1}))
	}
	now = now.Add(time.Minute)
	c.Advance(now)
	want := EpochJumped{Epoch: 104, Heard: Version{103, 1}, From: "p"}
	if events := c.TakeEvents(); !slices.Equal(events, []Event{want}) {
		t.Errorf("100 adverts made %v", events)
	}
}

// TestAFragmentOfAFormerLife is sent to its origin, which does not know of it: the
// origin's digest lacks it.
func TestAFragmentOfAFormerLife(t *testing.T) {
	t.Parallel()
	c := New(Config{Self: "self"}, epoch0)
	c.AddLink(epoch0, "p", 1)
	lost := advert("p", Version{1, 9})
	lost.Fragment = 3
	receive(t, c, epoch0, "p", advert("p", Version{1, 9}, "self"), lost)
	now := epoch0.Add(time.Second)
	c.Advance(now)
	c.TakeSends()
	receive(t, c, now, "p", &Digest{Entries: []Stamp{{Key{"p", 0}, Version{1, 9}}}})
	if got := advertsTo(c.TakeSends(), "p"); len(got) != 1 || got[0].Fragment != 3 {
		t.Errorf("sent %v", got)
	}
}

// TestTwinsAreTold runs two live nodes with one id in a line: both are told,
// and the flood stays small.
func TestTwinsAreTold(t *testing.T) {
	t.Parallel()
	s := newSim(t)
	nonce := uint32(0)
	s.configure = func(c *Config) {
		nonce += 1000
		c.Nonce = nonce
		if c.Self == "twin2" {
			c.Self = "twin1"
		}
	}
	for _, id := range []NodeID{"twin1", "b", "c", "twin2"} {
		s.boot(id)
	}
	told := make(map[NodeID]bool)
	s.onEvent = func(at NodeID, e Event) {
		if _, ok := e.(DuplicateID); ok {
			told[at] = true
		}
	}
	s.link("b", "c", 1000)
	s.link("twin1", "b", 1000)
	// The second twin is known to c under the id that both use.
	s.alias("twin2", "twin1", "c")
	s.run(time.Minute)
	if !told["twin1"] || !told["twin2"] {
		t.Errorf("told are %v", told)
	}
	if before := s.sends; true {
		s.run(time.Minute)
		if n := s.sends - before; n > 12*2*20 {
			t.Errorf("%d messages a minute", n)
		}
	}
}

// TestHashIsOfReachable: two cores agree whatever the order, and whatever else
// one of them remembers.
func TestHashIsOfReachable(t *testing.T) {
	t.Parallel()
	p, q := advert("p", Version{1, 3}, "a", "b", "q"), advert("q", Version{2, 1}, "p")
	hash := func(self, other NodeID, messages ...Message) Hash {
		c := New(Config{Self: self}, epoch0)
		c.AddLink(epoch0, "p", 1000)
		receive(t, c, epoch0, "p", advert(other, Version{1, 1}, "p"))
		receive(t, c, epoch0, "p", messages...)
		c.TakeSends()
		c.Advance(epoch0.Add(time.Second))
		return c.Hash()
	}
	if a, b := hash("a", "b", p, q), hash("b", "a", q, p, advert("lost", Version{1, 1})); a != b {
		t.Errorf("%x and %x", a, b)
	}
	if a, b := hash("a", "b", p, q), hash("a", "b", p, advert("q", Version{2, 2}, "p")); a == b {
		t.Error("a newer version does not change the hash")
	}
}

// waiting is how many keys wait, those that are held included.
func waiting(o *outbox) int {
	n := o.live.n + o.bulk.n
	for _, it := range o.items {
		if it.held {
			n++
		}
	}
	return n
}

// TestHashStamp keeps the hash what docs/protocol-routing.md says.
func TestHashStamp(t *testing.T) {
	t.Parallel()
	got := hashStamp(Stamp{Key{"node1", 2}, Version{3, 4}})
	if want := Hash(0x8189e0c3b8113e8); got != want {
		t.Errorf("%#x, want %#x", got, want)
	}
}

func TestLocalIsChecked(t *testing.T) {
	t.Parallel()
	long := string(make([]byte, 300))
	l := Local{Services: []Service{{Name: "ok"}, {Name: "", Tags: nil}}, WorkTypes: []WorkType{{Name: long}}}
	if err := l.Validate(); !errors.Is(err, ErrBadEntry) {
		t.Errorf("Validate: %v", err)
	}
	c := New(Config{Self: "self"}, epoch0)
	c.SetLocal(epoch0, l)
	events := c.TakeEvents()
	if len(events) != 1 {
		t.Fatalf("events %v", events)
	}
	if e, ok := events[0].(EntryRefused); !ok || !errors.Is(e.Err, ErrBadEntry) {
		t.Errorf("event %v", events[0])
	}
	info, _ := c.Table().Node("self")
	if len(info.Services) != 1 || len(info.WorkTypes) != 0 {
		t.Errorf("advertised is %+v", info)
	}
}

// TestTableIsStable: the pointer changes with what it shows, and only then.
func TestTableIsStable(t *testing.T) {
	t.Parallel()
	c := New(Config{Self: "self"}, epoch0)
	c.AddLink(epoch0, "p", 1)
	receive(t, c, epoch0, "p", advert("p", Version{1, 1}, "self"))
	now := epoch0.Add(time.Second)
	c.Advance(now)
	before := c.Table()
	receive(t, c, now, "p", advert("p", Version{1, 1}, "self"), Hash(1), &Digest{Entries: []Stamp{before.routers[0].frags[0].Stamp()}})
	c.Advance(now.Add(time.Minute))
	if c.Table() != before {
		t.Error("a new table though nothing changed")
	}
	c.RemoveLink(now.Add(time.Minute), "p")
	if got := c.Table().NextHops("p"); got != nil || c.Table() == before {
		t.Errorf("a lost link is still used: %v", got)
	}
	if got := before.NextHops("p"); !slices.Equal(got, []NodeID{"p"}) {
		t.Errorf("an old table changed: %v", got)
	}
}
