package stream_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"

	"github.com/ranvier-mesh/ranvier/runner/internal/stream"
)

func TestWriteZipIsExact(t *testing.T) {
	t.Parallel()
	for data, want := range map[string]string{
		"":     "{\"zipfile\": 0}\n",
		"a":    "{\"zipfile\": 1}\nYQ==",
		"ab":   "{\"zipfile\": 2}\nYWI=",
		"abc":  "{\"zipfile\": 3}\nYWJj",
		"abcd": "{\"zipfile\": 4}\nYWJjZA==",
	} {
		var out bytes.Buffer
		if err := stream.WriteZip(&out, strings.NewReader(data), int64(len(data)), false); err != nil || out.String() != want {
			t.Errorf("%q: %q, %v; want %q", data, out.String(), err, want)
		}
	}
	var out bytes.Buffer
	if err := stream.WriteZip(&out, strings.NewReader("a\n"), 2, true); err != nil || out.String() != "{\"zipfile\": 2, \"raw\": true}\na\n" {
		t.Errorf("raw: %q, %v", out.String(), err)
	}
	for _, raw := range []bool{false, true} {
		if err := stream.WriteZip(io.Discard, strings.NewReader("abc"), 5, raw); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("a zip that is too short, raw %v: error %v", raw, err)
		}
	}
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.SampledFrom([]int{0, 1, 2, 3, 4, 1000, 96 << 10, 96<<10 + 1, 300 << 10}).Draw(t, "size")
		zip := bytes.Repeat([]byte{'P', 'K', 0xff, 1, 2}, size/5+1)[:size]
		explanation := rapid.String().Draw(t, "explanation")
		raw := rapid.Bool().Draw(t, "raw")
		var out bytes.Buffer
		err := errors.Join(
			stream.WriteKwargs(&out, []stream.Field{{Key: "ident", Value: "i"}, {Key: "forks", Value: nil}}),
			stream.WriteZip(&out, bytes.NewReader(zip), int64(size), raw),
			stream.WriteError(&out, explanation, "t"),
			stream.WriteEOF(&out))
		if err != nil {
			t.Fatal(err)
		}
		var from io.Reader = &out
		if rapid.Bool().Draw(t, "halves") {
			from = iotest.HalfReader(from)
		}
		r := stream.NewReader(from)
		m := next(t, r)
		if string(m.Kwargs) != `{"ident": "i", "forks": null}` {
			t.Fatalf("kwargs %s", m.Kwargs)
		}
		m = next(t, r)
		in, n, err := r.Zip(m)
		if err != nil || n != int64(size) {
			t.Fatalf("size %d, %v", n, err)
		}
		if got, err := io.ReadAll(in); err != nil || !bytes.Equal(got, zip) {
			t.Fatalf("%d bytes came back as %d, %v", size, len(got), err)
		}
		if m = next(t, r); string(m.Status) != `"error"` {
			t.Fatalf("status %s", m.Status)
		}
		if m = next(t, r); string(m.EOF) != "true" {
			t.Fatalf("eof %s", m.EOF)
		}
		if _, err := r.Next(); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("after the end: %v", err)
		}
	})
}

func next(t interface{ Fatal(...any) }, r *stream.Reader) stream.Message {
	m, err := r.Next()
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestZipSkipsWhiteSpaceAndTakesNoByteMore(t *testing.T) {
	t.Parallel()
	r := stream.NewReader(strings.NewReader("Y W\nI\r\n=\n{\"eof\": true}\n"))
	if got, err := io.ReadAll(zipOf(t, r, 2, false)); err != nil || string(got) != "ab" {
		t.Fatalf("%q, %v", got, err)
	}
	var lerr *stream.LineError // the newline after the base64 is a blank line
	if _, err := r.Next(); !errors.As(err, &lerr) {
		t.Errorf("a newline after the base64: error %v", err)
	}
}

// zipOf reads a zip of n bytes.
func zipOf(t *testing.T, r *stream.Reader, n int64, raw bool) io.Reader {
	t.Helper()
	m := stream.Message{Zipfile: fmt.Append(nil, n)}
	if raw {
		m.Raw = []byte("true")
	}
	zip, _, err := r.Zip(m)
	if err != nil {
		t.Fatal(err)
	}
	return zip
}

func TestRawZipFaults(t *testing.T) {
	t.Parallel()
	r := stream.NewReader(strings.NewReader("abcd{\"eof\": true}\n"))
	if got, err := io.ReadAll(zipOf(t, r, 4, true)); err != nil || string(got) != "abcd" || next(t, r).EOF == nil {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := io.ReadAll(zipOf(t, stream.NewReader(strings.NewReader("abc")), 4, true)); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("one that is cut: %v", err)
	}
	broken := errors.New("broken")
	_, err := io.ReadAll(zipOf(t, stream.NewReader(iotest.ErrReader(broken)), 4, true))
	if rerr := (*stream.ReadError)(nil); !errors.As(err, &rerr) || !errors.Is(err, broken) {
		t.Errorf("a link that broke: %v", err)
	}
}

func TestZipFaults(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	for _, c := range []struct {
		name string
		in   io.Reader
		n    int64
		is   error
	}{
		{"empty", strings.NewReader(""), 2, io.ErrUnexpectedEOF},
		{"short", strings.NewReader("YW"), 2, io.ErrUnexpectedEOF},
		{"short by a group", strings.NewReader("YWJj"), 6, io.ErrUnexpectedEOF},
		{"not base64", strings.NewReader("Y-I="), 2, nil},
		{"too little", strings.NewReader("YQ=="), 2, nil},
		{"too much", strings.NewReader("YWJj"), 2, nil},
		{"padding inside", strings.NewReader("YQ==YWJj"), 6, nil},
		{"link", iotest.ErrReader(broken), 2, broken},
		{"link's own end", iotest.ErrReader(fmt.Errorf("%w: %w", broken, io.EOF)), 2, broken},
	} {
		_, err := io.ReadAll(zipOf(t, stream.NewReader(c.in), c.n, false))
		if err == nil || c.is != nil && !errors.Is(err, c.is) {
			t.Errorf("%s: error %v, want %v", c.name, err, c.is)
		}
		var rerr *stream.ReadError
		if errors.As(err, &rerr) != (c.is == broken) {
			t.Errorf("%s: %v is a *ReadError or should be", c.name, err)
		}
	}
}

func TestNextFaults(t *testing.T) {
	t.Parallel()
	for name, in := range map[string]string{
		"blank": "\n", "not JSON": "hello\n", "scalar": "5\n", "list": "[]\n", "two": "{} {}\n", "cut": "{\"a\": \n",
	} {
		_, err := stream.NewReader(strings.NewReader(in)).Next()
		var lerr *stream.LineError
		if !errors.As(err, &lerr) || string(lerr.Line) != in {
			t.Errorf("%s: error %v", name, err)
		}
	}
	if _, err := stream.NewReader(strings.NewReader(`{"eof": tr`)).Next(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("half a line: error %v", err)
	}
	if m, err := stream.NewReader(strings.NewReader(`{"eof": true}`)).Next(); err != nil || m.EOF == nil {
		t.Errorf("a last line without newline: %v", err)
	}
	_, err := stream.NewReader(strings.NewReader(strings.Repeat("x", 5000) + "\n")).Next()
	var lerr *stream.LineError
	if !errors.As(err, &lerr) || len(lerr.Line) != 1000 {
		t.Errorf("a long wrong line: %v", err)
	}
	_, err = stream.NewReader(io.LimitReader(endless{}, stream.MaxLine*2)).Next()
	if !errors.As(err, &lerr) || !strings.Contains(err.Error(), fmt.Sprint(stream.MaxLine)) {
		t.Errorf("an endless line: %.80v", err)
	}
	for _, size := range []string{"-1", "1.5", `"5"`, "null", "99999999999999999999", "9999999999999999"} {
		m := stream.Message{Zipfile: []byte(size)}
		if n, err := m.ZipSize(); err == nil {
			t.Errorf("zipfile %s is %d bytes", size, n)
		}
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}

// FuzzReader reads any bytes as a stream: it must end, and never take a zip
// longer or shorter than announced for whole.
func FuzzReader(f *testing.F) {
	f.Add([]byte("{\"kwargs\": {}}\n{\"zipfile\": 4}\nYWJjZA=={\"eof\": true}\n"))
	f.Add([]byte("{\"results\": \"raw\"}\n{\"zipfile\": 4, \"raw\": true}\nPK\n\n{\"eof\": true}\n"))
	f.Add([]byte("{\"status\": \"running\"}\n{\"event\": \"keepalive\", \"counter\": 0, \"uuid\": 0}\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		r := stream.NewReader(bytes.NewReader(in))
		for range len(in) + 2 {
			m, err := r.Next()
			if err != nil {
				return
			}
			zip, n, err := r.Zip(m)
			if err != nil {
				continue
			}
			got, err := io.Copy(io.Discard, zip)
			if err == nil && got != n {
				t.Fatalf("%d of %d bytes without an error", got, n)
			}
			if err != nil {
				return
			}
		}
		t.Fatal("more messages than bytes")
	})
}
