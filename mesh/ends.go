package mesh

import (
	"crypto/x509"
	"fmt"

	"github.com/ranvier-mesh/ranvier/mesh/secure"
	"github.com/ranvier-mesh/ranvier/routing"
)

// newEnds is how this node and the other ends of its streams prove to each
// other who they are: with the mesh's certificates, or with self-made ones that
// last as long as the process.
func newEnds(cfg Config) (*secure.Identity, error) {
	self := cfg.Self
	if self == nil {
		return secure.SelfMade(cfg.ID)
	}
	verify := func(peer routing.NodeID, chain []*x509.Certificate, dialled bool) error {
		member, err := self.Trust().Peer(chain, dialled)
		if err == nil && !member.Owns(peer) {
			err = fmt.Errorf("its certificate is for node %s", member.ID)
		}
		return err
	}
	return &secure.Identity{Certificate: self.Certificate, Verify: verify}, nil
}
