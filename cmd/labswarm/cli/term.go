package cli

import (
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// isTerminalWriter reports whether w is a terminal.
func isTerminalWriter(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && isTerminal(f)
}

// canRedraw reports whether w is a terminal that can go back to the start of a
// line; others get plain lines.
func canRedraw(w io.Writer) bool {
	return isTerminalWriter(w) && os.Getenv("TERM") != "dumb" && os.Getenv("TERM") != ""
}

// cut shortens plain ASCII text to the width of the terminal w: a line that
// wraps cannot be drawn over.
func cut(text string, w io.Writer) string {
	f, ok := w.(*os.File)
	if !ok {
		return text
	}
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil || size.Col < 2 || len(text) < int(size.Col) {
		return text
	}
	return text[:size.Col-2] + "~"
}
