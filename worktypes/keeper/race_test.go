//go:build race

package keeper

const underRace = true
