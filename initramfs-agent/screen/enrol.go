package screen

import (
	"fmt"
	"strings"
)

// enrolPage shows the code of an unknown PC as big as it can be read from
// across the room, and then who the PC is.
func (v View) enrolPage() []string {
	head, lines := "  labswarm   new PC", []string{""}
	big, text := spaced(v.EnrolCode), []string{
		"  This PC is not known yet. The admin types this code and its seat:", "",
		"      labswarm host enrol " + v.EnrolCode + " --room ROOM --seat SEAT", "",
		"  Its disk is not touched, nothing can be written now. You may switch off."}
	if v.Bound {
		big = strings.ToUpper(v.Host)
		text = []string{"  " + v.boundText(), "", "  Its disk was not touched."}
	}
	lines = append(lines, fit(head, room(v.Room)), "")
	lines = append(lines, banner(big, "")...)
	lines = append(lines, "")
	lines = append(lines, text...)
	lines = append(lines, "", "  MAC     "+v.MAC, "  serial  "+dash(v.Serial), "", "  "+v.Detail, "",
		"  "+strings.Join(present("server "+v.Server, v.IP, speed(v.SpeedMbps), "agent "+v.Version), "   "))
	for i := range lines {
		lines[i] = clip(lines[i])
	}
	return lines
}

// enrolLine is the same for a serial console.
func (v View) enrolLine() string {
	if v.Bound {
		return strings.Join(present(v.boundText(), v.Detail), " | ")
	}
	return strings.Join(present("ENROL CODE "+v.EnrolCode, "MAC "+v.MAC, "serial "+dash(v.Serial), v.Detail), " | ")
}

func (v View) boundText() string {
	if v.Seat == "" {
		return fmt.Sprintf("This PC is %s now, in room %s.", v.Host, v.Room)
	}
	return fmt.Sprintf("This PC is %s now, on seat %s of room %s.", v.Host, v.Seat, v.Room)
}

// spaced is a code in two groups.
func spaced(code string) string {
	if len(code) != 6 {
		return code
	}
	return code[:3] + " " + code[3:]
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
