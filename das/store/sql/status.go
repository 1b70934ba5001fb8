package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/go-sql-driver/mysql"

	"hongyan/das/store"
)

// Status is what one server of a database tells of itself.
type Status struct {
	Server  string // MySQL, MariaDB or TiDB
	Version string
	Role    store.Role
	// Replica tells that it follows a source; Replicating that both its threads run. Unknown
	// and false to a user without the right to ask.
	Replica, Replicating bool
	// SemiSync tells that commits here wait for a replica, and Replicas how many acknowledge. Of
	// TiDB, whose commits always wait for a majority, true and 0.
	SemiSync bool
	Replicas int
	// Open and Closed count the bucket rows; neither before the first migration.
	Open, Closed int
	Migrations   []Migration
}

// Pending are the migrations that were not applied.
func (s *Status) Pending() (list []Migration) {
	for _, m := range s.Migrations {
		if !m.Applied {
			list = append(list, m)
		}
	}
	return list
}

// StatusOf asks a server for its status. Nothing is changed; it may be a replica, or have no
// tables yet.
func StatusOf(ctx context.Context, cfg Config) (st Status, err error) {
	err = withDatabase(cfg, func(db *sql.DB, _ string) error {
		db.SetMaxOpenConns(1)
		if err := db.QueryRowContext(ctx, "SELECT VERSION()").Scan(&st.Version); err != nil {
			return err
		}
		d, err := dialectOf(st.Version)
		if err != nil {
			return err
		}
		st.Server = d.name
		if st.Migrations, err = migrationsOf(ctx, db); err != nil {
			return err
		}
		for _, ask := range []func(context.Context, *sql.DB, *dialect) error{st.askRole, st.askReplica, st.askSemiSync} {
			if err := ask(ctx, db, d); err != nil {
				return err
			}
		}
		return nil
	})
	return st, err
}

// askRole reads the bucket rows, if there are any yet.
func (st *Status) askRole(ctx context.Context, db *sql.DB, d *dialect) error {
	var readOnly bool
	if err := db.QueryRowContext(ctx, "SELECT "+d.readOnly).Scan(&readOnly); err != nil {
		return err
	}
	st.Role.Writable = !readOnly
	err := db.QueryRowContext(ctx, "SELECT IFNULL(MAX(epoch),0),IFNULL(SUM(open=1),0),IFNULL(SUM(open=0),0) FROM bucket").
		Scan(&st.Role.Epoch, &st.Open, &st.Closed)
	if isNoTable(err) {
		return nil
	}
	return err
}

// Errors of a user who may not ask: access denied, or unknown to TiDB.
const (
	errAccess  = 1227
	errUnknown = 1105
)

func (st *Status) askReplica(ctx context.Context, db *sql.DB, d *dialect) error {
	if d.takeover == nil {
		return nil
	}
	conn, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	state, err := replication(ctx, conn)
	var denied *mysql.MySQLError
	if errors.As(err, &denied) && (denied.Number == errAccess || denied.Number == errUnknown) {
		return nil
	}
	st.Replica = state != nil
	runs := func(name string) bool { return state["Replica_"+name] == "Yes" || state["Slave_"+name] == "Yes" }
	st.Replicating = runs("IO_Running") && runs("SQL_Running")
	return err
}

func (st *Status) askSemiSync(ctx context.Context, db *sql.DB, d *dialect) error {
	if d.replicaState == "" {
		st.SemiSync = true
		return nil
	}
	rows, err := db.QueryContext(ctx, "SHOW GLOBAL STATUS WHERE Variable_name IN ('"+d.replicaOn+"','"+d.replicas+"')")
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var name, value string
		if err := rows.Scan(&name, &value); err != nil {
			return err
		}
		if name == d.replicaOn {
			st.SemiSync = value == "ON"
		} else if _, err := fmt.Sscan(value, &st.Replicas); err != nil {
			return fmt.Errorf("%s is %q: %w", name, value, err)
		}
	}
	return rows.Err()
}
