//go:build integration

package daemon

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"labswarm/api"
)

// run makes jobs until the server has been killed often enough, or a promise is broken.
func (k *killBar) run(kills int, seed uint64) {
	k.t.Helper()
	begun := time.Now()
	rng := rand.New(rand.NewPCG(seed, 1))
	k.tally.Seed = seed
	for k.tally.Kills < kills && len(k.broken()) == 0 {
		from := time.Now()
		k.job(rng, kills)
		k.tally.Jobs++
		k.t.Logf("job %d: %d kills so far, %.0f s; in this job the last commence after %.1f s, result %.1f s, own system %.1f s", k.tally.Jobs, k.tally.Kills,
			time.Since(begun).Seconds(), k.last[0].Sub(from).Seconds(), k.last[1].Sub(from).Seconds(), k.last[2].Sub(from).Seconds())
	}
	k.tally.Seconds = time.Since(begun).Seconds()
}

// killJobLimit bounds one job; the machine is shared.
const killJobLimit = 4 * time.Minute

// job reimages the room once, with the server being killed meanwhile.
func (k *killBar) job(rng *rand.Rand, kills int) {
	image := []string{"red", "blue"}[k.tally.Jobs%2]
	j, err := k.s.cli.CreateJob(k.t.Context(), api.JobCreate{Image: image, Room: "r1", Confirm: "r1", Personalise: "off"})
	if err != nil {
		k.find(&k.tally.LostCommits, "create job: %v", err) // after a lost commit: hosts or images are gone
		return
	}
	ctx, cancel := context.WithTimeout(k.t.Context(), killJobLimit)
	defer cancel()
	var room, strangers sync.WaitGroup
	for _, h := range k.hosts {
		h.begin(j.ID, k.disks[image])
		room.Go(func() { h.play(ctx) })
	}
	sctx, stop := context.WithCancel(ctx)
	for i, h := range k.others {
		strangers.Go(func() { k.stranger(sctx, h, i) })
	}
	over := make(chan struct{})
	go func() { room.Wait(); close(over) }()
	k.killer(ctx, cancel, over, rng, kills, j.ID)
	cancel2 := time.AfterFunc(killJobLimit, cancel)
	<-over
	cancel2.Stop()
	stop()
	strangers.Wait()
	k.judge(j.ID)
}

// killer kills until the room is ready, or often enough. An error of the server's own ends the job.
func (k *killBar) killer(ctx context.Context, cancel context.CancelFunc, over chan struct{}, rng *rand.Rand, kills int, id uint64) {
	for k.tally.Kills < kills && len(k.broken()) == 0 {
		select {
		case <-over:
			return
		case <-ctx.Done():
			return
		case <-time.After(time.Duration(rng.IntN(k.life)) * time.Millisecond): // of the server's life, its start included unless it was waited for
		}
		early := !k.answers(ctx)
		before := k.promised()
		k.kill()
		k.tally.Kills++
		if early {
			k.tally.StartKills++
		}
		if k.between != nil {
			k.between(k)
		}
		if err := k.start(); err != nil {
			k.t.Error(err)
			cancel()
			return
		}
		if rng.IntN(3) == 0 {
			continue // the next kill may hit it while it starts
		}
		if !k.ready() {
			k.find(&k.tally.LostCommits, "after kill %d the server does not start again:\n%s", k.tally.Kills, k.said())
			cancel()
			return
		}
		if !k.kept(ctx, id, before) {
			cancel()
			return
		}
	}
	if len(k.broken()) > 0 {
		cancel()
	}
}

// promised is what the server has acknowledged to hosts so far.
func (k *killBar) promised() map[string]api.State {
	out := map[string]api.State{}
	for _, h := range k.hosts {
		h.mu.Lock()
		switch {
		case h.acked:
			out[h.host.Name] = api.StateDone
		case h.granted:
			out[h.host.Name] = api.StateWriting
		}
		h.mu.Unlock()
	}
	return out
}

// kept compares a restarted server with what it had acknowledged.
func (k *killBar) kept(ctx context.Context, id uint64, promised map[string]api.State) bool {
	j, err := k.s.cli.Job(ctx, id)
	if err != nil {
		if ctx.Err() != nil {
			return true
		}
		k.find(&k.tally.LostCommits, "job %d after a restart: %v", id, err)
		return false
	}
	ok := true
	for _, sl := range j.Slots {
		p, has := promised[sl.Host]
		if has && (!sl.PONR || (p == api.StateDone && !sl.State.Good())) {
			k.find(&k.tally.LostCommits, "%s was acknowledged as %s; after kill %d it is %s, point of no return %v", sl.Host, p, k.tally.Kills, sl.State, sl.PONR)
			ok = false
		}
	}
	return ok
}

// judge looks at a job after its end.
func (k *killBar) judge(id uint64) {
	if len(k.broken()) > 0 {
		return
	}
	if !k.ready() {
		k.find(&k.tally.LostCommits, "at the job's end the server does not answer:\n%s", k.said())
		return
	}
	j, err := k.s.cli.Job(k.t.Context(), id)
	for end := time.Now().Add(2 * time.Minute); err == nil && j.Result == "" && time.Now().Before(end); j, err = k.s.cli.Job(k.t.Context(), id) {
		k.again(j)
		time.Sleep(500 * time.Millisecond)
	}
	if err != nil || j.Result != "ok" || len(j.Slots) != len(k.hosts) {
		k.find(&k.tally.HostsLost, "job %d ends with %q, %d slots: %v", id, j.Result, len(j.Slots), err)
		for _, sl := range j.Slots {
			if sl.State != api.StateConfirmed {
				k.t.Logf("%s: %+v", sl.Host, sl)
			}
		}
	}
	slots := map[string]api.Slot{}
	for _, sl := range j.Slots {
		slots[sl.Host] = sl
	}
	for _, h := range k.hosts {
		h.judge(slots[h.host.Name])
	}
}

// again restarts PCs whose own system the server has not seen: the agent's farewell fell into a kill, and a boot so
// soon after its last word proves nothing. In a school that is the next lesson.
func (k *killBar) again(j api.Job) {
	for _, sl := range j.Slots {
		if sl.State == api.StateConfirmed {
			continue
		}
		for _, h := range k.hosts {
			if h.host.Name != sl.Host {
				continue
			}
			if agent, _ := k.boot(k.t.Context(), h.http, h.host); agent {
				k.find(&k.tally.WrongBoots, "%s is done and was told to boot the agent", sl.Host)
			}
		}
	}
}
