// Package power switches hosts on by magic packets. When each packet goes out
// is planned by a pure function; Sender only follows the plan. Called by
// server/daemon.
package power

import (
	"net"
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
}

// Shot is one moment at which packets for one address go out.
type Shot struct {
	At   time.Duration // from the beginning
	Host string
	MAC  net.HardwareAddr
}

// Plan says when which packet goes out, in order of time. Addresses that are
// not 48 bits long are left out.
func Plan(targets []Target) []Shot {
	var out []Shot
	for i, t := range targets {
		begin := time.Duration(i/Wave)*WavePause + time.Duration(i%Wave)*HostPause
		for n := range Packets {
			for _, mac := range t.MACs {
				if len(mac) == 6 {
					out = append(out, Shot{At: begin + time.Duration(n)*PackPause, Host: t.Host, MAC: mac})
				}
			}
		}
	}
	sortShots(out)
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
