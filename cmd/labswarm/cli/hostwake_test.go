package cli

import (
	"context"
	"strings"
	"testing"

	"labswarm/api"
)

func (d *desk) WakeHosts(_ context.Context, r *api.WakeRequest, _ string) (api.WakeReply, error) {
	_, err := d.steered("wake " + r.Room + strings.Join(r.Hosts, "+"))
	return api.WakeReply{Hosts: 42, TakesS: 31}, err
}

func TestHostWake(t *testing.T) {
	d, dir := open(t)
	for args, want := range map[string]string{"a1 a2": "wake a1+a2", "--room A101": "wake A101"} {
		d.set(func() { d.asked = nil })
		code, out, errOut := run(t.Context(), t, dir, append([]string{"host", "wake"}, strings.Fields(args)...)...)
		if code != ExitOK || len(d.asked) != 1 || d.asked[0] != want || !strings.Contains(out, "waking 42 hosts") {
			t.Errorf("host wake %s: exit code %d, asked %q, printed %q %q", args, code, d.asked, out, errOut)
		}
	}
	for _, args := range []string{"", "a1 --room A101"} {
		if code, _, _ := run(t.Context(), t, dir, append([]string{"host", "wake"}, strings.Fields(args)...)...); code != ExitUsage {
			t.Errorf("host wake %s: exit code %d; want 2", args, code)
		}
	}
}
