package cli

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"labswarm/api"
)

// hostFlags are the fields of a host beside identity and disk.
type hostFlags struct {
	mac, uuid, serial, seat, style string
	labels                         []string
	protect, sharedNIC             bool
}

// placeNames are the flags that hostFlags adds; mac and uuid only to `host set`.
var placeNames = []string{"seat", "label", "protect", "shared-nic", "serial", "boot-style", "mac", "uuid"}

func (f *hostFlags) register(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringVar(&f.seat, "seat", "", "its seat in the room, empty = none")
	fl.StringSliceVar(&f.labels, "label", nil, "words of your own, for picking hosts: --label beamer,old; --label '' = none")
	fl.BoolVar(&f.protect, "protect", false, "written only when it is named, never as one of its room")
	fl.BoolVar(&f.sharedNIC, "shared-nic", false, "its MAC belongs to a dock or dongle that travels: go by the UUID only")
	fl.StringVar(&f.serial, "serial", "", "system serial number")
	fl.StringVar(&f.style, "boot-style", "", "how it is sent to its own disk: silent, chain, empty = the server's default")
	if fl.Lookup("mac") == nil {
		fl.StringVar(&f.mac, "mac", "", "MAC address, of another PC on this seat: all that was known of the old one is forgotten")
	}
	if fl.Lookup("uuid") == nil {
		fl.StringVar(&f.uuid, "uuid", "", "SMBIOS UUID")
	}
}

// apply sets the fields whose flags were given.
func (f *hostFlags) apply(cmd *cobra.Command, h *api.Host) {
	given := cmd.Flags().Changed
	text := func(name, v string, to *string) {
		if given(name) && v != "" || given(name) && name != "mac" && name != "uuid" {
			*to = v
		}
	}
	text("seat", f.seat, &h.Seat)
	text("serial", f.serial, &h.Serial)
	text("boot-style", f.style, &h.Style)
	text("mac", f.mac, &h.MAC)
	text("uuid", f.uuid, &h.UUID)
	if given("label") {
		h.Labels = nil
		for _, l := range f.labels {
			if l != "" {
				h.Labels = append(h.Labels, l)
			}
		}
	}
	if given("protect") {
		h.Protect = f.protect
	}
	if given("shared-nic") {
		h.SharedNIC = f.sharedNIC
	}
}

// flagsOf are a host's marks in one column.
func flagsOf(h api.Host) string {
	var out []string
	for name, on := range map[int]bool{0: h.Quarantined != "", 1: h.Exclude, 2: h.Protect, 3: h.SharedNIC, 4: h.Claimed} {
		if on {
			out = append(out, strconv.Itoa(name)+[]string{"QUARANTINED", "excluded", "protected", "shared-nic", "claimed"}[name])
		}
	}
	if out == nil {
		return "-"
	}
	slices.Sort(out)
	for i := range out {
		out[i] = out[i][1:]
	}
	return strings.Join(out, ",")
}

func placeDetail(b *strings.Builder, h api.Host) {
	line := func(what, text string) {
		if text != "" {
			fmt.Fprintf(b, "%-9s %s\n", what, text)
		}
	}
	line("seat", h.Seat)
	line("labels", strings.Join(h.Labels, " "))
	line("serial", h.Serial)
	if f := flagsOf(h); f != "-" {
		line("flags", f)
	}
	if h.Claimed {
		line("claimed", "typed or imported; the PC itself has not confirmed it yet")
	}
	line("held", h.Quarantined)
	line("pending", strings.Join(h.PendingMACs, " "))
	line("not unique", strings.Join(h.NotUnique, ", "))
}

// placeCommands are the commands of seats, lists, enrolment and questions.
func placeCommands(e *env) []*cobra.Command {
	return []*cobra.Command{newHostMove(e), newAcceptDisk(e), newHostEnrol(e), newQuestions(e), newAnswer(e), newListImport(e, "hosts"), newListExport(e, "hosts")}
}

func newHostMove(e *env) *cobra.Command {
	var m api.HostMove
	cmd := &cobra.Command{Use: "move NAME --room ROOM [--seat SEAT]", Short: "put a host on another seat; its name stays", Args: exact(1), RunE: func(cmd *cobra.Command, args []string) error {
		if m.Room == "" && m.Seat == "" {
			return usage(fmt.Errorf("host move needs --room, --seat or both"))
		}
		c := e.client()
		defer c.Close()
		if m.Room == "" {
			h, err := c.Host(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			m.Room = h.Room
		}
		h, err := c.MoveHost(cmd.Context(), args[0], m)
		if err != nil {
			return err
		}
		if e.json {
			return e.printJSON(h)
		}
		return e.printf("host %s is in room %s, seat %s now\n", h.Name, h.Room, orDash(h.Seat))
	}}
	cmd.Flags().StringVar(&m.Room, "room", "", "its new room")
	cmd.Flags().StringVar(&m.Seat, "seat", "", "its new seat, empty = none")
	return cmd
}

func newAcceptDisk(e *env) *cobra.Command {
	return &cobra.Command{Use: "accept-disk NAME", Short: "let the disks that a host showed last be written", Args: exact(1), RunE: func(cmd *cobra.Command, args []string) error {
		c := e.client()
		defer c.Close()
		h, err := c.AcceptDisks(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		if e.json {
			return e.printJSON(h)
		}
		for _, d := range h.KnownDisks {
			if err := e.printf("host %s: disk with serial %s, WWN %s, %d bytes may be written\n", h.Name, orDash(d.Serial), orDash(d.WWN), d.Bytes); err != nil {
				return err
			}
		}
		return nil
	}}
}

func newHostEnrol(e *env) *cobra.Command {
	var b api.EnrolBind
	cmd := &cobra.Command{Use: "enrol CODE --room ROOM --seat SEAT [--replace]", Short: "give a new PC, which shows CODE on its screen, a seat", Args: exact(1),
		Long: `Enrol gives a PC that boots in learn mode (labswarm room learn ROOM) its seat and its name.
The code stands on the PC's screen. It is good once and for ten minutes; five wrong codes
make all PCs show new ones. --replace puts the PC in the place of the one that sat there:
name and seat stay.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if b.Room == "" || (b.Seat == "" && b.Name == "") {
				return usage(fmt.Errorf("host enrol needs --room, and --seat or --name"))
			}
			b.Code = strings.ReplaceAll(args[0], " ", "")
			c := e.client()
			defer c.Close()
			h, err := c.Bind(cmd.Context(), b)
			if err != nil {
				return err
			}
			if e.json {
				return e.printJSON(h)
			}
			return e.printf("host %s sits on seat %s of room %s: MAC %s, UUID %s\n", h.Name, orDash(h.Seat), h.Room, h.MAC, orDash(h.UUID))
		}}
	f := cmd.Flags()
	f.StringVar(&b.Room, "room", "", "its room")
	f.StringVar(&b.Seat, "seat", "", "its seat")
	f.StringVar(&b.Name, "name", "", "its name, empty = by the room's template")
	f.BoolVar(&b.Replace, "replace", false, "take the place of the PC that sits there")
	return cmd
}

func newQuestions(e *env) *cobra.Command {
	return &cobra.Command{Use: "questions", Short: "what the server does not guess and a person must answer", Args: exact(0), RunE: func(cmd *cobra.Command, _ []string) error {
		c := e.client()
		defer c.Close()
		list, err := c.Questions(cmd.Context())
		if err != nil {
			return err
		}
		if e.json {
			return e.printJSON(list)
		}
		if len(list) == 0 {
			e.hint("no question waits for an answer")
		}
		for _, q := range list {
			text := fmt.Sprintf("%d  %s, %s: %s\n", q.ID, q.Kind, ago(q.Asked), q.Text)
			for _, ch := range q.Choices {
				text += fmt.Sprintf("     labswarm host answer %d %-11s %s\n", q.ID, ch.Name, ch.Text)
			}
			if err := e.printf("%s", text); err != nil {
				return err
			}
		}
		return nil
	}}
}

func newAnswer(e *env) *cobra.Command {
	return &cobra.Command{Use: "answer ID ANSWER", Short: "answer a question of `host questions`", Args: exact(2), RunE: func(cmd *cobra.Command, args []string) error {
		id, err := strconv.ParseUint(args[0], 10, 64)
		if err != nil {
			return usage(fmt.Errorf("answer: %q is not the number of a question", args[0]))
		}
		c := e.client()
		defer c.Close()
		q, err := c.Answer(cmd.Context(), id, args[1])
		if err != nil {
			return err
		}
		if e.json {
			return e.printJSON(q)
		}
		return e.printf("question %d is answered: %s\n", q.ID, q.Answer)
	}}
}

// newListImport reads a list of rooms or hosts: what is "rooms" or "hosts".
func newListImport(e *env, what string) *cobra.Command {
	req := api.ImportRequest{What: what}
	cmd := &cobra.Command{Use: "import FILE [--save]", Short: "check a CSV or TOML list of " + what + ", and save it with --save", Args: exact(1),
		Long: `Import shows what a list would change, and everything that is wrong with it, with line and
column. With --save it is saved, if nothing is wrong: all of it or nothing. FILE - reads
standard input. Columns: docs/OPERATIONS.md; ` + "`export`" + ` writes them.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			raw, err := readList(cmd, args[0])
			if err != nil {
				return err
			}
			req.Text = string(raw)
			if req.Format == "" {
				req.Format = formatOf(args[0])
			}
			c := e.client()
			defer c.Close()
			res, err := c.Import(cmd.Context(), req)
			if err != nil {
				return err
			}
			if e.json {
				err = e.printJSON(res)
			} else {
				err = e.importResult(args[0], req.Save, res)
			}
			if err == nil && len(res.Errors) > 0 {
				return &codeError{code: ExitUsage}
			}
			return err
		}}
	cmd.Flags().StringVar(&req.Format, "format", "", "csv or toml; empty = by the file's name")
	cmd.Flags().BoolVar(&req.Save, "save", false, "save it; without this flag nothing is changed")
	cmd.Flags().BoolVar(&req.Windows, "windows", false, "hold all computer names to the rules of Windows")
	return cmd
}

const maxList = 1 << 20 // bytes, as the server takes them

func readList(cmd *cobra.Command, file string) ([]byte, error) {
	in := cmd.InOrStdin()
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		defer f.Close() //nolint:errcheck // only read
		in = f
	}
	raw, err := io.ReadAll(io.LimitReader(in, maxList+1))
	if err == nil && len(raw) > maxList {
		err = fmt.Errorf("read list %s: more than %d bytes", file, maxList)
	}
	return raw, err
}

func formatOf(file string) string {
	if strings.HasSuffix(strings.ToLower(file), ".toml") {
		return "toml"
	}
	return "csv"
}

func (e *env) importResult(file string, save bool, r api.ImportResult) error {
	var b strings.Builder
	issue := func(kind string, i api.ImportIssue) {
		fmt.Fprintf(&b, "%s:%d:%d: %s%s\n", file, i.Line, i.Column, kind, i.Text)
	}
	for _, i := range r.Warnings {
		issue("warning: ", i)
	}
	for _, i := range r.Errors {
		issue("", i)
	}
	for what, names := range map[string][]string{"new": r.Added, "changed": r.Changed} {
		if len(names) > 0 && len(r.Errors) == 0 {
			fmt.Fprintf(&b, "%-8s %s\n", what, strings.Join(names, " "))
		}
	}
	switch {
	case len(r.Errors) > 0:
		fmt.Fprintf(&b, "%d errors: nothing was saved\n", len(r.Errors))
	case save:
		fmt.Fprintf(&b, "saved: %d new, %d changed, %d as they were\n", len(r.Added), len(r.Changed), r.Unchanged)
	default:
		fmt.Fprintf(&b, "dry run: %d new, %d changed, %d as they are; --save saves it\n", len(r.Added), len(r.Changed), r.Unchanged)
	}
	return e.printf("%s", b.String())
}

func newListExport(e *env, what string) *cobra.Command {
	format := "csv"
	cmd := &cobra.Command{Use: "export", Short: "print all " + what + " as CSV or TOML, as import reads it", Args: exact(0), RunE: func(cmd *cobra.Command, _ []string) error {
		c := e.client()
		defer c.Close()
		out, err := c.Export(cmd.Context(), what, format)
		if err != nil {
			return err
		}
		if e.json {
			return e.printJSON(out)
		}
		return e.printf("%s", out.Text)
	}}
	cmd.Flags().StringVar(&format, "format", format, "csv or toml")
	return cmd
}
