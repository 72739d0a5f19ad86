package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"labswarm/api"
	"labswarm/internal/units"
)

// hostCode prints the failure behind a code that was read out from a PC's screen.
func (e *env) hostCode(cmd *cobra.Command, code string) error {
	c := e.client()
	defer c.Close()
	r, err := c.Code(cmd.Context(), code)
	if err != nil {
		return err
	}
	if e.json {
		return e.printJSON(r)
	}
	return e.printf("%s", codeText(r))
}

func codeText(r api.ReadOut) string {
	var b strings.Builder
	state := "nothing was written, its old system is there"
	if r.PONR {
		state = "its old system is gone"
	}
	fmt.Fprintf(&b, "code      %s\nhost      %s in room %s; %s\ntime      %s\njob       %d, %s, attempt %d\nerror     %s\n",
		r.Code, r.Host, r.Room, state, r.Time.Local().Format(time.DateTime), r.Job, r.Image, r.Attempt, r.Error)
	if f := r.Fault; f != nil {
		fmt.Fprintf(&b, "fault     %s, %s at byte %d, sector %d (of 512 bytes)\n", orWord(f.Errno, "no errno"), f.Op, f.Off, f.Sector)
	}
	if d := r.Disk; d != nil {
		fmt.Fprintf(&b, "disk      %s %s, serial %s, %s, %s\n", d.Bus, d.Model, orDash(d.Serial), units.FormatBytes(d.Bytes), d.Name)
	}
	fmt.Fprintf(&b, "log       %s\n", orWord(r.Log, "none came from the PC"))
	return b.String()
}
