package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestReadFrameOneByteAtATime(t *testing.T) {
	t.Parallel()
	var stream []byte
	for _, v := range vectors() {
		var err error
		if stream, err = v.kind.append(stream, v.msg); err != nil {
			t.Fatal(err)
		}
	}
	for name, r := range map[string]io.Reader{
		"one byte": iotest.OneByteReader(bytes.NewReader(stream)),
		"half":     iotest.HalfReader(bytes.NewReader(stream)),
		"data+err": iotest.DataErrReader(bytes.NewReader(stream)),
	} {
		var buf []byte
		for _, v := range vectors() {
			typ, body, err := ReadFrame(r, buf, MaxFrame)
			if err != nil || typ != v.kind.typ {
				t.Fatalf("%s: %s: type %v, %v", name, v.name, typ, err)
			}
			if m, err := v.kind.parse(body); err != nil || same(v.msg, m) != "" {
				t.Fatalf("%s: %s: %v, %v", name, v.name, m, err)
			}
			buf = body
		}
		if _, _, err := ReadFrame(r, buf, MaxFrame); err != io.EOF {
			t.Errorf("%s: at the end: %v, want io.EOF", name, err)
		}
	}
}

func TestReadFrameRefuses(t *testing.T) {
	t.Parallel()
	header := func(n uint32) []byte { return append(binary.BigEndian.AppendUint32(nil, n), byte(TypeHello)) }
	cases := []struct {
		name  string
		bytes []byte
		want  error
	}{
		{"nothing", nil, io.EOF},
		{"two zero bytes", []byte{0, 0}, io.ErrUnexpectedEOF},
		{"header alone", header(2), io.ErrUnexpectedEOF},
		{"length zero", header(0), ErrMalformed},
		{"a byte too long", header(MaxFrame + 2), ErrMalformed},
		{"2 GiB", header(1 << 31), ErrMalformed},
		{"4 GiB", header(1<<32 - 1), ErrMalformed},
		{"longest, without its body", header(MaxFrame + 1), io.ErrUnexpectedEOF},
	}
	for _, c := range cases {
		if _, body, err := ReadFrame(bytes.NewReader(c.bytes), nil, MaxFrame); !errors.Is(err, c.want) || body != nil {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	broken := errors.New("broken")
	r := io.MultiReader(bytes.NewReader(header(3)), iotest.ErrReader(broken))
	if _, _, err := ReadFrame(r, nil, MaxFrame); !errors.Is(err, broken) {
		t.Errorf("the reader's error: %v", err)
	}
}

func TestReadFrameEdges(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 1, MaxData, MaxFrame} {
		frame := append(AppendHeader(nil, 0x7f, n), make([]byte, n)...)
		if n == MaxData && len(frame) != 32<<10 {
			t.Errorf("a whole data frame has %d bytes, want 32 KiB", len(frame))
		}
		typ, body, err := ReadFrame(bytes.NewReader(frame), nil, MaxFrame)
		if err != nil || typ != 0x7f || len(body) != n {
			t.Errorf("%d bytes: type %v, %d bytes, %v", n, typ, len(body), err)
		}
		if n == 0 {
			continue
		}
		if _, _, err := ReadFrame(bytes.NewReader(frame), nil, n-1); !errors.Is(err, ErrMalformed) {
			t.Errorf("%d bytes, limit %d: %v", n, n-1, err)
		}
	}
}

func TestReadFrameUsesBuffer(t *testing.T) {
	buf := make([]byte, 0, 128)
	frame := append(AppendHeader(nil, TypeData, 100), bytes.Repeat([]byte{7}, 100)...)
	_, body, err := ReadFrame(bytes.NewReader(frame), buf, MaxFrame)
	if err != nil || &body[0] != &buf[:1][0] {
		t.Errorf("the body is not in the given buffer (%v)", err)
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	seen := map[string]Type{}
	for i := range 256 {
		s := Type(i).String()
		if other, twice := seen[s]; twice {
			t.Errorf("types %d and %d are both %q", other, i, s)
		}
		seen[s] = Type(i)
	}
	for c := CodeOK; c <= CodeInternal; c++ {
		if s := c.String(); s == "" || strings.HasPrefix(s, "code") {
			t.Errorf("code %d: %q", c, s)
		}
	}
	if s := Code(999).String(); s != "code 999" {
		t.Errorf("unknown code: %q", s)
	}
	if RoleRouter.String() != "router" || RoleLeaf.String() != "leaf" || RoleEphemeral.String() != "ephemeral" || Role(9).String() != "role 9" {
		t.Error("names of roles")
	}
}
