package ident

import "strings"

// JunkUUID reports whether a UUID is no evidence: not a UUID at all, all zero,
// all ones, one repeated digit, or the value that board makers forget to set
// (in either byte order).
func JunkUUID(u string) bool {
	c, err := ParseUUID(u)
	if err != nil {
		return true
	}
	digits := strings.ReplaceAll(c, "-", "")
	if strings.Trim(digits, digits[:1]) == "" {
		return true
	}
	return SameUUID(c, "03000200-0400-0500-0006-000700080009")
}

// NormSerial returns a serial number with blanks trimmed and inner runs of
// blanks and control characters made one blank, or "" when it is junk.
func NormSerial(s string) string {
	s = strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f }), " ")
	if JunkSerial(s) {
		return ""
	}
	return s
}

// SameSerial compares two serials as people do: trimmed and without case. Junk
// equals nothing.
func SameSerial(a, b string) bool {
	a, b = NormSerial(a), NormSerial(b)
	return a != "" && strings.EqualFold(a, b)
}

// JunkSerial reports whether a serial (system, board, chassis, asset tag) is
// one of the fillers that factories leave, and so no evidence.
func JunkSerial(s string) bool {
	t := strings.ToLower(strings.TrimSpace(s))
	t = strings.TrimRight(t, ". ")
	switch t {
	case "", "to be filled by o.e.m", "to be filled by oem", "default string",
		"system serial number", "base board serial number", "chassis serial number",
		"none", "not specified", "not applicable", "not available", "n/a", "unknown",
		"oem", "o.e.m", "invalid", "empty", "0123456789", "123456789", "1234567890":
		return true
	}
	return strings.Trim(t, t[:1]) == "" // one repeated character
}
