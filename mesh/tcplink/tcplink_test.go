package tcplink

import (
	"crypto/tls"
	"errors"
	"net"
	"testing"

	"go.uber.org/goleak"

	"github.com/ranvier-mesh/ranvier/mesh/link"
	"github.com/ranvier-mesh/ranvier/mesh/link/linktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) { linktest.Run(t, Transport{}, "127.0.0.1:0") }

func TestConformanceIPv6(t *testing.T) { linktest.Run(t, Transport{}, "[::1]:0") }

func TestConformanceWithTLS(t *testing.T) {
	server, client := linktest.Certificates(t)
	linktest.Run(t, Transport{ServerTLS: server, ClientTLS: client}, "127.0.0.1:0")
}

func TestConformanceWithARate(t *testing.T) {
	linktest.Run(t, Transport{}.With(link.Options{Rate: 20 << 20}), "127.0.0.1:0")
}

// dialOne dials a listener that accepts one link.
func dialOne(t *testing.T, server, client Transport) (link.Link, error) {
	l, err := server.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		if k, err := l.Accept(); err == nil {
			k.Accept()
			k.Close()
		}
	}()
	k, err := client.Dial(t.Context(), l.Addr().String())
	if err == nil {
		t.Cleanup(func() { k.Close() })
	}
	return k, err
}

func TestAnUnknownCertificateIsRefused(t *testing.T) {
	server, _ := linktest.Certificates(t)
	_, stranger := linktest.Certificates(t)
	_, err := dialOne(t, Transport{ServerTLS: server}, Transport{ClientTLS: stranger})
	var unknown *tls.CertificateVerificationError
	var op *net.OpError
	if !errors.As(err, &unknown) || !errors.As(err, &op) {
		t.Fatalf("dial: %v", err)
	}
}

func TestTLSIs13WithOurProtocol(t *testing.T) {
	server, client := linktest.Certificates(t)
	l, err := Transport{ServerTLS: server}.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			k, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				k.Accept()
				k.Close()
			}()
		}
	}()
	old := client.Clone()
	old.MaxVersion = tls.VersionTLS12
	if _, err := tls.Dial("tcp", l.Addr().String(), old); err == nil {
		t.Error("TLS 1.2 is taken")
	}
	other := client.Clone()
	other.NextProtos = []string{"h2"}
	if _, err := tls.Dial("tcp", l.Addr().String(), other); err == nil {
		t.Error("another protocol is taken")
	}
	client.NextProtos = []string{alpn}
	conn, err := tls.Dial("tcp", l.Addr().String(), client)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}

func TestNames(t *testing.T) {
	names := new(linktest.Names)
	linktest.RunNames(t, Transport{Resolver: names.Resolver()}, names, linktest.SamePort)
}
