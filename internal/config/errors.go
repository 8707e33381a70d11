package config

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Pos is where an item stands. It stays with the typed item, so that what
// turns out later (a port in use, a command that is missing) can be told with
// the line that caused it.
type Pos struct {
	File string
	Line int    // from 1; 0 when no line is to blame
	Item string // as docs/config.md writes it; empty outside of items
}

// Errorf returns an *Error about a key of the item, or about the whole item
// when key is empty. It wraps as fmt.Errorf does.
func (p Pos) Errorf(key, format string, args ...any) error {
	return &Error{Pos: p, Key: key, Err: fmt.Errorf(format, args...)}
}

// String returns "file:line: item" without the parts that are not known.
func (p Pos) String() string {
	s := p.File
	if p.Line > 0 {
		s = fmt.Sprintf("%s:%d", s, p.Line)
	}
	if p.Item != "" {
		s += ": " + p.Item
	}
	return s
}

// Place says where the item stands, for the text of another item's error.
func (p Pos) Place() string {
	if p.Line < 1 {
		return "the command line"
	}
	return fmt.Sprintf("line %d", p.Line)
}

// Error is one thing that is wrong with a configuration file, as in
//
//	ranvier.conf:7: tcp-peer: key "cost": "abc" is not a number
type Error struct {
	Pos
	Key string // as the file writes it; empty when it is no single key
	Err error  // what is wrong
}

// Error returns the position, the key and what is wrong.
func (e *Error) Error() string {
	if e.Key == "" {
		return fmt.Sprintf("%s: %v", e.Pos, e.Err)
	}
	return fmt.Sprintf("%s: key %q: %v", e.Pos, e.Key, e.Err)
}

// Unwrap returns what is wrong, without the position.
func (e *Error) Unwrap() error { return e.Err }

// maxErrors is how many errors are told at once: a file that is not meant
// for us at all should not scroll the first one away.
const maxErrors = 20

// report gathers what is to be said about one file.
type report struct {
	file     string
	errs     []*Error
	warnings []*Error
	// unread is set when some part of the file could not be taken as an item,
	// so that nothing can be said about what the file does not contain.
	unread bool
	// later is what can be done only when all items have been read.
	later []func(*Config)
}

func (r *report) errorf(p Pos, key, format string, args ...any) {
	r.errs = append(r.errs, &Error{Pos: p, Key: key, Err: fmt.Errorf(format, args...)})
}

func (r *report) warnf(p Pos, key, format string, args ...any) {
	r.warnings = append(r.warnings, &Error{Pos: p, Key: key, Err: fmt.Errorf(format, args...)})
}

func (r *report) err() error {
	sortByLine(r.errs)
	all := make([]error, 0, min(len(r.errs), maxErrors)+1)
	for i, e := range r.errs {
		if i == maxErrors {
			all = append(all, &Error{Pos: Pos{File: r.file}, Err: fmt.Errorf("and %d more errors", len(r.errs)-i)})
			break
		}
		all = append(all, e)
	}
	return errors.Join(all...)
}

func (r *report) sortedWarnings() []string {
	sortByLine(r.warnings)
	var out []string
	for _, w := range r.warnings {
		out = append(out, w.Error())
	}
	return out
}

// sortByLine puts what blames no line last.
func sortByLine(errs []*Error) {
	slices.SortStableFunc(errs, func(a, b *Error) int {
		return cmp.Compare(uint(a.Line-1), uint(b.Line-1))
	})
}

// didYouMean returns a hint for a name that is unknown, or "" when none of the
// known names resembles it.
func didYouMean(name string, known []string) string {
	plain := strings.NewReplacer("-", "", "_", "").Replace
	name = plain(strings.ToLower(name))
	best, bestDist := "", 1+max(1, len(name)/3)
	for _, k := range known {
		if d := distance(name, plain(k), bestDist); d < bestDist {
			best, bestDist = k, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(", did you mean %q?", best)
}

// distance is the number of letters to insert, delete or replace to make b of
// a, or limit when it is not below that.
func distance(a, b string, limit int) int {
	if max(len(a)-len(b), len(b)-len(a)) >= limit {
		return limit
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diag := row[0]
		row[0] = i + 1
		for j := range len(b) {
			d := diag
			if a[i] != b[j] {
				d++
			}
			diag = row[j+1]
			row[j+1] = min(d, diag+1, row[j]+1)
		}
	}
	return min(row[len(b)], limit)
}
