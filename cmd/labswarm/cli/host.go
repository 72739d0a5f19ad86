package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"labswarm/api"
	"labswarm/api/client"
	"labswarm/api/diskrule"
	"labswarm/internal/units"
)

func newHost(e *env) *cobra.Command {
	var h api.Host
	var place hostFlags
	add := &cobra.Command{
		Use: "add NAME --room ROOM --mac MAC [--seat SEAT] [--uuid UUID]", Short: "add a host, or change the one of that name", Args: exact(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if h.Room == "" || h.MAC == "" {
				return usage(errors.New("host add needs --room and --mac"))
			}
			h.Name = args[0]
			place.apply(cmd, &h)
			c := e.client()
			defer c.Close()
			out, err := c.PutHost(cmd.Context(), h)
			if err != nil {
				return err
			}
			if e.json {
				return e.printJSON(out)
			}
			return e.printf("host %s in room %s: MAC %s, UUID %s\n", out.Name, out.Room, out.MAC, orDash(out.UUID))
		},
	}
	add.Flags().StringVar(&h.Room, "room", "", "its room")
	add.Flags().StringVar(&h.MAC, "mac", "", "MAC address of the network card that it boots from")
	add.Flags().StringVar(&h.UUID, "uuid", "", "SMBIOS UUID; learned at its first deployment when empty")
	add.Flags().StringVar(&h.Disk, "disk", "", diskHelp)
	add.Flags().BoolVar(&h.Exclude, "exclude", false, "never deploy to this host")
	place.register(add)

	ls := newHostLs(e)
	var code string
	show := &cobra.Command{Use: "show (NAME | --code CODE)", Short: "all that is known of a host, or of the failure that its screen shows", RunE: func(cmd *cobra.Command, args []string) error {
		if code != "" && len(args) == 0 {
			return e.hostCode(cmd, code)
		}
		if code != "" || len(args) != 1 {
			return usage(errors.New("host show takes the name of a host, or --code with what its screen shows"))
		}
		c := e.client()
		defer c.Close()
		host, err := c.Host(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		if e.json {
			return e.printJSON(host)
		}
		return e.hostDetail(host)
	}}
	show.Flags().StringVar(&code, "code", "", "`CODE` read out from a PC's screen, like DW-4K7P")
	rm := &cobra.Command{Use: "rm NAME", Short: "forget a host; it boots its own disk from then on", Args: exact(1), RunE: func(cmd *cobra.Command, args []string) error {
		c := e.client()
		defer c.Close()
		if err := c.RemoveHost(cmd.Context(), args[0]); err != nil {
			return err
		}
		return e.printf("host %s is forgotten\n", args[0])
	}}
	return group("host", "the PCs", append([]*cobra.Command{add, newHostSet(e), ls, show, rm, newHostWake(e)}, placeCommands(e)...)...)
}

const diskHelp = "disk `RULE`: SERIAL, WWN, or terms such as model=GLOB,bus=nvme,size=MIN..MAX (host set --help); empty = the only disk that fits"

// newHostSet changes single fields of a host and leaves the others alone.
func newHostSet(e *env) *cobra.Command {
	var h api.Host
	var place hostFlags
	var n api.Network
	cmd := &cobra.Command{
		Use: "set NAME [--disk RULE] [--room ROOM] [--seat SEAT] [--exclude=false] [--address A/N] ...", Short: "change fields of a host", Args: exact(1),
		Long: `Set changes the fields named and leaves the others as they are.

A disk rule says which disk of the PC may be written when it has several that fit:
  S5Y1NX0R12345                         the disk with this serial number or WWN
  model=Samsung*,size=400G..600G        all terms must hold; * and ? in model
  bus=nvme                              nvme, sata, scsi, virtio, mmc; bus=nvme|sata
  size=..1T                             at most 1 TiB (G, T are binary: a "500 GB" disk has 465G)
  ""                                    no rule: the only disk that fits
A rule that two disks fit writes none. Removable and USB disks are never written.

A fixed address is for the Linux on the PC's disk, from its next deployment on:
  --address 10.0.7.21/24 --gateway 10.0.7.1 --dns 10.0.7.1,10.0.7.2
  --address ""                          as the image has it
Its network card is the one of the host record. Windows is not told.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if !slices.ContainsFunc(append([]string{"disk", "room", "exclude", "address", "gateway", "dns"}, placeNames...), cmd.Flags().Changed) {
				return usage(errors.New("host set: nothing to change; give --disk, --room, --seat, --exclude, --address or another flag"))
			}
			c := e.client()
			defer c.Close()
			host, tag, err := c.HostToEdit(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if cmd.Flags().Changed("disk") {
				host.Disk = h.Disk
			}
			if cmd.Flags().Changed("room") {
				host.Room = h.Room
			}
			if cmd.Flags().Changed("exclude") {
				host.Exclude = h.Exclude
			}
			if host.Network, err = fixedAddress(host.Network, n, cmd.Flags().Changed); err != nil {
				return usage(fmt.Errorf("host set: %w", err))
			}
			place.apply(cmd, &host)
			// Only what an admin types goes back; what the machine showed stays with the server.
			out, err := c.EditHost(cmd.Context(), api.Host{Name: host.Name, Room: host.Room, MAC: host.MAC, UUID: host.UUID, Disk: host.Disk, Exclude: host.Exclude, Style: host.Style, Network: host.Network,
				HostPlace: api.HostPlace{Seat: host.Seat, Labels: host.Labels, Protect: host.Protect, SharedNIC: host.SharedNIC, Serial: host.Serial}}, tag)
			if err = changedMeanwhile(err, host.Name); err != nil {
				return err
			}
			if e.json {
				return e.printJSON(out)
			}
			return e.hostDetail(out)
		},
	}
	cmd.Flags().StringVar(&h.Disk, "disk", "", diskHelp)
	cmd.Flags().StringVar(&h.Room, "room", "", "its room")
	cmd.Flags().BoolVar(&h.Exclude, "exclude", false, "never deploy to this host")
	place.register(cmd)
	cmd.Flags().StringVar(&n.Address, "address", "", "fixed IPv4 address with its prefix for the Linux on its disk; empty = as the image has it")
	cmd.Flags().StringVar(&n.Gateway, "gateway", "", "its gateway")
	cmd.Flags().StringSliceVar(&n.DNS, "dns", nil, "its name servers, at most 3")
	return cmd
}

// changedMeanwhile says what to do when somebody else edited a host at the same
// time.
func changedMeanwhile(err error, name string) error {
	var p *api.Problem
	if errors.As(err, &p) && p.Code == api.CodePrecondition {
		return &codeError{code: ExitConflict, err: fmt.Errorf("host %s was changed by somebody else in this moment, nothing was done: look at it (labswarm host show %s) and give the command again", name, name)}
	}
	return err
}

// fixedAddress is old with the flags that were given; nil = none.
func fixedAddress(old *api.Network, flags api.Network, given func(string) bool) (*api.Network, error) {
	if given("address") && flags.Address == "" {
		if given("gateway") || given("dns") {
			return nil, errors.New("--gateway and --dns need an --address")
		}
		return nil, nil
	}
	if !given("address") && !given("gateway") && !given("dns") {
		return old, nil
	}
	n := api.Network{}
	if old != nil {
		n = *old
	}
	if given("address") {
		n.Address = flags.Address
	}
	if given("gateway") {
		n.Gateway = flags.Gateway
	}
	if given("dns") {
		n.DNS = slices.DeleteFunc(flags.DNS, func(d string) bool { return d == "" })
	}
	return &n, n.Check()
}

// hostsOf fetches the hosts of a room, "" = all. A room without any does not exist.
func hostsOf(cmd *cobra.Command, c *client.Client, room string) ([]api.Host, error) {
	all, err := c.Hosts(cmd.Context())
	if err != nil {
		return nil, err
	}
	hosts := []api.Host{}
	for _, h := range all {
		if room == "" || h.Room == room {
			hosts = append(hosts, h)
		}
	}
	if room != "" && len(hosts) == 0 {
		return nil, fmt.Errorf("show room %q: it has no hosts; `labswarm room ls` lists the rooms", room)
	}
	return hosts, nil
}

// hostList prints the hosts of a room, or all.
func (e *env) hostList(cmd *cobra.Command, room, filter string) error {
	c := e.client()
	defer c.Close()
	hosts, err := hostsOf(cmd, c, room)
	if err != nil {
		return err
	}
	all := len(hosts)
	if hosts, err = e.filterHosts(cmd, hosts, filter); err != nil {
		return err
	}
	if e.json {
		return e.printJSON(hosts)
	}
	if all > 0 && len(hosts) == 0 {
		e.hint("none of %d hosts matches the filter", all)
		return nil
	}
	if len(hosts) == 0 {
		e.hint("no hosts yet: labswarm host add NAME --room ROOM --mac MAC")
		return nil
	}
	if err := e.printf("%-16s %-12s %-6s %-18s %-15s %-11s %-14s %s\n", "HOST", "ROOM", "SEAT", "MAC", "ADDRESS", "FIRMWARE", "LAST SEEN", "FLAGS"); err != nil {
		return err
	}
	for _, h := range hosts {
		if err := e.printf("%-16s %-12s %-6s %-18s %-15s %-11s %-14s %s\n", h.Name, h.Room, orDash(h.Seat), h.MAC, orDash(h.LastIP), orDash(h.Firmware), ago(h.LastSeen), flagsOf(h)); err != nil {
			return err
		}
	}
	return nil
}

func (e *env) hostDetail(h api.Host) error {
	var b strings.Builder
	fmt.Fprintf(&b, "host      %s in room %s\nMAC       %s\nUUID      %s\naddress   %s\nfirmware  %s, Secure Boot %v\nlast seen %s\n",
		h.Name, h.Room, h.MAC, orDash(h.UUID), orDash(h.LastIP), orDash(h.Firmware), h.Secure, ago(h.LastSeen))
	placeDetail(&b, h)
	if h.Disk != "" {
		fmt.Fprintf(&b, "disk rule %s\n", h.Disk)
	}
	if h.Network != nil {
		fmt.Fprintf(&b, "fixed address, for Linux: %s\n", h.Network)
	}
	if h.Evidence != nil {
		for _, d := range h.Evidence.Disks {
			fmt.Fprintf(&b, "disk      %s %s, serial %s, %s, %d-byte sectors, %s", d.Bus, d.Model, orDash(d.Serial), units.FormatBytes(d.Bytes), d.Sector, d.Name)
			if d.Note != "" {
				fmt.Fprintf(&b, " (%s)", d.Note)
			}
			if len(d.Foreign) > 0 {
				fmt.Fprintf(&b, " (holds %s)", diskrule.Marks(d.Foreign))
			}
			b.WriteByte('\n')
		}
		for _, n := range h.Evidence.NICs {
			fmt.Fprintf(&b, "NIC       %s %s %s, %d Mb/s\n", n.Name, n.MAC, n.Driver, n.SpeedMbps)
		}
	}
	return e.printf("%s", b.String())
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func ago(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return units.FormatDuration(time.Since(t).Round(time.Second)) + " ago"
}
