// Package archive packs a directory tree into the zip that transmit and worker
// send, and unpacks one without leaving the target directory
// (docs/runner.md §2).
//
// Both hold a few hundred bytes an entry, as a zip has its directory at the
// end, and otherwise the same few buffers however large the files are.
package archive

import (
	"archive/zip"
	"encoding/binary"
	"errors"
	"time"
)

// ErrUnsafe marks an entry that would write outside the target directory or
// make something other than a file, a directory or a symlink.
var ErrUnsafe = errors.New("unsafe archive entry")

// ErrTooLarge marks an archive that unpacks to more than the limit.
var ErrTooLarge = errors.New("archive larger than the limit")

// Extra fields of a zip entry that carry times in UTC.
const (
	extraNTFS     = 0x000a
	extraUnix     = 0x000d
	extraExtended = 0x5455
	extraInfoUnix = 0x5855
)

// ntfsEpoch is 1601-01-01 in Unix seconds.
const ntfsEpoch = -11644473600

// setTimes stores t three times, for three kinds of readers: as DOS local time
// in 2 s steps, the only one Python reads; as Unix seconds, by archive/zip; and
// in units of 100 ns, the finest a zip has a field for.
func setTimes(h *zip.FileHeader, t time.Time) {
	field := make([]byte, 0, 36)
	field = binary.LittleEndian.AppendUint16(field, extraNTFS)
	field = binary.LittleEndian.AppendUint16(field, 32)
	field = binary.LittleEndian.AppendUint32(field, 0)
	field = binary.LittleEndian.AppendUint16(field, 1)
	field = binary.LittleEndian.AppendUint16(field, 24)
	ticks := uint64((t.Unix()-ntfsEpoch)*1e7 + int64(t.Nanosecond())/100)
	for range 3 { // modified, accessed, created
		field = binary.LittleEndian.AppendUint64(field, ticks)
	}
	h.Extra = append(h.Extra, field...)
	h.Modified = clampDOS(t.Local())
}

// clampDOS moves t into the years that DOS time has, as Python does.
func clampDOS(t time.Time) time.Time {
	switch {
	case t.Year() < 1980:
		return time.Date(1980, 1, 1, 0, 0, 0, 0, t.Location())
	case t.Year() > 2107:
		return time.Date(2107, 12, 31, 23, 59, 58, 0, t.Location())
	}
	return t
}

// modTime returns the best time an entry has. Without a field in UTC that is
// the DOS time, which Python writes in the sender's local time and reads in the
// receiver's.
func modTime(h *zip.FileHeader) time.Time {
	utc := false
	for extra := h.Extra; len(extra) >= 4; {
		id, size := binary.LittleEndian.Uint16(extra), int(binary.LittleEndian.Uint16(extra[2:]))
		if extra = extra[4:]; size > len(extra) {
			break
		}
		if id == extraNTFS && size >= 32 && binary.LittleEndian.Uint16(extra[4:]) == 1 {
			ticks := int64(binary.LittleEndian.Uint64(extra[8:]))
			return time.Unix(ticks/1e7+ntfsEpoch, ticks%1e7*100)
		}
		utc = utc || id == extraUnix || id == extraExtended || id == extraInfoUnix
		extra = extra[size:]
	}
	if utc {
		return h.Modified
	}
	d := h.Modified.UTC()
	return time.Date(d.Year(), d.Month(), d.Day(), d.Hour(), d.Minute(), d.Second(), 0, time.Local)
}
