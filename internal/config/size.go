package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// asLimit is a size in bytes; none at all is -1, as 0 is a default.
func asLimit(n *yaml.Node) (int64, error) {
	size, err := asSize(n)
	if err == nil && size == 0 {
		size = -1
	}
	return size, err
}

// asSize is a number of bytes with or without a unit, as in 2GiB, 500 MB or
// 1048576.
func asSize(n *yaml.Node) (int64, error) {
	s, err := asString(n)
	if err != nil {
		return 0, err
	}
	at := strings.LastIndexAny(s, "0123456789.") + 1
	value, err := strconv.ParseFloat(s[:at], 64)
	unit, known := map[string]float64{
		"": 1, "b": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12,
		"kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40,
	}[strings.ToLower(strings.TrimSpace(s[at:]))]
	if value *= unit; err != nil || !known || !(value >= 0 && value < math.MaxInt64/2) {
		return 0, fmt.Errorf("%q is no size: write it as 2GiB, 500MB or a number of bytes", s)
	}
	return int64(value), nil
}
