package stream

import (
	"encoding/base64"
	"fmt"
	"io"
	"strconv"

	"github.com/ranvier-mesh/ranvier/runner/internal/pyjson"
)

// Field is a member of a message.
type Field struct {
	Key   string
	Value any
}

// AppendObject appends an object with its members in the order given, spelled
// as Python does and without a newline. The error names the key whose value is
// no JSON.
func AppendObject(dst []byte, fields ...Field) ([]byte, error) {
	var err error
	dst = append(dst, '{')
	for i, f := range fields {
		if i > 0 {
			dst = append(dst, ", "...)
		}
		dst = append(pyjson.AppendString(dst, f.Key), ": "...)
		if dst, err = pyjson.Append(dst, f.Value); err != nil {
			return dst, fmt.Errorf("%s: %w", f.Key, err)
		}
	}
	return append(dst, '}'), nil
}

// WriteKwargs writes the message that begins a transmit stream.
func WriteKwargs(w io.Writer, kwargs []Field) error {
	line := []byte(`{"kwargs": `)
	line, err := AppendObject(line, kwargs...)
	if err != nil {
		return err
	}
	_, err = w.Write(append(line, "}\n"...))
	return err
}

// WriteObject writes one line.
func WriteObject(w io.Writer, fields ...Field) error {
	line, err := AppendObject(nil, fields...)
	if err != nil {
		return err
	}
	_, err = w.Write(append(line, '\n'))
	return err
}

// WriteError writes the message of a fault; traceback may be empty.
func WriteError(w io.Writer, explanation, traceback string) error {
	fields := []Field{{"status", "error"}, {"job_explanation", explanation}}
	if traceback != "" {
		fields = append(fields, Field{"result_traceback", traceback})
	}
	return WriteObject(w, fields...)
}

// WriteEOF writes the message that ends a stream.
func WriteEOF(w io.Writer) error {
	_, err := io.WriteString(w, "{\"eof\": true}\n")
	return err
}

// WriteZip writes the zipfile message and n bytes of zip: as base64, which all
// readers know, or raw, as they are, for a reader that is known to be ours. There
// is no newline after either: the Python readers would stumble over one. An error
// that is not of w is a zip that could not be read or is shorter than n.
func WriteZip(w io.Writer, zip io.Reader, n int64, raw bool) error {
	head, write := "}\n", writeBase64
	if raw {
		head, write = ", \"raw\": true}\n", writeRaw
	}
	if _, err := io.WriteString(w, `{"zipfile": `+strconv.FormatInt(n, 10)+head); err != nil {
		return err
	}
	return write(w, zip, n)
}

func writeRaw(w io.Writer, zip io.Reader, n int64) error {
	buf := make([]byte, 128<<10)
	for n > 0 {
		block := buf[:min(n, int64(len(buf)))]
		if _, err := io.ReadFull(zip, block); err != nil {
			return fmt.Errorf("reading the zip: %w", err)
		}
		n -= int64(len(block))
		if _, err := w.Write(block); err != nil {
			return err
		}
	}
	return nil
}

func writeBase64(w io.Writer, zip io.Reader, n int64) error {
	in := make([]byte, 96<<10) // a multiple of 3: only the last block is padded
	out := make([]byte, base64.StdEncoding.EncodedLen(len(in)))
	for n > 0 {
		block := in[:min(n, int64(len(in)))]
		if _, err := io.ReadFull(zip, block); err != nil {
			return fmt.Errorf("reading the zip: %w", err)
		}
		n -= int64(len(block))
		base64.StdEncoding.Encode(out, block)
		if _, err := w.Write(out[:base64.StdEncoding.EncodedLen(len(block))]); err != nil {
			return err
		}
	}
	return nil
}

// WriteRawResults writes the message that lets the worker answer with a zip that
// is raw; workers of others skip it.
func WriteRawResults(w io.Writer) error { return WriteObject(w, Field{"results", "raw"}) }
