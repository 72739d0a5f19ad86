package screen

import "strings"

// glyphs is 3x5 block letters, row by row, for reading from three metres. It is
// never changed.
var glyphs = map[rune]string{
	'A': "010101111101101", 'B': "110101110101110", 'C': "011100100100011", 'D': "110101101101110", 'E': "111100110100111",
	'F': "111100110100100", 'G': "011100101101011", 'H': "101101111101101", 'I': "111010010010111", 'J': "001001001101010",
	'K': "101101110101101", 'L': "100100100100111", 'M': "101111111101101", 'N': "110101101101101", 'O': "010101101101010",
	'P': "110101110100100", 'Q': "010101101110011", 'R': "110101110101101", 'S': "011100010001110", 'T': "111010010010010",
	'U': "101101101101111", 'V': "101101101101010", 'W': "101101111111101", 'X': "101101010101101", 'Y': "101101010010010",
	'Z': "111001010100111", '0': "111101101101111", '1': "010110010010111", '2': "111001111100111", '3': "111001011001111",
	'4': "101101111001001", '5': "111100111001111", '6': "111100111101111", '7': "111001001001001", '8': "111101111101111",
	'9': "111101111001111", '-': "000000111000000", '%': "101001010100101", ' ': "000000000000000",
}

// glyphWidth is the width of a block letter with the gap after it, in columns.
const glyphWidth = 5

// blocks is one of the five rows of a text in block letters.
func blocks(text string, row int) string {
	var b strings.Builder
	for _, c := range text {
		g := glyphs[c]
		if g == "" {
			g = glyphs[' ']
		}
		for _, bit := range g[row*3 : row*3+3] {
			if bit == '1' {
				b.WriteString("#")
			} else {
				b.WriteString(" ")
			}
		}
		b.WriteString("  ")
	}
	return b.String()
}
