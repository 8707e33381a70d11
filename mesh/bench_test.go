package mesh

import (
	"fmt"
	"io"
	"testing"
)

// BenchmarkThroughput moves bytes one way over TCP on loopback.
func BenchmarkThroughput(b *testing.B) {
	for _, relays := range []int{0, 1, 3} {
		b.Run(fmt.Sprintf("relays=%d", relays), func(b *testing.B) {
			n := newNetOver(b, "tcp")
			near, far := stream(b, first(n.line(relays)), n.nodes[nodeID(relays+1)])
			buf := make([]byte, 64<<10)
			b.SetBytes(int64(len(buf)))
			received := make(chan error, 1)
			go func() {
				_, err := io.Copy(io.Discard, struct{ io.Reader }{far})
				received <- err
			}()
			for b.Loop() {
				if _, err := near.Write(buf); err != nil {
					b.Fatal(err)
				}
			}
			near.CloseWrite()
			if err := <-received; err != nil {
				b.Fatal(err)
			}
			near.Close()
			far.Close()
		})
	}
}

// BenchmarkFirstByte opens a stream, sends a byte, hears one, and closes.
func BenchmarkFirstByte(b *testing.B) {
	for _, relays := range []int{0, 2} { // 1 and 3 links
		b.Run(fmt.Sprintf("links=%d", relays+1), func(b *testing.B) {
			n := newNetOver(b, "tcp")
			from, to := n.line(relays)
			l, err := to.Listen("echo")
			if err != nil {
				b.Fatal(err)
			}
			go func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					go func() {
						io.CopyN(c, c, 1)
						c.Close()
					}()
				}
			}()
			one := make([]byte, 1)
			for b.Loop() {
				c, err := from.Dial(b.Context(), to.ID(), "echo")
				if err != nil {
					b.Fatal(err)
				}
				c.Write(one)
				if _, err := io.ReadFull(c, one); err != nil {
					b.Fatal(err)
				}
				c.Close()
			}
		})
	}
}
