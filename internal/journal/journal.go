// Package journal keeps small records on disk, durably and many at once: what
// was put is fsynced when Put returns, and one fsync serves all who wait.
//
// It is a log of batches (log.go) with an index in memory. Each record carries a
// checksum, so that one that is damaged is told of and does not take the others
// with it. What is out of date in the log is left behind when the log is written
// anew (compact.go).
//
// One goroutine, commit, writes; it takes all that has been queued while
// it wrote the last batch. It sleeps while nothing is queued.
package journal

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"
)

// Errors that callers tell apart with errors.Is.
var (
	// ErrDamaged is a journal, or a record of it, that cannot be read.
	ErrDamaged = errors.New("the journal is damaged")
	// ErrClosed is a journal that was closed.
	ErrClosed = errors.New("the journal is closed")
)

const (
	// laterTime is how long what was put Later may wait for a Put that takes it
	// along.
	laterTime = 50 * time.Millisecond
	// batchSize is about how many bytes one commit takes, to bound its memory.
	batchSize = 1 << 20
)

// Change is one record to write. A nil Value removes it.
type Change struct {
	Bucket, Key string
	Value       []byte // not to be changed after the call
}

// Options are a Journal's settings; the zero value is usable.
type Options struct {
	// Buckets are those that there are.
	Buckets []string
	// NoSpace, where it is not nil, is called once for each commit that finds
	// the disk full; when it returns true, the commit is tried once more.
	NoSpace func() bool
}

// Journal is an open file. Its methods may be called by any goroutine.
type Journal struct {
	path    string
	noSpace func() bool
	done    chan struct{} // closed when commit has ended
	copying sync.WaitGroup

	data sync.RWMutex // guards log and index; written to by commit only
	log  *log
	// index is where each record is, by bucket and key. It has all buckets.
	index map[string]map[string]place
	live  int64      // how many bytes of the log are in the index
	anew  chan *anew // a copy of the log, once it is made; nil: none is being made

	mu     sync.Mutex // guards what is below; never held over I/O
	wake   *sync.Cond
	queue  [][]Change   // each all or none
	wait   []chan error // who wants to know of the queue's end
	hurry  bool         // somebody waits, or waited long enough
	stats  Stats
	timer  *time.Timer // sets hurry; nil while nothing is put Later
	closed bool
}

// Open opens the file, and makes it where it is missing. It reads all of it: an
// error that wraps ErrDamaged means that the file is none or that a
// part of it is broken, and that it should be moved away. A batch at the end that
// is not whole was not acknowledged, and is dropped.
func Open(path string, opt Options) (*Journal, error) {
	j := &Journal{path: path, noSpace: opt.NoSpace, done: make(chan struct{}), index: map[string]map[string]place{}}
	j.wake = sync.NewCond(&j.mu)
	for _, name := range opt.Buckets {
		j.index[name] = map[string]place{}
	}
	_ = os.Remove(path + newSuffix) // of a copy that was not finished
	var err error
	if j.log, err = openLog(path, j.put); err != nil {
		return nil, fmt.Errorf("journal %s: %w", path, err)
	}
	go j.commit()
	return j, nil
}

// put enters a record of the log in the index. A bucket that nobody asks for any
// more is kept.
func (j *Journal) put(c Change, p place) {
	b := j.index[c.Bucket]
	if b == nil {
		b = map[string]place{}
		j.index[c.Bucket] = b
	}
	j.live -= b[c.Key].size()
	if p.removed() {
		delete(b, c.Key)
		return
	}
	b[c.Key] = p
	j.live += p.size()
}

// Put writes the changes, all or none, and returns when they are on the disk.
// Changes that were put before, also those put Later, are on the disk then too.
// A bucket that is not there is an error.
func (j *Journal) Put(changes ...Change) error {
	if err := j.check(changes); err != nil {
		return err
	}
	done := make(chan error, 1)
	j.mu.Lock()
	if j.closed {
		j.mu.Unlock()
		return ErrClosed
	}
	j.queue = append(j.queue, changes)
	j.wait = append(j.wait, done)
	j.hurry = true
	j.wake.Signal()
	j.mu.Unlock()
	return <-done
}

func (j *Journal) check(changes []Change) error {
	j.data.RLock()
	defer j.data.RUnlock()
	for _, c := range changes {
		if j.index[c.Bucket] == nil {
			return j.noBucket(c.Bucket)
		}
		if len(c.Bucket) > maxName || len(c.Key) > maxName || len(c.Value) > maxValue {
			return fmt.Errorf("journal %s: %s/%.64s: the record is too large", j.path, c.Bucket, c.Key)
		}
	}
	return nil
}

// Later writes the changes with the next Put or some 50 ms later. Nobody is told
// when that fails: it is for what may get lost in a crash.
func (j *Journal) Later(changes ...Change) {
	if j.check(changes) != nil {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return
	}
	j.queue = append(j.queue, changes)
	if j.timer == nil && !j.hurry {
		j.timer = time.AfterFunc(laterTime, func() {
			j.mu.Lock()
			defer j.mu.Unlock()
			j.hurry = true
			j.wake.Signal()
		})
	}
}

// commit is the goroutine that writes.
func (j *Journal) commit() {
	defer close(j.done)
	for {
		j.mu.Lock()
		for !j.hurry && !j.closed {
			j.wake.Wait()
		}
		if len(j.queue) == 0 && len(j.wait) == 0 {
			j.hurry = false
			if j.closed {
				j.mu.Unlock()
				return
			}
			j.mu.Unlock()
			j.adopt()
			continue
		}
		queue, wait := j.queue, j.wait
		j.queue, j.wait, j.hurry = nil, nil, false
		if j.timer != nil {
			j.timer.Stop()
			j.timer = nil
		}
		j.mu.Unlock()
		err := j.write(queue)
		j.mu.Lock()
		j.stats.Failed = err
		j.mu.Unlock()
		for _, done := range wait {
			done <- err
		}
		j.adopt()
	}
}

// write writes what is queued, in several commits when it is very much.
func (j *Journal) write(queue [][]Change) error {
	for len(queue) > 0 {
		var batch []Change
		n, size := 0, 0
		for ; n < len(queue) && (n == 0 || size < batchSize); n++ {
			batch = append(batch, queue[n]...)
			for _, c := range queue[n] {
				size += len(c.Value)
			}
		}
		places, err := j.log.append(batch, nil)
		if errors.Is(err, syscall.ENOSPC) && j.noSpace != nil && j.noSpace() {
			places, err = j.log.append(batch, nil)
		}
		if err != nil {
			return fmt.Errorf("journal %s: %w", j.path, err)
		}
		j.data.Lock()
		for i, c := range batch {
			j.put(c, places[i])
		}
		j.data.Unlock()
		j.mu.Lock()
		j.stats.Commits++
		j.mu.Unlock()
		queue = queue[n:]
	}
	return nil
}

// Stats is how a journal has fared since it was opened.
type Stats struct {
	Commits uint64 // to the disk; each may have served many
	Failed  error  // of the last one; nil: it is on the disk
}

// Stats tells how the journal has fared.
func (j *Journal) Stats() Stats {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.stats
}

// Get returns a record, nil when there is none. The error wraps ErrDamaged.
func (j *Journal) Get(bucket, key string) ([]byte, error) {
	j.data.RLock()
	defer j.data.RUnlock()
	b := j.index[bucket]
	if b == nil {
		return nil, j.noBucket(bucket)
	}
	p, ok := b[key]
	if !ok {
		return nil, nil
	}
	value, err := j.log.value(p)
	if err != nil {
		return nil, fmt.Errorf("journal %s: %s/%.64s: %w", j.path, bucket, key, err)
	}
	return value, nil
}

func (j *Journal) noBucket(name string) error {
	return fmt.Errorf("journal %s: there is no bucket %s", j.path, name)
}

// Each calls f for every record of a bucket, in the order of the keys. A record
// that is damaged comes with an error instead of its value.
func (j *Journal) Each(bucket string, f func(key string, value []byte, err error)) error {
	j.data.RLock()
	b := j.index[bucket]
	keys := slices.Sorted(maps.Keys(b))
	j.data.RUnlock()
	if b == nil {
		return j.noBucket(bucket)
	}
	for _, key := range keys {
		if value, err := j.Get(bucket, key); value != nil || err != nil {
			f(key, value, err)
		}
	}
	return nil
}

// Close writes what is queued and lets go of the file.
func (j *Journal) Close() error {
	j.mu.Lock()
	if j.closed {
		j.mu.Unlock()
		<-j.done
		return nil
	}
	j.closed = true
	if j.timer != nil {
		j.timer.Stop()
	}
	j.wake.Signal()
	j.mu.Unlock()
	<-j.done
	j.copying.Wait()
	j.dropCopy()
	j.data.Lock() // whoever reads is done
	defer j.data.Unlock()
	if err := j.log.f.Close(); err != nil {
		return fmt.Errorf("close journal: %w", err)
	}
	return nil
}
