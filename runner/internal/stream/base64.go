package stream

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"strings"
)

// zipReader decodes an unbroken run of base64 whose length is known, with white
// space in it skipped (docs/runner.md §1.2). It never takes a byte beyond the
// last character: the next message begins there.
type zipReader struct {
	br      *bufio.Reader
	encoded int64 // characters still to come, white space aside
	decoded int64 // bytes still to come
	in      []byte
	out     []byte // decoded, not yet handed out
	buf     [48 << 10]byte
}

func (z *zipReader) Read(p []byte) (int, error) {
	for len(z.out) == 0 {
		if z.encoded == 0 {
			if z.decoded != 0 {
				return 0, fmt.Errorf("base64: %d bytes fewer than announced", z.decoded)
			}
			return 0, io.EOF
		}
		if err := z.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(p, z.out)
	z.out = z.out[n:]
	return n, nil
}

// fill decodes the next whole groups of four characters.
func (z *zipReader) fill() error {
	if z.in == nil {
		z.in = make([]byte, 0, 64<<10)
	}
	for len(z.in) < 4 {
		free := z.in[len(z.in):cap(z.in)]
		want := min(int64(len(free)), z.encoded-int64(len(z.in)))
		n, err := z.br.Read(free[:want])
		if n == 0 && err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		z.in = z.in[:len(z.in)+squeeze(free[:n])]
	}
	whole := len(z.in) &^ 3
	n, err := base64.StdEncoding.Decode(z.buf[:], z.in[:whole])
	if err != nil {
		return fmt.Errorf("base64 of the zip: %w", err)
	}
	z.encoded -= int64(whole)
	z.in = z.in[:copy(z.in, z.in[whole:])]
	// Padding is only right where the announced size asks for it.
	if int64(n) > z.decoded || n != whole/4*3 && int64(n) != z.decoded {
		return fmt.Errorf("base64 of the zip: %d bytes where %d were announced", n, z.decoded)
	}
	z.decoded -= int64(n)
	z.out = z.buf[:n]
	return nil
}

// squeeze removes white space from b and returns the new length. Nothing moves
// where there is none, which is the rule; to see that, each kind is looked for
// in turn, which machines do many bytes at a time.
func squeeze(b []byte) int {
	const spaces = " \t\n\v\f\r"
	n := len(b)
	for _, c := range []byte(spaces) {
		if i := bytes.IndexByte(b[:n], c); i >= 0 {
			n = i
		}
	}
	for _, c := range b[n:] {
		if strings.IndexByte(spaces, c) < 0 {
			b[n] = c
			n++
		}
	}
	return n
}
