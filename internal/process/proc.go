package process

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
)

// stat is what the family tree needs of /proc/<pid>/stat. A pid together with
// its start time names one process for as long as the machine is up.
type stat struct {
	pid, parent, session int
	state                byte
	start                uint64
}

// alive is false for a zombie, which is dead and waits for its parent.
func (s stat) alive() bool { return s.state != 'Z' && s.state != 'X' }

var errBadStat = errors.New("not the format of /proc/<pid>/stat")

// parseStat reads one line of /proc/<pid>/stat. The second field is the
// program's name in parentheses and may hold anything, parentheses and spaces
// included, so the rest begins after the last one.
func parseStat(b []byte) (stat, error) {
	open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 1 || end < open {
		return stat{}, errBadStat
	}
	f := bytes.Fields(b[end+1:])
	if len(f) < 20 || len(f[0]) != 1 {
		return stat{}, errBadStat
	}
	var s stat
	var errs [4]error
	s.state = f[0][0]
	s.pid, errs[0] = strconv.Atoi(string(bytes.TrimSpace(b[:open])))
	s.parent, errs[1] = strconv.Atoi(string(f[1]))
	s.session, errs[2] = strconv.Atoi(string(f[3]))
	s.start, errs[3] = strconv.ParseUint(string(f[19]), 10, 64)
	if err := errors.Join(errs[:]...); err != nil {
		return stat{}, fmt.Errorf("%w: %v", errBadStat, err)
	}
	return s, nil
}

func readStat(pid int) (stat, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return stat{}, err
	}
	return parseStat(b)
}

// readAll lists all processes. Those that end meanwhile are left out.
func readAll() ([]stat, error) {
	d, err := os.Open("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	procs := make([]stat, 0, len(names))
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		if s, err := readStat(pid); err == nil {
			procs = append(procs, s)
		}
	}
	return procs, nil
}

// members is a set of processes: start times by pid.
type members map[int]uint64

// expand returns who of procs belongs to the family: who was known, descends
// from a member, is in a session that a member is in, or carries the
// mark (unless mark is empty). Members that are gone are left out: their
// numbers may be given to others.
//
// A session may be trusted because the child began a new one: no member can be
// in a session that was there before.
func (m members) expand(procs []stat, mark string) members {
	family := members{}
	sessions := map[int]bool{}
	add := func(s stat) {
		family[s.pid] = s.start
		if s.session > 0 { // else its leader is outside this namespace, or it is on its way out
			sessions[s.session] = true
		}
	}
	self := os.Getpid()
	var others []stat
	for _, s := range procs {
		switch {
		case s.pid == self || s.pid == 1:
		case m[s.pid] == s.start && s.start != 0, mark != "" && marked(s.pid, mark):
			add(s)
		default:
			others = append(others, s)
		}
	}
	for grown := true; grown; {
		grown = false
		rest := others[:0]
		for _, s := range others {
			if _, child := family[s.parent]; child || sessions[s.session] {
				add(s)
				grown = true
				continue
			}
			rest = append(rest, s)
		}
		others = rest
	}
	return family
}

// marked reports whether the environment that a process was started with has
// the entry, or that of a job within that job. It is false for processes that we may not look into.
func marked(pid int, entry string) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/environ")
	if err != nil {
		return false
	}
	for v := range bytes.SplitSeq(b, []byte{0}) {
		if rest, ok := bytes.CutPrefix(v, []byte(entry)); ok && (len(rest) == 0 || rest[0] == '/') {
			return true
		}
	}
	return false
}
