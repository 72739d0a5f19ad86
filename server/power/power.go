// Package power switches hosts on by magic packets. When each packet goes out
// is planned by a pure function; Sender only follows the plan. Called by
// server/daemon.
package power

import (
	"cmp"
	"net"
	"net/netip"
	"time"
)

// The pace of waking: what a room's fuses and a DHCP server bear.
const (
	Wave      = 20                     // hosts that start together
	HostPause = 30 * time.Millisecond  // between hosts of a wave
	WavePause = 15 * time.Second       // between the beginnings of waves
	Packets   = 3                      // per address
	PackPause = 100 * time.Millisecond // between them
)

// Target is a host to be woken.
type Target struct {
	Host string
	MACs []net.HardwareAddr
	Room Room
}

// Room is how the hosts of a room are woken.
type Room struct {
	Name  string
	Wave  int           // hosts that start together, 0 = Wave
	Pause time.Duration // between the beginnings of waves, 0 = WavePause
	Casts []netip.Addr  // directed broadcasts of its subnets, none = those of the lab interface
}

// Shot is one moment at which packets for one address go out.
type Shot struct {
	At   time.Duration // from the beginning
	Host string
	MAC  net.HardwareAddr
	To   []netip.Addr // as Room.Casts
}

// Plan says when which packet goes out, in order of time. The pace is that of
// each room; rooms come one after the other, since they share the DHCP server.
// Addresses that are not 48 bits long are left out.
func Plan(targets []Target) []Shot {
	var rooms []string
	by := map[string][]Target{}
	for _, t := range targets {
		if by[t.Room.Name] == nil {
			rooms = append(rooms, t.Room.Name)
		}
		by[t.Room.Name] = append(by[t.Room.Name], t)
	}
	var out []Shot
	var from time.Duration
	for _, r := range rooms {
		wave, pause := cmp.Or(by[r][0].Room.Wave, Wave), cmp.Or(by[r][0].Room.Pause, WavePause)
		out = append(out, planRoom(by[r], from, wave, pause)...)
		from += time.Duration((len(by[r])+wave-1)/wave) * pause
	}
	sortShots(out)
	return out
}

func planRoom(targets []Target, from time.Duration, wave int, pause time.Duration) (out []Shot) {
	for i, t := range targets {
		begin := from + time.Duration(i/wave)*pause + time.Duration(i%wave)*HostPause
		for n := range Packets {
			for _, mac := range t.MACs {
				if len(mac) == 6 {
					out = append(out, Shot{At: begin + time.Duration(n)*PackPause, Host: t.Host, MAC: mac, To: t.Room.Casts})
				}
			}
		}
	}
	return out
}

// Magic is the payload: six times FF, then the address sixteen times, 102 bytes.
func Magic(mac net.HardwareAddr) []byte {
	out := make([]byte, 6, 102)
	for i := range out {
		out[i] = 0xff
	}
	for range 16 {
		out = append(out, mac...)
	}
	return out
}
