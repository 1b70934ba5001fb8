package main

import (
	"context"

	"hongyan/idl/code"
	"hongyan/idl/tier"
	"hongyan/internal/route"
	"hongyan/internal/rpc"
	"hongyan/jtransit"
)

// addJtransit makes the tier that calls services of the platform.
func (p *process) addJtransit() (tier.Jtransit, error) {
	j, err := jtransit.New(p.cfg.Jtransit, jtransit.Deps{
		Values: p.center, Services: p.center, Reports: p.center, Addr: p.name, Log: p.log, Metrics: p.metrics,
	})
	if err != nil {
		return nil, err
	}
	p.add(stageWork, "jtransit", j.Run)
	return j, nil
}

// jtransitHosts reaches the jtransit processes; nil where none is listed.
func (p *process) jtransitHosts() tier.Jtransit {
	if len(p.cfg.Cluster.Jtransit) == 0 && !p.cfg.usesEtcd() {
		return nil
	}
	return &jtransits{newPool(p, p.center, tierJtransit, p.fabric.Jtransit)}
}

// jtransits is the tier as its callers see it: a user's calls go to one instance, and to
// another where that cannot be reached. What may have run is not repeated.
type jtransits struct{ pool *route.Pool[tier.Jtransit] }

func (j *jtransits) Call(ctx context.Context, req *tier.CallRequest) (*tier.CallReply, error) {
	hash := route.Hash(req.Tenant, req.Uid)
	for left := j.pool.Slots(); ; left-- {
		peer, err := j.pool.Pick(hash)
		if err != nil {
			return nil, err
		}
		reply, err := peer.Client.Call(ctx, req)
		if err == nil || !rpc.Down(err) {
			return reply, err
		}
		j.pool.Failed(peer)
		if left <= 1 || code.Of(err) != code.Unavailable {
			return nil, err
		}
	}
}
