package wire

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"
)

var rewrite = flag.Bool("rewrite", false, "write testdata/*.hex anew")

// TestGolden holds the bytes of every message still: what nodes of an earlier
// version sent is what this one sends.
func TestGolden(t *testing.T) {
	t.Parallel()
	names := map[string]bool{}
	for _, v := range vectors() {
		names[v.name+".hex"] = true
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			frame, err := v.kind.append(nil, v.msg)
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join("testdata", v.name+".hex")
			text := vectorText(t, v, frame)
			if *rewrite {
				if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			kept, err := os.ReadFile(file)
			if err != nil {
				t.Fatalf("%v (go test -rewrite writes it)", err)
			}
			if string(kept) != text {
				t.Errorf("%s does not hold any more:\n%swant:\n%s", file, text, kept)
			}
			keptFrame := fromHex(t, string(kept))
			if typ, body, err := ReadFrame(bytes.NewReader(keptFrame), nil, MaxFrame); err != nil || typ != v.kind.typ {
				t.Errorf("ReadFrame: %v, %v", typ, err)
			} else if got, err := v.kind.parse(body); err != nil {
				t.Error(err)
			} else if diff := same(v.msg, got); diff != "" {
				t.Errorf("parsed message differs (-want +got):\n%s", diff)
			}
		})
	}
	entries, err := os.ReadDir("testdata")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".hex") && !names[e.Name()] {
			t.Errorf("testdata/%s belongs to no vector", e.Name())
		}
	}
}

// vectorText is a frame as hex, below what it means in CBOR's diagnostic notation.
func vectorText(t *testing.T, v vector, frame []byte) string {
	t.Helper()
	diag, err := cbor.DiagOptions{ByteStringEmbeddedCBOR: v.kind.typ == TypeAdvert}.DiagMode()
	if err != nil {
		t.Fatal(err)
	}
	meaning, err := diag.Diagnose(frame[HeaderLen:])
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "# %s: type %#02x, %d bytes of body\n# %s\n", v.kind.typ, uint8(v.kind.typ), len(frame)-HeaderLen, meaning)
	fmt.Fprintf(&b, "%x\n", frame[:HeaderLen])
	for rest := frame[HeaderLen:]; len(rest) > 0; {
		n := min(len(rest), 32)
		fmt.Fprintf(&b, "%x\n", rest[:n])
		rest = rest[n:]
	}
	return b.String()
}

func fromHex(tb testing.TB, text string) []byte {
	tb.Helper()
	var digits strings.Builder
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "#") {
			digits.WriteString(strings.TrimSpace(line))
		}
	}
	b, err := hex.DecodeString(digits.String())
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// TestTruncated cuts every message at every byte, first as a frame, then as a
// body that a well-formed header comes before.
func TestTruncated(t *testing.T) {
	t.Parallel()
	for _, v := range vectors() {
		frame, err := v.kind.append(nil, v.msg)
		if err != nil {
			t.Fatal(err)
		}
		for n := range frame {
			want := io.ErrUnexpectedEOF
			if n == 0 {
				want = io.EOF
			}
			if _, _, err := ReadFrame(bytes.NewReader(frame[:n]), nil, MaxFrame); err != want {
				t.Errorf("%s: frame cut to %d bytes: %v, want %v", v.name, n, err, want)
			}
		}
		body := frame[HeaderLen:]
		for n := range body {
			if m, err := v.kind.parse(body[:n]); !errors.Is(err, ErrMalformed) || m != nil {
				t.Errorf("%s: body cut to %d bytes: %v, %v, want ErrMalformed", v.name, n, m, err)
			}
		}
		longer := append(bytes.Clone(body), 0)
		if _, err := v.kind.parse(longer); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: a byte behind the body: %v, want ErrMalformed", v.name, err)
		}
	}
}
