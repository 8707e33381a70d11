package wslink

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ranvier-mesh/ranvier/mesh/link"
	"github.com/ranvier-mesh/ranvier/mesh/link/linktest"
)

// server is a program that runs as a child of the test and listens on a port
// of loopback.
type server struct {
	addr string
	dir  string
}

// start writes the configuration, in which ADDR and DIR stand for the
// server's own, runs the command with it and waits until the port answers.
func start(t *testing.T, config string, command ...string) server {
	t.Helper()
	path, err := exec.LookPath(command[0])
	if err != nil { // not on the PATH of every user
		path, err = exec.LookPath("/usr/sbin/" + command[0])
	}
	if err != nil {
		t.Fatalf("%s is missing: scripts/setup installs it", command[0])
	}
	// Squid changes its user, which may not enter t.TempDir.
	dir, err := os.MkdirTemp("", "wslink-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	s := server{addr: freeAddr(t), dir: dir}
	file := filepath.Join(dir, "conf")
	if err := os.WriteFile(file, []byte(strings.NewReplacer("ADDR", s.addr, "DIR", dir).Replace(config)), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, append(command[1:], file)...)
	out := new(output)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	over := make(chan error, 1)
	go func() { over <- cmd.Wait() }()
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-over
	})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for tick := time.NewTicker(10 * time.Millisecond); ; {
		if c, err := net.Dial("tcp", s.addr); err == nil {
			c.Close()
			tick.Stop()
			return s
		}
		select {
		case <-tick.C:
		case err := <-over:
			over <- err
			t.Fatalf("%s ended: %v\n%s", command[0], err, out)
		case <-ctx.Done():
			t.Fatalf("%s does not listen\n%s", command[0], out)
		}
	}
}

type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// freeAddr returns an address that nobody listens on: the programs cannot
// choose a port of their own and tell it.
func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// nginx ends the TLS of wss and passes /PORT on to the node at that port.
func nginx(t *testing.T) (s server, client Transport) {
	t.Helper()
	cert, roots := linktest.Certificates(t)
	key, err := x509.MarshalPKCS8PrivateKey(cert.Certificates[0].PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	files := t.TempDir()
	for name, block := range map[string]*pem.Block{
		"cert.pem": {Type: "CERTIFICATE", Bytes: cert.Certificates[0].Certificate[0]},
		"key.pem":  {Type: "PRIVATE KEY", Bytes: key},
	} {
		if err := os.WriteFile(filepath.Join(files, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s = start(t, fmt.Sprintf(`
		daemon off;
		master_process off;
		pid DIR/pid;
		error_log stderr;
		events {}
		http {
			access_log off;
			client_body_temp_path DIR/body;
			proxy_temp_path DIR/proxy;
			fastcgi_temp_path DIR/fastcgi;
			uwsgi_temp_path DIR/uwsgi;
			scgi_temp_path DIR/scgi;
			server {
				listen ADDR ssl;
				ssl_certificate %[1]s/cert.pem;
				ssl_certificate_key %[1]s/key.pem;
				location ~ ^/([0-9]+)$ {
					proxy_pass http://127.0.0.1:$1/mesh;
					proxy_http_version 1.1;
					proxy_set_header Upgrade $http_upgrade;
					proxy_set_header Connection "upgrade";
				}
			}
		}`, files), "nginx", "-e", "stderr", "-c")
	return s, Transport{Secure: true, ClientTLS: roots}
}

// behind is a transport whose listeners stand behind nginx.
type behind struct {
	Transport        // dials
	front     string // host:port of nginx, as the dialling end calls it
}

func (b behind) Listen(ctx context.Context, addr string) (link.Listener, error) {
	l, err := Transport{}.Listen(ctx, addr+"/mesh")
	if err != nil {
		return nil, err
	}
	return fronted{l, b.front}, nil
}

type fronted struct {
	link.Listener
	front string
}

func (f fronted) Addr() net.Addr {
	host, _, _ := strings.Cut(f.Listener.Addr().String(), "/")
	_, port, _ := net.SplitHostPort(host)
	return text(f.front + "/" + port)
}

type text string

func (text) Network() string  { return "tcp" }
func (t text) String() string { return string(t) }

func TestConformanceBehindNginx(t *testing.T) {
	s, client := nginx(t)
	linktest.Run(t, behind{client, s.addr}, "127.0.0.1:0")
}

// squid is a proxy that alone knows where hub.test is.
func squid(t *testing.T) server {
	t.Helper()
	hosts := filepath.Join(t.TempDir(), "hosts")
	if err := os.WriteFile(hosts, []byte("127.0.0.1 hub.test\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for dir := filepath.Dir(hosts); dir != os.TempDir() && len(dir) > 1; dir = filepath.Dir(dir) {
		os.Chmod(dir, 0o755) // squid changes its user
	}
	return start(t, `
		http_port ADDR
		http_access deny !CONNECT
		http_access allow all
		hosts_file `+hosts+`
		pid_filename none
		cache deny all
		cache_log DIR/cache.log
		access_log stdio:DIR/access.log
		netdb_filename none
		coredump_dir DIR
		pinger_enable off
		shutdown_lifetime 0 seconds
	`, "squid", "-N", "-f")
}

// expect waits until the proxy's log says that it made a tunnel.
func (s server) expect(t *testing.T, want string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for tick := time.NewTicker(10 * time.Millisecond); ; {
		log, _ := os.ReadFile(filepath.Join(s.dir, "access.log"))
		if strings.Contains(string(log), want) {
			tick.Stop()
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("squid's log lacks %q:\n%s", want, log)
		}
	}
}

func TestConformanceThroughSquid(t *testing.T) {
	s := squid(t)
	via := Transport{Proxy: func(*url.URL) (*url.URL, error) { return url.Parse("http://" + s.addr) }}
	linktest.Run(t, via, "127.0.0.1:0")
	s.expect(t, "CONNECT 127.0.0.1:")
}

// The whole way of a site behind a proxy: the environment names the proxy,
// which resolves the name, and nginx ends the TLS.
func TestThroughSquidToNginx(t *testing.T) {
	s := squid(t)
	front, client := nginx(t)
	_, port, _ := net.SplitHostPort(front.addr)
	t.Setenv("HTTPS_PROXY", "http://"+s.addr)
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1") // not for wss
	t.Setenv("NO_PROXY", "")
	linktest.Run(t, behind{client, "hub.test:" + port}, "127.0.0.1:0")
	s.expect(t, "CONNECT hub.test:"+port)
}

func TestTheEnvironmentNamesAProxyForWs(t *testing.T) {
	s := squid(t)
	t.Setenv("HTTP_PROXY", s.addr)
	t.Setenv("HTTPS_PROXY", "")
	t.Setenv("NO_PROXY", "")
	_, port, _ := net.SplitHostPort(accepting(t, Transport{}, "127.0.0.1:0"))
	k, err := Transport{}.Dial(t.Context(), "hub.test:"+port)
	if err != nil {
		t.Fatal(err)
	}
	k.Close()
	_, err = Transport{}.Dial(t.Context(), "nowhere.test:"+port)
	if err == nil || !strings.Contains(err.Error(), "it refused to connect to nowhere.test:"+port+": 50") {
		t.Errorf("dial of a name that the proxy does not know: %v", err)
	}
	t.Setenv("NO_PROXY", "hub.test")
	if _, err := (Transport{}).Dial(t.Context(), "hub.test:"+port); err == nil {
		t.Error("NO_PROXY is ignored")
	}
}
