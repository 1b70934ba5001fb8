package sqlstore

import (
	"fmt"
	"time"

	"github.com/go-sql-driver/mysql"
)

// Config says where a database is and how much of it may be used.
type Config struct {
	// DSN is user:password@tcp(host:port)/database, as go-sql-driver/mysql reads it. Of its
	// parameters those of TLS and of the dial are kept; what the statements rely on is set here.
	DSN string `yaml:"dsn" koanf:"dsn"`
	// WriteConns is how many commits may be under way at once: as many as das has writers for
	// this database. Those beyond wait.
	WriteConns int `yaml:"write_conns" koanf:"write_conns"`
	// LazyConns is the same for batches of receipts and finished rows, which thus never take
	// the place of a message.
	LazyConns int `yaml:"lazy_conns" koanf:"lazy_conns"`
	// ReadConns is how many views may be open at once. Those beyond wait.
	ReadConns int `yaml:"read_conns" koanf:"read_conns"`
	// ConnLifetime closes connections that are older, so that a moved address is found.
	ConnLifetime time.Duration `yaml:"conn_lifetime" koanf:"conn_lifetime"`
	// DialTimeout bounds the making of a connection.
	DialTimeout time.Duration `yaml:"dial_timeout" koanf:"dial_timeout"`
	// CommitTimeout bounds a commit with all its repeats; its outcome then is unknown. With
	// RequireReplica a commit waits that long for a replica that is away.
	CommitTimeout time.Duration `yaml:"commit_timeout" koanf:"commit_timeout"`
	// ReadTimeout bounds a view from its opening to its last read, and every other question.
	ReadTimeout time.Duration `yaml:"read_timeout" koanf:"read_timeout"`
	// LockWait bounds the wait for another's row lock, in whole seconds.
	LockWait time.Duration `yaml:"lock_wait" koanf:"lock_wait"`
	// Repeats is how often a commit that lost a deadlock or a wait is tried again.
	Repeats int `yaml:"repeats" koanf:"repeats"`
	// RequireReplica lets a commit succeed only if the server said right after it that
	// commits wait for a replica (P3, R20). TiDB's always do.
	RequireReplica bool `yaml:"require_replica" koanf:"require_replica"`
}

// DefaultConfig lacks the DSN only.
func DefaultConfig() Config {
	return Config{
		WriteConns: 8, LazyConns: 2, ReadConns: 32, ConnLifetime: 30 * time.Minute, DialTimeout: 3 * time.Second,
		CommitTimeout: 10 * time.Second, ReadTimeout: 10 * time.Second, LockWait: 3 * time.Second, Repeats: 5,
	}
}

// Validate tells the first setting that cannot work.
func (c Config) Validate() error {
	if _, err := c.driver(); err != nil {
		return err
	}
	switch {
	case c.WriteConns < 1 || c.LazyConns < 1 || c.ReadConns < 1:
		return fmt.Errorf("write_conns is %d, lazy_conns %d, read_conns %d: each must be at least 1", c.WriteConns, c.LazyConns, c.ReadConns)
	case c.DialTimeout <= 0 || c.CommitTimeout <= 0 || c.ReadTimeout <= 0:
		return fmt.Errorf("dial_timeout is %v, commit_timeout %v, read_timeout %v: each must be above 0", c.DialTimeout, c.CommitTimeout, c.ReadTimeout)
	case c.LockWait < time.Second:
		return fmt.Errorf("lock_wait is %v, it must be at least 1s", c.LockWait)
	case c.Repeats < 0 || c.ConnLifetime < 0:
		return fmt.Errorf("repeats is %d, conn_lifetime %v: neither may be below 0", c.Repeats, c.ConnLifetime)
	}
	return nil
}

// driver is the DSN with what every connection of ours needs. It never quotes the DSN: there
// is a password in it.
func (c Config) driver() (*mysql.Config, error) {
	d, err := mysql.ParseDSN(c.DSN)
	switch {
	case err != nil:
		return nil, fmt.Errorf("dsn: %w", err)
	case d.DBName == "":
		return nil, fmt.Errorf("dsn names no database: want user:password@tcp(host:port)/database")
	}
	d.MultiStatements = true
	d.ClientFoundRows = true // a rewrite that changes nothing has found its row all the same
	d.InterpolateParams, d.ParseTime = false, true
	d.Timeout = c.DialTimeout
	d.Params = nil
	d.Logger = &mysql.NopLogger{} // what it says is in the errors
	return d, nil
}
