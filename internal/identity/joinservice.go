package identity

import (
	"crypto/tls"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// maxJoins is how many nodes may be joining at a time.
const maxJoins = 16

// JoinService lets nodes join over the listeners of the CA's node. Its methods
// may be called from several goroutines.
type JoinService struct {
	ca    *CA
	log   *slog.Logger
	joins chan struct{}

	mu   sync.Mutex
	cfg  *tls.Config
	made time.Time
}

// NewJoinService returns the join service of a CA.
func NewJoinService(ca *CA, log *slog.Logger) *JoinService {
	return &JoinService{ca: ca, log: log, joins: make(chan struct{}, maxJoins)}
}

// Config answers a client that wants to join with the CA's certificate, and nil
// to all others. It is a tls.Config's GetConfigForClient.
func (s *JoinService) Config(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	if !slices.Contains(hello.SupportedProtos, JoinProtocol) {
		return nil, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := time.Now(); s.cfg == nil || now.Sub(s.made) > time.Minute { // the issuer may be a new one
		cfg, err := s.ca.JoinTLS()
		if err != nil {
			s.log.Error("nobody can join: the CA cannot make a certificate", "err", err)
			return nil, err
		}
		s.cfg, s.made = cfg, now
	}
	return s.cfg, nil
}

// Serve lets one node join over a connection with Config, which it closes. Where
// too many are at it, it closes it at once.
func (s *JoinService) Serve(conn *tls.Conn) {
	select {
	case s.joins <- struct{}{}:
		defer func() { <-s.joins }()
		s.ca.ServeJoin(conn, s.log)
	default:
		s.log.Warn("too many nodes ask to join at once; one is turned away", "from", conn.RemoteAddr())
		conn.Close()
	}
}
