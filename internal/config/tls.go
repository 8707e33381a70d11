package config

import (
	"fmt"

	"go.yaml.in/yaml/v3"

	"github.com/ranvier-mesh/ranvier/internal/identity"
)

// TLS is an item "tls-server" or "tls-client": certificates that a site has
// from elsewhere.
type TLS struct {
	Pos  Pos
	Name string // by which other items name it
	Item identity.TLSItem
}

// tlsItems are the items with certificates.
func tlsItems() []item {
	return []item{
		{name: "tls-server", build: buildTLSServer},
		{name: "tls-client", build: buildTLSClient},
	}
}

func buildTLSServer(c *Config, f *fields) {
	t := buildTLS(f)
	t.Item.RequireCert = get(f, "requireclientcert", false, asBool)
	t.Item.CAs = get(f, "clientcas", "", asText)
	t.Item.Pinned = get(f, "pinnedclientcert", nil, asPins)
	for _, k := range []struct{ key, value string }{{"cert", t.Item.Cert}, {"key", t.Item.Key}} {
		if k.value == "" && !f.wrong(k.key) {
			f.rep.errorf(f.pos, k.key, "it is missing: a server shows a certificate")
		}
	}
	if t.Item.RequireCert && t.Item.CAs == "" && len(t.Item.Pinned) == 0 {
		f.rep.warnf(f.pos, "requireclientcert", "without clientcas or pinnedclientcert whoever has a certificate that the system trusts is let in")
	}
	c.TLSServers = append(c.TLSServers, t)
}

func buildTLSClient(c *Config, f *fields) {
	t := buildTLS(f)
	t.Item.CAs = get(f, "rootcas", "", asText)
	t.Item.Pinned = get(f, "pinnedservercert", nil, asPins)
	t.Item.SkipVerify = get(f, "insecureskipverify", false, asBool)
	if (t.Item.Cert == "") != (t.Item.Key == "") && !f.wrong("cert") && !f.wrong("key") {
		f.rep.errorf(f.pos, "", "cert and key go together")
	}
	if t.Item.SkipVerify && len(t.Item.Pinned) == 0 {
		f.rep.warnf(f.pos, "insecureskipverify", "whoever answers is believed to be the server")
	}
	c.TLSClients = append(c.TLSClients, t)
}

// buildTLS reads the keys that both items have.
func buildTLS(f *fields) TLS {
	return TLS{Pos: f.pos, Name: need(f, "name", asName), Item: identity.TLSItem{
		Cert:      get(f, "cert", "", asText),
		Key:       get(f, "key", "", asText),
		SkipNames: get(f, "skipreceptornamescheck", false, asBool),
		MinTLS12:  !get(f, "mintls13", false, asBool),
	}}
}

func asPins(n *yaml.Node) ([]string, error) {
	pins, err := listOf(asText)(n)
	if err == nil {
		err = identity.CheckPins(pins)
	}
	return pins, err
}

// TLSClient returns the item tls-client of that name; false: there is none.
func (c *Config) TLSClient(name string) (TLS, bool) { return findTLS(c.TLSClients, name) }

// TLSServer returns the item tls-server of that name; false: there is none.
func (c *Config) TLSServer(name string) (TLS, bool) { return findTLS(c.TLSServers, name) }

func findTLS(all []TLS, name string) (TLS, bool) {
	for _, t := range all {
		if t.Name == name {
			return t, true
		}
	}
	return TLS{}, false
}

// side is which of the two TLS items a key names.
type side bool

const (
	server side = false
	client side = true
)

// tls reads a key that names a TLS item. The items may stand anywhere in the
// file, so set is called, with the item, when all have been read.
func (f *fields) tls(key string, s side, set func(c *Config, t *TLS)) {
	name := get(f, key, "", asString)
	if name == "" {
		return
	}
	g := f.given[f.index(key)]
	f.rep.later = append(f.rep.later, func(c *Config) {
		find, other, is, otherIs := c.TLSServer, c.TLSClient, "tls-server", "tls-client"
		if s == client {
			find, other, is, otherIs = other, find, otherIs, is
		}
		if t, ok := find(name); ok {
			set(c, &t)
			return
		}
		hint := fmt.Sprintf("; add an item %s with this name", is)
		if t, ok := other(name); ok {
			hint = fmt.Sprintf("; the %s on %s cannot be used here", otherIs, t.Pos.Place())
		}
		if !f.rep.unread {
			f.rep.errorf(g.pos, g.name, "there is no %s %q%s", is, name, hint)
		}
	})
}
