package screen

import (
	"fmt"
	"strings"
)

// enrolPage shows the code of an unknown PC as big as it can be read from
// across the room, and then who the PC is.
func (v View) enrolPage(p *page) {
	w := p.w
	p.blank()
	p.pair("labswarm   "+w.newPC, label(w.room, v.Room))
	p.blank()
	if v.Bound {
		p.banner(strings.ToUpper(ascii(v.Host)), "")
		p.blank()
		p.text(v.boundText(w))
	} else {
		p.banner(spaced(v.EnrolCode), "")
		p.blank()
		p.text(w.unknownPC)
		p.blank()
		p.lines = append(p.lines, wrapCommand("labswarm host enrol "+v.EnrolCode+" --room ROOM --seat SEAT", p.cols)...)
		p.blank()
		p.text(w.safe)
	}
	p.blank()
	p.flow("MAC "+v.MAC, w.serial+" "+dash(v.Serial))
	p.text(w.detail(v.Detail))
	p.blank()
	net := ""
	if v.SpeedMbps > 0 {
		net = fmt.Sprintf(w.network, v.SpeedMbps)
	}
	p.flow(label(w.server, v.Server), v.IP, net, label(w.agent, v.Version))
}

// wrapCommand is a command line, indented where there is room.
func wrapCommand(text string, cols int) []string {
	if len(text)+6 < cols {
		return []string{"      " + text}
	}
	lines := wrap(text, cols-6)
	for i := range lines {
		lines[i] = "    " + lines[i]
	}
	return lines
}

// enrolLine is the same for a serial console.
func (v View) enrolLine() string {
	if v.Bound {
		return strings.Join(present(v.boundText(&english), v.Detail), " | ")
	}
	return strings.Join(present("ENROL CODE "+v.EnrolCode, "MAC "+v.MAC, "serial "+dash(v.Serial), v.Detail), " | ")
}

func (v View) boundText(w *words) string {
	if v.Seat == "" {
		return fmt.Sprintf(w.bound, v.Host, v.Room)
	}
	return fmt.Sprintf(w.boundSeat, v.Host, v.Seat, v.Room)
}

// spaced is a code in two groups.
func spaced(code string) string {
	if len(code) != 6 {
		return code
	}
	return code[:3] + " " + code[3:]
}
