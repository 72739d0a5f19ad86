package control

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"labswarm/api"
	"labswarm/api/order"
	"labswarm/server/job"
	"labswarm/server/store"
)

// Commence grants the point of no return, or says why not. The same request
// again gets the same answer; another one on a used order does not.
func (e *Engine) Commence(ctx context.Context, cert string, req *api.CommenceRequest) (json.RawMessage, error) {
	j, s, err := e.session(ctx, cert)
	if err != nil {
		return nil, err
	}
	if s.Disk == nil || diskID(req.Disk) != diskID(*s.Disk) {
		return nil, conflict(api.CodeBadOrder, "commence: the agent names another disk than the order")
	}
	p := req.Plan
	if want := order.PlanDigest(req.OrderID, diskID(req.Disk), p.CellsWrite, p.CellsKeep, p.CellsZero, p.BytesWrite); req.PlanDigest != want {
		return nil, conflict(api.CodeBadOrder, "commence: the plan digest does not fit the plan")
	}
	if s.Session.Commence != nil && s.Live() && req.OrderID == s.Session.OrderID && req.BootID == s.Session.BootID && req.PlanDigest == s.Session.PlanDigest {
		return s.Session.Commence, nil
	}
	k := slotKey{j.ID, s.Host}
	needs := e.needs(j, s, p)
	out, err := e.applyWith(ctx, k, func(tx store.Tx, j *job.Job, s *job.Slot) (job.Event, error) {
		return e.commenceEvent(tx, s, cert, req, needs)
	})
	var late *job.TooLateError
	if errors.As(err, &late) { // it would not be ready in time: that is its outcome, and sends it to its own disk
		if _, err := e.apply(ctx, k, job.Skip{Reason: late.Text}); err != nil {
			return nil, problem(err)
		}
	}
	if err != nil {
		return nil, problem(err)
	}
	return out.slot.Session.Commence, nil
}

func (e *Engine) commenceEvent(tx store.Tx, s *job.Slot, cert string, req *api.CommenceRequest, needs time.Duration) (job.Event, error) {
	if err := notQuarantined(tx, s); err != nil {
		return nil, err
	}
	fence, err := tx.Seq("fence")
	if err != nil {
		return nil, err
	}
	epoch, err := tx.Get(store.KeyEpoch)
	if err != nil {
		return nil, err
	}
	c := order.Commence{OrderID: req.OrderID, BootID: req.BootID, AgentNonce: s.Session.Nonce, FenceEpoch: string(epoch), Fence: fence, PlanDigest: req.PlanDigest}
	env, err := order.Sign(e.cfg.Key, order.TypeCommence, c)
	if err != nil {
		return nil, err
	}
	raw, err := json.Marshal(env)
	return job.Commence{OrderID: req.OrderID, BootID: req.BootID, Cert: cert, PlanDigest: req.PlanDigest, Plan: req.Plan, Needs: needs, Fence: fence, Envelope: raw}, err
}
