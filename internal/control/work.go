package control

import (
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// Name gives the next words of the plain-text form their names. The JSON form is
// left alone.
func (r *Request) Name(names ...string) {
	for _, name := range names {
		if r.Rest == "" {
			return
		}
		word, rest := cutWord(r.Rest)
		r.params[name], r.Rest = word, rest
	}
}

// Others returns the parameters but for those named. The error
// says that one is no string; null is left out.
func (r *Request) Others(but ...string) (map[string]string, error) {
	others := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(r.params)) {
		if slices.Contains(but, name) || r.params[name] == nil {
			continue
		}
		v, err := r.String(name)
		if err != nil {
			return nil, err
		}
		others[name] = v
	}
	return others, nil
}

// Has reports whether a parameter is given, and not null.
func (r *Request) Has(name string) bool { return r.params[name] != nil }

// Int returns a parameter that is a whole number, also one in a string; 0 when
// it is not given or null.
func (r *Request) Int(name string) (int64, error) {
	switch v := r.params[name].(type) {
	case nil:
		return 0, nil
	case float64:
		if v == float64(int64(v)) {
			return int64(v), nil
		}
	case string:
		if n, err := strconv.ParseInt(v, 10, 64); err == nil {
			return n, nil
		}
	}
	return 0, fmt.Errorf("%q must be a whole number", name)
}

// Gone reports whether the client has ended altogether, and not only its input: one
// that was killed ends its input too. Only a unix socket can tell; for others it
// is false.
func (s *Session) Gone() bool {
	c, ok := s.conn.(*net.UnixConn)
	if !ok {
		return false
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return true
	}
	gone := false
	err = raw.Control(func(fd uintptr) {
		polled := []unix.PollFd{{Fd: int32(fd)}}
		n, perr := unix.Poll(polled, 0)
		gone = perr == nil && n > 0 && polled[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0
	})
	return err != nil || gone
}
