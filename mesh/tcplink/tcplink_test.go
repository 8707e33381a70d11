package tcplink

import (
	"testing"

	"github.com/ranvier-mesh/ranvier/mesh/link/linktest"
)

func TestConformance(t *testing.T) { linktest.Run(t, Transport{}, "127.0.0.1:0") }
