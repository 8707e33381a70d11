package node

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/config"
	"github.com/ranvier-mesh/ranvier/internal/identity"
	"github.com/ranvier-mesh/ranvier/internal/policy"
	"github.com/ranvier-mesh/ranvier/internal/worktoken"
	"github.com/ranvier-mesh/ranvier/worktypes/remote"
)

// What a submit with, or without, a signature is told. The first is in Receptor's
// words.
var (
	errUnexpected = errors.New("work type did not expect a signature")
	errUnsigned   = errors.New("work of this type must be signed")
)

// signing is what a node signs work with, and checks signed work with. There are
// two kinds of signatures: ours, by a member of the mesh, over the one unit; and
// Receptor's tokens, which say only that somebody with the key wants work done
// here.
type signing struct {
	id       string
	log      *slog.Logger
	self     *identity.Self      // nil: no signatures of ours
	signer   *worktoken.Signer   // nil: no tokens are made
	verifier *worktoken.Verifier // nil: no token holds
	tokens   []string            // the work types with verifysignature
}

func (n *Node) openSigning() error {
	s := &n.signing
	s.id, s.log, s.self = string(n.cfg.Node.ID), n.log, n.self
	if w := n.cfg.WorkSigning; w.PrivateKey != "" {
		s.signer = &worktoken.Signer{KeyFile: w.PrivateKey, Life: w.TokenExpiration}
	}
	if w := n.cfg.WorkVerification; w.PublicKey != "" {
		s.verifier = &worktoken.Verifier{KeyFile: w.PublicKey}
	}
	for _, w := range n.cfg.WorkCommands {
		if !w.VerifySignature {
			continue
		}
		s.tokens = append(s.tokens, w.WorkType)
		if s.verifier == nil && n.self == nil {
			n.log.Warn("no work of this type can be taken from others: there is no work-verification item to check its signatures with", "worktype", w.WorkType, "item", w.Pos)
		}
	}
	for _, p := range n.cfg.WorkPolicies {
		if p.NeedSignature && n.self == nil {
			return p.Pos.Errorf("needsignature", `this node has no identity, so it knows nobody's signature: make one with "ranvier ca init" or "ranvier join"`)
		}
	}
	return nil
}

// secure reports whether submits of a type must be signed, whoever submits.
func (n *Node) secure(workType string) bool {
	return slices.Contains(n.signing.tokens, workType) || n.needSignature(workType)
}

// needSignature reports whether a work-policy item wants such work signed.
func (n *Node) needSignature(workType string) bool {
	return slices.ContainsFunc(n.cfg.WorkPolicies, func(p config.WorkPolicy) bool {
		return p.Kind == policy.Work && p.NeedSignature && policy.Match(p.Name, workType)
	})
}

// terms judges what is known of signatures when a submit begins, and says what
// remains to be looked at.
func (s *signing) terms(w policy.Who, o remote.Offer, grant policy.Grant) (remote.Terms, error) {
	terms := remote.Terms{Payload: grant.Payload}
	token := slices.Contains(s.tokens, o.Spec.Type)
	if o.Token != "" && token {
		if err := s.verifyToken(o.Token); err != nil {
			return terms, err
		}
		token = false
	} else if o.Token != "" && !grant.NeedSignature {
		return terms, errUnexpected
	}
	if !token && !grant.NeedSignature {
		return terms, nil
	}
	if !o.Signed || s.self == nil {
		return terms, fmt.Errorf("%w (%s): sign it with --sign, or with signwork where it is submitted", errUnsigned, o.Spec.Type)
	}
	terms.Verify = func(order identity.WorkOrder, signature []byte) error { return s.verify(w, grant, order, signature) }
	return terms, nil
}

func (s *signing) verifyToken(token string) error {
	if s.verifier == nil {
		return errors.New("this node has no work-verification item to check the work's signature with")
	}
	return s.verifier.Verify(token, s.id, time.Now())
}

// verify checks a signature of ours, and that its issuer counts.
func (s *signing) verify(w policy.Who, grant policy.Grant, o identity.WorkOrder, signature []byte) error {
	o.Node = s.self.ID
	if len(signature) == 0 {
		return errUnsigned
	}
	signer, early, err := s.self.Trust().VerifyWork(signature, o)
	if err != nil {
		return err
	}
	if early > 0 {
		s.log.Warn("the clock of who signed work is ahead of this node's", "issuer", signer.ID, "unit", o.Unit, "by", early)
	}
	issuer := policy.Who{ID: string(signer.ID), Proved: true, Role: string(signer.Role), Work: signer.Work}
	switch {
	case grant.Issuers == nil && issuer.ID != w.ID:
		return fmt.Errorf("unit %s is submitted by %s and signed by %s, whom no work-policy item names as an issuer", o.Unit, w.ID, issuer.ID)
	case grant.Issuers == nil, policy.Matches(grant.Issuers, issuer, o.Type),
		slices.Contains(grant.Issuers, "key:"+signer.SignKeyID().String()):
		return nil
	}
	return fmt.Errorf("the signature of %s (key:%s) does not count here: the issuers are %q", issuer.ID, signer.SignKeyID(), grant.Issuers)
}
