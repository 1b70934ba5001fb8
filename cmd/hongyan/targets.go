package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/spf13/cobra"

	"hongyan/das/store/shards"
	"hongyan/idl/tier"
	"hongyan/internal/control"
	"hongyan/internal/mq/remote"
	"hongyan/internal/rpc"
)

// target is one tier as a process of its own.
type target struct {
	name  string
	short string
	// needs are the tiers whose addresses it must be told.
	needs []string
	// build puts the tier into the process.
	build func(p *process) (readyLine, error)
}

// targets is the one table of tiers.
func targets() []target {
	return []target{
		{"entry", "the TCP gateway", []string{tierLogic, tierExtLogic}, buildEntry},
		{"httpentry", "WebSocket, long poll, the HTTP API", []string{tierLogic, tierExtLogic}, buildHTTPEntry},
		{"logic", "the IM rules", []string{tierLogic, tierDas, tierExtLogic, tierJtransit}, buildLogic},
		{"extlogic", "offline push and other heavy work; hosts the embedded queue", []string{tierLogic, tierDas}, buildExtLogic},
		{"das", "the queues in front of the store", []string{tierDas}, buildDas},
		{"imui", "the Kitex service for the platform's own systems", []string{tierLogic, tierExtLogic}, buildIMUI},
		{tierJtransit, "calls of the platform's services on behalf of logic", []string{tierJtransit}, buildJtransit},
	}
}

func newTargetCmd(t target) *cobra.Command {
	var load loadFlags
	var data, listen, rpcListen, advertise string
	var slot int
	var serve []string
	addrs := map[string]*[]string{}
	cmd := &cobra.Command{
		Use:   t.name,
		Short: "one tier: " + t.short,
		Long:  "Runs " + t.short + " as a process of its own. The first line on stdout says that it is ready and where.",
		Example: fmt.Sprintf("  hongyan %s --rpc-listen 127.0.0.1:9101 --slot 0 --%s 127.0.0.1:9201,127.0.0.1:9202",
			t.name, t.needs[0]),
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			load.set(cmd, "data", "data", data)
			load.set(cmd, "listen", t.name+".listen", listen)
			load.set(cmd, "rpc-listen", "cluster.listen", rpcListen)
			load.set(cmd, "advertise", "cluster.advertise", advertise)
			load.set(cmd, "slot", "cluster.slot", slot)
			load.set(cmd, "serve", "logic.serve", serve)
			for name, list := range addrs {
				load.set(cmd, name, "cluster."+name, *list)
			}
			return runTarget(cmd.Context(), t, &load, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	load.register(cmd)
	f := cmd.Flags()
	f.StringVar(&data, "data", "data", "the data directory")
	switch t.name {
	case "entry", "httpentry":
		f.StringVar(&listen, "listen", "", "host:port for clients")
	case tierLogic:
		f.StringSliceVar(&serve, "serve", nil, "duties of this process: session, message, contact, open; none given = all")
	}
	f.StringVar(&rpcListen, "rpc-listen", "127.0.0.1:0", "host:port where other tiers reach this process")
	f.StringVar(&advertise, "advertise", "", "how they name it; empty = the address it listens on")
	f.IntVar(&slot, "slot", -1, "the slot of this process among the instances of its tier; -1 = what the control centre gives, or 0")
	for _, name := range t.needs {
		list := new([]string)
		addrs[name] = list
		f.StringSliceVar(list, name, nil, "addresses of the "+name+" tier, in slot order")
	}
	return cmd
}

func runTarget(ctx context.Context, t target, flags *loadFlags, stdout, stderr io.Writer) error {
	read := func(overlay []byte) (*Config, []string, error) {
		cfg, err := flags.loadOver(defaultConfig(), t.name, overlay)
		if err != nil {
			return nil, nil, err
		}
		serves, err := cfg.takeDuties(t.name)
		return cfg, serves, err
	}
	cfg, serves, err := read(nil)
	if err != nil {
		return err
	}
	over := func(overlay []byte) (*Config, error) {
		cfg, _, err := read(overlay)
		return cfg, err
	}
	members, err := cfg.Cluster.members(t, cfg.usesEtcd())
	if err != nil {
		return err
	}
	for slot := range members[tierLogic].Instances {
		members[tierLogic].Instances[slot].Serves = serves[slot]
	}
	p, err := newProcess(ctx, t.name, cfg, over, kitex{}, members, stderr)
	if err != nil {
		return err
	}
	defer func() {
		if err := p.close(); err != nil {
			p.log.Error("closing", "err", err)
		}
	}()
	ready, err := t.build(p)
	if err != nil {
		return err
	}
	return p.run(ctx, func() error {
		p.log.Info("ready", "tier", t.name, "boot", p.boot)
		return json.NewEncoder(stdout).Encode(ready)
	})
}

// name of a process, for its log and its files: several share a data directory.
func (c *ClusterConfig) name(tierName string) string {
	_, port, _ := net.SplitHostPort(c.Listen)
	switch {
	case c.Slot >= 0:
		return fmt.Sprintf("%s-%d", tierName, c.Slot)
	case port != "" && port != "0":
		return tierName + "-" + port
	}
	return tierName
}

// members turns the lists of addresses into what the control centre knows, where there is no
// etcd to know it.
func (c *ClusterConfig) members(t target, etcd bool) (map[string]control.Members, error) {
	lists := map[string][]string{tierLogic: c.Logic, tierDas: c.Das, tierExtLogic: c.ExtLogic, tierJtransit: c.Jtransit}
	members := map[string]control.Members{}
	for name, addrs := range lists {
		m := control.Members{Slots: len(addrs)}
		for slot, addr := range addrs {
			m.Instances = append(m.Instances, control.Instance{Tier: name, Slot: slot, Addr: addr})
		}
		members[name] = m
	}
	if etcd { // the lists would be wrong as soon as an instance comes or goes
		for name, addrs := range lists {
			if len(addrs) > 0 {
				return nil, fmt.Errorf("cluster.%s lists addresses, and control.endpoints names an etcd that knows them: give one or the other", name)
			}
		}
		return nil, nil
	}
	for _, name := range t.needs {
		if len(lists[name]) == 0 && name != t.name && !optional(t.name, name) {
			return nil, fmt.Errorf("no address of the %s tier: give --%s, cluster.%s, or an etcd in control.endpoints", name, name, name)
		}
	}
	own, listed := lists[t.name]
	switch {
	case listed && len(own) > 0 && c.Slot >= len(own):
		return nil, fmt.Errorf("slot %d is outside of the %d addresses of the %s tier", c.Slot, len(own), t.name)
	}
	return members, nil
}

// optional tells whether a tier does without another that it can use: nobody has to call
// services, and gateways and IMUI need the queue's host for online notices only.
func optional(tierName, other string) bool {
	return other == tierJtransit || other == tierExtLogic && tierName != tierLogic
}

// selfAddr is how others name this process, once it listens on addr.
func (p *process) selfAddr(listening string, own []string) (string, error) {
	addr := p.cfg.Cluster.Advertise
	if addr == "" {
		addr = listening
	}
	if slot := max(p.cfg.Cluster.Slot, 0); len(own) > 0 && own[slot] != addr {
		return "", fmt.Errorf("slot %d of the list is %s, but this process is at %s: give --advertise, or correct the list",
			slot, own[slot], addr)
	}
	return addr, nil
}

// The servers listen before the tiers exist, because a tier must know its own address: a
// ref stands in, and is filled before anything is served.
type (
	gatewayRef struct{ tier.Gateway }
	logicRef   struct{ tier.Logic }
	dasRef     struct{ tier.Das }
)

func buildEntry(p *process) (readyLine, error) {
	ready := newReadyLine()
	ref := &gatewayRef{}
	self, err := p.listenAs("entry", stageWork, nil, rpc.Gateway(ref))
	if err != nil {
		return ready, err
	}
	if p.online, err = p.broadcastQueue(); err != nil {
		return ready, err
	}
	s, err := p.addEntry(self)
	if err != nil {
		return ready, err
	}
	ref.Gateway = s
	ready.RPC, ready.TCP = self.Addr, s.Addr().String()
	return ready, nil
}

func buildHTTPEntry(p *process) (readyLine, error) {
	ready := newReadyLine()
	ref := &gatewayRef{}
	self, err := p.listenAs("httpentry", stageWork, nil, rpc.Gateway(ref))
	if err != nil {
		return ready, err
	}
	if p.online, err = p.broadcastQueue(); err != nil {
		return ready, err
	}
	s, err := p.addHTTPEntry(self)
	if err != nil {
		return ready, err
	}
	ref.Gateway = s
	ready.RPC, ready.HTTP = self.Addr, "http://"+s.Addr().String()
	return ready, nil
}

func buildLogic(p *process) (readyLine, error) {
	ready := newReadyLine()
	ref := &logicRef{}
	self, err := p.listenAs(tierLogic, stageStore, p.cfg.Cluster.Logic, rpc.Logic(ref))
	if err != nil {
		return ready, err
	}
	queue, err := p.reachQueue()
	if err != nil {
		return ready, err
	}
	if ref.Logic, err = p.addLogic(self, queue, p.jtransitHosts()); err != nil {
		return ready, err
	}
	ready.RPC = self.Addr
	return ready, nil
}

func buildExtLogic(p *process) (readyLine, error) {
	ready := newReadyLine()
	queue, err := p.openQueue()
	if err != nil {
		return ready, err
	}
	self, err := p.listenAs(tierExtLogic, stageWork, p.cfg.Cluster.ExtLogic, rpc.Queue(remote.NewHost(queue)))
	if err != nil {
		return ready, err
	}
	ready.RPC = self.Addr
	return ready, p.addExtLogic(self, queue)
}

func buildDas(p *process) (readyLine, error) {
	ready := newReadyLine()
	if len(p.cfg.Cluster.Das) > 1 && !p.cfg.usesDatabases() {
		return ready, errors.New("several das need databases that they share (databases.shards); the embedded store is for one: " +
			strings.Join(p.cfg.Cluster.Das, ", "))
	}
	ref := &dasRef{}
	self, err := p.listenAs(tierDas, stageStore, p.cfg.Cluster.Das, rpc.Das(ref))
	if err != nil {
		return ready, err
	}
	if ref.Das, err = p.addDas(self); err != nil {
		return ready, err
	}
	ready.RPC = self.Addr
	return ready, nil
}

func buildIMUI(p *process) (readyLine, error) {
	ready := newReadyLine()
	var err error
	if p.online, err = p.broadcastQueue(); err != nil {
		return ready, err
	}
	ready.RPC, err = p.addIMUI(p.cfg.Cluster.Listen, p.online)
	return ready, err
}

func buildJtransit(p *process) (readyLine, error) {
	ready := newReadyLine()
	j, err := p.addJtransit()
	if err != nil {
		return ready, err
	}
	self, err := p.listenAs(tierJtransit, stageWork, p.cfg.Cluster.Jtransit, rpc.Jtransit(j))
	ready.RPC = self.Addr
	return ready, err
}

// listenAs opens the port for other tiers and tells who this process is. The stage is one
// below the tier's where others must reach it until it has drained: with answers and pushes
// for clients that are still there, with outcomes of writes under way.
func (p *process) listenAs(tierName string, stage int, own []string, services ...rpc.Service) (control.Instance, error) {
	listening, err := p.serve(stage, p.cfg.Cluster.Listen, services...)
	if err != nil {
		return control.Instance{}, err
	}
	addr, err := p.selfAddr(listening, own)
	if err != nil {
		return control.Instance{}, err
	}
	in := p.self(tierName, addr, p.cfg.Cluster.Slot)
	switch tierName {
	case tierLogic:
		in.Serves = p.cfg.Logic.Duties()
	case tierDas:
		in.Shards = shards.Announcement(p.cfg.Databases.Names())
	}
	return p.join(in)
}
