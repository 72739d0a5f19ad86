package cli

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"labswarm/api"
)

func newRoom(e *env) *cobra.Command {
	ls := &cobra.Command{Use: "ls", Short: "list the rooms", Args: exact(0), RunE: func(cmd *cobra.Command, _ []string) error {
		c := e.client()
		defer c.Close()
		rooms, err := c.Rooms(cmd.Context())
		if err != nil {
			return err
		}
		if e.json {
			return e.printJSON(rooms)
		}
		if len(rooms) == 0 {
			e.hint("no rooms yet: labswarm room add ROOM, or labswarm host add NAME --room ROOM --mac MAC")
		}
		for _, r := range rooms {
			seats := ""
			if len(r.Seats) > 0 {
				seats = fmt.Sprintf(" of %d seats", len(r.Seats))
			}
			if err := e.printf("%-16s %d hosts%s  %s\n", r.Name, len(r.Hosts), seats, r.Title); err != nil {
				return err
			}
		}
		return nil
	}}
	show := &cobra.Command{Use: "show ROOM", Short: "a room: its map, its seats, its hosts", Args: exact(1), RunE: func(cmd *cobra.Command, args []string) error {
		c := e.client()
		defer c.Close()
		r, err := c.Room(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		if e.json {
			return e.printJSON(r)
		}
		if err := e.printf("%s", roomText(r)); err != nil || len(r.Hosts) == 0 {
			return err
		}
		return e.hostList(cmd, r.Name, "")
	}}
	rm := &cobra.Command{Use: "rm ROOM", Short: "forget a room without hosts", Args: exact(1), RunE: func(cmd *cobra.Command, args []string) error {
		c := e.client()
		defer c.Close()
		if err := c.RemoveRoom(cmd.Context(), args[0]); err != nil {
			return err
		}
		return e.printf("room %s is forgotten\n", args[0])
	}}
	return group("room", "rooms", ls, show, newRoomEdit(e, true), newRoomEdit(e, false), rm, newLearn(e), newWaiting(e), newListImport(e, "rooms"), newListExport(e, "rooms"), newKnownHosts(e))
}

// roomText is what a room's record says, and its map.
func roomText(r api.Room) string {
	var b strings.Builder
	line := func(what, text string) {
		if text != "" {
			fmt.Fprintf(&b, "%-9s %s\n", what, text)
		}
	}
	line("room", strings.TrimSpace(r.Name+" "+r.Title))
	line("subnets", strings.Join(r.Subnets, " "))
	if r.Uplink > 0 {
		line("uplink", fmt.Sprintf("%d Mb/s", r.Uplink))
	}
	line("names", r.Template)
	line("language", r.Language)
	if r.Windows {
		line("windows", "names are held to its rules")
	}
	if w := r.Wake; w != nil {
		text := ""
		if w.Off {
			text = "not woken, switched on by hand"
		}
		line("wake", strings.TrimSpace(strings.Join([]string{text, w.Broadcast, number("hosts at once", w.Wave), number("s apart", w.PauseS)}, " ")))
	}
	b.WriteString(seatMap(r))
	return b.String()
}

func number(what string, n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n) + " " + what
}

// seatMap draws the seats where they stand: taken ones in brackets.
func seatMap(r api.Room) string {
	if r.Rows == 0 {
		return ""
	}
	cells, width := map[api.Spot]string{}, 6
	for _, s := range r.Seats {
		if s.Row == 0 {
			continue
		}
		text := " " + s.Label + " "
		if s.Host != "" {
			text = "[" + s.Label + "]"
		}
		cells[api.Spot{Row: s.Row, Col: s.Col}] = text
		width = max(width, len(text)+1)
	}
	for spot, text := range map[*api.Spot]string{r.Door: "door", r.Desk: "desk"} {
		if spot != nil {
			cells[*spot] = text
		}
	}
	var b strings.Builder
	for row := 0; row <= r.Rows+1; row++ {
		l := ""
		for col := 0; col <= r.Cols+1; col++ {
			l += fmt.Sprintf("%-*s", width, cells[api.Spot{Row: row, Col: col}])
		}
		if l = strings.TrimRight(l, " "); l != "" || (row > 0 && row <= r.Rows) {
			b.WriteString(l + "\n")
		}
	}
	return b.String()
}

// newRoomEdit is `room add` and `room set`.
func newRoomEdit(e *env, add bool) *cobra.Command {
	var f api.Room
	var w api.Wake
	var door, desk string
	var wake bool
	var seats []string
	use, short := "set ROOM [flags]", "change fields of a room"
	if add {
		use, short = "add ROOM [--rows N --cols N] [flags]", "add a room"
	}
	cmd := &cobra.Command{Use: use, Short: short, Args: exact(1), RunE: func(cmd *cobra.Command, args []string) error {
		given := cmd.Flags().Changed
		if !add && cmd.Flags().NFlag() == 0 {
			return usage(errors.New("room set: nothing to change; `labswarm room set --help` lists the flags"))
		}
		c := e.client()
		defer c.Close()
		r := api.Room{Name: args[0]}
		old, err := c.Room(cmd.Context(), args[0])
		var p *api.Problem
		switch {
		case err == nil && add && old.Saved:
			return &codeError{code: ExitConflict, err: fmt.Errorf("room %s exists: labswarm room set %s changes it", old.Name, old.Name)}
		case err == nil:
			r = old
		case !errors.As(err, &p) || p.Code != api.CodeNotFound || !add:
			return err
		}
		if r.Wake == nil {
			r.Wake = &api.Wake{}
		}
		for name, set := range map[string]func() error{
			"title": func() error { r.Title = f.Title; return nil }, "subnet": func() error { r.Subnets = nonEmpty(f.Subnets); return nil },
			"uplink-mbps": func() error { r.Uplink = f.Uplink; return nil }, "rows": func() error { r.Rows = f.Rows; return nil },
			"language": func() error { r.Language = f.Language; return nil },
			"cols":     func() error { r.Cols = f.Cols; return nil }, "name-template": func() error { r.Template = f.Template; return nil },
			"windows": func() error { r.Windows = f.Windows; return nil }, "door": func() (err error) { r.Door, err = spot(door); return err },
			"desk": func() (err error) { r.Desk, err = spot(desk); return err }, "seat": func() (err error) { r.Seats, err = seatList(seats); return err },
			"wake": func() error { r.Wake.Off = !wake; return nil }, "wake-broadcast": func() error { r.Wake.Broadcast = w.Broadcast; return nil },
			"wake-wave": func() error { r.Wake.Wave = w.Wave; return nil }, "wake-pause-s": func() error { r.Wake.PauseS = w.PauseS; return nil },
		} {
			if given(name) {
				if err := set(); err != nil {
					return usage(err)
				}
			}
		}
		if *r.Wake == (api.Wake{}) {
			r.Wake = nil
		}
		out, err := c.PutRoom(cmd.Context(), r)
		if err != nil {
			return err
		}
		if e.json {
			return e.printJSON(out)
		}
		return e.printf("%s", roomText(out))
	}}
	fl := cmd.Flags()
	fl.StringVar(&f.Title, "title", "", "what people call it")
	fl.StringSliceVar(&f.Subnets, "subnet", nil, "IPv4 subnets of its PCs, for learn mode and waking; none = the lab segment")
	fl.IntVar(&f.Uplink, "uplink-mbps", 0, "speed of the way into the room, Mb/s")
	fl.IntVar(&f.Rows, "rows", 0, "rows of the seat map; a map without seats gets one in every square")
	fl.IntVar(&f.Cols, "cols", 0, "columns of the seat map")
	fl.StringVar(&door, "door", "", "where the door is, `ROW:COLUMN`; 0 and rows+1 are the walls")
	fl.StringVar(&desk, "desk", "", "where the teacher's desk is, `ROW:COLUMN`")
	fl.StringSliceVar(&seats, "seat", nil, "all seats, `LABEL@ROW:COLUMN` or LABEL")
	fl.StringVar(&f.Template, "name-template", "", "computer names of its seats, empty = {room}-{seat}")
	fl.StringVar(&f.Language, "language", "", "of the screens of its PCs while they are imaged: en it de es fr")
	fl.BoolVar(&f.Windows, "windows", false, "hold computer names to the rules of Windows: 15 of A-Z 0-9 -")
	fl.BoolVar(&wake, "wake", true, "its PCs can be woken")
	fl.StringVar(&w.Broadcast, "wake-broadcast", "", "directed broadcast address for waking")
	fl.IntVar(&w.Wave, "wake-wave", 0, "hosts woken at once, 0 = 20")
	fl.IntVar(&w.PauseS, "wake-pause-s", 0, "seconds between waves, 0 = 15")
	return cmd
}

func nonEmpty(list []string) []string {
	var out []string
	for _, s := range list {
		if s != "" {
			out = append(out, s)
		}
	}
	return out
}

// spot reads ROW:COLUMN; "" = nowhere.
func spot(t string) (*api.Spot, error) {
	if t == "" {
		return nil, nil
	}
	a, b, ok := strings.Cut(t, ":")
	row, err1 := strconv.Atoi(a)
	col, err2 := strconv.Atoi(b)
	if !ok || err1 != nil || err2 != nil {
		return nil, fmt.Errorf("place %q: use ROW:COLUMN", t)
	}
	return &api.Spot{Row: row, Col: col}, nil
}

func seatList(list []string) (out []api.Seat, err error) {
	for _, t := range nonEmpty(list) {
		label, at, placed := strings.Cut(t, "@")
		s := api.Seat{Label: label}
		if placed {
			p, err := spot(at)
			if err != nil || p == nil {
				return nil, fmt.Errorf("seat %q: use LABEL@ROW:COLUMN", t)
			}
			s.Row, s.Col = p.Row, p.Col
		}
		out = append(out, s)
	}
	return out, nil
}
