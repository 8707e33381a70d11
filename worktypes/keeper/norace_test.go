//go:build !race

package keeper

const underRace = false
