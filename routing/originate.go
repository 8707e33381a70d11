package routing

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Local is what this node says of itself besides its links and leaves.
type Local struct {
	Draining, Insecure bool
	Services           []Service
	WorkTypes          []WorkType
}

// Validate returns nil when all of l can be advertised, else an error that
// names the first service or work type that cannot and wraps ErrLimit or
// ErrBadEntry.
func (l Local) Validate() error {
	for _, s := range l.Services {
		if err := s.Validate(); err != nil {
			return err
		}
	}
	for _, w := range l.WorkTypes {
		if err := w.Validate(); err != nil {
			return err
		}
	}
	return nil
}

// SetLocal says what this node advertises of itself; it is compared with what
// was advertised last, so setting the same again costs nothing. Of services or
// work types with one name the first counts. What does not pass
// Local.Validate is left out and told as EntryRefused.
func (c *Core) SetLocal(now time.Time, l Local) {
	c.tick(now)
	own := Local{Draining: l.Draining, Insecure: l.Insecure}
	for _, s := range l.Services {
		if err := s.Validate(); err != nil {
			c.tell(&c.told.entry, EntryRefused{Err: err})
			continue
		}
		s.Tags = maps.Clone(s.Tags)
		own.Services = append(own.Services, s)
	}
	for _, w := range l.WorkTypes {
		if err := w.Validate(); err != nil {
			c.tell(&c.told.entry, EntryRefused{Err: err})
			continue
		}
		own.WorkTypes = append(own.WorkTypes, w)
	}
	c.local = own
	c.changed = true
}

type entryKind uint8

const (
	kindLink entryKind = iota
	kindLeaf
	kindService
	kindWorkType
)

// entryKey names an entry of our own adverts: it stays in one fragment for as
// long as it exists, whatever its value.
type entryKey struct {
	kind entryKind
	name string
}

type entry struct {
	entryKey
	size    int
	link    Adjacency
	leaf    Attachment
	service Service
	work    WorkType
}

func (e entry) compare(o entry) int {
	if e.kind != o.kind {
		return int(e.kind) - int(o.kind)
	}
	return strings.Compare(e.name, o.name)
}

func (e entry) equal(o entry) bool {
	return e.link == o.link && e.work == o.work &&
		e.leaf.Leaf == o.leaf.Leaf && e.leaf.Cost == o.leaf.Cost && bytes.Equal(e.leaf.Sig, o.leaf.Sig) &&
		e.service.Name == o.service.Name && e.service.ConnType == o.service.ConnType &&
		maps.Equal(e.service.Tags, o.service.Tags)
}

// ownFragment is one fragment of what this node advertises.
type ownFragment struct {
	seq     uint64
	entries []entry // sorted
	size    int
	dirty   bool
}

func (f *ownFragment) fits(e entry) bool {
	return len(f.entries) < MaxEntries && f.size+e.size <= maxMessage
}

// wanted lists all that this node has to advertise, sorted.
func (c *Core) wanted() []entry {
	n := len(c.links) + len(c.attached) + len(c.local.Services) + len(c.local.WorkTypes)
	all := make([]entry, 0, n)
	for _, l := range c.links {
		all = append(all, entry{
			entryKey: entryKey{kindLink, string(l.peer)},
			size:     entrySize + len(l.peer),
			link:     Adjacency{To: l.peer, Cost: l.cost},
		})
	}
	for _, l := range c.attached {
		all = append(all, entry{entryKey: entryKey{kindLeaf, string(l.Leaf)}, size: l.size(), leaf: l})
	}
	for _, s := range c.local.Services {
		all = append(all, entry{entryKey: entryKey{kindService, s.Name}, size: s.size(), service: s})
	}
	for _, w := range c.local.WorkTypes {
		all = append(all, entry{entryKey: entryKey{kindWorkType, w.Name}, size: entrySize + len(w.Name), work: w})
	}
	slices.SortStableFunc(all, entry.compare)
	return slices.CompactFunc(all, func(a, b entry) bool { return a.entryKey == b.entryKey })
}

// place brings the fragments up to date with what is wanted. What exists stays
// where it is; new entries go into the first fragments that have room.
func (c *Core) place(all []entry) {
	placed := make([]bool, len(all))
	for i := range c.own {
		f := &c.own[i]
		kept := f.entries[:0]
		f.size = 0
		for _, e := range f.entries {
			j, ok := slices.BinarySearchFunc(all, e, entry.compare)
			if !ok || f.size+all[j].size > maxMessage {
				f.dirty = true
				continue
			}
			placed[j] = true
			f.dirty = f.dirty || !e.equal(all[j])
			f.size += all[j].size
			kept = append(kept, all[j])
		}
		clear(f.entries[len(kept):])
		f.entries = kept
	}
	first := 0 // the fragments before it are full
	for j, e := range all {
		if placed[j] {
			continue
		}
		for first < len(c.own) && len(c.own[first].entries) >= MaxEntries {
			first++
		}
		i := first
		for i < len(c.own) && !c.own[i].fits(e) {
			i++
		}
		if i == MaxFragments {
			err := fmt.Errorf("%w: %q does not fit into %d fragments", ErrLimit, e.name, MaxFragments)
			c.tell(&c.told.entry, EntryRefused{Err: err})
			continue
		}
		if i == len(c.own) {
			c.own = append(c.own, ownFragment{seq: uint64(c.cfg.Nonce)})
		}
		f := &c.own[i]
		at, _ := slices.BinarySearchFunc(f.entries, e, entry.compare)
		f.entries = slices.Insert(f.entries, at, e)
		f.size += e.size
		f.dirty = true
	}
}

// originate floods what has changed of this node since it was last told. The
// first change goes at once; while changes go on, the pause between two
// adverts doubles from HoldMin to HoldMax (docs/protocol-routing.md section
// 5.3). As long as there is no neighbour nobody hears them and they do not count.
func (c *Core) originate() {
	c.changed = false
	flags := flags{c.local.Draining, c.local.Insecure}
	if flags != c.flags {
		c.flags = flags
		c.own[0].dirty = true
	}
	c.place(c.wanted())
	if c.jump.Epoch > c.epoch {
		c.jumped()
		for i := range c.own {
			c.own[i].dirty = i == 0 || len(c.own[i].entries) > 0
		}
	}
	told := false
	for i := range c.own {
		if f := &c.own[i]; f.dirty {
			f.dirty = false
			f.seq++
			c.issue(uint16(i), f)
			told = true
		}
	}
	if !told || len(c.links) == 0 {
		return
	}
	c.backOff()
}

// backOff sets the pause after an advert: twice the one before, which halves
// with each Quiet that has passed since it was over. A node whose neighbour is restarted
// again and again so tells each change at once, and one with a link that flaps does not.
func (c *Core) backOff() {
	if quiet := c.now.Sub(c.originateAt()); quiet > 0 {
		c.hold >>= min(quiet/c.cfg.Quiet, 63)
	}
	c.hold = min(max(2*c.hold, c.cfg.HoldMin), c.cfg.HoldMax)
	c.toldAt = c.now
}

type flags struct{ draining, insecure bool }

// originateAt is when the next change may be told.
func (c *Core) originateAt() time.Time { return c.toldAt.Add(c.hold) }

// issue makes a fragment's advert, stores it and floods it.
func (c *Core) issue(number uint16, f *ownFragment) {
	a := &Advert{
		Key:     Key{Origin: c.cfg.Self, Fragment: number},
		Version: Version{Epoch: c.epoch, Seq: f.seq},
	}
	if number == 0 {
		a.Draining, a.Insecure = c.flags.draining, c.flags.insecure
	}
	for _, e := range f.entries {
		switch e.kind {
		case kindLink:
			a.Links = append(a.Links, e.link)
		case kindLeaf:
			a.Leaves = append(a.Leaves, e.leaf)
		case kindService:
			a.Services = append(a.Services, e.service)
		case kindWorkType:
			a.WorkTypes = append(a.WorkTypes, e.work)
		}
	}
	if c.cfg.Seal != nil {
		c.cfg.Seal(a)
	}
	c.install(c.self, a)
	c.flood(a.Stamp(), nil)
}
