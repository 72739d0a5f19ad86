//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"labswarm/api"
	"labswarm/e2e/classroom"
	"labswarm/internal/testreq"
	"labswarm/internal/testvm"
)

const gib = 1 << 30

// What of an image a PC may fetch again, in parts of a hundred cells of the default
// size, 256 KiB for a Debian as small as this. Of cells of 1 MiB it is more than twice as
// much: growing writes all copies of the superblock, each in a cell of its own.
const (
	maxBootedOnce = 3 // the same version, after the PC has run it once
	maxPackage    = 5 // a version with one small package more
)

// TestDebianFromOnePCToOthers is the life of a reference image: a Debian that has lived
// on one PC is captured from it and deployed to two others with bigger disks, where it
// boots, each with its own name, machine id and SSH keys and a root as big as the disk.
// Then both get an image again, one the same version, one a version with a package
// more, and fetch only what differs.
func TestDebianFromOnePCToOthers(t *testing.T) {
	needLAN(t)
	needVMs(t, testvm.BIOS, testvm.UEFI)
	testreq.Tool(t, "ssh-keygen", "openssh-client")
	t.Setenv("LABSWARM_KEEP_FREE", "256MiB") // a small machine may run this
	golden := debianImage(t, "debian-4g", 4<<10)
	disks := []int64{0, 5 * gib, 6 * gib} // the first is the reference PC's, as big as the golden image
	o := withPrograms(t, classroom.Options{
		Image: "debian", StateDir: t.TempDir(), Terminals: 3, Firmware: []testvm.Firmware{testvm.BIOS, testvm.BIOS, testvm.UEFI},
		Tune: func(i int, c *testvm.Config) error {
			if i == 0 {
				return copySparse(t, golden, c.Disks[0].Path)
			}
			return os.Truncate(c.Disks[0].Path, disks[i])
		},
	})
	r := &debianRoom{t: t, s: open(t, o), start: time.Now()}
	t.Cleanup(r.logs)
	r.ref, r.pcs = r.s.Terminals()[0], r.s.Terminals()[1:]
	if err := r.s.AddHosts(t.Context(), r.s.Terminals()...); err != nil {
		t.Fatal(err)
	}
	was := r.reference()
	v1 := r.capture()
	r.deploy(v1)
	r.liveTheirOwnLives(was)
	v2 := r.addPackage()
	r.delta(v1, v2)
}

// debianRoom is the room of this test.
type debianRoom struct {
	t     *testing.T
	s     *classroom.Session
	ref   *classroom.Terminal
	pcs   []*classroom.Terminal
	start time.Time
	v2    string // file of the disk with a package more
	last  map[string]api.Slot
}

// step says how far the test is.
func (r *debianRoom) step(format string, args ...any) {
	r.t.Helper()
	r.t.Logf("%5.1f s: %s", time.Since(r.start).Seconds(), fmt.Sprintf(format, args...))
}

func (r *debianRoom) logs() {
	if r.t.Failed() {
		if err := r.s.SaveLogs(reportDir(r.t)); err != nil {
			r.t.Error(err)
		}
	}
}

// identity is what every PC is to have for itself.
type identity struct {
	name, machine string
	keys          []string // public SSH host keys, "type base64", sorted
}

// reference makes the golden disk one that was in use: it has a machine id and SSH
// host keys, which every copy would share.
func (r *debianRoom) reference() identity {
	r.t.Helper()
	onRoot(r.t, r.ref.Disk, "rw", `
echo reference > etc/hostname; printf '127.0.0.1 localhost\n127.0.1.1 reference\n' > etc/hosts
echo 0123456789abcdef0123456789abcdef > etc/machine-id
mkdir -p etc/ssh; ssh-keygen -q -A -f "$PWD"`)
	id := r.identity(r.ref.Disk)
	if id.name != "reference" || len(id.machine) != 32 || len(id.keys) < 3 {
		r.t.Fatalf("the reference PC is %+v", id)
	}
	return id
}

// identity reads a disk that is switched off.
func (r *debianRoom) identity(disk string) identity {
	r.t.Helper()
	lines := strings.Split(strings.TrimSpace(onRoot(r.t, disk, "ro", `
cat etc/hostname etc/machine-id
for k in etc/ssh/ssh_host_*_key; do ssh-keygen -y -f "$k" | cut -d' ' -f1,2; done`)), "\n")
	if len(lines) < 3 {
		r.t.Fatalf("%s: %q", disk, lines)
	}
	keys := lines[2:]
	slices.Sort(keys)
	return identity{lines[0], lines[1], keys}
}

// capture makes the first version from the reference PC's disk, and compares it with
// that disk by other programs' means.
func (r *debianRoom) capture() (version string) {
	r.t.Helper()
	job, err := r.s.AdminJob(r.t.Context(), "image", "capture", "debian", "--host", r.ref.Name, "--after", "poweroff", "--detach")
	if err != nil {
		r.t.Fatal(err)
	}
	job = r.run(job)[0]
	if job.Version == "" || !job.Slots[0].State.Good() {
		r.t.Fatalf("capture: %+v\nserver log:\n%s", job.Slots[0], r.s.ServerLog(20))
	}
	r.step("captured debian/%s: %d cells to ship", job.Version, job.Cells)
	raw := filepath.Join(r.t.TempDir(), "captured.raw")
	if _, err := r.s.Admin(r.t.Context(), "image", "export", "debian/"+job.Version, raw, "--as", "raw"); err != nil {
		r.t.Fatal(err)
	}
	c, err := classroom.CompareDisk(r.t.Context(), r.ref.Disk, raw, "")
	if err != nil {
		r.t.Fatal(err)
	}
	r.step("the image equals the disk: %d used bytes of %d partitions", c.Bytes, c.Partitions)
	if err := os.Remove(raw); err != nil {
		r.t.Error(err)
	}
	return job.Version
}

// order makes a job for one or more PCs, which switch themselves off when it is done.
func (r *debianRoom) order(version string, hosts ...string) api.Job {
	r.t.Helper()
	job, err := r.s.AdminJob(r.t.Context(), "job", "create", "--image", "debian/"+version, "--hosts", strings.Join(hosts, ","),
		"--confirm", "debian", "--after", "poweroff")
	if err != nil {
		r.t.Fatal(err)
	}
	return job
}

// run switches the hosts of jobs on, waits until each has switched itself off again,
// and returns the jobs as they are then.
func (r *debianRoom) run(jobs ...api.Job) []api.Job {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 8*time.Minute)
	defer cancel()
	var on []*classroom.Terminal
	for _, pc := range r.s.Terminals() {
		for _, j := range jobs {
			if slices.ContainsFunc(j.Slots, func(s api.Slot) bool { return s.Host == pc.Name }) {
				if err := pc.PowerOn(ctx); err != nil {
					r.t.Fatal(err)
				}
				on = append(on, pc)
			}
		}
	}
	for _, pc := range on {
		r.waitOff(ctx, pc)
	}
	for i, j := range jobs {
		var err error
		if jobs[i], err = r.s.Job(ctx, j.ID); err != nil {
			r.t.Fatal(err)
		}
		for _, s := range jobs[i].Slots {
			for _, e := range s.Timeline {
				r.t.Logf("%s %5.1f s: %s", s.Host, e.At.Sub(r.start).Seconds(), e.Event)
			}
		}
	}
	return jobs
}

func (r *debianRoom) waitOff(ctx context.Context, pc *classroom.Terminal) {
	r.t.Helper()
	select {
	case <-pc.VM().Done():
	case <-ctx.Done():
		r.t.Fatalf("%s did not switch itself off; its last lines:\n%s\nserver log:\n%s", pc.Name, pc.VM().Tail(20), r.s.ServerLog(20))
	}
}

// good wants every disk of a job proven, without a warning.
func (r *debianRoom) good(j api.Job) {
	r.t.Helper()
	for _, s := range j.Slots {
		if !s.State.Good() || !s.Verified || len(s.Warnings) > 0 {
			r.t.Fatalf("%s: %s, verified %v, warnings %q: %s\nserver log:\n%s", s.Host, s.State, s.Verified, s.Warnings, s.Error, r.s.ServerLog(20))
		}
	}
}

// deploy brings the captured version to the others, and compares their disks with the
// reference PC's before their own system has run.
func (r *debianRoom) deploy(version string) {
	r.t.Helper()
	job := r.run(r.order(version, r.pcs[0].Name, r.pcs[1].Name))[0]
	r.good(job)
	r.last = map[string]api.Slot{}
	for i, pc := range r.pcs {
		r.last[pc.Name] = job.Slots[i]
		r.equal(r.ref.Disk, pc)
	}
}

func (r *debianRoom) equal(image string, pc *classroom.Terminal) {
	r.t.Helper()
	c, err := classroom.CompareDisk(r.t.Context(), image, pc.Disk, pc.Name)
	if err != nil {
		r.t.Fatal(err)
	}
	r.step("%s equals the image: %d used bytes of %d partitions, %d files beside its own identity", pc.Name, c.Bytes, c.Partitions, c.Files)
}

// liveTheirOwnLives boots each PC's own system, which nobody else may resemble.
func (r *debianRoom) liveTheirOwnLives(was identity) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 6*time.Minute)
	defer cancel()
	for _, pc := range r.pcs {
		if err := pc.PowerOn(ctx); err != nil {
			r.t.Fatal(err)
		}
	}
	seen := []identity{was}
	for i, pc := range r.pcs {
		live := r.login(ctx, pc, i)
		r.waitOff(ctx, pc)
		own := r.identity(pc.Disk)
		if live.name != pc.Name || own.name != pc.Name || live.machine != own.machine {
			r.t.Errorf("%s: runs as %s %s; its disk says %s %s", pc.Name, live.name, live.machine, own.name, own.machine)
		}
		keys := slices.Sorted(slices.Values(r.last[pc.Name].HostKeys))
		if !slices.Equal(own.keys, keys) {
			r.t.Errorf("%s: its SSH host keys are %q; the server knows %q", pc.Name, own.keys, keys)
		}
		for _, other := range seen {
			if own.machine == other.machine || slices.ContainsFunc(own.keys, func(k string) bool { return slices.Contains(other.keys, k) }) {
				r.t.Errorf("%s has the identity of %s: %+v", pc.Name, other.name, own)
			}
		}
		seen = append(seen, own)
	}
}

// login waits for the PC's own login prompt, asks the running system who it is, and
// shuts it down. Its root must be as big as the disk allows.
func (r *debianRoom) login(ctx context.Context, pc *classroom.Terminal, i int) identity {
	r.t.Helper()
	vm := pc.VM()
	from := vm.LastReset()
	wait := func(re string) string {
		m, err := vm.WaitSerial(ctx, regexp.MustCompile(re), from)
		if err != nil {
			r.t.Fatalf("%s: %v\nserver log:\n%s", pc.Name, err, r.s.ServerLog(20))
		}
		return m
	}
	say := func(text, answer string) string {
		from = vm.SerialLen()
		if err := vm.Type(ctx, text+"\n"); err != nil {
			r.t.Fatal(err)
		}
		return wait(answer)
	}
	wait(regexp.QuoteMeta(pc.Name) + ` login: `)
	r.step("%s shows its login prompt", pc.Name)
	say("root", `Password: `)
	say("labswarm", `# `)
	m := say(`echo "I am" $(hostname) $(cat /etc/machine-id) $(findmnt -bno SIZE /)`, `I am \S+ [0-9a-f]{32} [0-9]+\s`)
	f := strings.Fields(m)
	root, err := strconv.ParseInt(f[4], 10, 64)
	if err != nil {
		r.t.Fatal(err)
	}
	st, err := os.Stat(pc.Disk)
	if err != nil {
		r.t.Fatal(err)
	}
	const before = 790528 * 512                                        // where golden-debian.sh puts the root
	if room := st.Size() - before; root > room || root < room*93/100 { // ext4 keeps its tables for itself
		r.t.Errorf("%s: its root has %d bytes of the %d there are", pc.Name, root, room)
	}
	r.step("%s runs as %s, machine %s, root of %d MiB", pc.Name, f[2], f[3], root>>20)
	if err := vm.Type(ctx, "poweroff\n"); err != nil {
		r.t.Fatal(err)
	}
	return identity{name: f[2], machine: f[3]}
}

// addPackage makes the second version: the reference PC's disk with one package
// more, put there by dpkg. The package has the files of this machine's gdisk.
func (r *debianRoom) addPackage() (version string) {
	r.t.Helper()
	for _, tool := range []string{"dpkg", "dpkg-deb"} {
		testreq.Tool(r.t, tool, "dpkg")
	}
	testreq.Tool(r.t, "sgdisk", "gdisk")
	r.v2 = filepath.Join(r.t.TempDir(), "v2.raw")
	if err := copySparse(r.t, r.ref.Disk, r.v2); err != nil {
		r.t.Fatal(err)
	}
	onRoot(r.t, r.v2, "rw", `p=$(mktemp -d); trap 'rm -rf "$p"' EXIT
for f in $(dpkg -L gdisk | grep -vE '^/usr/share/(doc|man|locale|info|lintian|bug)'); do
  if [ -f "$f" ]; then mkdir -p "$p$(dirname "$f")"; cp -a "$f" "$p$f"; fi
done
mkdir "$p/DEBIAN"
printf 'Package: gdisk\nVersion: 1\nArchitecture: amd64\nMaintainer: test\nDescription: the gdisk of this machine\n' > "$p/DEBIAN/control"
dpkg-deb --root-owner-group -b "$p" "$p.deb" > /dev/null
dpkg --root="$PWD" --force-depends -i "$p.deb" > /dev/null; rm "$p.deb"
test -x sbin/sgdisk -o -x usr/sbin/sgdisk`)
	if _, err := r.s.Admin(r.t.Context(), "image", "import", "debian", r.v2); err != nil {
		r.t.Fatal(err)
	}
	var list []struct{ Name, Version string }
	out, err := r.s.Admin(r.t.Context(), "image", "ls", "--json")
	if err == nil {
		err = json.Unmarshal(out, &list)
	}
	if err != nil {
		r.t.Fatal(err)
	}
	for _, v := range list {
		version = max(version, v.Version) // both of the same day
	}
	r.step("debian/%s has a package more", version)
	return version
}

// delta gives the first PC the version again that it has run once, and the second
// one the version with a package more.
func (r *debianRoom) delta(v1, v2 string) {
	r.t.Helper()
	diff, err := r.s.Admin(r.t.Context(), "image", "diff", "debian/"+v1, "debian/"+v2)
	if err != nil {
		r.t.Fatal(err)
	}
	r.step("%s", diff)
	jobs := r.run(r.order(v1, r.pcs[0].Name), r.order(v2, r.pcs[1].Name))
	for i, limit := range []int{maxBootedOnce, maxPackage} {
		r.good(jobs[i])
		out, err := r.s.Admin(r.t.Context(), "job", "report", strconv.FormatUint(jobs[i].ID, 10), "--json")
		var report struct {
			Image struct{ Cells int }
			Hosts []struct {
				CellsWritten   int   `json:"cells_written"`
				CellsKept      int   `json:"cells_kept"`
				BytesFromSeed  int64 `json:"bytes_from_seed"`
				BytesFromPeers int64 `json:"bytes_from_peers"`
			}
		}
		if err == nil {
			err = json.Unmarshal(out, &report)
		}
		if err != nil || len(report.Hosts) != 1 {
			r.t.Fatalf("report of job %d: %v\n%s", jobs[i].ID, err, out)
		}
		h, n := report.Hosts[0], report.Image.Cells
		r.step("%s: %d of %d cells fetched (%.1f %%), %d kept, %d bytes", r.pcs[i].Name, h.CellsWritten, n, 100*float64(h.CellsWritten)/float64(n), h.CellsKept, h.BytesFromSeed+h.BytesFromPeers)
		if n == 0 || h.CellsWritten*100 > limit*n || h.CellsWritten+h.CellsKept != n {
			r.t.Errorf("%s fetched %d of %d cells and kept %d; want %d %% or less", r.pcs[i].Name, h.CellsWritten, n, h.CellsKept, limit)
		}
	}
	r.equal(r.ref.Disk, r.pcs[0])
	r.equal(r.v2, r.pcs[1])
}
