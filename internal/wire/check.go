package wire

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/ranvier-mesh/ranvier/routing"
)

// The rules that fields share. Each returns nil or an error that begins with
// the field's name; messages join them with cmp.Or, the first fault wins.

func checkID(field string, id routing.NodeID) error {
	if err := id.Validate(); err != nil {
		return fmt.Errorf("%s: %w", field, err)
	}
	return nil
}

func checkIDs(field string, ids []routing.NodeID, max int) error {
	if err := checkLen(field, "ids", len(ids), 0, max); err != nil {
		return err
	}
	for i, id := range ids {
		if err := id.Validate(); err != nil {
			return fmt.Errorf("%s[%d]: %w", field, i, err)
		}
	}
	return nil
}

var (
	errUTF8    = errors.New("not valid UTF-8")
	errControl = errors.New("control characters are not allowed")
)

// checkText holds for text that programs compare: it is never changed on its
// way, so what could not be shown is refused.
func checkText(field, s string, min, max int) error {
	if err := checkLen(field, "bytes", len(s), min, max); err != nil {
		return err
	}
	if !utf8.ValidString(s) {
		return fmt.Errorf("%s: %w", field, errUTF8)
	}
	if strings.ContainsFunc(s, unicode.IsControl) {
		return fmt.Errorf("%s: %w", field, errControl)
	}
	return nil
}

func checkBytes(field string, b []byte, min, max int) error {
	return checkLen(field, "bytes", len(b), min, max)
}

func checkLen(field, unit string, n, min, max int) error {
	switch {
	case n >= min && n <= max:
		return nil
	case min == max:
		return fmt.Errorf("%s: %d %s, exactly %d are allowed", field, n, unit, max)
	}
	return fmt.Errorf("%s: %d %s, %d to %d are allowed", field, n, unit, min, max)
}

func checkCost(field string, c, min routing.Cost) error {
	if c < min || c > routing.MaxCost {
		return fmt.Errorf("%s: %d thousandths, %d to %d are allowed", field, uint32(c), min, uint32(routing.MaxCost))
	}
	return nil
}

// printable makes text for people safe to show: a peer's words must not move
// the cursor of whoever reads them. Each character that cannot be shown becomes
// a space, so text never grows.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsGraphic(r) {
			return r
		}
		return ' '
	}, s)
}

// clip makes any text fit a field for people: printable, valid UTF-8, and cut
// to max bytes between two characters. Words too long are never a reason not
// to say something.
func clip(s string, max int) string {
	if len(s) > max {
		n := max
		for n > 0 && !utf8.RuneStart(s[n]) {
			n--
		}
		s = s[:n]
	}
	return printable(strings.ToValidUTF8(s, " "))
}
