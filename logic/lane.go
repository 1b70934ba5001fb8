package logic

import (
	"context"
	"sync"
)

// lane runs the commands of one duty: a fixed number of workers, each with a bounded
// queue. A user's commands go to one worker, in order. A full queue refuses.
type lane struct {
	name   string
	queues []chan *request
}

func newLane(name string, cfg LaneConfig) *lane {
	n := &lane{name: name, queues: make([]chan *request, cfg.Workers)}
	for i := range n.queues {
		n.queues[i] = make(chan *request, cfg.Queue)
	}
	return n
}

// put queues a request by its user's hash; false when that queue is full.
func (n *lane) put(hash uint64, r *request) bool {
	// The low bits chose this Logic: the high ones choose the worker.
	select {
	case n.queues[int(hash>>32%uint64(len(n.queues)))] <- r:
		return true
	default:
		return false
	}
}

// run starts the workers on wg; they end with ctx.
func (n *lane) run(ctx context.Context, wg *sync.WaitGroup, serve func(context.Context, *request)) {
	for _, q := range n.queues {
		wg.Go(func() {
			for {
				select {
				case r := <-q:
					serve(ctx, r)
				case <-ctx.Done():
					return
				}
			}
		})
	}
}
