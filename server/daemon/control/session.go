package control

import (
	"bytes"
	"encoding/json"
	"fmt"
	"sync"

	"labswarm/server/job"
	"labswarm/server/store"
)

// maxDecoded bounds each table of a decoded cache; a full one is emptied.
const maxDecoded = 4096

// decoded keeps records of the store as they were decoded last. Each report of
// each agent asks for its job and its slot: a job of 500 hosts takes 100 µs to
// decode, which was a third of what a report costs. A record is taken from here
// only when its bytes in the store are the same.
type decoded struct {
	mu    sync.Mutex
	jobs  map[uint64]jobBytes
	slots map[slotKey]slotBytes
}

type jobBytes struct {
	raw []byte
	j   *job.Job
}

type slotBytes struct {
	raw []byte
	s   *job.Slot
}

// job is getJob for readers: what it returns is shared and must not be changed.
func (d *decoded) job(tx store.Tx, id uint64) (*job.Job, error) {
	raw, err := tx.Get(keyJob(id))
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	old := d.jobs[id]
	d.mu.Unlock()
	if raw != nil && bytes.Equal(raw, old.raw) {
		return old.j, nil
	}
	j, err := getJob(tx, id)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.jobs == nil || len(d.jobs) >= maxDecoded {
		d.jobs = map[uint64]jobBytes{}
	}
	d.jobs[id] = jobBytes{raw, j}
	return j, nil
}

// slot is getSlot for readers, as job is.
func (d *decoded) slot(tx store.Tx, k slotKey) (*job.Slot, error) {
	raw, err := tx.Get(keySlot(k))
	if err != nil {
		return nil, err
	}
	if raw == nil {
		return nil, notFound("host %s is not in job %d", k.host, k.job)
	}
	d.mu.Lock()
	old := d.slots[k]
	d.mu.Unlock()
	if bytes.Equal(raw, old.raw) {
		return old.s, nil
	}
	s := &job.Slot{}
	if err := json.Unmarshal(raw, s); err != nil {
		return nil, fmt.Errorf("read %s: %w", keySlot(k), err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.slots == nil || len(d.slots) >= maxDecoded {
		d.slots = map[slotKey]slotBytes{}
	}
	d.slots[k] = slotBytes{raw, s}
	return s, nil
}
