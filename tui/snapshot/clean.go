package snapshot

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Clean makes text from elsewhere harmless: names and error sentences come
// from machines and must not move the cursor or change colours. Line breaks
// and tabs become a space, other invisible characters go.
func Clean(s string) string {
	clean := true
	for i := 0; i < len(s); i++ {
		if s[i] < 0x20 || s[i] > 0x7e {
			clean = false
			break
		}
	}
	if clean {
		return s
	}
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t' || r == '\r':
			return ' '
		case r == utf8.RuneError:
			return '?'
		case !unicode.IsPrint(r) || unicode.Is(unicode.Variation_Selector, r):
			return -1
		}
		return r
	}, s)
}
