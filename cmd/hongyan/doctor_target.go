package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"strings"

	"hongyan/das/store/shards"
	sqlstore "hongyan/das/store/sql"
	"hongyan/internal/control/etcd"
	"hongyan/internal/doctor"
	"hongyan/internal/mq"
	"hongyan/internal/mq/rocketmq/remoting"
	"hongyan/internal/presence/redis"
)

// doctorTarget is what a configuration says there is to examine.
func doctorTarget(ctx context.Context, cfg *Config) doctor.Target {
	t := doctor.Target{
		Machine: doctor.Machine{
			Connections: max(cfg.Entry.MaxConnections, cfg.HTTPEntry.MaxConnections), DataDir: cfg.Data,
		},
		RocketMQ: doctor.RocketMQ{
			NameServers: cfg.Queue.NameServers, MaxPayload: mq.MaxPayload,
			Keys:   remoting.Keys{Access: cfg.Queue.AccessKey, Secret: cfg.Queue.SecretKey},
			Topics: queueNames(cfg, mq.Topics()...),
		},
		Redis:  redisTarget(&cfg.Presence),
		Etcd:   etcdTarget(&cfg.Control),
		Schema: sqlstore.SchemaVersion,
	}
	centre := askCentre(ctx, cfg)
	das := max(len(cfg.Cluster.Das), centre.das)
	t.Sessions = doctor.Sessions{
		Connections:  das * (cfg.SQL.WriteConns + cfg.SQL.LazyConns + cfg.SQL.ReadConns),
		ConnLifetime: cfg.SQL.ConnLifetime, MaxBody: cfg.Das.MaxBody,
	}
	for _, s := range cfg.Databases.Shards {
		shard := doctor.Shard{Name: s.Name, Members: s.Members, RequireReplica: cfg.SQL.RequireReplica}
		if centre.places != nil && len(cfg.Databases.Shards) > 1 {
			shard.Buckets = func(bucket uint32) bool { return centre.places.Shard(bucket) == s.Name }
		}
		t.Shards = append(t.Shards, shard)
	}
	return t
}

// queueNames are topics as RocketMQ knows them.
func queueNames(cfg *Config, topics ...string) (names []string) {
	for _, topic := range topics {
		names = append(names, cfg.Queue.Prefix+strings.ReplaceAll(topic, ".", "|"))
	}
	return names
}

// centreWord is what the control centre knows that servers are compared with.
type centreWord struct {
	places *shards.Map // nil = not known
	das    int         // slots of the tier
}

// askCentre asks etcd, or takes what the configuration says where there is none. What cannot
// be asked is not known: doctor says so of what would be compared with it.
func askCentre(ctx context.Context, cfg *Config) (w centreWord) {
	if !cfg.usesEtcd() {
		if names := cfg.Databases.Names(); len(names) > 0 {
			even := shards.Even(names...)
			w.places = &even
		}
		return w
	}
	ctx, cancel := context.WithTimeout(ctx, cfg.Control.Timeout)
	defer cancel()
	live := cfg.Control
	live.Snapshot = "" // only what is there now
	center, err := etcd.Open(ctx, live, etcd.Deps{})
	if err != nil {
		return w
	}
	defer center.Close() // nothing was registered
	if v, err := center.Value(ctx, shards.MapKey); err == nil && v.Data != nil {
		if m, err := shards.ParseMap(v.Data); err == nil {
			w.places = &m
		}
	}
	if m, err := center.Members(ctx, tierDas); err == nil {
		w.das = m.Slots
	}
	return w
}

func redisTarget(c *redis.Config) doctor.Redis {
	r := doctor.Redis{
		Addrs: c.Addrs, Sentinel: c.Mode == redis.Sentinel, Cluster: c.Mode == redis.Cluster, Master: c.Master,
		User: c.User, Password: c.Password, SentinelUser: c.SentinelUser, SentinelPassword: c.SentinelPassword,
	}
	if c.TLS.Enabled {
		r.TLS = certificates(c.TLS.CA, c.TLS.Cert, c.TLS.Key, c.TLS.ServerName)
	}
	return r
}

func etcdTarget(c *etcd.Config) doctor.Etcd {
	e := doctor.Etcd{Endpoints: c.Endpoints, Username: c.Username, Password: c.Password, Prefix: c.Prefix, Lease: c.Lease}
	if len(c.Endpoints) > 0 && strings.HasPrefix(c.Endpoints[0], "https://") {
		e.TLS = certificates(c.TLS.CA, c.TLS.Cert, c.TLS.Key, c.TLS.ServerName)
	}
	return e
}

// certificates reads PEM files. What cannot be read shows as a server that cannot be reached:
// the error of the handshake then names the certificate.
func certificates(ca, cert, key, name string) *tls.Config {
	c := &tls.Config{ServerName: name, MinVersion: tls.VersionTLS12}
	if ca != "" {
		c.RootCAs = x509.NewCertPool()
		if pem, err := os.ReadFile(ca); err == nil {
			c.RootCAs.AppendCertsFromPEM(pem)
		}
	}
	if cert != "" {
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(cert, key)
			if err != nil {
				return nil, fmt.Errorf("certificate: %w", err)
			}
			return &pair, nil
		}
	}
	return c
}
