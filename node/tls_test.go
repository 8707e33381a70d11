package node

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/config"
	"github.com/ranvier-mesh/ranvier/internal/control"
	"github.com/ranvier-mesh/ranvier/internal/identity"
	"github.com/ranvier-mesh/ranvier/mesh/link"
	"github.com/ranvier-mesh/ranvier/mesh/quiclink"
	"github.com/ranvier-mesh/ranvier/mesh/tcplink"
	"github.com/ranvier-mesh/ranvier/mesh/wslink"
	"github.com/ranvier-mesh/ranvier/routing"
)

// site is a directory with a CA and certificates as Receptor's commands make
// them.
type site struct {
	t   *testing.T
	dir string
}

func newSite(t *testing.T, ca ...string) site {
	t.Helper()
	s := site{t, t.TempDir()}
	cert, key, err := identity.SiteCA("Site CA"+strings.Join(ca, ""), 0, time.Time{}, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	s.write("ca.crt", cert)
	s.write("ca.key", key)
	return s
}

func (s site) write(name string, data []byte) {
	s.t.Helper()
	if err := os.WriteFile(s.file(name), data, 0o600); err != nil {
		s.t.Fatal(err)
	}
}

func (s site) read(name string) []byte {
	s.t.Helper()
	data, err := os.ReadFile(s.file(name))
	if err != nil {
		s.t.Fatal(err)
	}
	return data
}

func (s site) file(name string) string { return filepath.Join(s.dir, name) }

// cert makes NAME.crt and NAME.key for nodes.
func (s site) cert(name string, ids ...routing.NodeID) {
	s.t.Helper()
	signer, key, err := identity.SiteKey(0)
	if err != nil {
		s.t.Fatal(err)
	}
	text, err := identity.SiteCSR(identity.SiteRequest{CommonName: name, IPs: []net.IP{net.IPv4(127, 0, 0, 1)}, Nodes: ids}, signer)
	if err != nil {
		s.t.Fatal(err)
	}
	csr, _, err := identity.ParseSiteCSR(text)
	if err != nil {
		s.t.Fatal(err)
	}
	cert, err := identity.SignSiteCSR(csr, s.read("ca.crt"), s.read("ca.key"), time.Time{}, time.Time{})
	if err != nil {
		s.t.Fatal(err)
	}
	s.write(name+".key", key)
	s.write(name+".crt", cert)
}

// item writes an item with NAME's certificate and more keys.
func (s site) item(item, name, cert, more string) string {
	text := fmt.Sprintf("- %s: {name: %s, cert: %s, key: %s", item, name, s.file(cert+".crt"), s.file(cert+".key"))
	if more != "" {
		text += ", " + strings.ReplaceAll(more, "CA", s.file("ca.crt"))
	}
	return text + "}\n"
}

func (s site) pin(cert string) string {
	block, _ := pem.Decode(s.read(cert + ".crt"))
	return fmt.Sprintf("%x", sha256.Sum256(block.Bytes))
}

// lines is a log whose lines can be waited for.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
	more chan struct{}
}

func newLines() *lines { return &lines{more: make(chan struct{}, 1)} }

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text.Write(p)
	select {
	case l.more <- struct{}{}:
	default:
	}
	return len(p), nil
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *lines) await(t *testing.T, what string) {
	t.Helper()
	over := time.After(20 * time.Second)
	for !strings.Contains(l.String(), what) {
		select {
		case <-l.more:
		case <-over:
			t.Fatalf("the log does not say %q:\n%s", what, l)
		}
	}
}

// run runs a node with all transports and its log until the test ends.
func run(t *testing.T, text string) (*Node, *lines) {
	t.Helper()
	return runConfig(t, parse(t, text), nil)
}

// runSource is run for a configuration that can be read again.
func runSource(t *testing.T, s config.Source) (*Node, *lines) {
	t.Helper()
	cfg, err := s.Load()
	if err != nil {
		t.Fatal(err)
	}
	return runConfig(t, cfg, s.Load)
}

func runConfig(t *testing.T, cfg *config.Config, load func() (*config.Config, error)) (*Node, *lines) {
	t.Helper()
	quic, err := quiclink.New(quiclink.Config{})
	if err != nil {
		t.Fatal(err)
	}
	ws := wslink.Transport{}
	wss := ws
	wss.Secure = true
	log := newLines()
	n, err := New(t.Context(), cfg, Options{
		Load: load, Transports: map[string]link.Transport{"tcp": tcplink.Transport{}, "quic": quic, "ws": ws, "wss": wss},
		Log: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})), Version: "1",
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	over, ready := make(chan error, 1), make(chan struct{})
	go func() { over <- n.Run(ctx, func([]string) { close(ready) }) }()
	<-ready
	t.Cleanup(func() {
		stop()
		if err := <-over; err != nil {
			t.Error(err)
		}
	})
	return n, log
}

// port returns the port of the first listener.
func port(t *testing.T, n *Node) string {
	t.Helper()
	_, hostPort, _ := strings.Cut(n.Addrs()[0], "://")
	hostPort, _, _ = strings.Cut(hostPort, "/")
	_, p, err := net.SplitHostPort(hostPort)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func datadir(t *testing.T, id string) string {
	return fmt.Sprintf("- node: {id: %s, datadir: %s}\n", id, t.TempDir())
}

func pings(t *testing.T, n *Node, target string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for {
		_, err := backend{n}.Ping(ctx, target)
		if err == nil {
			return
		}
		if ctx.Err() != nil {
			t.Fatal(err)
		}
	}
}

func TestLinksWithTheSitesCertificates(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.cert("a", "a")
	s.cert("b", "b")
	for scheme, address := range map[string]string{"tcp": "127.0.0.1:PORT", "quic": "127.0.0.1:PORT", "ws": "wss://127.0.0.1:PORT/mesh"} {
		t.Run(scheme, func(t *testing.T) {
			t.Parallel()
			path := ""
			if scheme == "ws" {
				path = ", path: /mesh"
			}
			a, _ := run(t, datadir(t, "a")+s.item("tls-server", "srv", "a", "requireclientcert: true, clientcas: CA")+
				fmt.Sprintf("- %s-listener: {bindaddr: 0.0.0.0, port: 0, tls: srv%s}\n", scheme, path))
			b, _ := run(t, datadir(t, "b")+s.item("tls-client", "cli", "b", "rootcas: CA, pinnedservercert: "+s.pin("a"))+
				fmt.Sprintf("- %s-peer: {address: '%s', tls: cli}\n", scheme, strings.ReplaceAll(address, "PORT", port(t, a))))
			pings(t, b, "a")
		})
	}
}

// Whoever a node does not let in is told in its log in one line that says why.
func TestPeersWithWrongCertificates(t *testing.T) {
	t.Parallel()
	s, other := newSite(t), newSite(t, " two")
	s.cert("a", "a")
	s.cert("b", "b")
	s.cert("c", "c")
	s.cert("nameless")
	other.cert("b", "b")
	server := s.item("tls-server", "srv", "a", "requireclientcert: true, clientcas: CA")
	client := s.item("tls-client", "cli", "b", "rootcas: CA")
	for name, tt := range map[string]struct{ server, client, atServer, atClient string }{
		"wrong CA": {server, other.item("tls-client", "cli", "b", "insecureskipverify: true"),
			"the peer's certificate \\\"b\\\": x509: certificate signed by unknown authority (the CAs are in " + s.file("ca.crt") + ")", ""},
		"no certificate": {server, "- tls-client: {name: cli, rootcas: " + s.file("ca.crt") + "}\n",
			"client didn't provide a certificate", ""},
		"no node id": {server, s.item("tls-client", "cli", "nameless", "rootcas: CA, skipreceptornamescheck: true"),
			"the peer's certificate \\\"nameless\\\": it names no node", "it names no node"},
		"another's id": {server, s.item("tls-client", "cli", "c", "rootcas: CA, skipreceptornamescheck: true"),
			"the peer's certificate \\\"c\\\": it is of the nodes [\\\"c\\\"], not of b", "not of b"},
		"not pinned by the server": {s.item("tls-server", "srv", "a", "requireclientcert: true, clientcas: CA, pinnedclientcert: ["+s.pin("c")+"]"), client,
			"the peer's certificate \\\"b\\\" is not among the pinned ones", ""},
		"not pinned by the client": {server, s.item("tls-client", "cli", "b", "rootcas: CA, pinnedservercert: "+s.pin("b")),
			"", "the peer's certificate \\\"a\\\" is not among the pinned ones: its SHA-256 is " + s.pin("a")},
		"server of a wrong CA": {server, strings.ReplaceAll(client, "rootcas: "+s.file("ca.crt"), "rootcas: "+other.file("ca.crt")),
			"", "the peer's certificate \\\"a\\\": x509: certificate signed by unknown authority"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, atA := run(t, datadir(t, "a")+tt.server+"- tcp-listener: {bindaddr: 127.0.0.1, port: 0, tls: srv}\n")
			_, atB := run(t, datadir(t, "b")+tt.client+"- tcp-peer: {address: '127.0.0.1:"+port(t, a)+"', tls: cli}\n")
			atA.await(t, tt.atServer)
			atB.await(t, tt.atClient)
		})
	}
}

// What is wrong with the node's own files is told at the start, with the item.
func TestWrongCertificatesOfItsOwn(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.cert("a", "a")
	s.cert("b", "b")
	s.cert("nameless")
	for name, tt := range map[string]struct{ items, want string }{
		"missing":       {s.item("tls-server", "srv", "none", ""), "test.yml:2: tls-server: read the certificate " + s.file("none.crt")},
		"another key":   {strings.Replace(s.item("tls-server", "srv", "a", ""), "a.key", "b.key", 1), "private key does not match public key"},
		"another node":  {s.item("tls-client", "cli", "b", ""), `test.yml:2: tls-client: key "cert": the certificate ` + s.file("b.crt") + `: it is of the nodes ["b"], not of a`},
		"no node":       {s.item("tls-server", "srv", "nameless", ""), "it names no node: it needs the node id as a SAN otherName 1.3.6.1.4.1.2312.19.1"},
		"no CAs":        {strings.Replace(s.item("tls-server", "srv", "a", "clientcas: CA"), "ca.crt", "ca.key", 1), "has no PEM block CERTIFICATE"},
		"open to all":   {s.item("tls-server", "srv", "a", "") + "- tcp-listener: {port: 0, tls: srv}\n", "requireclientcert"},
		"open to all 2": {"- control-service: {tcplisten: 0}\n", `key "tcplisten": anyone who reaches 0.0.0.0:0`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := New(t.Context(), parse(t, datadir(t, "a")+tt.items+"- local-only\n"), Options{Transports: map[string]link.Transport{"tcp": tcplink.Transport{}}})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
}

// A certificate that is renewed on disk holds from the next connection on.
func TestACertificateIsRenewedOnDisk(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.cert("a", "a")
	server, err := (identity.TLSItem{Cert: s.file("a.crt"), Key: s.file("a.key")}).Server()
	if err != nil {
		t.Fatal(err)
	}
	first, err := server.GetCertificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	s.cert("a", "a")
	later := time.Now().Add(time.Minute) // whatever the file system's resolution
	if err := os.Chtimes(s.file("a.crt"), later, later); err != nil {
		t.Fatal(err)
	}
	second, err := server.GetCertificate(nil)
	if err != nil || first.Leaf.Equal(second.Leaf) {
		t.Errorf("the old certificate is shown still: %v", err)
	}
	s.write("a.key", nil) // half done: what was there before goes on
	if third, err := server.GetCertificate(nil); err != nil || !third.Leaf.Equal(second.Leaf) {
		t.Errorf("a renewal that is under way: %v", err)
	}
}

// The control service over TCP, TLS, and TLS within the mesh.
func TestControlServiceOverTLS(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.cert("a", "a")
	s.cert("b", "b")
	server := s.item("tls-server", "srv", "a", "requireclientcert: true, clientcas: CA")
	a, log := run(t, datadir(t, "a")+server+"- tcp-listener: {bindaddr: 127.0.0.1, port: 0, tls: srv}\n"+
		"- control-service: {service: control, tls: srv, tcplisten: 0, tcptls: srv}\n"+
		"- control-service: {service: plain, tcplisten: '127.0.0.1:0'}\n- work-command: {worktype: cat, command: cat}\n")
	socket := s.file("b.sock")
	b, _ := run(t, datadir(t, "b")+"- control-service: {filename: "+socket+"}\n"+s.item("tls-client", "cli", "b", "rootcas: CA")+s.item("tls-client", "wrong", "b", "rootcas: CA, pinnedservercert: "+s.pin("b"))+
		"- tcp-peer: {address: '127.0.0.1:"+port(t, a)+"', tls: cli}\n")
	pings(t, b, "a")

	log.await(t, "whoever reaches this address may do everything")
	greets := func(conn net.Conn, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(20 * time.Second))
		if line, err := bufio.NewReader(conn).ReadString('\n'); line != "Receptor Control, node a\n" {
			t.Errorf("%q, %v", line, err)
		}
	}
	greets(net.Dial("tcp", a.sockets[1].Addr().String()))
	cert, err := tls.LoadX509KeyPair(s.file("b.crt"), s.file("b.key"))
	if err != nil {
		t.Fatal(err)
	}
	_, tlsPort, _ := net.SplitHostPort(a.sockets[0].Addr().String())
	greets(tls.Dial("tcp", "127.0.0.1:"+tlsPort, &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{cert}}))

	stream, err := backend{b}.Connect(t.Context(), "a", "control", "cli")
	if err != nil {
		t.Fatal(err)
	}
	greets(stream.(net.Conn), nil)
	if _, err := (backend{b}).Connect(t.Context(), "a", "control", "wrong"); err == nil || !strings.Contains(err.Error(), "not among the pinned") {
		t.Errorf("a wrong pin: %v", err)
	}
	if _, err := (backend{b}).Connect(t.Context(), "a", "control", "none"); err == nil || !strings.Contains(err.Error(), `no tls-client "none"`) {
		t.Errorf("an unknown client: %v", err)
	}
	st, err := backend{b}.Status(t.Context(), control.Fields{"Advertisements"})
	if err != nil {
		t.Fatal(err)
	}
	for _, ad := range st.Advertisements {
		if ad.NodeID != "a" {
			continue
		}
		if want := map[string]int{"control": 2, "plain": 1}[ad.Service]; ad.ConnType != want {
			t.Errorf("%s is told as %d", ad.Service, ad.ConnType)
		}
	}

	// work with secrets, over the site's TLS
	id := submit(t, socket, `{"command":"work","subcommand":"submit","node":"a","worktype":"cat","tlsclient":"cli"}`, "hello")
	out, err := b.work.Results(t.Context(), id, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if text, err := bufio.NewReader(out).ReadString('o'); text != "hello" {
		t.Errorf("output %q, %v", text, err)
	}
	if u := b.unitStatus(id); u.ExtraData.(extraData).TLSClient != "cli" {
		t.Errorf("status %+v", u)
	}
}

// submit submits work at a control socket and returns the unit.
func submit(t *testing.T, socket, request, input string) (id string) {
	t.Helper()
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	in := bufio.NewReader(conn)
	fmt.Fprintln(conn, request)
	in.ReadString('\n') // the greeting
	line, err := in.ReadString('\n')
	if _, serr := fmt.Sscanf(line, "Work unit created with ID %s Send stdin", &id); err != nil || serr != nil {
		t.Fatalf("%q, %v", line, err)
	}
	fmt.Fprint(conn, input)
	conn.(*net.UnixConn).CloseWrite()
	if line, err := in.ReadString('\n'); err != nil || !strings.Contains(line, `"result":"Job S`) {
		t.Fatalf("%q, %v", line, err)
	}
	return strings.TrimSuffix(id, ".")
}

// Certificates laid out as Receptor's cert-init, cert-makereq and cert-signreq lay them
// out, byte by byte where it counts: keys of PKCS #1, no key identifiers, and in the
// SAN an otherName whose value is a UTF8String, beside DNS names.
func TestCertificatesLaidOutAsReceptors(t *testing.T) {
	t.Parallel()
	s := site{t, t.TempDir()}
	key := func(name string) *rsa.PrivateKey {
		k, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			t.Fatal(err)
		}
		s.write(name+".key", pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(k)}))
		return k
	}
	cert := func(name string, template, parent *x509.Certificate, public *rsa.PublicKey, signer *rsa.PrivateKey) {
		template.NotBefore, template.NotAfter = time.Now().Add(-time.Minute), time.Now().Add(time.Hour)
		template.SerialNumber = big.NewInt(time.Now().UnixNano())
		der, err := x509.CreateCertificate(rand.Reader, template, parent, public, signer)
		if err != nil {
			t.Fatal(err)
		}
		s.write(name+".crt", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	}
	caKey := key("ca")
	ca := &x509.Certificate{Subject: pkix.Name{CommonName: "Receptor CA"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}}
	cert("ca", ca, ca, &caKey.PublicKey, caKey)
	for _, id := range []string{"a", "b"} {
		san := []byte{0x82, 9, 'l', 'o', 'c', 'a', 'l', 'h', 'o', 's', 't', // a DNS name
			0x87, 4, 127, 0, 0, 1, // an IP address
			0xa0, 0, // an otherName: 1.3.6.1.4.1.2312.19.1, and [0] with a UTF8String
			6, 9, 0x2b, 6, 1, 4, 1, 0x92, 8, 0x13, 1, 0xa0, 3, 0x0c, 1, id[0]}
		san[18] = byte(len(san) - 19)
		san = append([]byte{0x30, byte(len(san))}, san...)
		k := key(id)
		cert(id, &x509.Certificate{Subject: pkix.Name{CommonName: id}, KeyUsage: x509.KeyUsageDigitalSignature,
			ExtKeyUsage:     []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
			ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: san}}}, ca, &k.PublicKey, caKey)
	}
	a, _ := run(t, datadir(t, "a")+s.item("tls-server", "srv", "a", "requireclientcert: true, clientcas: CA")+"- tcp-listener: {port: 0, tls: srv}\n")
	b, _ := run(t, datadir(t, "b")+s.item("tls-client", "cli", "b", "rootcas: CA")+"- tcp-peer: {address: '127.0.0.1:"+port(t, a)+"', tls: cli}\n")
	pings(t, b, "a")
	// and each is held to its own name
	_, err := New(t.Context(), parse(t, datadir(t, "a")+s.item("tls-client", "cli", "b", "")+"- local-only\n"), Options{})
	if err == nil || !strings.Contains(err.Error(), `it is of the nodes ["b"], not of a`) {
		t.Errorf("the certificate of b at a: %v", err)
	}
}

// A site's certificates made with openssl are as good.
func TestCertificatesOfOpenSSL(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("openssl is not installed")
	}
	s := site{t, t.TempDir()}
	s.write("conf", []byte("[req]\ndistinguished_name=dn\n[dn]\n[ext]\nsubjectAltName=IP:127.0.0.1,otherName:1.3.6.1.4.1.2312.19.1;UTF8:NODE\n"))
	openssl := func(args string) {
		t.Helper()
		cmd := exec.Command("openssl", strings.Fields(args)...)
		cmd.Dir = s.dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("openssl %s: %v\n%s", args, err, out)
		}
	}
	openssl("req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=ca -keyout ca.key -out ca.crt")
	for _, id := range []string{"a", "b"} {
		s.write(id+".conf", []byte(strings.ReplaceAll(string(s.read("conf")), "NODE", id)))
		openssl("req -newkey rsa:2048 -nodes -subj /CN=" + id + " -keyout " + id + ".key -out " + id + ".req")
		openssl("x509 -req -in " + id + ".req -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extensions ext -extfile " + id + ".conf -out " + id + ".crt")
	}
	a, _ := run(t, datadir(t, "a")+s.item("tls-server", "srv", "a", "requireclientcert: true, clientcas: CA")+"- tcp-listener: {port: 0, tls: srv}\n")
	b, _ := run(t, datadir(t, "b")+s.item("tls-client", "cli", "b", "rootcas: CA")+"- tcp-peer: {address: '127.0.0.1:"+port(t, a)+"', tls: cli}\n")
	pings(t, b, "a")
	// and openssl reads ours
	site := newSite(t)
	site.cert("c", "c1", "c2")
	cmd := exec.Command("openssl", "verify", "-CAfile", site.file("ca.crt"), site.file("c.crt"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("openssl verify: %v\n%s", err, out)
	}
}
