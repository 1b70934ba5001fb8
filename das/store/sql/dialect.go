package sqlstore

import (
	"fmt"
	"strings"

	"github.com/pressly/goose/v3"
)

// dialect is all in which MySQL, MariaDB and TiDB differ for us.
type dialect struct {
	name  string
	goose goose.Dialect

	// snapshot begins a read-only transaction whose snapshot is taken at once, in a session
	// of isolation REPEATABLE READ.
	snapshot string
	// share locks rows that are read against change until commit. TiDB has no shared locks:
	// there two commits of the same bucket wait for each other.
	share string
	// replicaState asks whether commits wait for a replica, as rows of (name, value); empty:
	// they always do. replicaOn is the name whose value ON says yes, replicaOffs the one that
	// counts how often that has ended.
	replicaState, replicaOn, replicaOffs string
	// replicas is the name that counts the replicas that acknowledge commits.
	replicas string
	// readOnly is an expression: may nobody write here?
	readOnly string
	// takeover is how a replica becomes the primary; nil: the database does so by itself.
	takeover *takeover
	// conflicts are the errors of a transaction that lost against another before its COMMIT:
	// nothing was written, it may be repeated.
	conflicts map[uint16]bool
}

const (
	errDuplicate   = 1062 // Duplicate entry '..' for key '..'
	errOutOfRange  = 1690 // what our assertions end in
	errLockTimeout = 1205
	errDeadlock    = 1213
)

var mySQL = dialect{
	name: "MySQL", goose: goose.DialectMySQL,
	snapshot:     "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY",
	share:        " FOR SHARE",
	replicaState: "SHOW GLOBAL STATUS WHERE Variable_name IN ('Rpl_semi_sync_source_status','Rpl_semi_sync_source_no_times')",
	replicaOn:    "Rpl_semi_sync_source_status", replicaOffs: "Rpl_semi_sync_source_no_times", replicas: "Rpl_semi_sync_source_clients",
	takeover:  &mySQLTakeover,
	readOnly:  "@@GLOBAL.read_only OR @@GLOBAL.super_read_only",
	conflicts: map[uint16]bool{errLockTimeout: true, errDeadlock: true},
}

var mariaDB = dialect{
	name: "MariaDB", goose: goose.DialectMySQL,
	snapshot:     "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY",
	share:        " LOCK IN SHARE MODE",
	replicaState: "SHOW GLOBAL STATUS WHERE Variable_name IN ('Rpl_semi_sync_master_status','Rpl_semi_sync_master_no_times')",
	replicaOn:    "Rpl_semi_sync_master_status", replicaOffs: "Rpl_semi_sync_master_no_times", replicas: "Rpl_semi_sync_master_clients",
	readOnly: "@@GLOBAL.read_only",
	takeover: &mariaDBTakeover,
	// 1020: "record has changed since last read"
	conflicts: map[uint16]bool{errLockTimeout: true, errDeadlock: true, 1020: true},
}

var tiDB = dialect{
	name: "TiDB", goose: goose.DialectTiDB,
	snapshot: "START TRANSACTION WITH CONSISTENT SNAPSHOT",
	share:    " FOR UPDATE",
	readOnly: "@@GLOBAL.tidb_restricted_read_only OR @@GLOBAL.tidb_super_read_only",
	// 8002, 8022, 9007: write conflicts; 8028: the schema changed meanwhile; 9001, 9002, 9003,
	// 9005: a part of the cluster is busy or moving.
	conflicts: map[uint16]bool{errLockTimeout: true, errDeadlock: true,
		8002: true, 8022: true, 8028: true, 9001: true, 9002: true, 9003: true, 9005: true, 9007: true},
}

// dialectOf tells a server by what SELECT VERSION() says.
func dialectOf(version string) (*dialect, error) {
	switch {
	case strings.Contains(version, "TiDB"):
		return &tiDB, nil
	case strings.Contains(version, "MariaDB"):
		return &mariaDB, nil
	case version != "" && version[0] >= '8' && version[0] <= '9':
		return &mySQL, nil
	}
	return nil, fmt.Errorf("server version %q: want MySQL 8 or 9, MariaDB 10.11 or newer, or TiDB", version)
}
