package sqlstore

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"time"

	"github.com/go-sql-driver/mysql"
)

// sessions makes connections whose session is set up in one round trip.
type sessions struct {
	driver.Connector
	setUp string
}

func (c *sessions) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := conn.(driver.ExecerContext).ExecContext(ctx, c.setUp, nil); err != nil {
		return nil, errors.Join(fmt.Errorf("set up the session: %w", err), conn.Close())
	}
	return conn, nil
}

// setUp is what all statements rely on: bytes are bytes and a backslash escapes
// (literal.go), what does not fit is an error, and the isolation.
func setUp(isolation string, lockWait time.Duration) string {
	return fmt.Sprintf("SET NAMES binary;"+
		"SET SESSION sql_mode='STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION';"+
		"SET SESSION TRANSACTION ISOLATION LEVEL %s;"+
		"SET SESSION time_zone='+00:00';"+
		"SET SESSION innodb_lock_wait_timeout=%d", isolation, int(lockWait/time.Second))
}

const (
	readCommitted  = "READ COMMITTED"  // writes: a locking read sees the newest row and locks no gaps
	repeatableRead = "REPEATABLE READ" // views: one snapshot
)

func newPool(d *mysql.Config, isolation string, conns int, cfg *Config) (*sql.DB, error) {
	c, err := mysql.NewConnector(d)
	if err != nil {
		return nil, fmt.Errorf("dsn: %w", err)
	}
	db := sql.OpenDB(&sessions{c, setUp(isolation, cfg.LockWait)})
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	db.SetConnMaxLifetime(cfg.ConnLifetime)
	return db, nil
}
