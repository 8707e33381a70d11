package identity

import (
	"errors"
	"time"
)

const (
	// maxJoins is how many nodes may be about to show a token at a time, and
	// joinsOfHost of these from one host.
	maxJoins, joinsOfHost = 64, 16
	// tokenTime is how long a node may take to show its token.
	tokenTime = 3 * time.Second
	// maxPartings is how many at a time are told that they have lost their place,
	// for at most partingTime each.
	maxPartings = 16
	partingTime = time.Second
)

// errCrowded is what a node hears that had to make room for another one.
var errCrowded = errors.New("too many nodes ask to join at once: try again")
