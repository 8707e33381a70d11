package identity

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/ranvier-mesh/ranvier/internal/wire"
	"github.com/ranvier-mesh/ranvier/routing"
)

const (
	// JoinProtocol is the ALPN protocol of the join service, on the listeners of
	// the CA's node (docs/protocol.md section 8.5).
	JoinProtocol = "ranvier-join/1"
	// RenewService is the mesh service that renews certificates, on the CA's node.
	RenewService = "ca"
	// JoinTime is how long joining may take in all.
	JoinTime = 10 * time.Second

	typeJoin    wire.Type = 0x40 // joinRequest
	typeRenew   wire.Type = 0x41 // renewRequest
	typeGrant   wire.Type = 0x42 // grantMessage
	typeRefusal wire.Type = 0x43 // refusalMessage

	maxJoinFrame = wire.MaxHelloFrame
)

// joinRequest spends a token.
//
//	key  field       type   limits
//	 1   secret      bytes  the token's, 16
//	 2   id          text   a node id
//	 3   key         bytes  ed25519 public key, 32
//	 4   signature   bytes  the key's, over secret, id and key: who joins has it
type joinRequest struct {
	Secret []byte         `cbor:"1,keyasint"`
	ID     routing.NodeID `cbor:"2,keyasint"`
	Key    []byte         `cbor:"3,keyasint"`
	Sig    []byte         `cbor:"4,keyasint"`
}

// renewRequest asks for another certificate for the same key. Whoever carries
// it, it is of use to the key's owner only.
//
//	key  field      type     limits
//	 1   chain      [bytes]  1 to 8 certificates in DER, the member's first; it holds
//	 2   asked      uint     seconds since 1970, by the asker's clock
//	 3   signature  bytes    that certificate's key's, over id and asked
type renewRequest struct {
	Chain [][]byte `cbor:"1,keyasint"`
	Asked int64    `cbor:"2,keyasint"`
	Sig   []byte   `cbor:"3,keyasint"`
}

func (r renewRequest) signed(mesh string, id routing.NodeID) []byte {
	return signed(domainRenew, mesh, []byte(id), binary.BigEndian.AppendUint64(nil, uint64(r.Asked)))
}

// grantMessage is a Grant as it travels.
//
//	key  field        type     limits
//	 1   mesh         text
//	 2   id           text
//	 3   role         text
//	 4   work         [text]
//	 5   CA           text     the node that renews
//	 6   chain        [bytes]  1 to 8 certificates in DER, the member's first
//	 7   roots        [bytes]  1 to 16 certificates in DER
//	 8   revocations  bytes    the newest signed list; may be absent
type grantMessage struct {
	Mesh        string         `cbor:"1,keyasint"`
	ID          routing.NodeID `cbor:"2,keyasint"`
	Role        string         `cbor:"3,keyasint"`
	Work        []string       `cbor:"4,keyasint,omitempty"`
	CA          routing.NodeID `cbor:"5,keyasint"`
	Chain       [][]byte       `cbor:"6,keyasint"`
	Roots       [][]byte       `cbor:"7,keyasint"`
	Revocations []byte         `cbor:"8,keyasint,omitempty"`
}

// refusalMessage is why there is no grant.
//
//	key  field   type  limits
//	 1   reason  text  for people
//	 2   busy    bool  true: asking again in a moment may do; absent for false
type refusalMessage struct {
	Reason string `cbor:"1,keyasint"`
	Busy   bool   `cbor:"2,keyasint,omitempty"`
}

// RefusedError is the CA's refusal of a join or a renewal.
type RefusedError struct {
	Reason string
	Busy   bool // too many asked at once; it may grant the same in a moment
}

// Error says why.
func (e *RefusedError) Error() string { return "the CA refused: " + e.Reason }

// answer writes a grant, or why there is none.
func answer(conn net.Conn, g *Grant, err error) error {
	var frame []byte
	var bad error
	if err == nil {
		frame, bad = wire.AppendMessage(nil, typeGrant, grantMessage{g.Mesh, g.ID, string(g.Role), g.Work, g.CA, g.Chain, g.Roots, g.Revocations})
	} else {
		frame, bad = wire.AppendMessage(nil, typeRefusal, refusalMessage{err.Error(), errors.Is(err, errCrowded)})
	}
	if bad != nil {
		return bad
	}
	_, bad = conn.Write(frame)
	return bad
}

// readGrant reads the answer.
func readGrant(conn net.Conn) (*Grant, error) {
	t, body, err := wire.ReadFrame(conn, nil, wire.MaxFrame)
	if err != nil {
		return nil, fmt.Errorf("no answer from the CA: %w", err)
	}
	switch t {
	case typeRefusal:
		var r refusalMessage
		if err := wire.Unmarshal(body, &r); err != nil {
			return nil, err
		}
		return nil, &RefusedError{r.Reason, r.Busy}
	case typeGrant:
		var g grantMessage
		if err := wire.Unmarshal(body, &g); err != nil {
			return nil, err
		}
		claims := Claims{Mesh: g.Mesh, ID: g.ID, Role: Role(g.Role), Work: g.Work}
		if err := claims.check(); err != nil {
			return nil, fmt.Errorf("%w: grant: %w", wire.ErrMalformed, err)
		}
		return &Grant{Claims: claims, CA: g.CA, Chain: g.Chain, Roots: g.Roots, Revocations: g.Revocations}, nil
	}
	return nil, fmt.Errorf("%w: %v in place of a grant", wire.ErrMalformed, t)
}

// ServeJoin lets one node join over a connection with JoinTLS, which it closes.
// Whatever the other end sends, it holds at most 16 KiB of it and ends in JoinTime.
func (c *CA) ServeJoin(conn net.Conn, log *slog.Logger) {
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(tokenTime))
	r, err := readJoin(conn)
	c.answerJoin(conn, r, err, log)
}

// readJoin reads what a node that joins has to say.
func readJoin(conn net.Conn) (r joinRequest, err error) {
	t, body, err := wire.ReadFrame(conn, nil, maxJoinFrame)
	if err == nil && t != typeJoin {
		err = fmt.Errorf("%w: %v in place of a request to join", wire.ErrMalformed, t)
	}
	if err == nil {
		err = wire.Unmarshal(body, &r)
	}
	return r, err
}

// answerJoin decides on what readJoin has read.
func (c *CA) answerJoin(conn net.Conn, r joinRequest, err error, log *slog.Logger) {
	if err != nil {
		log.Warn("a node asked to join in a way that is not understood", "from", conn.RemoteAddr(), "err", err)
		return
	}
	conn.SetDeadline(time.Now().Add(JoinTime))
	g, err := c.join(r)
	if err != nil {
		log.Warn("a node was not let into the mesh", "node", r.ID, "from", conn.RemoteAddr(), "err", err)
	} else {
		log.Info("a node joined the mesh", "node", g.ID, "role", g.Role, "work", g.Work, "from", conn.RemoteAddr())
	}
	if err := answer(conn, g, err); err != nil {
		log.Warn("a node that joined did not get its certificate; it may ask again with the same token", "node", r.ID, "err", err)
	}
}

func (c *CA) join(r joinRequest) (*Grant, error) {
	if err := r.ID.Validate(); err != nil {
		return nil, err
	}
	if len(r.Key) != ed25519.PublicKeySize || len(r.Secret) != SecretLen {
		return nil, errors.New("the key or the secret is not of the right length")
	}
	key := ed25519.PublicKey(r.Key)
	if !ed25519.Verify(key, signed(domainJoin, c.mesh, r.Secret, []byte(r.ID), r.Key), r.Sig) {
		return nil, ErrSignature
	}
	return c.Redeem([SecretLen]byte(r.Secret), r.ID, key)
}

// ServeRenew renews the certificate of a member that proves itself to trust
// over conn, which it closes.
func (c *CA) ServeRenew(conn net.Conn, trust *Trust, log *slog.Logger) {
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(JoinTime))
	t, body, err := wire.ReadFrame(conn, nil, wire.MaxFrame)
	if err != nil || t != typeRenew {
		return
	}
	m, err := renewing(body, trust)
	var g *Grant
	if err == nil {
		g, err = c.Renew(m)
	}
	if err != nil {
		log.Warn("a certificate was not renewed", "node", m.ID, "err", err)
	} else {
		log.Info("a certificate was renewed", "node", m.ID)
	}
	if err := answer(conn, g, err); err != nil {
		log.Warn("a renewed certificate did not arrive", "node", m.ID, "err", err)
	}
}

// renewing finds out who asks.
func renewing(body []byte, trust *Trust) (Member, error) {
	var r renewRequest
	if err := wire.Unmarshal(body, &r); err != nil {
		return Member{}, err
	}
	m, err := trust.VerifyRaw(r.Chain, AsSigner)
	if err != nil {
		return m, err
	}
	key, ok := m.Key.(ed25519.PublicKey)
	if !ok || !ed25519.Verify(key, r.signed(trust.mesh, m.ID), r.Sig) {
		return m, fmt.Errorf("node %s: %w", m.ID, ErrSignature)
	}
	return m, nil
}

// Renew asks the CA's node, at the other end of conn, for a new certificate,
// and keeps it.
func (s *Self) Renew(conn net.Conn) error {
	conn.SetDeadline(time.Now().Add(JoinTime))
	r := renewRequest{Chain: s.Certificate().Certificate, Asked: s.trust.clock.Now().Unix()}
	r.Sig = ed25519.Sign(s.key, r.signed(s.Mesh, s.ID))
	frame, err := wire.AppendMessage(nil, typeRenew, r)
	if err != nil {
		return err
	}
	if _, err := conn.Write(frame); err != nil {
		return fmt.Errorf("ask for a new certificate: %w", err)
	}
	g, err := readGrant(conn)
	if err != nil {
		return fmt.Errorf("ask for a new certificate: %w", err)
	}
	return s.Renewed(g)
}

func askToJoin(conn net.Conn, t Token, id routing.NodeID, key ed25519.PrivateKey) (*Grant, error) {
	public := key.Public().(ed25519.PublicKey)
	frame, err := wire.AppendMessage(nil, typeJoin, joinRequest{
		Secret: t.Secret[:], ID: id, Key: public,
		Sig: ed25519.Sign(key, signed(domainJoin, t.Mesh, t.Secret[:], []byte(id), public)),
	})
	if err != nil {
		return nil, err
	}
	if _, err := conn.Write(frame); err != nil {
		return nil, fmt.Errorf("ask to join: %w", err)
	}
	g, err := readGrant(conn)
	if err != nil {
		return nil, err
	}
	if g.ID != id || g.Mesh != t.Mesh {
		return nil, fmt.Errorf("the CA made a certificate for node %s of mesh %s, asked for was node %s of mesh %s", g.ID, g.Mesh, id, t.Mesh)
	}
	return g, nil
}

// begin keeps a first grant as an identity. root is the one that is trusted
// beforehand.
func begin(dir string, key ed25519.PrivateKey, g *Grant, root *x509.Certificate, clock *Clock) (*Self, error) {
	chain, err := parseChain(g.Chain)
	if err != nil {
		return nil, err
	}
	trust := NewTrust(g.Mesh, []*x509.Certificate{root}, clock)
	s, err := newSelf(key, chain, trust)
	if err != nil {
		return nil, fmt.Errorf("the CA's certificate is of no use: %w", err)
	}
	// Old roots that are still in use: the CA's own word is good for them here.
	roots, err := parseRoots(g.Roots)
	if err != nil {
		return nil, err
	}
	trust.setRoots(append([]*x509.Certificate{root}, others(roots, root)...))
	if len(g.Revocations) > 0 {
		if _, err := trust.Revoke(g.Revocations); err != nil {
			return nil, err
		}
	}
	s.dir, s.CA = dir, g.CA
	return s, s.Save()
}

func others(all []*x509.Certificate, but *x509.Certificate) (out []*x509.Certificate) {
	for _, c := range all {
		if !c.Equal(but) {
			out = append(out, c)
		}
	}
	return out
}

// Begin makes the identity of the CA's own node.
func Begin(ca *CA, claims Claims, dir string) (*Self, error) {
	key, err := pendingKey(dir)
	if err != nil {
		return nil, err
	}
	g, err := ca.Enrol(claims, key.Public().(ed25519.PublicKey))
	if err != nil {
		return nil, err
	}
	return ca.begin(dir, key, g)
}

// BeginAgain makes the identity of the CA's own node anew: with its key where dir
// has that (its certificate ended while it was off), else with another one,
// and then the old key is revoked (its host was lost).
func BeginAgain(ca *CA, dir string) (*Self, error) {
	key, err := readKey(filepath.Join(dir, keyFile))
	if errors.Is(err, fs.ErrNotExist) {
		key, err = pendingKey(dir)
	}
	if err != nil {
		return nil, err
	}
	g, err := ca.Reenrol(key.Public().(ed25519.PublicKey))
	if err != nil {
		return nil, err
	}
	return ca.begin(dir, key, g)
}

func (c *CA) begin(dir string, key ed25519.PrivateKey, g *Grant) (*Self, error) {
	roots, err := c.Roots()
	if err != nil {
		return nil, err
	}
	return begin(dir, key, g, roots[0], c.clock)
}

// pendingKey makes dir and a key in it. A key that an attempt before has left
// is taken again: the CA may have certified it already.
func pendingKey(dir string) (ed25519.PrivateKey, error) {
	if _, err := os.Stat(filepath.Join(dir, infoFile)); err == nil {
		return nil, fmt.Errorf("%s has an identity already: name another directory, or remove it first", dir)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	file := filepath.Join(dir, keyFile)
	if key, err := readKey(file); err == nil {
		return key, nil
	}
	key, err := NewKey()
	if err != nil {
		return nil, err
	}
	text, err := encodeKey(key)
	if err != nil {
		return nil, err
	}
	return key, writeFile(file, text, 0o600)
}

// Volatile makes an identity that is on no disk, of a key that the CA gives a
// certificate for: of a node in memory.
func Volatile(ca *CA, claims Claims, key ed25519.PrivateKey) (*Self, error) {
	chain, err := ca.issue(Claims{Mesh: ca.mesh, ID: claims.ID, Role: claims.Role, Work: claims.Work}, key.Public())
	if err != nil {
		return nil, err
	}
	roots, err := ca.Roots()
	if err != nil {
		return nil, err
	}
	s, err := newSelf(key, chain, NewTrust(ca.mesh, roots, ca.clock))
	if err != nil {
		return nil, err
	}
	s.CA = ca.node
	return s, nil
}
