// Package journal keeps small records on disk, durably and many at once: what
// was put is fsynced when Put returns, and one fsync serves all who wait.
//
// It is a go.etcd.io/bbolt file in which each value carries a checksum, so that
// one damaged record is told of and does not take the others with it.
//
// One goroutine, commit, writes; it takes all that has been queued while
// it wrote the last batch. It sleeps while nothing is queued.
package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
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
	// lockTime is how long another process may hold the file.
	lockTime = 2 * time.Second
	// maxBatch is how many changes one commit takes, to bound its memory.
	maxBatch = 4096
)

// Change is one record to write. A nil Value removes it.
type Change struct {
	Bucket, Key string
	Value       []byte // not to be changed after the call
}

// Options are a Journal's settings; the zero value is usable.
type Options struct {
	// Buckets are made where they are missing.
	Buckets []string
	// NoSpace, where it is not nil, is called once for each commit that finds
	// the disk full; when it returns true, the commit is tried once more.
	NoSpace func() bool
}

// Journal is an open file. Its methods may be called by any goroutine.
type Journal struct {
	db      *bolt.DB
	noSpace func() bool
	done    chan struct{} // closed when commit has ended

	mu     sync.Mutex // guards what is below; never held over I/O
	wake   *sync.Cond
	queue  []Change
	wait   []chan error // who wants to know of the queue's end
	hurry  bool         // somebody waits, or waited long enough
	timer  *time.Timer  // sets hurry; nil while nothing is put Later
	closed bool
}

// Open opens the file, and makes it where it is missing. It looks at every page
// first: an error that wraps ErrDamaged means that the file is none or that a
// part of it is broken, and that it should be moved away.
func Open(path string, opt Options) (*Journal, error) {
	db, err := open(path)
	if err != nil {
		return nil, err
	}
	err = db.Update(func(tx *bolt.Tx) error {
		for _, name := range opt.Buckets {
			if _, err := tx.CreateBucketIfNotExists([]byte(name)); err != nil {
				return fmt.Errorf("journal %s: bucket %s: %w", path, name, err)
			}
		}
		return nil
	})
	if err != nil {
		db.Close()
		return nil, err
	}
	j := &Journal{db: db, noSpace: opt.NoSpace, done: make(chan struct{})}
	j.wake = sync.NewCond(&j.mu)
	go j.commit()
	return j, nil
}

// open opens the file after a look at every page of it. A page that is not there
// any more is a fault of memory, since the file is mapped, and bbolt panics on
// pages that make no sense: both are the file's fault and become errors here.
// The look comes first and reads only, because opening for writing looks at some
// pages in a goroutine of bbolt's, where a panic cannot be caught.
func open(path string) (db *bolt.DB, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %s: %v", ErrDamaged, path, p)
		}
	}()
	switch fi, err := os.Stat(path); {
	case errors.Is(err, os.ErrNotExist), err == nil && fi.Size() == 0:
	case err != nil:
		return nil, fmt.Errorf("journal: %w", err)
	default:
		if err := look(path); err != nil {
			return nil, err
		}
	}
	db, err = bolt.Open(path, 0o600, &bolt.Options{Timeout: lockTime})
	return db, openError(path, err)
}

// look reads all that is in the file.
func look(path string) error {
	db, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: lockTime, ReadOnly: true})
	if err != nil {
		return openError(path, err)
	}
	defer db.Close()
	err = db.View(func(tx *bolt.Tx) error {
		return tx.ForEach(func(_ []byte, b *bolt.Bucket) error {
			return b.ForEach(func(_, v []byte) error { _ = checksum(v); return nil })
		})
	})
	return openError(path, err)
}

func openError(path string, err error) error {
	var errno syscall.Errno
	switch {
	case err == nil:
		return nil
	case errors.Is(err, berrors.ErrTimeout), errors.As(err, &errno), errors.Is(err, os.ErrPermission):
		return fmt.Errorf("journal %s: %w", path, err)
	}
	return fmt.Errorf("%w: %s: %v", ErrDamaged, path, err)
}

// Put writes the changes, all or none, and returns when they are on the disk.
// Changes that were put before, also those put Later, are on the disk then too.
// A bucket that is not there is an error.
func (j *Journal) Put(changes ...Change) error {
	done := make(chan error, 1)
	j.mu.Lock()
	if j.closed {
		j.mu.Unlock()
		return ErrClosed
	}
	j.queue = append(j.queue, changes...)
	j.wait = append(j.wait, done)
	j.hurry = true
	j.wake.Signal()
	j.mu.Unlock()
	return <-done
}

// Later writes the changes with the next Put or some 50 ms later. Nobody is told
// when that fails: it is for what may get lost in a crash.
func (j *Journal) Later(changes ...Change) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return
	}
	j.queue = append(j.queue, changes...)
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
			continue
		}
		batch, wait := j.queue, j.wait
		j.queue, j.wait, j.hurry = nil, nil, false
		if j.timer != nil {
			j.timer.Stop()
			j.timer = nil
		}
		j.mu.Unlock()
		err := j.write(batch)
		for _, done := range wait {
			done <- err
		}
	}
}

// write writes a batch, in several commits when it is a very large one.
func (j *Journal) write(batch []Change) error {
	for len(batch) > 0 {
		n := min(len(batch), maxBatch)
		err := j.update(batch[:n])
		if errors.Is(err, syscall.ENOSPC) && j.noSpace != nil && j.noSpace() {
			err = j.update(batch[:n])
		}
		if err != nil {
			return fmt.Errorf("journal %s: %w", j.db.Path(), err)
		}
		batch = batch[n:]
	}
	return nil
}

func (j *Journal) update(batch []Change) error {
	return j.db.Update(func(tx *bolt.Tx) error {
		for _, c := range batch {
			b := tx.Bucket([]byte(c.Bucket))
			if b == nil {
				return fmt.Errorf("there is no bucket %s", c.Bucket)
			}
			var err error
			if c.Value == nil {
				err = b.Delete([]byte(c.Key))
			} else {
				err = b.Put([]byte(c.Key), seal(c.Value))
			}
			if err != nil {
				return fmt.Errorf("%s/%.64s: %w", c.Bucket, c.Key, err)
			}
		}
		return nil
	})
}

// Get returns a record, nil when there is none. The error wraps ErrDamaged.
func (j *Journal) Get(bucket, key string) (value []byte, err error) {
	err = j.view(func(tx *bolt.Tx) error {
		b := tx.Bucket([]byte(bucket))
		if b == nil {
			return fmt.Errorf("journal %s: there is no bucket %s", j.db.Path(), bucket)
		}
		if v := b.Get([]byte(key)); v != nil {
			value, err = unseal(v)
			if err != nil {
				return fmt.Errorf("%s/%.64s: %w", bucket, key, err)
			}
		}
		return nil
	})
	return value, err
}

// Each calls f for every record of a bucket, in the order of the keys. A record
// that is damaged comes with an error instead of its value.
func (j *Journal) Each(bucket string, f func(key string, value []byte, err error)) error {
	return j.view(func(tx *bolt.Tx) error {
		b := tx.Bucket([]byte(bucket))
		if b == nil {
			return fmt.Errorf("journal %s: there is no bucket %s", j.db.Path(), bucket)
		}
		return b.ForEach(func(k, v []byte) error {
			value, err := unseal(v)
			f(string(k), value, err)
			return nil
		})
	})
}

// view reads. A page that was damaged since the file was opened is an error, as
// in open.
func (j *Journal) view(read func(*bolt.Tx) error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %s: %v", ErrDamaged, j.db.Path(), p)
		}
	}()
	return j.db.View(read)
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
	if err := j.db.Close(); err != nil {
		return fmt.Errorf("close journal: %w", err)
	}
	return nil
}

// seal puts a checksum in front of a value.
func seal(value []byte) []byte {
	out := make([]byte, 4, 4+len(value))
	binary.BigEndian.PutUint32(out, checksum(value))
	return append(out, value...)
}

// unseal returns a copy of a sealed value.
func unseal(b []byte) ([]byte, error) {
	if len(b) < 4 {
		return nil, fmt.Errorf("%w: a record of %d bytes", ErrDamaged, len(b))
	}
	value := append([]byte{}, b[4:]...)
	if checksum(value) != binary.BigEndian.Uint32(b) {
		return nil, fmt.Errorf("%w: a record with a wrong checksum", ErrDamaged)
	}
	return value, nil
}

func checksum(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }
