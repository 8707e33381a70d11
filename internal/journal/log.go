package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// The file begins with magic. Batches follow, each written by one call and
// fsynced before the next:
//
//	mark      4 bytes
//	sequence  8 bytes, one more than that of the batch before
//	length    4 bytes, of the records
//	sum       4 bytes, of the above
//	whole     4 bytes, of the sum and the records
//
// and a record:
//
//	bucket, key  2 bytes of length each
//	value        4 bytes of length plus one; 0: the record is removed
//	sum          4 bytes, of the above, bucket and key
//	bucket, key
//	sum          4 bytes, of the value
//	value
//
// Numbers are big-endian, sums CRC-32C. Zeros follow the last batch: they are
// written in advance, so that an fsync has the file's bytes to write and not its
// size or where it lies.
const (
	magic       = "ranvier journal 1\n"
	mark        = 0xba7c4a11
	batchHeader = 24
	recordHead  = 12
	ahead       = 256 << 10 // zeros at a time
	maxName     = 1<<16 - 1
	maxValue    = 1 << 28
	maxBatch    = 1 << 30
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// place is where a record's value is in a log: behind its sum.
type place struct {
	at   int64
	len  uint32 // plus one; 0: the record is removed
	head uint32 // how many bytes of the record come before at
}

func (p place) removed() bool { return p.len == 0 }

// size is how many bytes the record takes; 0 for the zero place.
func (p place) size() int64 {
	if p.removed() {
		return 0
	}
	return int64(p.head) + int64(p.len) - 1
}

// log is the file. Only one goroutine appends.
type log struct {
	f    *os.File
	end  int64  // of the last batch
	full int64  // of the zeros
	next uint64 // sequence
	// broken is why nothing can be appended any more.
	broken error
}

// openLog opens a log, or makes one, and tells of each record in it, in their
// order.
func openLog(path string, each func(Change, place)) (*log, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	l := &log{f: f, next: 1}
	fi, err := f.Stat()
	switch {
	case err != nil:
	case fi.Size() == 0:
		err = l.begin()
	default:
		l.full = fi.Size()
		err = l.read(each)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return l, nil
}

// begin writes the beginning of a new log, durably.
func (l *log) begin() error {
	if _, err := l.f.WriteAt([]byte(magic), 0); err != nil {
		return err
	}
	l.end, l.full = int64(len(magic)), int64(len(magic))
	if err := l.f.Sync(); err != nil {
		return err
	}
	return syncDir(l.f.Name())
}

// syncDir makes a file's name durable.
func syncDir(path string) error {
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// append writes a batch and returns when it is on the disk, with the places of its
// records. After an error it is not there. sums are those of the values, as they
// were when they were put; nil: they are computed.
func (l *log) append(batch []Change, sums []uint32) ([]place, error) {
	if l.broken != nil {
		return nil, l.broken
	}
	b, places := encodeBatch(batch, sums, l.next, l.end)
	if err := l.store(b); err != nil {
		// Not one byte of it may count later: zeros take its header's place.
		_, _ = l.f.WriteAt(make([]byte, batchHeader), l.end)
		return nil, err
	}
	l.end += int64(len(b))
	l.next++
	return places, nil
}

func (l *log) store(b []byte) error {
	end := l.end + int64(len(b))
	size := end
	if end > l.full {
		size = end + ahead
		longer := append(b, make([]byte, ahead)...)
		_, err := l.f.WriteAt(longer, l.end)
		if errors.Is(err, syscall.ENOSPC) { // perhaps there is room for less
			size = end
			_, err = l.f.WriteAt(b, l.end)
		}
		if err != nil {
			return err
		}
	} else if _, err := l.f.WriteAt(b, l.end); err != nil {
		return err
	}
	if err := unix.Fdatasync(int(l.f.Fd())); err != nil {
		return fmt.Errorf("fdatasync: %w", err)
	}
	l.full = max(l.full, size)
	return nil
}

// encodeBatch encodes a batch that will stand at an offset.
func encodeBatch(batch []Change, sums []uint32, seq uint64, at int64) ([]byte, []place) {
	size := batchHeader
	for _, c := range batch {
		size += recordHead + len(c.Bucket) + len(c.Key) + 4 + len(c.Value)
	}
	b := make([]byte, batchHeader, size)
	places := make([]place, len(batch))
	for i, c := range batch {
		places[i].head = uint32(recordHead + len(c.Bucket) + len(c.Key) + 4)
		if c.Value != nil {
			places[i].len = uint32(len(c.Value)) + 1
		}
		start := len(b)
		b = binary.BigEndian.AppendUint16(b, uint16(len(c.Bucket)))
		b = binary.BigEndian.AppendUint16(b, uint16(len(c.Key)))
		b = binary.BigEndian.AppendUint32(b, places[i].len)
		sum := crc32.Update(checksum(b[start:]), castagnoli, []byte(c.Bucket+c.Key))
		b = binary.BigEndian.AppendUint32(b, sum)
		b = append(append(b, c.Bucket...), c.Key...)
		if sums != nil {
			b = binary.BigEndian.AppendUint32(b, sums[i])
		} else {
			b = binary.BigEndian.AppendUint32(b, checksum(c.Value))
		}
		places[i].at = at + int64(len(b))
		b = append(b, c.Value...)
	}
	binary.BigEndian.PutUint32(b, mark)
	binary.BigEndian.PutUint64(b[4:], seq)
	binary.BigEndian.PutUint32(b[12:], uint32(len(b)-batchHeader))
	binary.BigEndian.PutUint32(b[16:], checksum(b[:16]))
	binary.BigEndian.PutUint32(b[20:], wholeSum(b))
	return b, places
}

func wholeSum(batch []byte) uint32 {
	return crc32.Update(checksum(batch[16:20]), castagnoli, batch[batchHeader:])
}

// header reads the header of a batch; false when it is none.
func header(b []byte) (seq uint64, length int, ok bool) {
	if len(b) < batchHeader || binary.BigEndian.Uint32(b) != mark || binary.BigEndian.Uint32(b[16:]) != checksum(b[:16]) {
		return 0, 0, false
	}
	length = int(binary.BigEndian.Uint32(b[12:]))
	return binary.BigEndian.Uint64(b[4:]), length, length <= maxBatch
}

// read reads the whole log. A batch at its end that is not whole is left out, and
// the next one takes its place.
func (l *log) read(each func(Change, place)) error {
	b := make([]byte, len(magic))
	if n, err := io.ReadFull(io.NewSectionReader(l.f, 0, l.full), b); err != nil && !isEOF(err) {
		return err
	} else if string(b[:n]) != magic {
		if l.isBolt() {
			return errors.New("it was written by a development version: cancel its jobs with that version, then remove journal and units/ from the data directory")
		}
		return fmt.Errorf("%w: it begins with %.40q", ErrDamaged, b[:n])
	}
	l.end = int64(len(magic))
	b = make([]byte, batchHeader)
	first := true
	for {
		n, err := l.f.ReadAt(b[:batchHeader], l.end)
		if err != nil && !isEOF(err) {
			return err
		}
		seq, length, ok := header(b[:n])
		if !ok || !first && seq != l.next || l.end+batchHeader+int64(length) > l.full {
			return l.expectEnd()
		}
		if need := batchHeader + length; cap(b) < need {
			b = append(make([]byte, 0, need), b[:batchHeader]...)
		}
		b = b[:batchHeader+length]
		if _, err := l.f.ReadAt(b[batchHeader:], l.end+batchHeader); err != nil && !isEOF(err) {
			return err
		}
		whole := binary.BigEndian.Uint32(b[20:]) == wholeSum(b)
		next := l.end + int64(len(b))
		if !whole { // the end that was not written, or damage in the middle
			if follows, err := l.follows(next, seq); err != nil {
				return err
			} else if !follows {
				return l.expectEnd()
			}
		}
		if err := decodeRecords(b[batchHeader:], l.end+batchHeader, each); err != nil {
			return err
		}
		l.end, l.next, first = next, seq+1, false
	}
}

// isBolt recognises the journals of versions before the first release.
func (l *log) isBolt() bool {
	b := make([]byte, 4)
	_, err := l.f.ReadAt(b, 16)
	return err == nil && binary.NativeEndian.Uint32(b) == 0xed0cdaed
}

func isEOF(err error) bool { return err == io.EOF || err == io.ErrUnexpectedEOF }

// follows reports whether the batch behind seq is at an offset.
func (l *log) follows(at int64, seq uint64) (bool, error) {
	b := make([]byte, batchHeader)
	n, err := l.f.ReadAt(b, at)
	if err != nil && !isEOF(err) {
		return false, err
	}
	next, _, ok := header(b[:n])
	return ok && next == seq+1, nil
}

// expectEnd returns nil unless there is a batch behind the place where the log
// seems to end: then what is between them is damaged.
func (l *log) expectEnd() error {
	const window = 64 << 10
	buf := make([]byte, window+batchHeader)
	for at := l.end; at < l.full; at += window {
		n, err := l.f.ReadAt(buf, at)
		if err != nil && !isEOF(err) {
			return err
		}
		for i := 0; ; i++ {
			k := bytes.Index(buf[i:n], binary.BigEndian.AppendUint32(nil, mark))
			if k < 0 {
				break
			}
			i += k
			if seq, _, ok := header(buf[i:n]); ok && seq > l.next {
				return fmt.Errorf("%w: its batch %d at %d is not whole, and batch %d is", ErrDamaged, l.next, l.end, seq)
			}
		}
	}
	return l.wipe()
}

// wipe makes what is left of a batch that was not written zeros again.
func (l *log) wipe() error {
	zeros := make([]byte, 64<<10)
	buf := make([]byte, len(zeros))
	for at := l.end; at < l.full; at += int64(len(buf)) {
		n, err := l.f.ReadAt(buf[:min(int64(len(buf)), l.full-at)], at)
		if err != nil && !isEOF(err) {
			return err
		}
		if !bytes.Equal(buf[:n], zeros[:n]) {
			if _, err := l.f.WriteAt(zeros[:n], at); err != nil {
				return err
			}
		}
	}
	return nil
}

// decodeRecords reads the records of a batch at an offset. The error says that one of them has
// no beginning, so that nobody knows where the next one is; a value is looked at
// when it is asked for.
func decodeRecords(b []byte, at int64, each func(Change, place)) error {
	for len(b) > 0 {
		c, p, size := decodeRecord(b, at)
		if size == 0 {
			return fmt.Errorf("%w: a record at %d makes no sense", ErrDamaged, at)
		}
		each(c, p)
		b, at = b[size:], at+int64(size)
	}
	return nil
}

// decodeRecord reads the record that b begins with, at an offset: its names and
// place, and its size; 0: there is none.
func decodeRecord(b []byte, at int64) (c Change, p place, size int) {
	if len(b) < recordHead {
		return c, p, 0
	}
	bucket, key := int(binary.BigEndian.Uint16(b)), int(binary.BigEndian.Uint16(b[2:]))
	p = place{len: binary.BigEndian.Uint32(b[4:]), head: uint32(recordHead + bucket + key + 4)}
	p.at = at + int64(p.head)
	all := int64(p.head) + max(int64(p.len)-1, 0)
	if all > int64(len(b)) {
		return c, p, 0
	}
	names := b[recordHead : recordHead+bucket+key]
	if crc32.Update(checksum(b[:8]), castagnoli, names) != binary.BigEndian.Uint32(b[8:]) {
		return c, p, 0
	}
	return Change{Bucket: string(names[:bucket]), Key: string(names[bucket:])}, p, int(all)
}

// value reads a record's value. The error wraps ErrDamaged.
func (l *log) value(p place) ([]byte, error) {
	value, sum, err := l.raw(p)
	if err == nil && checksum(value) != sum {
		err = fmt.Errorf("%w: a record with a wrong checksum", ErrDamaged)
	}
	if err != nil {
		return nil, err
	}
	return value, nil
}

// raw reads a record's value and the sum that it should have.
func (l *log) raw(p place) (value []byte, sum uint32, err error) {
	b := make([]byte, 4+p.len-1)
	if _, err := l.f.ReadAt(b, p.at-4); err != nil {
		return nil, 0, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return b[4:], binary.BigEndian.Uint32(b), nil
}
