package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"hongyan/internal/mq/rocketmq/remoting"
)

// RocketMQ is the message queue.
type RocketMQ struct {
	NameServers []string // host:port
	Topics      []string // that Hongyan uses, as the broker names them
	Groups      []string // of its consumers
	Keys        remoting.Keys
	MaxPayload  int // bytes of its largest message
}

// broker is a primary broker with what it said of itself.
type broker struct {
	queue *RocketMQ
	asking
	name      string
	config    map[string]string // empty: it may not be asked
	configErr error
	replicas  int
}

// nameServer is one name server.
type nameServer struct {
	queue *RocketMQ
	asking
}

func (q *RocketMQ) examine(ctx context.Context) (findings []Finding) {
	brokers := map[string]remoting.Addrs{}
	for _, addr := range q.NameServers {
		name := "rocketmq name server " + addr
		c, err := q.dial(ctx, addr)
		if err != nil {
			findings = append(findings, unreachable(name, err)...)
			continue
		}
		defer c.Close()
		found, err := brokersOf(ctx, c)
		if err != nil {
			findings = append(findings, unreachable(name, err)...)
			continue
		}
		maps.Copy(brokers, found)
		findings = append(findings, reachable(name, fmt.Sprintf("%d brokers", len(found))))
		findings = append(findings, examine(ctx, name, &nameServer{q, c}, nameServerChecks())...)
	}
	if len(q.NameServers) > 0 && len(brokers) == 0 {
		return append(findings, Finding{
			Server: "rocketmq", Check: "brokers", Found: "none", Wanted: "at least one", Verdict: Violation,
			Advice: "start a broker with namesrvAddr pointing at the name servers; until then offline pushes and notices wait in the store",
		})
	}
	for _, name := range slices.Sorted(maps.Keys(brokers)) {
		findings = append(findings, q.examineBroker(ctx, name, brokers[name])...)
	}
	return findings
}

// asking is a connection to a name server or broker.
type asking struct{ *remoting.Conn }

// answerWithin bounds a request to a server that takes it and does not answer.
const answerWithin = 3 * time.Second

func (q *RocketMQ) dial(ctx context.Context, addr string) (asking, error) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	c, err := remoting.Dial(ctx, addr, q.Keys)
	return asking{c}, err
}

// ask sends a request and returns the body of its answer.
func (c asking) ask(ctx context.Context, code int, fields map[string]string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	a, err := c.Call(ctx, &remoting.Request{Code: code, Fields: fields})
	if err != nil {
		return nil, err
	}
	return a.Body, nil
}

func brokersOf(ctx context.Context, c asking) (map[string]remoting.Addrs, error) {
	body, err := c.ask(ctx, remoting.GetCluster, nil)
	if err != nil {
		return nil, err
	}
	return remoting.Brokers(body)
}

func nameServerChecks() []check[*nameServer] {
	return []check[*nameServer]{{"topics", (*nameServer).topics}}
}

// topics asks for the route of each: what has none cannot be published to.
func (n *nameServer) topics(ctx context.Context) Finding {
	wanted := strings.Join(n.queue.Topics, ", ")
	if len(n.queue.Topics) == 0 {
		return unchecked("Hongyan's topics", "their names are not known here")
	}
	var missing []string
	for _, topic := range n.queue.Topics {
		_, err := n.ask(ctx, remoting.GetRoute, map[string]string{"topic": topic, "acceptStandardJsonOnly": "true"})
		if re, ok := errors.AsType[*remoting.Error](err); ok && re.Code == remoting.TopicNotExist {
			missing = append(missing, topic)
		} else if err != nil {
			return unchecked(wanted, err)
		}
	}
	return expect(len(missing) == 0, Violation, "missing: "+list(missing), wanted,
		"mqadmin updateTopic -n NAMESERVER -c CLUSTER -t TOPIC -r 8 -w 8; or let Hongyan make them when it starts: queue.create_topics: true")
}

func (q *RocketMQ) examineBroker(ctx context.Context, name string, addrs remoting.Addrs) []Finding {
	addr, primary := addrs["0"]
	server := fmt.Sprintf("rocketmq broker %s (%s)", name, addr)
	if !primary {
		return []Finding{{
			Server: "rocketmq broker " + name, Check: "primary", Found: "only replicas", Wanted: "a primary", Verdict: Violation,
			Advice: "start its primary (brokerId=0): replicas can be read, not written",
		}}
	}
	c, err := q.dial(ctx, addr)
	if err != nil {
		return unreachable(server, err)
	}
	defer c.Close()
	b := &broker{queue: q, asking: c, name: name, replicas: len(addrs) - 1}
	var body []byte
	if body, b.configErr = c.ask(ctx, remoting.GetBrokerConfig, nil); b.configErr == nil {
		b.config = properties(string(body))
	} else if _, refused := errors.AsType[*remoting.Error](b.configErr); !refused {
		return unreachable(server, b.configErr)
	}
	return append([]Finding{reachable(server, "broker")}, examine(ctx, server, b, brokerChecks())...)
}

// properties parses lines of key=value.
func properties(text string) map[string]string {
	p := make(map[string]string)
	for line := range strings.Lines(text) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			p[k] = v
		}
	}
	return p
}

func brokerChecks() []check[*broker] {
	return []check[*broker]{
		{"messages are flushed", (*broker).flush},
		{"replication", (*broker).role},
		{"topics are not made by themselves", (*broker).autoTopic},
		{"groups", (*broker).groups},
		{"messages fit", (*broker).size},
		{"messages are kept", (*broker).kept},
		{"disk", (*broker).disk},
		{"clock", (*broker).clock},
	}
}

// setting looks at one of the broker's settings. there is false when it may not be asked.
func (b *broker) setting(name, wanted string, look func(value string) Finding) Finding {
	if b.configErr != nil {
		return unchecked(wanted, fmt.Sprintf("the broker does not tell its settings: %v", b.configErr))
	}
	value, there := b.config[name]
	if !there {
		return unchecked(wanted, "the broker does not tell "+name)
	}
	return look(value)
}

func (b *broker) flush(context.Context) Finding {
	return b.setting("flushDiskType", "SYNC_FLUSH", func(v string) Finding {
		return expect(v == "SYNC_FLUSH", Violation, "flushDiskType = "+v, "SYNC_FLUSH",
			"flushDiskType=SYNC_FLUSH in broker.conf, and restart; a notice that was accepted could be lost by a crash")
	})
}

func (b *broker) role(context.Context) Finding {
	const wanted = "SYNC_MASTER where there are replicas"
	return b.setting("brokerRole", wanted, func(v string) Finding {
		found := fmt.Sprintf("%s, %d replicas", v, b.replicas)
		switch {
		case v == "SLAVE":
			return violation(found, wanted, "a primary has brokerRole=SYNC_MASTER or ASYNC_MASTER")
		case b.replicas == 0:
			return warn(found, "a replica", "with one broker its disk's loss is the loss of notices; chat and offline pushes are in the store")
		}
		return expect(v == "SYNC_MASTER", Warning, found, wanted, "brokerRole=SYNC_MASTER in broker.conf, and restart; else a replica that takes over lacks the last notices")
	})
}

func (b *broker) autoTopic(context.Context) Finding {
	return b.setting("autoCreateTopicEnable", "false", func(v string) Finding {
		return expect(v == "false", Violation, "autoCreateTopicEnable = "+v, "false",
			"autoCreateTopicEnable=false in broker.conf, and restart; a topic made on the way has other queues, and a misspelt one swallows messages")
	})
}

// groups that do not exist take nothing, without an error.
func (b *broker) groups(ctx context.Context) Finding {
	wanted := strings.Join(b.queue.Groups, ", ")
	if b.config["autoCreateSubscriptionGroup"] == "true" {
		return ok("made by themselves", "groups exist")
	}
	if len(b.queue.Groups) == 0 {
		return unchecked("groups exist", "their names are not known here, and the broker does not make them")
	}
	body, err := b.ask(ctx, remoting.GetGroups, nil)
	if err != nil {
		return unchecked(wanted, err)
	}
	var table struct {
		Groups map[string]json.RawMessage `json:"subscriptionGroupTable"`
	}
	if err := remoting.Decode(body, &table); err != nil {
		return unchecked(wanted, err)
	}
	var missing []string
	for _, g := range b.queue.Groups {
		if _, there := table.Groups[g]; !there {
			missing = append(missing, g)
		}
	}
	return expect(len(missing) == 0, Violation, "missing: "+list(missing), wanted,
		"mqadmin updateSubGroup -n NAMESERVER -c CLUSTER -g GROUP, or autoCreateSubscriptionGroup=true; a consumer of a missing group gets nothing, without an error")
}

func (b *broker) size(context.Context) Finding {
	least := int64(b.queue.MaxPayload) + 64<<10 // with its properties
	wanted := "at least " + bytesOf(least)
	return b.setting("maxMessageSize", wanted, func(v string) Finding {
		return expect(number(v) >= least, Violation, bytesOf(number(v)), wanted, fmt.Sprintf("maxMessageSize=%d in broker.conf, and restart", 4<<20))
	})
}

func (b *broker) kept(context.Context) Finding {
	const least = 48
	return b.setting("fileReservedTime", "48 h or longer", func(v string) Finding {
		return expect(number(v) >= least, Warning, v+" h", "48 h or longer", "fileReservedTime=72 in broker.conf, and restart; notices that nobody handled for so long are gone")
	})
}

// diskFull is the share of the disk at which a broker is about to refuse messages.
const diskFull = 0.85

func (b *broker) disk(ctx context.Context) Finding {
	wanted := "below 85 % full"
	body, err := b.ask(ctx, remoting.GetBrokerRuntime, nil)
	if err != nil {
		return unchecked(wanted, err)
	}
	var runtime struct {
		Table map[string]string `json:"table"`
	}
	if err := json.Unmarshal(body, &runtime); err != nil {
		return unchecked(wanted, err)
	}
	for name, v := range runtime.Table {
		var ratio float64
		if strings.HasPrefix(name, "commitLogDiskRatio") {
			if _, err := fmt.Sscan(v, &ratio); err == nil {
				return expect(ratio < diskFull, Violation, fmt.Sprintf("%.0f %% full", 100*ratio), wanted, "free room below storePathRootDir: a full broker refuses messages")
			}
		}
	}
	return unchecked(wanted, "the broker does not tell")
}

// clock: no request of a broker is answered with its time.
func (b *broker) clock(context.Context) Finding {
	return unchecked("within 500ms of this machine's", "brokers do not tell their time; delays of retries follow it: let the host follow a time server")
}
