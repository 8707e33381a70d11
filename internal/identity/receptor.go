package identity

import (
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"net"

	"github.com/ranvier-mesh/ranvier/routing"
)

// receptorOID is the type of the otherName by which Receptor's certificates
// name a node.
func receptorOID() asn1.ObjectIdentifier {
	return asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 2312, 19, 1}
}

func sanOID() asn1.ObjectIdentifier { return asn1.ObjectIdentifier{2, 5, 29, 17} }

const maxReceptorIDs = 256

// ReceptorIDs returns the node ids that a certificate has in the way of
// Receptor: SAN otherNames 1.3.6.1.4.1.2312.19.1 with a UTF8String. A
// certificate without any gives none; one whose names cannot be read is an error.
func ReceptorIDs(c *x509.Certificate) ([]routing.NodeID, error) {
	var ids []routing.NodeID
	for _, e := range c.Extensions {
		if !e.Id.Equal(sanOID()) {
			continue
		}
		more, err := parseOtherNames(e.Value)
		if err != nil {
			return nil, fmt.Errorf("the certificate's alternative names: %w", err)
		}
		ids = append(ids, more...)
	}
	return ids, nil
}

// parseOtherNames reads a SubjectAltName (RFC 5280 section 4.2.1.6).
func parseOtherNames(san []byte) ([]routing.NodeID, error) {
	var names asn1.RawValue
	if rest, err := asn1.Unmarshal(san, &names); err != nil || len(rest) > 0 || names.Tag != asn1.TagSequence || !names.IsCompound {
		return nil, errors.New("they are not a sequence of names")
	}
	var ids []routing.NodeID
	for rest := names.Bytes; len(rest) > 0; {
		var name asn1.RawValue
		var err error
		if rest, err = asn1.Unmarshal(rest, &name); err != nil {
			return nil, errors.New("they are not a sequence of names")
		}
		if name.Class != asn1.ClassContextSpecific || name.Tag != 0 || !name.IsCompound {
			continue // no otherName
		}
		id, ok, err := parseOtherName(name.Bytes)
		if err != nil {
			return nil, err
		}
		if ok {
			ids = append(ids, id)
		}
		if len(ids) > maxReceptorIDs {
			return nil, fmt.Errorf("more than %d node ids", maxReceptorIDs)
		}
	}
	return ids, nil
}

// parseOtherName reads OtherName ::= SEQUENCE { type-id, value [0] EXPLICIT }.
func parseOtherName(der []byte) (routing.NodeID, bool, error) {
	var oid asn1.ObjectIdentifier
	rest, err := asn1.Unmarshal(der, &oid)
	if err != nil || !oid.Equal(receptorOID()) {
		return "", false, nil // somebody else's
	}
	var outer asn1.RawValue
	if _, err := asn1.Unmarshal(rest, &outer); err != nil || outer.Class != asn1.ClassContextSpecific || outer.Tag != 0 {
		return "", false, errors.New("a node id is not encoded as it should be")
	}
	var text string
	if tail, err := asn1.UnmarshalWithParams(outer.Bytes, &text, "utf8"); err != nil || len(tail) > 0 {
		return "", false, errors.New("a node id is not a UTF8String")
	}
	id := routing.NodeID(text)
	return id, true, id.Validate()
}

// ReceptorSAN returns a SubjectAltName that names nodes in Receptor's way, to
// be put among a certificate's extra extensions.
func ReceptorSAN(dns []string, ips []net.IP, ids []routing.NodeID) ([]byte, error) {
	var names []asn1.RawValue
	for _, d := range dns {
		names = append(names, asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 2, Bytes: []byte(d)})
	}
	for _, ip := range ips {
		if v4 := ip.To4(); v4 != nil {
			ip = v4
		}
		names = append(names, asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 7, Bytes: ip})
	}
	for _, id := range ids {
		oid, err := asn1.Marshal(receptorOID())
		if err != nil {
			return nil, err
		}
		text, err := asn1.MarshalWithParams(string(id), "utf8")
		if err != nil {
			return nil, err
		}
		value, err := asn1.Marshal(asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: text})
		if err != nil {
			return nil, err
		}
		names = append(names, asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: append(oid, value...)})
	}
	return asn1.Marshal(names)
}
