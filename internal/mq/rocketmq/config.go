package rocketmq

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"hongyan/internal/mq"
)

// Config of the queue on RocketMQ.
type Config struct {
	// NameServers are host:port; at least one.
	NameServers []string `koanf:"name_servers"`
	// Prefix begins the names of all topics and groups, so that several systems can share a
	// cluster.
	Prefix string `koanf:"prefix"`
	// AccessKey and SecretKey, where the brokers ask for them (ACL).
	AccessKey string `koanf:"access_key"`
	SecretKey string `koanf:"secret_key" secret:"true"`

	// SendTimeout bounds a publish; at most 3 s, which is the client's own.
	SendTimeout time.Duration `koanf:"send_timeout"`
	// StartTimeout is how long a subscription may take to stand; a broker that is down when
	// a process starts has that long to come.
	StartTimeout time.Duration `koanf:"start_timeout"`
	// Slots is how many senders a topic has. Messages of one key go by one; it should be the
	// number of queues of a topic, or a multiple.
	Slots int `koanf:"slots"`
	// Parallel is how many handlers a group runs at once in this process.
	Parallel int `koanf:"parallel"`
	// RetryLevels are the broker's delay levels after the first failure, the second, and so
	// on, the last for all further ones. A broker's default levels are 1s 5s 10s 30s 1m 2m 3m
	// 4m 5m 6m 7m 8m 9m 10m 20m 30m 1h 2h, from 1.
	RetryLevels []int `koanf:"retry_levels"`

	// CreateTopics creates topics and groups that are missing, with Queues queues on each
	// broker: for development and tests. Where operators create them, a missing topic is an
	// error that names it.
	CreateTopics bool `koanf:"create_topics"`
	Queues       int  `koanf:"queues"`
}

// DefaultConfig lacks only NameServers. Its retries take 4 h 46 min until a message is dead.
func DefaultConfig() Config {
	return Config{
		Prefix:       "hongyan_",
		SendTimeout:  3 * time.Second,
		StartTimeout: 30 * time.Second,
		Slots:        8,
		Parallel:     32,
		RetryLevels:  []int{3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17},
		Queues:       8,
	}
}

const (
	maxLevel       = 18
	maxSendTimeout = 3 * time.Second
)

// Validate names every field that makes no sense.
func (c *Config) Validate() error {
	var errs []error
	if len(c.NameServers) == 0 {
		errs = append(errs, errors.New("name_servers is empty"))
	}
	for _, addr := range c.NameServers {
		if _, _, err := net.SplitHostPort(addr); err != nil {
			errs = append(errs, fmt.Errorf("name_servers: %q is not host:port", addr))
		}
	}
	if len(c.Prefix) > mq.MaxName || strings.Trim(c.Prefix, nameBytes) != "" {
		errs = append(errs, fmt.Errorf("prefix %q must be at most %d of a-z A-Z 0-9 _ -", c.Prefix, mq.MaxName))
	}
	if (c.AccessKey == "") != (c.SecretKey == "") {
		errs = append(errs, errors.New("access_key and secret_key come together"))
	}
	if c.SendTimeout <= 0 || c.SendTimeout > maxSendTimeout {
		errs = append(errs, fmt.Errorf("send_timeout must be more than 0 and at most %s", maxSendTimeout))
	}
	if c.StartTimeout <= 0 {
		errs = append(errs, errors.New("start_timeout must be more than 0"))
	}
	if c.Slots < 1 || c.Slots > 1024 {
		errs = append(errs, errors.New("slots must be 1 to 1024"))
	}
	if c.Parallel < 1 || c.Parallel > 1024 {
		errs = append(errs, errors.New("parallel must be 1 to 1024"))
	}
	if c.Queues < 1 || c.Queues > 1024 {
		errs = append(errs, errors.New("queues must be 1 to 1024"))
	}
	if len(c.RetryLevels) == 0 {
		errs = append(errs, errors.New("retry_levels is empty"))
	}
	for _, level := range c.RetryLevels {
		if level < 1 || level > maxLevel {
			errs = append(errs, fmt.Errorf("retry_levels: %d is not 1 to %d", level, maxLevel))
		}
	}
	return errors.Join(errs...)
}

const nameBytes = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"

// topicName is a topic as RocketMQ knows it. Its names hold no dots.
func (c *Config) topicName(topic string) string {
	return c.Prefix + strings.ReplaceAll(topic, ".", "|")
}

// groupName is a group as RocketMQ knows it: there a group has one set of topics.
func (c *Config) groupName(topic, group string) string {
	return c.topicName(topic) + "_" + strings.ReplaceAll(group, ".", "|")
}

// Prefixes that RocketMQ gives to the topics it keeps for a group.
const (
	retryPrefix = "%RETRY%"
	deadPrefix  = "%DLQ%"
)
