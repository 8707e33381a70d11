package identity

import (
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/fxamacker/cbor/v2"

	"github.com/ranvier-mesh/ranvier/internal/wire"
	"github.com/ranvier-mesh/ranvier/routing"
)

// Role is what a certificate allows a node to be.
type Role string

// The roles. A client attaches as an ephemeral node and nothing else; every
// certificate allows that much.
const (
	Router Role = "router"
	Leaf   Role = "leaf"
	Client Role = "client"
)

// ParseRole returns the role of that name.
func ParseRole(s string) (Role, error) {
	switch r := Role(s); r {
	case Router, Leaf, Client:
		return r, nil
	}
	return "", fmt.Errorf("role %q: router, leaf or client is allowed", s)
}

// Claims are what a certificate says of its owner.
type Claims struct {
	Mesh string
	ID   routing.NodeID
	Role Role
	// Work are the work types that the owner may submit; "*" is all.
	Work []string
}

// Owns tells whether the certificate's owner may call itself id: its own id,
// or one below it, "<id>/<random>", as ephemeral nodes have.
func (c Claims) Owns(id routing.NodeID) bool {
	return id == c.ID || strings.HasPrefix(string(id), string(c.ID)+"/")
}

// MayBe tells whether the owner may be id on a link in a role: only ephemeral
// nodes have ids below the owner's.
func (c Claims) MayBe(id routing.NodeID, role wire.Role) error {
	switch {
	case !c.Owns(id):
		return fmt.Errorf("its certificate is for node %s, not for %s", c.ID, id)
	case role == wire.RoleEphemeral:
		return nil
	case id != c.ID:
		return fmt.Errorf("id %s is below %s, and only ephemeral nodes have such ids", id, c.ID)
	case role == wire.RoleRouter && c.Role != Router, role == wire.RoleLeaf && c.Role == Client:
		return fmt.Errorf("its certificate is for a %s, which must not be a %s", c.Role, role)
	}
	return nil
}

// MayWork tells whether the certificate names a work type.
func (c Claims) MayWork(workType string) bool {
	return slices.Contains(c.Work, "*") || slices.Contains(c.Work, workType)
}

const (
	maxWork     = 32
	maxWorkLen  = routing.MaxNameLen
	maxMeshLen  = 63
	maxChain    = wire.MaxChain
	maxCertLen  = wire.MaxCertLen
	uriScheme   = "ranvier"
	nodePath    = "/node/"
	caPath      = "/ca"
	maxClaimLen = 4 << 10
)

// CheckMesh returns nil when name can be a mesh's: 1 to 63 lower-case letters,
// digits, dots and dashes, beginning with a letter or digit.
func CheckMesh(name string) error {
	ok := len(name) >= 1 && len(name) <= maxMeshLen && name[0] != '.' && name[0] != '-'
	for _, c := range name {
		ok = ok && (c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '.' || c == '-')
	}
	if !ok {
		return fmt.Errorf("mesh name %.100q: 1 to %d lower-case letters, digits, dots and dashes are allowed", name, maxMeshLen)
	}
	return nil
}

// check holds for what this CA issues. Ids below another's are for ephemeral
// nodes, so none is issued.
func (c Claims) check() error {
	if err := CheckMesh(c.Mesh); err != nil {
		return err
	}
	if err := c.ID.Validate(); err != nil {
		return err
	}
	if strings.Contains(string(c.ID), "/") {
		return fmt.Errorf("node id %s: one with a slash belongs to whoever has the part before it", c.ID)
	}
	if strings.EqualFold(string(c.ID), "localhost") {
		return errors.New("a node cannot be called localhost: that is every node's name for itself")
	}
	if _, err := ParseRole(string(c.Role)); err != nil {
		return err
	}
	return checkWork(c.Work)
}

func checkWork(work []string) error {
	if len(work) > maxWork {
		return fmt.Errorf("%d work types, at most %d are allowed", len(work), maxWork)
	}
	for _, w := range work {
		if w == "*" {
			continue
		}
		if err := wire.CheckWorkType(routing.WorkType{Name: w}); err != nil {
			return fmt.Errorf("work type %q: %w", w, err)
		}
	}
	return nil
}

func nodeURI(mesh string, id routing.NodeID) *url.URL {
	return &url.URL{Scheme: uriScheme, Host: mesh, Path: nodePath + string(id)}
}

// caURI is the name of the CA's join service, and with an id of an issuer on a node.
func caURI(mesh string, id routing.NodeID) *url.URL {
	p := caPath
	if id != "" {
		p += "/" + string(id)
	}
	return &url.URL{Scheme: uriScheme, Host: mesh, Path: p}
}

// claimsOID is where a certificate has the role and the work types: an arc
// below 2.25, where who needs one makes a number of his own (ITU-T X.667). The
// number is small because common X.509 libraries read no larger ones.
func claimsOID() asn1.ObjectIdentifier { return asn1.ObjectIdentifier{2, 25, 1382118966, 1} }

// claimsBody is the value of the extension, in deterministic CBOR.
//
//	key  field       type    limits
//	 1   role        text    router, leaf or client
//	 2   work types  [text]  at most 32; "*" is all
type claimsBody struct {
	Role string   `cbor:"1,keyasint"`
	Work []string `cbor:"2,keyasint,omitempty"`
}

func encodeClaims(c Claims) ([]byte, error) {
	return marshal(claimsBody{Role: string(c.Role), Work: c.Work})
}

// decodeClaims reads the extension. It is given whatever a peer sends.
func decodeClaims(value []byte) (Role, []string, error) {
	if len(value) > maxClaimLen {
		return "", nil, fmt.Errorf("the extension has %d bytes, at most %d are allowed", len(value), maxClaimLen)
	}
	var b claimsBody
	if err := wire.Unmarshal(value, &b); err != nil {
		return "", nil, err
	}
	role, err := ParseRole(b.Role)
	if err != nil {
		return "", nil, err
	}
	return role, b.Work, checkWork(b.Work)
}

// claimsOf reads who a certificate of the mesh's own CA is for. It must name
// exactly one node, so that there is nothing to choose from.
func claimsOf(c *x509.Certificate) (Claims, error) {
	var claims Claims
	if len(c.URIs) != 1 || c.URIs[0].Scheme != uriScheme {
		return claims, errors.New("the certificate names no node of a mesh (its URI is not ranvier://<mesh>/node/<id>)")
	}
	u := c.URIs[0]
	id, ok := strings.CutPrefix(u.Path, nodePath)
	if !ok || u.RawQuery != "" || u.Fragment != "" || u.User != nil || u.Opaque != "" {
		return claims, fmt.Errorf("the certificate's name %.300q is not that of a node", u)
	}
	claims.Mesh, claims.ID = u.Host, routing.NodeID(id)
	for _, e := range c.Extensions {
		if !e.Id.Equal(claimsOID()) {
			continue
		}
		var err error
		if claims.Role, claims.Work, err = decodeClaims(e.Value); err != nil {
			return claims, fmt.Errorf("the certificate of node %s: %w", claims.ID, err)
		}
	}
	if err := claims.check(); err != nil {
		return claims, fmt.Errorf("the certificate: %w", err)
	}
	return claims, nil
}

func marshal(v any) ([]byte, error) {
	o := cbor.CoreDetEncOptions()
	o.NilContainers = cbor.NilContainerAsEmpty
	enc, err := o.EncMode()
	if err != nil {
		return nil, err
	}
	return enc.Marshal(v)
}
