package rocketmq

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"

	"hongyan/internal/mq/rocketmq/remoting"
)

// topics knows which topics exist, and makes those that may be made.
type topics struct {
	cfg *Config

	mu    sync.Mutex
	known map[string]bool // by RocketMQ's name
}

// call makes one request of a name server or a broker.
func (t *topics) call(ctx context.Context, addr string, code int, fields map[string]string, body []byte, ok ...int) (*remoting.Answer, error) {
	keys := remoting.Keys{Access: t.cfg.AccessKey, Secret: t.cfg.SecretKey}
	return remoting.Call(ctx, addr, keys, &remoting.Request{Code: code, Fields: fields, Body: body}, ok...)
}

// route is where a topic is.
type route struct {
	Queues []struct {
		Broker string `json:"brokerName"`
		Read   int    `json:"readQueueNums"`
	} `json:"queueDatas"`
	Brokers []struct {
		Name  string         `json:"brokerName"`
		Addrs remoting.Addrs `json:"brokerAddrs"`
	} `json:"brokerDatas"`
}

// master is the address of a broker, empty if it has none now.
func (r *route) master(broker string) string {
	for _, b := range r.Brokers {
		if b.Name == broker {
			return b.Addrs["0"]
		}
	}
	return ""
}

// errMissing: a topic is not known to the name servers.
var errMissing = errors.New("not known to the name servers")

// route asks the name servers where a topic is; errMissing if nowhere.
func (t *topics) route(ctx context.Context, name string) (*route, error) {
	var errs []error
	for _, server := range t.cfg.NameServers {
		a, err := t.call(ctx, server, remoting.GetRoute, map[string]string{"topic": name, "acceptStandardJsonOnly": "true"}, nil, remoting.TopicNotExist)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if a.Code == remoting.TopicNotExist {
			return nil, errMissing
		}
		r := new(route)
		return r, remoting.Decode(a.Body, r)
	}
	return nil, fmt.Errorf("no name server answers: %w", errors.Join(errs...))
}

// masters are the addresses of all brokers.
func (t *topics) masters(ctx context.Context) ([]string, error) {
	var errs []error
	for _, server := range t.cfg.NameServers {
		a, err := t.call(ctx, server, remoting.GetCluster, nil, nil)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		brokers, err := remoting.Brokers(a.Body)
		if err != nil {
			return nil, err
		}
		var list []string
		for _, addrs := range brokers {
			if addr := addrs["0"]; addr != "" {
				list = append(list, addr)
			}
		}
		if len(list) == 0 {
			return nil, errors.New("the name servers know no broker")
		}
		slices.Sort(list)
		return list, nil
	}
	return nil, fmt.Errorf("no name server answers: %w", errors.Join(errs...))
}

// ensure makes sure that a topic exists, or says what is wrong.
func (t *topics) ensure(ctx context.Context, name string) error {
	t.mu.Lock()
	known := t.known[name]
	t.mu.Unlock()
	if known {
		return nil
	}
	_, err := t.route(ctx, name)
	if errors.Is(err, errMissing) {
		if !t.cfg.CreateTopics {
			return fmt.Errorf("topic %s is %w: create it (mqadmin updateTopic -t %s), or set create_topics", name, err, name)
		}
		err = t.create(ctx, name)
	}
	if err != nil {
		return fmt.Errorf("topic %s: %w", name, err)
	}
	t.mu.Lock()
	t.known[name] = true
	t.mu.Unlock()
	return nil
}

func (t *topics) create(ctx context.Context, name string) error {
	masters, err := t.masters(ctx)
	if err != nil {
		return err
	}
	queues := strconv.Itoa(t.cfg.Queues)
	for _, addr := range masters {
		_, err := t.call(ctx, addr, remoting.UpdateTopic, map[string]string{
			"topic": name, "defaultTopic": "TBW102", "readQueueNums": queues, "writeQueueNums": queues,
			"perm": "6", "topicFilterType": "SINGLE_TAG", "topicSysFlag": "0", "order": "false",
		}, nil)
		if err != nil {
			return fmt.Errorf("create it at %s: %w", addr, err)
		}
	}
	return nil
}

// ensureAll makes sure of a topic and of what a group needs: itself, the topic of its retries,
// which brokers make too late for a consumer that is just starting, and that of its dead
// letters, which they make for the first of them.
func (t *topics) ensureAll(ctx context.Context, topic, group string) error {
	if err := t.ensure(ctx, topic); err != nil || !t.cfg.CreateTopics {
		return err
	}
	if err := t.ensureGroup(ctx, group); err != nil {
		return err
	}
	if err := t.ensure(ctx, retryPrefix+group); err != nil {
		return err
	}
	return t.ensure(ctx, deadPrefix+group)
}

// ensureGroup creates a group where that is allowed. Where it is not, brokers make groups by
// themselves (autoCreateSubscriptionGroup), or an operator did: a broker tells nobody that a
// group is missing, so Health watches for consumers without queues.
func (t *topics) ensureGroup(ctx context.Context, name string) error {
	if !t.cfg.CreateTopics {
		return nil
	}
	masters, err := t.masters(ctx)
	if err != nil {
		return fmt.Errorf("group %s: %w", name, err)
	}
	group, err := json.Marshal(map[string]any{
		"groupName": name, "consumeEnable": true, "consumeFromMinEnable": true, "consumeBroadcastEnable": true,
		"consumeMessageOrderly": false, "retryQueueNums": 1, "retryMaxTimes": 16, "brokerId": 0,
		"whichBrokerWhenConsumeSlowly": 1, "notifyConsumerIdsChangedEnable": true, "groupSysFlag": 0,
		"consumeTimeoutMinute": 15,
	})
	if err != nil {
		return err
	}
	for _, addr := range masters {
		if _, err := t.call(ctx, addr, remoting.UpdateGroup, nil, group); err != nil {
			return fmt.Errorf("create group %s at %s: %w", name, addr, err)
		}
	}
	return nil
}

// queueOf is one queue of a topic.
type queueOf struct {
	broker, addr string
	id           int
}

// queues are those of a topic whose brokers are there.
func (t *topics) queues(ctx context.Context, name string) ([]queueOf, error) {
	r, err := t.route(ctx, name)
	if err != nil {
		return nil, err
	}
	var list []queueOf
	for _, q := range r.Queues {
		addr := r.master(q.Broker)
		for id := range q.Read {
			if addr != "" {
				list = append(list, queueOf{q.Broker, addr, id})
			}
		}
	}
	slices.SortFunc(list, func(a, b queueOf) int {
		return cmp.Or(cmp.Compare(a.broker, b.broker), cmp.Compare(a.id, b.id))
	})
	return list, nil
}
