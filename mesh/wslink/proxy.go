package wslink

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"syscall"

	"golang.org/x/net/proxy"
	"golang.org/x/sys/unix"
)

// through connects to a host and port through a proxy: http, https or socks5.
func through(ctx context.Context, d *net.Dialer, via *url.URL, hostPort string) (net.Conn, error) {
	switch via.Scheme {
	case "socks5", "socks5h":
		socks, err := proxy.FromURL(via, d)
		if err != nil {
			return nil, err
		}
		return socks.(proxy.ContextDialer).DialContext(ctx, "tcp", hostPort)
	case "http", "https":
	default:
		return nil, fmt.Errorf("scheme %q is not http, https or socks5", via.Scheme)
	}
	port := via.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[via.Scheme]
	}
	conn, err := d.DialContext(ctx, "tcp", net.JoinHostPort(via.Hostname(), port))
	if err != nil {
		return nil, err
	}
	if via.Scheme == "https" {
		conn = tls.Client(conn, &tls.Config{ServerName: via.Hostname()})
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	err = tunnel(conn, via, hostPort)
	if !stop() {
		err = ctx.Err()
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// tunnel asks the proxy for a tunnel to a host and port.
func tunnel(conn net.Conn, via *url.URL, hostPort string) error {
	req := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: hostPort}, Host: hostPort, Header: http.Header{}}
	if user := via.User; user != nil {
		password, _ := user.Password()
		req.Header.Set("Proxy-Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(user.Username()+":"+password)))
	}
	if err := req.Write(conn); err != nil {
		return err
	}
	r := bufio.NewReaderSize(conn, 16<<10) // bounds the answer's header lines too
	answer, err := http.ReadResponse(r, req)
	if err != nil {
		return fmt.Errorf("it gave no answer of HTTP: %w", err)
	}
	switch {
	case answer.StatusCode != http.StatusOK:
		return fmt.Errorf("it refused to connect to %s: %s", hostPort, answer.Status)
	case r.Buffered() > 0:
		return errors.New("it sent more than an answer")
	}
	return nil
}

// notSentLowat bounds what waits unsent in the kernel: without it a control
// message stands behind seconds of bulk on a slow uplink.
const notSentLowat = 64 << 10

func tune(_, _ string, c syscall.RawConn) error {
	return c.Control(func(fd uintptr) {
		// A kernel without the option only loses the shorter queue.
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, notSentLowat)
	})
}
