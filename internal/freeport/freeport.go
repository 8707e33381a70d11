// Package freeport finds ports for tests whose nodes must listen on the same one
// again after they were killed.
package freeport

import (
	"math/rand/v2"
	"net"
	"strconv"
	"testing"
)

// Pick returns a port of 127.0.0.1 that nobody has, neither of TCP nor UDP. It is
// none that the kernel gives away: a port of that range would be somebody's
// end of a connection before its node listens again.
func Pick(t testing.TB) int {
	t.Helper()
	for range 1000 {
		port := 10_000 + rand.IntN(20_000)
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		l, err := net.Listen("tcp", addr)
		if err != nil {
			continue
		}
		u, err := net.ListenPacket("udp", addr)
		l.Close()
		if err != nil {
			continue
		}
		u.Close()
		return port
	}
	t.Fatal("no port is free")
	return 0
}
