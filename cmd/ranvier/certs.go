package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/ranvier-mesh/ranvier/internal/config"
	"github.com/ranvier-mesh/ranvier/internal/identity"
)

// makeCerts does what the items cert-init, cert-makereq and cert-signreq of a
// file say. in answers, and out shows, what cert-signreq asks.
func makeCerts(certs config.Certs, in io.Reader, out io.Writer) error {
	answers := bufio.NewReader(in)
	for _, c := range certs {
		var err error
		switch c := c.(type) {
		case config.CertInit:
			err = certInit(c)
		case config.CertRequest:
			err = certRequest(c)
		case config.CertSign:
			err = certSign(c, answers, out)
		default:
			err = fmt.Errorf("nobody makes a %T", c)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func certInit(c config.CertInit) error {
	if err := absent(c.Pos, "outcert", c.OutCert); err != nil {
		return err
	}
	cert, key, err := identity.SiteCA(c.CommonName, c.Bits, c.NotBefore, c.NotAfter)
	if err != nil {
		return c.Pos.Errorf("", "%w", err)
	}
	if err := create(c.Pos, "outkey", c.OutKey, key, 0o600); err != nil {
		return err
	}
	return create(c.Pos, "outcert", c.OutCert, cert, 0o644)
}

func certRequest(c config.CertRequest) error {
	if err := absent(c.Pos, "outreq", c.OutReq); err != nil {
		return err
	}
	var text []byte
	var err error
	if c.InKey != "" {
		if text, err = os.ReadFile(c.InKey); err != nil {
			return c.Pos.Errorf("inkey", "%w", err)
		}
	} else {
		if _, text, err = identity.SiteKey(c.Bits); err != nil {
			return c.Pos.Errorf("bits", "%w", err)
		}
		if err := create(c.Pos, "outkey", c.OutKey, text, 0o600); err != nil {
			return err
		}
	}
	key, err := identity.ParseSiteKey(text)
	if err != nil {
		return c.Pos.Errorf("inkey", "%s: %w", c.InKey, err)
	}
	csr, err := identity.SiteCSR(c.Request, key)
	if err != nil {
		return c.Pos.Errorf("", "%w", err)
	}
	return create(c.Pos, "outreq", c.OutReq, csr, 0o644)
}

func certSign(c config.CertSign, answers *bufio.Reader, out io.Writer) error {
	texts := map[string][]byte{}
	for key, file := range map[string]string{"req": c.Req, "cacert": c.CACert, "cakey": c.CAKey} {
		text, err := os.ReadFile(file)
		if err != nil {
			return c.Pos.Errorf(key, "%w", err)
		}
		texts[key] = text
	}
	csr, names, err := identity.ParseSiteCSR(texts["req"])
	if err != nil {
		return c.Pos.Errorf("req", "%s: %w", c.Req, err)
	}
	if !c.Verify {
		if err := confirm(names, answers, out); err != nil {
			return c.Pos.Errorf("", "%w", err)
		}
	}
	cert, err := identity.SignSiteCSR(csr, texts["cacert"], texts["cakey"], c.NotBefore, c.NotAfter)
	if err != nil {
		return c.Pos.Errorf("", "%w", err)
	}
	return create(c.Pos, "outcert", c.OutCert, cert, 0o644)
}

// confirm shows whom a certificate is for and asks whether it is to be made.
func confirm(r identity.SiteRequest, answers *bufio.Reader, out io.Writer) error {
	fmt.Fprintf(out, "Requested certificate:\n  Subject: CN=%s\n  DNS names: %s\n  IP addresses: %v\n  Node ids: %v\n",
		r.CommonName, strings.Join(r.DNS, ", "), r.IPs, r.Nodes)
	fmt.Fprint(out, "Sign certificate (yes/no)? ")
	line, err := answers.ReadString('\n')
	switch answer := strings.ToLower(strings.TrimSpace(line)); {
	case answer == "y" || answer == "yes":
		return nil
	case err != nil:
		return errors.New("nobody said yes, so nothing was signed (verify=true does not ask)")
	}
	return errors.New("the answer was not yes, so nothing was signed")
}

// absent refuses early to write over a file.
func absent(pos config.Pos, key, file string) error {
	if _, err := os.Lstat(file); !errors.Is(err, fs.ErrNotExist) {
		return pos.Errorf(key, "%s exists: remove it, or choose another name", file)
	}
	return nil
}

// create writes a new file, whole or not at all.
func create(pos config.Pos, key, file string, data []byte, mode fs.FileMode) error {
	if err := absent(pos, key, file); err != nil {
		return err
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return pos.Errorf(key, "%w", err)
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		os.Remove(file)
		return pos.Errorf(key, "%w", err)
	}
	return nil
}
