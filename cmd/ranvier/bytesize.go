package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// byteSize is a flag of so many bytes, with a unit or without.
type byteSize struct{ to *int64 }

func (s byteSize) String() string {
	if s.to == nil || *s.to == 0 {
		return ""
	}
	return strconv.FormatInt(*s.to, 10)
}
func (s byteSize) Type() string { return "size" }

// Set takes a number above 0, and a unit of 1000 (kB) or 1024 (KiB) bytes.
func (s byteSize) Set(text string) error {
	bad := fmt.Errorf("%q is no size: write it as 500MB or 2GiB", text)
	number := strings.TrimRight(text, "BbiKkMGTgmt ")
	unit := strings.ToLower(strings.TrimSpace(text[len(number):]))
	factor := 1.0
	if name := strings.TrimSuffix(unit, "b"); name != "" {
		base := 1000.0
		if b, binary := strings.CutSuffix(name, "i"); binary {
			name, base = b, 1024
		}
		power := strings.Index("kmgt", name)
		if power < 0 || len(name) != 1 {
			return bad
		}
		factor = math.Pow(base, float64(power+1))
	}
	n, err := strconv.ParseFloat(number, 64)
	if err != nil || !(n*factor >= 1) || n*factor > math.MaxInt64/2 {
		return bad
	}
	*s.to = int64(n * factor)
	return nil
}
