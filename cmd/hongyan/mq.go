package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"hongyan/internal/mq"
	"hongyan/internal/mq/remote"
	"hongyan/internal/mq/rocketmq"
	"hongyan/internal/notice"
	"hongyan/internal/rpc"
)

func newMQCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "mq",
		Short: "what the message queue could not deliver",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	dlq := &cobra.Command{
		Use:   "dlq",
		Short: "dead letters: messages that a group could not handle",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	dlq.AddCommand(newDLQListCmd(), newDLQRetryCmd())
	cmd.AddCommand(dlq)
	return cmd
}

// broadcastQueue is the queue over which gateways and IMUI tell everybody online something,
// in a process that does not host it; nil where none can be reached.
func (p *process) broadcastQueue() (mq.Queue, error) {
	if !p.cfg.usesRocketMQ() && !p.cfg.usesEtcd() && len(p.cfg.Cluster.ExtLogic) == 0 {
		return nil, nil
	}
	return p.reachQueue()
}

// operatorsQueue lets operators at the dead letters of dev's queue, from this machine only.
func operatorsQueue(addr string, queue mq.Queue) []rpc.Service {
	host, _, err := net.SplitHostPort(addr)
	if err != nil || !isLoopback(host) {
		return nil
	}
	return []rpc.Service{rpc.Queue(&remote.Operator{Host: remote.NewHost(queue)})}
}

// deadLetters of one topic and group, wherever the queue is.
type deadLetters interface {
	Dead(ctx context.Context, topic, group string, limit int) ([]mq.DeadLetter, error)
	Retry(ctx context.Context, topic, group string, ids ...string) (int, error)
}

// dlqFlags say which dead letters are meant.
type dlqFlags struct {
	load         loadFlags
	topic, group string
	rpc          string
	rocket       rocketmq.Config // what flags say of it
	json         bool
}

func (f *dlqFlags) register(cmd *cobra.Command) {
	f.load.register(cmd)
	defaults := rocketmq.DefaultConfig()
	flags := cmd.Flags()
	flags.StringVar(&f.topic, "topic", "", "offline or system")
	flags.StringVar(&f.group, "group", "", "push (of offline) or notice (of system)")
	flags.StringVar(&f.rpc, "rpc", "", "host:port of the extlogic or dev that hosts the embedded queue, instead of RocketMQ")
	flags.StringSliceVar(&f.rocket.NameServers, "name-servers", nil, "host:port of RocketMQ's name servers; default: queue.name_servers of the configuration")
	flags.StringVar(&f.rocket.Prefix, "prefix", defaults.Prefix, "of topics and groups on RocketMQ")
	flags.StringVar(&f.rocket.AccessKey, "access-key", "", "where the brokers ask for one (ACL)")
	flags.StringVar(&f.rocket.SecretKey, "secret-key", "", "with --access-key; HONGYAN_QUEUE_SECRET_KEY shows it to nobody")
	flags.BoolVar(&f.json, "json", false, "one JSON object on stdout")
}

// config is that of the tiers, with what flags say over it.
func (f *dlqFlags) config(cmd *cobra.Command) (*Config, error) {
	f.load.set(cmd, "name-servers", "queue.name_servers", f.rocket.NameServers)
	f.load.set(cmd, "prefix", "queue.prefix", f.rocket.Prefix)
	f.load.set(cmd, "access-key", "queue.access_key", f.rocket.AccessKey)
	f.load.set(cmd, "secret-key", "queue.secret_key", f.rocket.SecretKey)
	return f.load.load(defaultConfig())
}

// with opens the queue, and closes it after do.
func (f *dlqFlags) with(cmd *cobra.Command, do func(deadLetters) error) (err error) {
	switch {
	case f.topic == "" || f.group == "":
		return &usageError{errors.New("give --topic and --group, e.g. --topic system --group notice")}
	case f.rpc != "" && len(f.rocket.NameServers) > 0:
		return &usageError{errors.New("give --rpc, or --name-servers, and not both")}
	}
	cfg, err := f.config(cmd)
	if err != nil {
		return err
	}
	if f.rpc != "" {
		host, err := rpc.DialQueue(f.rpc, rpc.Options{})
		if err != nil {
			return err
		}
		return do(remote.Letters{Host: host})
	}
	if !cfg.usesRocketMQ() {
		return &usageError{errors.New("no queue: give --rpc, or --name-servers, or queue.name_servers in the configuration (--config)")}
	}
	q, err := rocketmq.Open(cmd.Context(), cfg.Queue, rocketmq.Deps{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, q.Close()) }()
	return do(q)
}

// letterJSON is a dead letter as scripts see it.
type letterJSON struct {
	ID       string          `json:"id"`
	Topic    string          `json:"topic"`
	Key      string          `json:"key"`
	Attempts int             `json:"attempts"`
	At       time.Time       `json:"at,omitzero"`
	Error    string          `json:"error,omitempty"`
	Payload  json.RawMessage `json:"payload"`
}

func newDLQListCmd() *cobra.Command {
	var f dlqFlags
	var limit int
	cmd := &cobra.Command{
		Use:   "list",
		Short: "lists dead letters, the oldest first",
		Example: "  hongyan mq dlq list --topic system --group notice --rpc 127.0.0.1:9000\n" +
			"  hongyan mq dlq list --topic system --group notice --config hongyan.yaml --json",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.with(cmd, func(q deadLetters) error {
				dead, err := q.Dead(cmd.Context(), f.topic, f.group, limit)
				if err != nil {
					return err
				}
				return printLetters(cmd.OutOrStdout(), dead, f.json, time.Now())
			})
		},
	}
	f.register(cmd)
	cmd.Flags().IntVar(&limit, "limit", 100, "at most so many")
	return cmd
}

func printLetters(w io.Writer, dead []mq.DeadLetter, asJSON bool, now time.Time) error {
	letters := make([]letterJSON, len(dead))
	for i, d := range dead {
		letters[i] = letterJSON{d.ID, d.Topic, d.Key, d.Attempt, d.At, d.Error, notice.JSON(d.Topic, d.Payload)}
	}
	if asJSON {
		return json.NewEncoder(w).Encode(map[string]any{"letters": letters})
	}
	if len(letters) == 0 {
		_, err := fmt.Fprintln(w, "no dead letters")
		return err
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "ID\tTOPIC\tKEY\tATTEMPTS\tAGE\tERROR\tPAYLOAD")
	for _, l := range letters {
		age := "-"
		if !l.At.IsZero() {
			age = now.Sub(l.At).Round(time.Second).String()
		}
		said := l.Error
		if said == "" {
			said = "-"
		}
		fmt.Fprintf(table, "%s\t%s\t%q\t%d\t%s\t%q\t%s\n", l.ID, l.Topic, l.Key, l.Attempts, age, said, l.Payload)
	}
	return table.Flush()
}

// retryPage is how many dead letters --all retries at a time.
const retryPage = 1000

func newDLQRetryCmd() *cobra.Command {
	var f dlqFlags
	var all bool
	cmd := &cobra.Command{
		Use:   "retry [ID...]",
		Short: "hands dead letters to their group again, as new messages",
		Example: "  hongyan mq dlq retry --topic system --group notice --rpc 127.0.0.1:9000 17 18\n" +
			"  hongyan mq dlq retry --topic offline --group push --config hongyan.yaml --all",
		RunE: func(cmd *cobra.Command, ids []string) error {
			if all == (len(ids) > 0) {
				return &usageError{errors.New("name the ids of dead letters, or give --all")}
			}
			return f.with(cmd, func(q deadLetters) error {
				retried, err := retryLetters(cmd.Context(), q, &f, ids)
				if f.json {
					err = errors.Join(err, json.NewEncoder(cmd.OutOrStdout()).Encode(map[string]int{"retried": retried}))
				} else {
					fmt.Fprintf(cmd.OutOrStdout(), "%d retried\n", retried)
				}
				if err == nil && retried < len(ids) {
					err = fmt.Errorf("%d of %d ids are not on the list", len(ids)-retried, len(ids))
				}
				return err
			})
		},
	}
	f.register(cmd)
	cmd.Flags().BoolVar(&all, "all", false, "every dead letter there is now")
	return cmd
}

// retryLetters retries these; without ids all that are there when it begins.
func retryLetters(ctx context.Context, q deadLetters, f *dlqFlags, ids []string) (int, error) {
	if len(ids) > 0 {
		return q.Retry(ctx, f.topic, f.group, ids...)
	}
	retried, begun := 0, time.Now()
	for {
		dead, err := q.Dead(ctx, f.topic, f.group, retryPage)
		if err != nil {
			return retried, err
		}
		var page []string
		for _, d := range dead {
			if d.At.Before(begun) { // those that die again meanwhile are for another time
				page = append(page, d.ID)
			}
		}
		if len(page) == 0 {
			return retried, nil
		}
		n, err := q.Retry(ctx, f.topic, f.group, page...)
		retried += n
		if err != nil || n == 0 {
			return retried, err
		}
	}
}
