package sim

import (
	"math/rand/v2"
	"time"

	"hongyan/das"
	"hongyan/internal/gate"
	"hongyan/logic"
)

// profile is what a seed decides before anything runs: the cluster's shape, its
// configuration, and how hostile the world is.
type profile struct {
	shape      shape
	registered bool // instances register and their leases end; otherwise they are listed for good
	gate       gate.Config
	logic      logic.Config
	das        das.Config

	drops  bool          // the way down is so narrow that frames are dropped in any burst
	faults time.Duration // how long faults and the workload last
	net    netOdds
	store  storeOdds
	queue  queueOdds
	link   linkOdds
	chaos  chaosOdds
	people people

	databases int // 0: one, without copies
}

// shape of a cluster. With one das the store is exclusive: the one-commit form, unless it
// is to be shared all the same.
type shape struct {
	name                 string
	gates, logics, dases int
	exclusive            bool
	duties               []string // of each logic, where the tier is split (ZZ-21)
}

// chaosOdds are the weights of what befalls whole processes, and how often it does.
type chaosOdds struct {
	every     time.Duration // mean time between two
	crash     float64
	pause     float64
	cut       float64 // a partition between two addresses
	wholeTier float64 // all instances of a tier die
	flush     float64 // the presence cache forgets
	cacheDown float64
	queueDown float64
	failover  float64 // a database loses its copy, or its primary
	move      float64 // a bucket moves
}

func shapes(rng *rand.Rand) shape {
	switch r := rng.Float64(); {
	case r < 0.10:
		return shape{"dev", 1, 1, 1, true, nil}
	case r < 0.40:
		return shape{"one-commit", 2, 2 + rng.IntN(2), 1, true, nil}
	case r < 0.45:
		return shape{"two-stage, one das", 2, 2, 1, false, nil}
	default:
		return shape{"two-stage", 2, 3, 3, false, nil}
	}
}

// split lets a part of the seeds serve logins, messages and reads at different instances.
func (s shape) split(rng *rand.Rand) shape {
	if s.logics == 1 || rng.Float64() > 0.25 {
		return s
	}
	s.name += ", by duty"
	s.duties = []string{"session", "session,contact", "message", "message", "message,contact"}
	s.logics = len(s.duties)
	return s
}

// newProfile draws the profile of a seed. Most seeds have a little of everything; some
// have much of one thing, for what comes often alone hides in a crowd.
func newProfile(seed uint64) profile {
	rng := newRand(seed, "profile")
	p := profile{
		shape:      shapes(rng).split(newRand(seed, "duties")),
		registered: rng.Float64() < 0.5,
		gate:       gate.DefaultConfig(), logic: logic.DefaultConfig(), das: das.DefaultConfig(),
		faults: time.Duration(40+rng.IntN(50)) * time.Second,
	}
	p.configure(rng)
	p.net = netOdds{lostRequest: 0.003, lostReply: 0.003, late: 0.03, veryLate: 0.003, hung: 0.001, crashPoint: 0.001}
	p.store = storeOdds{refused: 0.004, hidden: 0.006, late: 0.004, slow: 0.01, killed: 0.002, unread: 0.002}
	p.queue = queueOdds{refused: 0.02, hidden: 0.02, lost: 0.02, twice: 0.05, late: 0.1, vendor: 0.1}
	p.link = linkOdds{lost: 0.003, late: 0.03, broken: 0.002, halfOpen: 0.3}
	p.chaos = chaosOdds{every: 8 * time.Second, crash: 3, pause: 3, cut: 3, wholeTier: 0.3, flush: 1, cacheDown: 0.5, queueDown: 0.5}
	p.people = people{
		users: 5 + rng.IntN(4), quiet: rng.IntN(2), devices: 3, sends: 120 + rng.IntN(120), notices: 5 + rng.IntN(10),
		full: rng.Float64() < 0.5, smallPages: rng.Float64() < 0.3,
	}
	if rng.Float64() < 0.5 {
		p.people.crash = 0.002
	}
	p.exaggerate(rng)
	if own := newRand(seed, "databases"); p.shape.dases > 1 && own.Float64() < 0.3 {
		p.severalDatabases()
	}
	return p
}

// severalDatabases gives the cluster two of them, which fail and between which buckets move.
func (p *profile) severalDatabases() {
	p.shape.name += ", two databases"
	p.databases = 2
	p.chaos.failover, p.chaos.move = 6, 8
	p.chaos.every = min(p.chaos.every, 5*time.Second)
}

// exaggerate makes one thing frequent, in half of the seeds.
func (p *profile) exaggerate(rng *rand.Rand) {
	much := 3 + 7*rng.Float64()
	switch rng.IntN(16) {
	case 0:
		p.net.lostRequest, p.net.lostReply = much*p.net.lostRequest, much*p.net.lostReply
	case 1:
		p.net.late, p.net.veryLate, p.net.hung = 0.3, much*p.net.veryLate, much*p.net.hung
	case 2:
		p.net.crashPoint *= much
	case 3:
		p.store.hidden, p.store.late, p.store.refused = much*p.store.hidden, much*p.store.late, much*p.store.refused
	case 4:
		p.store.killed, p.store.slow = much*p.store.killed, much*p.store.slow
	case 5:
		p.link.lost, p.link.late = much*p.link.lost, 0.3
	case 6:
		p.link.broken *= much
	case 7:
		p.chaos.every, p.chaos.pause = 4*time.Second, 10
	case 8: // a quiet world: what breaks here breaks by itself
		p.net, p.store, p.link = netOdds{}, storeOdds{}, linkOdds{}
		p.chaos.every = time.Hour
	}
}

// configure makes the tiers small, so that a life costs little, and their caches tight in
// some seeds, so that they evict.
func (p *profile) configure(rng *rand.Rand) {
	for _, l := range []*logic.LaneConfig{&p.logic.Lanes.Session, &p.logic.Lanes.Message, &p.logic.Lanes.Query, &p.logic.Lanes.Open} {
		l.Workers = 1 + rng.IntN(3)
	}
	p.logic.Sessions["desktop"] = logic.ClassPolicy{Slots: 5}
	p.logic.Sessions["mobile"] = logic.ClassPolicy{Slots: 5}
	p.gate.Stripes = 1 + rng.IntN(3)
	if rng.Float64() < 0.3 {
		p.das.Cache = das.CacheConfig{Conversations: 2, Users: 2, Members: 3}
	}
	if rng.Float64() < 0.2 {
		p.gate.AckBudget, p.gate.SlowBytes = 2048, 4096
	}
	if rng.Float64() < 0.2 {
		p.logic.MaxDue, p.logic.DownQueue, p.drops = 4, 8, true
	}
	if rng.Float64() < 0.2 {
		p.das.Queues.Message.Items, p.das.Commit.Items = 8, 4
	}
}
