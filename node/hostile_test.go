package node

import (
	"net"
	"strings"
	"testing"
)

// An empty datagram ended a node of Receptor's. Here it, and others that are no
// QUIC, change nothing: links come up before and after.
func TestEmptyDatagrams(t *testing.T) {
	t.Parallel()
	for _, item := range []string{"quic-listener", "udp-listener"} {
		t.Run(item, func(t *testing.T) {
			t.Parallel()
			a, _ := run(t, datadir(t, "a")+"- "+item+": {bindaddr: 127.0.0.1, port: 0}\n")
			send := func() {
				conn, err := net.Dial("udp", "127.0.0.1:"+port(t, a))
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				for _, datagram := range []string{"", "\x00", "\x00\x00", "{}", strings.Repeat("\xff", 1200), strings.Repeat("\xc0", 1200)} {
					for range 50 {
						if _, err := conn.Write([]byte(datagram)); err != nil {
							t.Fatal(err)
						}
					}
				}
			}
			peer := "- quic-peer: {address: '127.0.0.1:" + port(t, a) + "'}\n"
			send()
			b, _ := run(t, datadir(t, "b")+peer)
			pings(t, b, "a")
			send()
			pings(t, b, "a")
			c, _ := run(t, datadir(t, "c")+peer)
			pings(t, c, "b")
		})
	}
}
