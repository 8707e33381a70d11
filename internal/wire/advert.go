package wire

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"

	"github.com/ranvier-mesh/ranvier/routing"
)

// Envelope carries an advert and the signature over exactly its bytes
// (docs/protocol.md section 3.7). Key id and signature are both there, or
// neither: unsigned is accepted only where there are no identities.
//
//	key  field      type   limits
//	 1   body       bytes  the advert, CBOR: see advertBody; at most MaxAdvert
//	 2   signature  bytes  at most 1024
//	 3   key id     bytes  at most 64: names the Cert that came before
type Envelope struct {
	Body  []byte `cbor:"1,keyasint"`
	Sig   []byte `cbor:"2,keyasint,omitempty"`
	KeyID []byte `cbor:"3,keyasint,omitempty"`
}

var errHalfSigned = errors.New("key id: it and a signature are only allowed together")

func (e Envelope) check() error {
	if (len(e.Sig) == 0) != (len(e.KeyID) == 0) {
		return errHalfSigned
	}
	return cmp.Or(
		checkBytes("body", e.Body, 1, MaxAdvert),
		checkBytes("signature", e.Sig, 0, MaxSigLen),
		checkBytes("key id", e.KeyID, 0, MaxKeyIDLen),
	)
}

// ParseEnvelope decodes an envelope as routing.Advert.Raw holds it, and leaves
// the advert in it alone. Errors wrap ErrMalformed.
func ParseEnvelope(raw []byte) (Envelope, error) { return parseMessage[Envelope](TypeAdvert, raw) }

// Encode returns e as it travels: what routing.Advert.Raw holds and what
// AppendAdvert puts a header before. The error says which field breaks a rule.
func (e Envelope) Encode() ([]byte, error) {
	frame, err := appendMessage(nil, TypeAdvert, e)
	if err != nil {
		return nil, err
	}
	return frame[HeaderLen:], nil
}

// advertBody is what is signed. Keys that a reader does not know are ignored,
// and travel on as a part of Raw. The shape of the arrays never changes: what a
// later version has to add goes under keys of its own.
//
//	key  field       type     limits
//	 1   origin      text     a node id
//	 2   fragment    uint     16 bits
//	 3   epoch       uint     64 bits
//	 4   sequence    uint     64 bits
//	 5   draining    bool     counts in fragment 0 only
//	 6   insecure    bool     counts in fragment 0 only
//	 7   links       [array]  each [node id, uint cost 1 to 10^9]
//	 8   leaves      [array]  each [node id, uint cost 1 to 10^9, bytes signature]
//	 9   services    [array]  each [text name, uint connection type, {text: text} tags]
//	10   work types  [array]  each [text name, bool secure]
//
// Links, leaves, services and work types are at most 64 together, and what
// routing.Advert.Validate says holds; a name has 1 to 255 bytes, a service at
// most 32 tags. The whole has at most MaxAdvert bytes.
type advertBody struct {
	Origin    routing.NodeID `cbor:"1,keyasint"`
	Fragment  uint16         `cbor:"2,keyasint"`
	Epoch     uint64         `cbor:"3,keyasint"`
	Seq       uint64         `cbor:"4,keyasint"`
	Draining  bool           `cbor:"5,keyasint,omitempty"`
	Insecure  bool           `cbor:"6,keyasint,omitempty"`
	Links     []adjacency    `cbor:"7,keyasint,omitempty"`
	Leaves    []attachment   `cbor:"8,keyasint,omitempty"`
	Services  []service      `cbor:"9,keyasint,omitempty"`
	WorkTypes []workType     `cbor:"10,keyasint,omitempty"`
}

type adjacency struct {
	_    struct{} `cbor:",toarray"`
	To   routing.NodeID
	Cost routing.Cost
}

type attachment struct {
	_    struct{} `cbor:",toarray"`
	Leaf routing.NodeID
	Cost routing.Cost
	Sig  []byte
}

type service struct {
	_        struct{} `cbor:",toarray"`
	Name     string
	ConnType uint8
	Tags     map[string]string
}

type workType struct {
	_      struct{} `cbor:",toarray"`
	Name   string
	Secure bool
}

// MaxAdvert is the longest encoded advert in bytes: with the longest signature
// and key id its envelope still fits a frame.
const MaxAdvert = MaxFrame - MaxSigLen - MaxKeyIDLen - 64

// CheckService returns nil when s can be advertised, else an error that names
// what breaks a rule of routing.Service.Validate, or the text that is not
// UTF-8 without control characters.
func CheckService(s routing.Service) error {
	if err := cmp.Or(s.Validate(), checkText("name", s.Name, 1, MaxServiceLen)); err != nil {
		return err
	}
	for k, v := range s.Tags {
		err := cmp.Or(checkText("tag name", k, 0, routing.MaxTagLen), checkText("tag "+k, v, 0, routing.MaxTagLen))
		if err != nil {
			return err
		}
	}
	return nil
}

// CheckWorkType returns nil when w can be advertised, else an error that says
// what is wrong with its name.
func CheckWorkType(w routing.WorkType) error {
	return cmp.Or(w.Validate(), checkText("name", w.Name, 1, MaxServiceLen))
}

// checkAdvert adds to the rules of routing what matters once text is shown or
// encoded.
func checkAdvert(a *routing.Advert) error {
	if err := a.Validate(); err != nil {
		return err
	}
	for i, s := range a.Services {
		if err := CheckService(s); err != nil {
			return fmt.Errorf("advert of %s, fragment %d: services[%d]: %w", a.Origin, a.Fragment, i, err)
		}
	}
	for i, w := range a.WorkTypes {
		if err := CheckWorkType(w); err != nil {
			return fmt.Errorf("advert of %s, fragment %d: work types[%d]: %w", a.Origin, a.Fragment, i, err)
		}
	}
	return nil
}

// EncodeAdvert returns what is signed: a in deterministic CBOR, without Raw. The
// same advert always gives the same bytes. The error says which field breaks a
// rule, or that there are more than MaxAdvert bytes.
func EncodeAdvert(a *routing.Advert) (body []byte, err error) {
	if err := checkAdvert(a); err != nil {
		return nil, fmt.Errorf("encode: %w", err)
	}
	body, err = encMode.Marshal(toBody(a))
	if err == nil {
		err = checkBytes("body", body, 1, MaxAdvert)
	}
	if err != nil {
		return nil, fmt.Errorf("encode advert of %q, fragment %d: %w", a.Origin, a.Fragment, err)
	}
	return body, nil
}

// SealUnsigned encodes a and sets its Raw to an envelope without a signature,
// for a mesh without identities. Errors are those of EncodeAdvert.
func SealUnsigned(a *routing.Advert) error {
	body, err := EncodeAdvert(a)
	if err != nil {
		return err
	}
	raw, err := Envelope{Body: body}.Encode()
	if err != nil {
		return err
	}
	a.Raw = raw
	return nil
}

// AppendAdvert appends the frame of a sealed advert, whose Raw is given. It
// encodes nothing: an advert is encoded by its origin once and passed on as it
// came.
func AppendAdvert(dst, raw []byte) []byte {
	return append(AppendHeader(dst, TypeAdvert, len(raw)), raw...)
}

// ParseAdvert decodes the body of an Advert frame: the envelope, and the advert
// in it; the signature is not verified. Raw is a copy of frameBody, so the
// caller may use frameBody's memory again. Errors wrap ErrMalformed.
func ParseAdvert(frameBody []byte) (*routing.Advert, Envelope, error) {
	e, err := parseMessage[Envelope](TypeAdvert, frameBody)
	if err != nil {
		return nil, Envelope{}, err
	}
	var w advertBody
	if err := decodeMap(e.Body, &w); err != nil {
		return nil, Envelope{}, malformed(TypeAdvert, fmt.Errorf("body: %w", err))
	}
	a := w.advert()
	if err := checkAdvert(a); err != nil {
		return nil, Envelope{}, malformed(TypeAdvert, fmt.Errorf("body: %w", err))
	}
	a.Raw = bytes.Clone(frameBody)
	return a, e, nil
}

func toBody(a *routing.Advert) advertBody {
	return advertBody{
		Origin: a.Origin, Fragment: a.Fragment, Epoch: a.Epoch, Seq: a.Seq,
		Draining: a.Draining, Insecure: a.Insecure,
		Links: convert(a.Links, func(l routing.Adjacency) adjacency { return adjacency{To: l.To, Cost: l.Cost} }),
		Leaves: convert(a.Leaves, func(l routing.Attachment) attachment {
			return attachment{Leaf: l.Leaf, Cost: l.Cost, Sig: l.Sig}
		}),
		Services: convert(a.Services, func(s routing.Service) service {
			return service{Name: s.Name, ConnType: s.ConnType, Tags: s.Tags}
		}),
		WorkTypes: convert(a.WorkTypes, func(t routing.WorkType) workType {
			return workType{Name: t.Name, Secure: t.Secure}
		}),
	}
}

func (w *advertBody) advert() *routing.Advert {
	return &routing.Advert{
		Key:      routing.Key{Origin: w.Origin, Fragment: w.Fragment},
		Version:  routing.Version{Epoch: w.Epoch, Seq: w.Seq},
		Draining: w.Draining,
		Insecure: w.Insecure,
		Links:    convert(w.Links, func(l adjacency) routing.Adjacency { return routing.Adjacency{To: l.To, Cost: l.Cost} }),
		Leaves: convert(w.Leaves, func(l attachment) routing.Attachment {
			return routing.Attachment{Leaf: l.Leaf, Cost: l.Cost, Sig: l.Sig}
		}),
		Services: convert(w.Services, func(s service) routing.Service {
			return routing.Service{Name: s.Name, ConnType: s.ConnType, Tags: s.Tags}
		}),
		WorkTypes: convert(w.WorkTypes, func(t workType) routing.WorkType {
			return routing.WorkType{Name: t.Name, Secure: t.Secure}
		}),
	}
}

// convert keeps nil and empty lists nil, so that an advert is the same before
// and after its journey.
func convert[A, B any](list []A, f func(A) B) []B {
	if len(list) == 0 {
		return nil
	}
	out := make([]B, len(list))
	for i, v := range list {
		out[i] = f(v)
	}
	return out
}
