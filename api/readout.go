package api

import (
	"strings"
	"time"
)

// Languages of the screens of PCs; the first is the one of rooms that name none.
func Languages() []string { return []string{"en", "it", "de", "es", "fr"} }

// ReadOutAlphabet has no characters that are misread on a screen or misheard on
// the telephone: 0 O 1 I L 5 S 8 B.
const ReadOutAlphabet = "234679ACDEFGHJKMNPQRTUVWXYZ"

// DiskFault is what a disk refused.
type DiskFault struct {
	Op     string `json:"op"`     // read, write, zero, flush
	Off    int64  `json:"offset"` // bytes from the start of the disk
	Sector int64  `json:"sector"` // the same in sectors of 512 bytes, as the kernel counts
	Errno  string `json:"errno"`  // EIO, "" = it was no error of the kernel
}

// ReadOut is a failure that was read out from a PC's screen: GET
// RouteCodes/{code}.
type ReadOut struct {
	Code    string     `json:"code"` // DW-4K7P
	Time    time.Time  `json:"time"` // when the server heard of it
	Host    string     `json:"host"`
	Room    string     `json:"room"`
	Job     uint64     `json:"job"`
	Image   string     `json:"image"`   // name/version
	Attempt int        `json:"attempt"` // of the host in the job
	PONR    bool       `json:"ponr"`    // the old content is gone
	Error   string     `json:"error"`
	Fault   *DiskFault `json:"disk_fault,omitempty"`
	Disk    *Disk      `json:"disk,omitempty"`
	Log     string     `json:"log,omitempty"` // file on the server with the agent's last lines, "" = none came
}

// RouteCodes is GET ReadOut by its code.
const RouteCodes = "/v1/codes"

// CheckReadOut brings a code into its form, as people type it: small letters, a
// blank or nothing in place of the hyphen. ok is false for what can be no code.
func CheckReadOut(text string) (code string, ok bool) {
	s := strings.ToUpper(strings.Join(strings.Fields(strings.ReplaceAll(text, "-", " ")), ""))
	if len(s) != 6 || strings.Trim(s[:2], "ABCDEFGHIJKLMNOPQRSTUVWXYZ") != "" || strings.Trim(s[2:], ReadOutAlphabet) != "" {
		return "", false
	}
	return s[:2] + "-" + s[2:], true
}
