package memlink

import (
	"testing"

	"github.com/ranvier-mesh/ranvier/mesh/link/linktest"
)

func TestConformance(t *testing.T) { linktest.Run(t, &Network{}, "") }
