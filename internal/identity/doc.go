// Package identity says who is who in a mesh: keys, certificates, the mesh's
// certificate authority, join tokens, and what nodes sign
// (docs/protocol.md section 8).
//
// A mesh has one CA: a root whose key may stay offline, and an online
// intermediate, the issuer, on one node. The issuer's certificates live a week
// at most and are renewed at half their life. A Self is what a node is, a Trust
// is whom it believes, a CA is what issues. They hold no goroutine.
package identity
