package worktypes

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/journal"
)

// The buckets of the journal. Keys are unit ids, but for those of meta.
const (
	unitsBucket  = "units"    // record
	stdinBucket  = "stdin"    // a small payload of a unit that waits
	stdoutBucket = "stdout"   // the small output of a unit that has ended
	tombsBucket  = "released" // tombstone
	owedBucket   = "owed"     // Owed
	metaBucket   = "meta"
)

const (
	journalFile = "journal"
	// inlineMax is how large a payload or an output may be to live in the
	// journal: it then costs no fsync of its own.
	inlineMax = 16 << 10
	// tombTime is how long a released id is remembered.
	tombTime = 30 * 24 * time.Hour
	// storeKey is the store's incarnation in metaBucket.
	storeKey = "store"
)

// record is a unit in the journal.
type record struct {
	Spec    Spec
	Status  Status
	Payload *PayloadRef `json:",omitempty"` // once it is whole
	// Sealed is set when the unit may start, and waits for that.
	Sealed bool `json:",omitempty"`
	// Cancel is set when a cancel was taken that the end has not answered yet.
	Cancel bool `json:",omitempty"`
	// Boot is when its start was decided (process.Boot); Plan is what was.
	Boot string     `json:",omitempty"`
	Plan planRecord `json:"Plan,omitzero"`
	// Remote is what the Agent remembers of a unit with a Spec.Node.
	Remote Remote `json:",omitzero"`
}

// planRecord is what is needed of a Plan when its job has begun.
type planRecord struct {
	Name     string        `json:",omitempty"`
	Grace    time.Duration `json:",omitempty"`
	Separate bool          `json:",omitempty"`
}

// PayloadRef is the size and the SHA-256 of a payload.
type PayloadRef struct {
	Size   int64
	SHA256 [sha256.Size]byte
}

// tombstone remembers a released id.
type tombstone struct {
	At time.Time
}

// Owed is a cancel and release that another node must still be told of; its key is
// the unit's id, the same at both.
type Owed struct {
	ID    string `json:"-"`
	Node  string
	Until time.Time // then it is given up
}

func (m *Manager) debt(spec Spec, owing time.Duration) Owed {
	return Owed{spec.ID, spec.Node, m.now().Add(owing).UTC()}
}

// damage is what is wrong with a journal that was put aside: why, and the units of
// which nobody can say any more how far they are.
type damage struct {
	cause error // nil: nothing
	units []string
}

// openJournal opens the journal. One that cannot be read is put aside, with the
// time in its name, and a new one made of what does not depend on the damage.
func (m *Manager) openJournal(dir string) (d damage, err error) {
	path := filepath.Join(dir, journalFile)
	opt := journal.Options{
		Buckets: []string{unitsBucket, stdinBucket, stdoutBucket, tombsBucket, owedBucket, metaBucket},
		NoSpace: m.spendReserve,
	}
	m.journal, err = journal.Open(path, opt)
	if errors.Is(err, journal.ErrDamaged) {
		d.cause = err
		aside := fmt.Sprintf("%s.damaged-%d", path, m.now().Unix())
		if err := os.Rename(path, aside); err != nil {
			return d, fmt.Errorf("put the damaged journal aside: %w", err)
		}
		m.log.Error("the journal of work units is damaged: it was put aside, and a new one begun", "aside", aside, "error", d.cause)
		if m.journal, err = journal.Open(path, opt); err == nil {
			d.units, err = m.salvage(aside)
		}
	}
	if err != nil {
		return d, err
	}
	store, err := m.journal.Get(metaBucket, storeKey)
	if err != nil {
		return d, err
	}
	if store == nil {
		store = []byte(NewID())
		if err := m.journal.Put(journal.Change{Bucket: metaBucket, Key: storeKey, Value: store}); err != nil {
			return d, err
		}
	}
	m.storeID = string(store)
	return d, nil
}

// salvage takes over from a damaged journal the units that have ended, since
// nothing comes after that, with their outputs, and whatever keeps a job from being
// started again. It returns the other units. The store is another one from now on.
func (m *Manager) salvage(aside string) (unknown []string, err error) {
	var keep []journal.Change
	outputs := map[string][]byte{}
	ended := map[string]bool{}
	err = journal.Salvage(aside, func(bucket, key string, value []byte, err error) {
		change := journal.Change{Bucket: bucket, Key: key, Value: value}
		switch {
		case bucket == unitsBucket && ValidateID(key) == nil:
			r, bad := record{}, err
			if bad == nil {
				r, bad = decodeRecord(key, value)
			}
			if bad != nil || !r.Status.State.Terminal() {
				unknown = append(unknown, key)
				return
			}
			ended[key] = true
			keep = append(keep, change)
		case bucket == stdoutBucket && err == nil:
			outputs[key] = value
		case bucket == tombsBucket:
			change.Value = append([]byte{}, value...) // one that cannot be read counts
			keep = append(keep, change)
		case bucket == owedBucket && err == nil:
			keep = append(keep, change)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("read the damaged journal: %w", err)
	}
	for id := range ended {
		if out, ok := outputs[id]; ok {
			keep = append(keep, journal.Change{Bucket: stdoutBucket, Key: id, Value: out})
		}
	}
	if len(keep) > 0 {
		err = m.journal.Put(keep...)
	}
	return unknown, err
}

// encode is a record as the journal has it. Nothing in it can fail to encode.
func (r record) encode() []byte {
	b, err := json.Marshal(r)
	if err != nil {
		panic(fmt.Sprintf("encode the record of unit %s: %v", r.Spec.ID, err))
	}
	return b
}

func decodeRecord(id string, b []byte) (record, error) {
	var r record
	if err := json.Unmarshal(b, &r); err != nil {
		return r, fmt.Errorf("its record: %w", err)
	}
	if r.Spec.ID != id || r.Status.ID != id || r.Spec.Type == "" {
		return r, fmt.Errorf("its record is that of %.64q, type %.64q", r.Spec.ID, r.Spec.Type)
	}
	return r, nil
}

func removeUnit(id string) []journal.Change {
	return []journal.Change{{Bucket: unitsBucket, Key: id}, {Bucket: stdinBucket, Key: id}, {Bucket: stdoutBucket, Key: id}}
}

// loaded is what the journal has of a unit.
type loaded struct {
	record
	damage error
}

// loadRecords reads all units.
func (m *Manager) loadRecords() (map[string]loaded, error) {
	units := map[string]loaded{}
	err := m.journal.Each(unitsBucket, func(id string, value []byte, err error) {
		if ValidateID(id) != nil {
			m.log.Error("the journal has a record that is no work unit's", "key", id)
			return
		}
		var l loaded
		if l.damage = err; err == nil {
			l.record, l.damage = decodeRecord(id, value)
		}
		units[id] = l
	})
	return units, err
}

// loadTombs reads the released ids and forgets the old ones.
func (m *Manager) loadTombs() error {
	var old []journal.Change
	err := m.journal.Each(tombsBucket, func(id string, value []byte, err error) {
		var t tombstone
		if err == nil && json.Unmarshal(value, &t) == nil && m.now().Sub(t.At) > tombTime {
			old = append(old, journal.Change{Bucket: tombsBucket, Key: id})
			return
		}
		m.tombs[id] = struct{}{} // one that cannot be read counts
	})
	if err != nil || len(old) == 0 {
		return err
	}
	m.journal.Later(old...)
	return nil
}

// owed returns what other nodes must still be told of.
func (m *Manager) owed() ([]Owed, error) {
	var all []Owed
	err := m.journal.Each(owedBucket, func(id string, value []byte, err error) {
		o := Owed{ID: id}
		if err == nil && json.Unmarshal(value, &o) == nil {
			all = append(all, o)
		}
	})
	return all, err
}

// owes lets the Agent tell another node.
func (m *Manager) owes(o Owed) {
	m.agent.Owes(o, func() { m.journal.Later(journal.Change{Bucket: owedBucket, Key: o.ID}) })
}

// About tells of a unit what its Status does not: the spec, what is remembered of
// another node, and whether a cancel was taken. Errors wrap ErrUnknownUnit. The
// params may hold secrets.
func (m *Manager) About(id string) (Spec, Remote, bool, error) {
	u, err := m.unit(id)
	if err != nil {
		return Spec{}, Remote{}, false, err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.spec, u.remote, u.canceled, nil
}

func owe(o Owed) journal.Change {
	b, _ := json.Marshal(o) // a struct of one string
	return journal.Change{Bucket: owedBucket, Key: o.ID, Value: b}
}

func bury(id string, now time.Time) journal.Change {
	b, _ := json.Marshal(tombstone{now.UTC().Truncate(time.Second)})
	return journal.Change{Bucket: tombsBucket, Key: id, Value: b}
}

func sortedIDs[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
