package proxy

import (
	"encoding/binary"
	"io"
)

// maxDatagram is the largest datagram in bytes: UDP's own bound.
const maxDatagram = 65507

// A stream that carries datagrams has, both ways, the length of each as two
// bytes, big-endian, and then the datagram itself (docs/protocol.md section 6.6).

// appendDatagram appends a datagram in that form.
func appendDatagram(dst, p []byte) []byte {
	return append(binary.BigEndian.AppendUint16(dst, uint16(len(p))), p...)
}

// readDatagram reads the next datagram, into buf where that has room for it.
// It returns io.EOF at the end, and io.ErrUnexpectedEOF where one is cut.
func readDatagram(r io.Reader, buf []byte) ([]byte, error) {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	size := int(binary.BigEndian.Uint16(head[:]))
	if cap(buf) < size {
		buf = make([]byte, size)
	}
	p := buf[:size]
	if _, err := io.ReadFull(r, p); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return p, nil
}
