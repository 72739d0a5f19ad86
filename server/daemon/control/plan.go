package control

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"labswarm/api"
	"labswarm/api/diskrule"
	"labswarm/api/order"
	"labswarm/server/inventory"
	"labswarm/server/job"
	"labswarm/server/store"
)

// Kept is what Images may know besides: how many cells of a version a host
// keeps that holds another one. ok is false when nobody knows.
type Kept interface {
	Kept(name, from, to string) (cells int, ok bool)
}

// planBook remembers the facts of plans, to tell what has changed since. RAM
// only: after a restart a stale plan is refused all the same, with less to say.
type planBook struct {
	mu    sync.Mutex
	facts map[string][]string // by digest
	order []string
}

const plansKept = 64

func (b *planBook) keep(digest string, facts []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.facts[digest]; ok {
		return
	}
	if b.facts == nil {
		b.facts = map[string][]string{}
	}
	if len(b.order) >= plansKept {
		delete(b.facts, b.order[0])
		b.order = b.order[1:]
	}
	b.facts[digest], b.order = facts, append(b.order, digest)
}

func (b *planBook) of(digest string) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.facts[digest]
}

// PlanJob is the dry run: what CreateJob would do, and nothing is stored.
func (e *Engine) PlanJob(ctx context.Context, req *api.JobCreate) (api.JobPlan, error) {
	img, err := e.image(req)
	if err == nil {
		err = checkRequest(req)
	}
	if err == nil {
		err = e.checkWake(req.Wake)
	}
	if err != nil {
		return api.JobPlan{}, err
	}
	now := time.Now()
	var plan api.JobPlan
	err = e.cfg.Store.View(ctx, func(tx store.Tx) error {
		plan = api.JobPlan{Image: img.Name, Version: img.Version, Bytes: img.BytesShipped, Request: asked(req)}
		hosts, err := targets(tx, req)
		if err == nil {
			err = usable(tx, img.Image)
		}
		if err != nil {
			return err
		}
		if _, err := failureLimit(req.MaxFailures, len(hosts)); err != nil {
			return err
		}
		if plan.Hosts, plan.Facts, err = planHosts(tx, req, img, hosts); err != nil {
			return err
		}
		for i, h := range hosts {
			if protected(h, plan.Hosts[i]) {
				plan.Protected = append(plan.Protected, h.Name)
			}
		}
		holds, err := lastProven(tx)
		for i := range plan.Hosts {
			plan.Hosts[i].Holds = holds[plan.Hosts[i].Host]
		}
		return err
	})
	if err != nil {
		return plan, problem(err)
	}
	plan.ConfirmText, _ = confirmText(req, img.Name)
	plan.PlanDigest = factsDigest(plan.Facts)
	e.plans.keep(plan.PlanDigest, plan.Facts)
	e.forecast(&plan, req, img, now)
	var fs syscall.Statfs_t
	if syscall.Statfs(e.cfg.StateDir, &fs) == nil {
		plan.FreeBytes = int64(fs.Bavail) * fs.Bsize
	}
	return plan, nil
}

// asked is a request without what is only said when a job is made.
func asked(req *api.JobCreate) api.JobCreate {
	r := *req
	r.Confirm, r.DryRun, r.JobConfirm, r.ConfirmProtected = "", false, api.JobConfirm{}, nil
	return r
}

// planHosts says what would happen to each host, and lists the facts on which
// that rests. Times at which a host was seen are none: they change all day.
func planHosts(tx store.Tx, req *api.JobCreate, img ImageInfo, hosts []api.Host) (lines []api.JobPlanHost, facts []string, err error) {
	want, err := json.Marshal(asked(req))
	if err != nil {
		return nil, nil, fmt.Errorf("encode request: %w", err)
	}
	facts = []string{fmt.Sprintf("image %s/%s %s", img.Name, img.Version, img.Digest), "asked " + string(want)}
	for _, h := range hosts {
		line, err := planHost(tx, h, img, req)
		if err != nil {
			return nil, nil, err
		}
		if protected(h, line) {
			line.Risk = append(line.Risk, "protected: it is erased only when --confirm-protected names it, too")
		}
		if err := inventory.CheckWindowsName(h.Name); err != nil && img.Windows && req.Personalise != order.PersonaliseOff {
			line.Risk = append(line.Risk, err.Error())
		}
		lines = append(lines, line)
		disk := line.Disk
		if disk == "" {
			disk = "unknown"
		}
		facts = append(facts, fmt.Sprintf("host %s mac %s uuid %s rule %q: %s (%s), disk %s, fits %s, protected %v", h.Name, h.MAC, orUnknown(h.UUID), h.Disk, line.Verdict, line.Reason, disk, line.Fits, h.Protect))
	}
	return lines, facts, nil
}

// protected reports whether a host needs a confirm of its own.
func protected(h api.Host, line api.JobPlanHost) bool {
	return h.Protect && (line.Verdict == api.VerdictGo || line.Verdict == api.VerdictWake)
}

// checkProtected wants every protected host of a job named again, and no other.
func checkProtected(req *api.JobCreate, hosts []api.Host, lines []api.JobPlanHost) error {
	named := slices.Clone(req.ConfirmProtected)
	for i, h := range hosts {
		if !protected(h, lines[i]) {
			continue
		}
		at := slices.IndexFunc(named, func(n string) bool { return strings.EqualFold(n, h.Name) })
		if at < 0 {
			return badRequest(api.CodeConfirm, "host %s is protected: this would erase it. Name it in confirm_protected, too (--confirm-protected %s)", h.Name, h.Name)
		}
		named = slices.Delete(named, at, at+1)
	}
	if len(named) > 0 {
		return badRequest(api.CodeConfirm, "confirm_protected names %s, which is no protected host of this job, or is named twice", strings.Join(named, ", "))
	}
	return nil
}

func orUnknown(s string) string {
	if s == "" {
		return "unknown"
	}
	return s
}

func factsDigest(facts []string) string {
	sum := sha256.Sum256([]byte("labswarm/plan/v1\n" + strings.Join(facts, "\n")))
	return hex.EncodeToString(sum[:])
}

// planHost says what would happen to one host.
func planHost(tx store.Tx, h api.Host, img ImageInfo, req *api.JobCreate) (api.JobPlanHost, error) {
	line := api.JobPlanHost{Host: h.Name, Room: h.Room, Verdict: api.VerdictGo, Reason: "starts when the host boots from the network inside the window", Fits: "unknown",
		LastSeen: h.LastSeen, Firmware: h.Firmware, SecureBoot: h.Secure}
	if req.Wake {
		rec, err := inventory.RoomRecord(tx, h.Room)
		if err != nil {
			return line, err
		}
		if _, off := paceOf(rec); !off {
			line.Verdict, line.Reason = api.VerdictWake, "is switched on when it is its turn"
		} else {
			line.Reason += "; its room is switched on by hand"
		}
	}
	j, s, err := hostSlot(tx, h.Name)
	if err != nil {
		return line, err
	}
	switch barred := inventory.Barred(h, req.Room != ""); {
	case barred != "" && req.Room != "":
		line.Verdict, line.Reason = api.VerdictSkip, barred
	case barred != "":
		line.Verdict, line.Reason = api.VerdictRefuse, barred
	case s != nil && s.Live():
		line.Verdict, line.Reason = api.VerdictRefuse, fmt.Sprintf("%s in job %d, which has not ended", s.State, j.ID)
	}
	if s != nil && s.PONR && !s.Verified && !s.Live() {
		line.Risk = append(line.Risk, "its disk is half written since job "+fmt.Sprint(j.ID))
	}
	if h.Evidence == nil {
		line.Risk = append(line.Risk, "never seen: nobody knows its disks")
		return line, nil
	}
	line.LinkMbps, line.RAMBytes = bootLink(*h.Evidence), h.Evidence.RAMBytes
	if (img.Boot == "bios" && h.Firmware == "uefi") || (img.Boot == "uefi" && h.Firmware == "bios") {
		line.Risk = append(line.Risk, fmt.Sprintf("it starts by %s, the image by %s only", h.Firmware, img.Boot))
	}
	if line.LinkMbps > 0 && line.LinkMbps < 1000 {
		line.Risk = append(line.Risk, fmt.Sprintf("its link has %d Mb/s", line.LinkMbps))
	}
	return line, planDisk(&line, h, img, req)
}

// planDisk picks the disk from what the host showed last.
func planDisk(line *api.JobPlanHost, h api.Host, img ImageInfo, req *api.JobCreate) error {
	want, err := wanted(h, req.Disk)
	if err != nil {
		return err
	}
	want.MinBytes, want.Sector, want.Replace, want.Own = img.MinBytes, img.Sector, req.ReplaceForeign, img.Own
	d, fault := diskrule.Pick(h.Evidence.Disks, want)
	if fault != nil {
		line.Fits = "no"
		if line.Verdict == api.VerdictGo || line.Verdict == api.VerdictWake {
			line.Reason = "as last seen it will be refused: " + fault.Text
		}
		return nil // the plan says it; the disk may be another one by then
	}
	line.Fits, line.Foreign = "yes", d.Foreign
	line.Disk = fmt.Sprintf("%s %s %d bytes", d.Model, d.Serial, d.Bytes)
	line.DiskModel, line.DiskSerial, line.DiskBytes = d.Model, d.Serial, d.Bytes
	if len(d.Foreign) > 0 {
		line.Disk += ", REPLACES " + diskrule.Marks(d.Foreign)
		line.Risk = append(line.Risk, "what is part of something bigger is given up: "+diskrule.Marks(d.Foreign))
	}
	return nil
}

// provenJobs is how many of the newest jobs are asked what hosts hold.
const provenJobs = 100

// lastProven says which version each host was proven to hold last. A write that
// was not proven since makes it unknown.
func lastProven(tx store.Tx) (map[string]string, error) {
	out := map[string]string{}
	last, err := store.PeekSeq(tx, "job")
	if err != nil {
		return nil, err
	}
	for id := last; id > 0 && last-id < provenJobs; id-- {
		js, err := loadJob(tx, id)
		if err != nil {
			return nil, err
		}
		for _, s := range js.slots {
			if _, known := out[s.Host]; known || js.job.IsCapture() || !s.PONR {
				continue
			}
			out[s.Host] = ""
			if s.Verified {
				out[s.Host] = js.job.Image + "/" + js.job.Version
			}
		}
	}
	return out, nil
}

// checkPlan refuses a job whose plan is not true any more.
func (e *Engine) checkPlan(tx store.Tx, req *api.JobCreate, img ImageInfo, hosts []api.Host) error {
	if req.PlanDigest == "" {
		return badRequest(api.CodeConfirm, "this erases disks: name the plan that was looked at (plan_digest of POST %s)", api.RoutePlans)
	}
	lines, facts, err := planHosts(tx, req, img, hosts)
	if err != nil {
		return err
	}
	if digest := factsDigest(facts); digest != req.PlanDigest {
		return conflict(api.CodePlanStale, "the facts have changed since the plan was made, nothing done: %s. Look at a new plan", difference(e.plans.of(req.PlanDigest), facts))
	}
	if n := erased(lines); n != req.ConfirmHosts {
		return badRequest(api.CodeConfirm, "this erases the disks of %d hosts, %d were confirmed", n, req.ConfirmHosts)
	}
	return checkProtected(req, hosts, lines)
}

func erased(lines []api.JobPlanHost) int {
	n := 0
	for _, l := range lines {
		if l.Verdict == api.VerdictGo || l.Verdict == api.VerdictWake {
			n++
		}
	}
	return n
}

const maxDifference = 10 // facts named

// difference says what is new and what is gone, for people.
func difference(old, now []string) string {
	if old == nil {
		return "what it said is not known here any more"
	}
	var out []string
	add := func(sign string, from, other []string) {
		for _, f := range from {
			if !slices.Contains(other, f) {
				out = append(out, sign+f)
			}
		}
	}
	add("was: ", old, now)
	add("is: ", now, old)
	if n := len(out); n > maxDifference {
		out = append(out[:maxDifference], fmt.Sprintf("and %d more", n-maxDifference))
	}
	return strings.Join(out, "; ")
}

// Figures for estimates of hosts of which nothing is known.
const (
	guessLink = 1000             // Mb/s
	slowLink  = 100              // Mb/s
	guessDisk = 150_000_000      // bytes per second read
	fastDisk  = 400_000_000      //
	bootTime  = 2 * time.Minute  // power-on to the first byte
	lateBoot  = 10 * time.Minute // the slowest of a room, switched on by hand
	slowDisk  = 2 * 40_000_000   // bytes per second read
)

// forecast fills in what the plan expects: cells, times, the server's upload.
func (e *Engine) forecast(plan *api.JobPlan, req *api.JobCreate, img ImageInfo, now time.Time) {
	w := windowOf(req, now)
	opens := later(now, w.opens)
	plan.NotBefore, plan.NotAfter, plan.MaxOverrunS, plan.OnWindowEnd = opens.UTC(), w.closes, int64(w.overrun/time.Second), req.OnWindowEnd
	if plan.OnWindowEnd == "" {
		plan.OnWindowEnd = job.OnEndFinish
	}
	kept := map[string]int{}
	most := map[string]int64{} // by room: a chain carries what the one who needs most needs
	for i := range plan.Hosts {
		h := &plan.Hosts[i]
		h.KeepCells = e.kept(h.Holds, img, kept)
		h.FetchCells = img.Cells - h.KeepCells
		h.FetchBytes = min(int64(h.FetchCells)*img.CellBytes, img.BytesShipped)
		if h.Verdict != api.VerdictGo && h.Verdict != api.VerdictWake {
			if h.Verdict == api.VerdictRefuse {
				plan.Conflicts = append(plan.Conflicts, h.Host+": "+h.Reason)
			}
			continue
		}
		usual := estimate(h, img, guessLink, guessDisk) + bootTime
		h.NeedsS, h.InWindow = int64(usual/time.Second), !opens.Add(usual).After(w.closes)
		plan.Erase++
		if h.InWindow {
			plan.InWindow++
		}
		plan.EtaMinS = max(plan.EtaMinS, int64((estimate(h, img, guessLink, fastDisk)+bootTime)/time.Second))
		plan.EtaMaxS = max(plan.EtaMaxS, int64((estimate(h, img, slowLink, slowDisk)+lateBoot)/time.Second))
		most[h.Room] = max(most[h.Room], h.FetchBytes)
	}
	for _, n := range most {
		plan.SeedBytes += n
	}
}

// estimate is a host's time, with what is guessed where nothing is known.
func estimate(h *api.JobPlanHost, img ImageInfo, link int, disk int64) time.Duration {
	if h.LinkMbps > 0 {
		link = h.LinkMbps
	}
	d, _ := job.Work{Write: h.FetchBytes, Verify: img.BytesShipped, Disk: disk, Link: link}.Needs()
	if h.Holds != "" { // its disk is read first, to see what can stay
		d += time.Duration(float64(img.BytesShipped) / float64(disk) * float64(time.Second))
	}
	return d
}

// kept says how many cells a host keeps that holds a version; memo by version.
func (e *Engine) kept(holds string, img ImageInfo, memo map[string]int) int {
	name, version, ok := strings.Cut(holds, "/")
	if !ok || name != img.Name {
		return 0
	}
	if n, ok := memo[holds]; ok {
		return n
	}
	n := 0
	if version == img.Version {
		n = img.Cells
	} else if k, ok := e.cfg.Images.(Kept); ok {
		n, _ = k.Kept(name, version, img.Version)
	}
	memo[holds] = n
	return n
}
