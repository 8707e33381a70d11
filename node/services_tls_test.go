package node

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"testing"
	"time"
)

// The TLS of services: towards who connects, within the stream, and towards the
// address, each with a handshake of its own.
func TestServicesOverTLS(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.cert("a", "a")
	s.cert("b", "b")
	cert, err := tls.LoadX509KeyPair(s.file("a.crt"), s.file("a.key"))
	if err != nil {
		t.Fatal(err)
	}
	echo, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}})
	if err != nil {
		t.Fatal(err)
	}
	over := make(chan struct{})
	defer func() { echo.Close(); <-over }()
	go func() {
		defer close(over)
		for {
			c, err := echo.Accept()
			if err != nil {
				return
			}
			c.SetDeadline(time.Now().Add(30 * time.Second))
			io.Copy(c, c)
			c.Close()
		}
	}()
	a, _ := run(t, datadir(t, "a")+s.item("tls-server", "srv", "a", "requireclientcert: true, clientcas: CA")+s.item("tls-client", "out", "a", "insecureskipverify: true")+
		"- tcp-listener: {bindaddr: 127.0.0.1, port: 0}\n"+
		fmt.Sprintf("- tcp-client: {service: echo, address: '%s', tlsserver: srv, tlsclient: out}\n", echo.Addr()))
	entry, plain := freePort(t), freePort(t)
	b, _ := run(t, datadir(t, "b")+s.item("tls-server", "door", "b", "clientcas: CA")+s.item("tls-client", "cli", "b", "rootcas: CA")+
		"- tcp-peer: '127.0.0.1:"+port(t, a)+"'\n"+
		"- tcp-server: {bindaddr: 127.0.0.1, port: "+entry+", remotenode: a, remoteservice: echo, tlsserver: door, tlsclient: cli}\n"+
		"- tcp-server: {bindaddr: 127.0.0.1, port: "+plain+", remotenode: a, remoteservice: echo}\n")
	pings(t, b, "a")

	conn, err := tls.Dial("tcp", "127.0.0.1:"+entry, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	fmt.Fprintln(conn, "hello")
	if line, err := bufio.NewReader(conn).ReadString('\n'); err != nil || line != "hello\n" {
		t.Errorf("through three times TLS: %q, %v", line, err)
	}

	// Who does not speak the TLS that the service wants within the stream gets nothing.
	bare, err := net.Dial("tcp", "127.0.0.1:"+plain)
	if err != nil {
		t.Fatal(err)
	}
	defer bare.Close()
	bare.SetDeadline(time.Now().Add(30 * time.Second))
	fmt.Fprintln(bare, "hello")
	if line, _ := bufio.NewReader(bare).ReadString('\n'); line == "hello\n" {
		t.Error("the service answers without its TLS")
	}
}
