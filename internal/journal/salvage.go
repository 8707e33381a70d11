package journal

import (
	"bytes"
	"encoding/binary"
	"io"
	"os"
)

// Salvage reads what is whole in a file that Open refused as damaged, and calls
// f for each record that would count there, in no order. What a damaged place
// said is not known: a record may be older than the last one of its key, and one
// that was removed may be there. A value that is damaged comes with an error that
// wraps ErrDamaged.
func Salvage(path string, f func(bucket, key string, value []byte, err error)) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	fi, err := file.Stat()
	if err != nil {
		return err
	}
	j := &Journal{path: path, log: &log{f: file, full: fi.Size()}, index: map[string]map[string]place{}}
	if err := j.log.salvage(j.put); err != nil {
		return err
	}
	for bucket, keys := range j.index {
		for key, p := range keys {
			value, err := j.log.value(p)
			f(bucket, key, value, err)
		}
	}
	return nil
}

// salvage finds batches by their headers, wherever they are.
func (l *log) salvage(each func(Change, place)) error {
	const window = 64 << 10
	buf := make([]byte, window+batchHeader)
	for at := int64(0); at < l.full; {
		n, err := l.f.ReadAt(buf, at)
		if err != nil && !isEOF(err) {
			return err
		}
		i, length := findBatch(buf[:n])
		if i < 0 {
			at += window
			continue
		}
		at += int64(i) + batchHeader
		b := make([]byte, min(int64(length), l.full-at))
		if _, err := io.ReadFull(io.NewSectionReader(l.f, at, int64(len(b))), b); err != nil {
			return err
		}
		salvageRecords(b, at, each)
		at += int64(len(b))
	}
	return nil
}

// findBatch returns where the first header of a batch is, and how long its
// records are; -1: there is none.
func findBatch(b []byte) (at, length int) {
	for i := 0; ; i++ {
		k := bytes.Index(b[i:], binary.BigEndian.AppendUint32(nil, mark))
		if k < 0 {
			return -1, 0
		}
		i += k
		if _, length, ok := header(b[i:]); ok {
			return i, length
		}
	}
}

// salvageRecords reads the records of a batch; behind one that makes no sense it
// looks for the next that does.
func salvageRecords(b []byte, at int64, each func(Change, place)) {
	for i := 0; i < len(b); {
		if c, p, size := decodeRecord(b[i:], at+int64(i)); size > 0 {
			each(c, p)
			i += size
		} else {
			i++
		}
	}
}
