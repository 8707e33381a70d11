package config

import (
	"fmt"
	"net"
	"strconv"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/ranvier-mesh/ranvier/internal/identity"
)

// CertInit is the item "cert-init": make a CA.
type CertInit struct {
	Pos                 Pos
	CommonName          string
	Bits                int
	NotBefore, NotAfter time.Time // zero: the default
	OutCert, OutKey     string    // files
}

// CertRequest is the item "cert-makereq": make a key, or take one, and ask for
// its certificate.
type CertRequest struct {
	Pos           Pos
	Request       identity.SiteRequest
	Bits          int
	InKey, OutKey string // files, one of them
	OutReq        string // file
}

// CertSign is the item "cert-signreq": make a certificate of a request.
type CertSign struct {
	Pos                         Pos
	Req, CACert, CAKey, OutCert string // files
	NotBefore, NotAfter         time.Time
	Verify                      bool // the names have been looked at: do not ask
}

// Certs is what a file asks to be made, in the order in which it is done. Each is
// a CertInit, a CertRequest or a CertSign.
type Certs []any

// certItems are the items that make certificates.
func certItems() []item {
	return []item{
		{name: "cert-init", build: buildCertInit},
		{name: "cert-makereq", build: buildCertRequest},
		{name: "cert-signreq", build: buildCertSign},
	}
}

func buildCertInit(c *Config, f *fields) {
	c.Certs = append(c.Certs, CertInit{
		Pos: f.pos, CommonName: need(f, "commonname", asText), Bits: get(f, "bits", 0, asBits),
		NotBefore: get(f, "notbefore", time.Time{}, asTime), NotAfter: get(f, "notafter", time.Time{}, asTime),
		OutCert: need(f, "outcert", asText), OutKey: need(f, "outkey", asText),
	})
}

func buildCertRequest(c *Config, f *fields) {
	r := CertRequest{
		Pos: f.pos, Bits: get(f, "bits", 0, asBits),
		Request: identity.SiteRequest{
			CommonName: need(f, "commonname", asText),
			DNS:        get(f, "dnsname", nil, listOf(asHost)),
			IPs:        get(f, "ipaddress", nil, listOf(asIP)),
			Nodes:      get(f, "nodeid", nil, listOf(asNodeID)),
		},
		InKey: get(f, "inkey", "", asText), OutKey: get(f, "outkey", "", asText),
		OutReq: need(f, "outreq", asText),
	}
	if (r.InKey == "") == (r.OutKey == "") {
		f.rep.errorf(f.pos, "", "one of inkey (a key that is there) and outkey (a new one) is needed")
	}
	c.Certs = append(c.Certs, r)
}

func buildCertSign(c *Config, f *fields) {
	c.Certs = append(c.Certs, CertSign{
		Pos: f.pos, Req: need(f, "req", asText), CACert: need(f, "cacert", asText), CAKey: need(f, "cakey", asText),
		OutCert: need(f, "outcert", asText), Verify: get(f, "verify", false, asBool),
		NotBefore: get(f, "notbefore", time.Time{}, asTime), NotAfter: get(f, "notafter", time.Time{}, asTime),
	})
}

// checkCerts tells whether the file is one that makes certificates, and then
// that it is for nothing else.
func checkCerts(c *Config, rep *report) bool {
	if len(c.Certs) == 0 {
		return false
	}
	if len(c.Listeners)+len(c.Peers)+len(c.ControlServices)+len(c.WorkCommands) > 0 || c.LocalOnly {
		rep.errorf(Pos{File: c.File}, "", "cert-init, cert-makereq and cert-signreq stand beside items of a node: give them a file, or a command line, of their own")
	}
	return true
}

func asBits(n *yaml.Node) (int, error) {
	s, err := asString(n)
	if err != nil {
		return 0, err
	}
	bits, err := strconv.Atoi(s)
	if err != nil || bits <= 0 {
		return 0, fmt.Errorf("%q is no number of bits", s)
	}
	return bits, nil
}

func asTime(n *yaml.Node) (time.Time, error) {
	s, err := asString(n)
	if err != nil || s == "" {
		return time.Time{}, err
	}
	for _, form := range []string{time.RFC3339, "2006-01-02 15:04:05", "2006-01-02"} {
		if t, err := time.Parse(form, s); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is no time: write it as 2030-12-31T23:59:59Z", s)
}

func asIP(n *yaml.Node) (net.IP, error) {
	s, err := asString(n)
	if err != nil {
		return nil, err
	}
	ip := net.ParseIP(s)
	if ip == nil {
		return nil, fmt.Errorf("%q is no IP address", s)
	}
	return ip, nil
}

// listOf makes a parser of lists, which may be empty, of a parser of one value.
func listOf[T any](parse func(*yaml.Node) (T, error)) func(*yaml.Node) ([]T, error) {
	return func(n *yaml.Node) ([]T, error) {
		if n.Kind == yaml.SequenceNode && len(n.Content) == 0 {
			return nil, nil
		}
		return asList(n, parse)
	}
}
