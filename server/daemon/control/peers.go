package control

import (
	"crypto/ed25519"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"labswarm/api/order"
	"labswarm/server/job"
	"labswarm/server/store"
	"labswarm/swarm/peercert"
)

// seedName is the server in its own swarms; the tracker calls it the same.
const seedName = "server"

// scopePass is the seed's pass in the present run of a swarm.
type scopePass struct {
	scope string
	pass  *peercert.Pass
}

// authority is the certificate authority of a job's swarm.
func (e *Engine) authority(j *job.Job) (*peercert.Authority, [20]byte, error) {
	var ih [20]byte
	raw, err := hex.DecodeString(j.InfoHash)
	if err != nil || len(raw) != len(ih) {
		return nil, ih, fmt.Errorf("job %d: info-hash %q is not 40 hex digits", j.ID, j.InfoHash)
	}
	copy(ih[:], raw)
	a, err := peercert.NewAuthority(e.cfg.Key.Seed(), ih, j.Scope)
	return a, ih, err
}

// member makes what an order says about the swarm: a certificate for this job
// and this boot, over the key of the agent's TLS certificate.
func (e *Engine) member(j *job.Job, host, bootID string, key ed25519.PublicKey) (order.Swarm, error) {
	a, _, err := e.authority(j)
	if err != nil {
		return order.Swarm{}, err
	}
	cert, err := a.Issue(key, peercert.ID{Host: host, Job: j.ID, Boot: bootID})
	return order.Swarm{Authority: a.Cert(), Cert: cert, PlainPeers: e.cfg.PlainPeers}, err
}

// openScope makes the seed a member of a live job's swarm.
func (e *Engine) openScope(j *job.Job) error {
	a, ih, err := e.authority(j)
	if err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if old, ok := e.scopes[ih]; ok && old.scope == j.Scope {
		return nil
	}
	pass, err := a.NewPass(peercert.ID{Host: seedName, Seed: true})
	if err != nil {
		return err
	}
	e.scopes[ih] = scopePass{j.Scope, pass}
	return nil
}

// PeerPass is the seed's certificate in a swarm.
func (e *Engine) PeerPass(infoHash [20]byte) (*peercert.Pass, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	p, ok := e.scopes[infoHash]
	if !ok {
		return nil, fmt.Errorf("no live job uses %x", infoHash)
	}
	return p.pass, nil
}

// AdmitPeer says why the owner of a certificate gets nothing from the seed, nil
// when he is a member: an agent of this boot in a live job on this image.
func (e *Engine) AdmitPeer(infoHash [20]byte, id peercert.ID) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	m, ok := e.members[slotKey{id.Job, id.Host}]
	switch {
	case id.Seed:
		return fmt.Errorf("%v: a seed fetches nothing here", id)
	case !ok || m.infoHash != hex.EncodeToString(infoHash[:]):
		return fmt.Errorf("%v is in no live job on this image", id)
	case m.bootID != id.Boot:
		return fmt.Errorf("%v has booted again since", id)
	}
	return nil
}

// AllowPeer reports whether an address belongs to an enrolled agent of a live
// job: nobody else is even listened to.
func (e *Engine) AllowPeer(ip netip.Addr) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	_, ok := e.peers[ip.Unmap()]
	return ok
}

// scopeFor returns the scope of the live jobs on an image, fresh when there is
// none: jobs at the same time share a swarm, later ones do not.
func scopeFor(tx store.Tx, infoHash, fresh string) (string, error) {
	for key := range tx.Scan(prefixLive, "", 0) {
		id, err := strconv.ParseUint(strings.TrimPrefix(key, prefixLive), 16, 64)
		if err != nil {
			return "", fmt.Errorf("read %s: %w", key, err)
		}
		j, err := getJob(tx, id)
		if err != nil {
			return "", err
		}
		if j.InfoHash == infoHash && j.Scope != "" {
			return j.Scope, nil
		}
	}
	return fresh, nil
}
