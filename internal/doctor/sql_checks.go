package doctor

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/go-sql-driver/mysql"
)

// databaseChecks are what is looked at on each server of a shard. Each decides itself whether
// it applies to the kind of server and to what that is in its shard.
func databaseChecks() []check[*database] {
	return []check[*database]{
		{"commits are flushed", (*database).flush},
		{"binary log is flushed", (*database).flushLog},
		{"binary log", (*database).binaryLog},
		{"positions are GTIDs", (*database).gtid},
		{"sessions as das sets them", (*database).session},
		{"isolation", (*database).isolation},
		{"time zone", (*database).timeZone},
		{"sql_mode", (*database).mode},
		{"character set", (*database).charset},
		{"packets", (*database).packet},
		{"connections", (*database).connections},
		{"idle connections", (*database).idle},
		{"version", (*database).supported},
		{"schema", (*database).schema},
		{"buckets", (*database).buckets},
		{"asynchronous commit", (*database).asyncCommit},
		{"one-phase commit", (*database).onePhase},
		{"storage", (*database).storage},
		{"semi-synchronous: plugin", (*database).semiSyncPlugin},
		{"semi-synchronous: enabled", (*database).semiSyncEnabled},
		{"semi-synchronous: active", (*database).semiSyncActive},
		{"semi-synchronous: wait point", (*database).semiSyncPoint},
		{"semi-synchronous: timeout", (*database).semiSyncTimeout},
		{"semi-synchronous: replicas", (*database).semiSyncReplicas},
		{"das asks for the replica", (*database).requireReplica},
		{"role", (*database).role},
		{"replica takes no writes", (*database).readOnly},
		{"replication runs", (*database).replicating},
		{"replica follows closely", (*database).lag},
		{"replica acknowledges", (*database).acknowledges},
		{"replica keeps the order", (*database).order},
		{"replica recovers its relay log", (*database).relayLog},
	}
}

// variable compares a global variable; the advice is the statement that sets it.
func (d *database) variable(name, wanted string, otherwise Verdict, why string) Finding {
	found, there := d.vars[name]
	if !there {
		return unchecked(name+" = "+wanted, "this server does not have the variable")
	}
	return expect(strings.EqualFold(found, wanted), otherwise, name+" = "+found, wanted, d.set(name, wanted)+"; "+why)
}

// set is the statement that sets a variable for good.
func (d *database) set(name, value string) string {
	if d.kind == mySQL {
		return fmt.Sprintf("SET PERSIST %s = %s", name, value)
	}
	if d.kind == tiDB {
		return fmt.Sprintf("SET GLOBAL %s = %s", name, value)
	}
	return fmt.Sprintf("SET GLOBAL %s = %s, and %s=%s under [mysqld] in its configuration", name, value, name, value)
}

func (d *database) flush(context.Context) Finding {
	if d.kind == tiDB {
		return Finding{}
	}
	return d.variable("innodb_flush_log_at_trx_commit", "1", Violation, "an acknowledged message could be lost by a crash")
}

func (d *database) flushLog(context.Context) Finding {
	if d.kind == tiDB {
		return Finding{}
	}
	return d.variable("sync_binlog", "1", Violation, "after a crash the replica could have what this server lost, or lack what it has")
}

func (d *database) binaryLog(context.Context) Finding {
	if d.kind == tiDB {
		return Finding{}
	}
	if !on(d.vars["log_bin"]) {
		return expect(!d.shard.RequireReplica, Violation, "log_bin = "+d.vars["log_bin"], "ON",
			"set log-bin=bin under [mysqld] and restart: without it there is no replica")
	}
	format, there := d.vars["binlog_format"]
	return expect(!there || format == "ROW", Violation, "log_bin = ON, binlog_format = "+format, "ROW",
		d.set("binlog_format", "ROW")+"; statements are not the same on a replica")
}

func (d *database) gtid(context.Context) Finding {
	switch d.kind {
	case mySQL:
		return d.variable("gtid_mode", "ON", Warning, "a promotion must tell whether the replica has applied all that it received")
	case mariaDB:
		return d.variable("gtid_strict_mode", "ON", Warning, "a server with transactions of its own must not go on as a replica")
	}
	return Finding{}
}

// session opens none: it sets this connection up as das does, and looks whether that took.
func (d *database) session(ctx context.Context) Finding {
	const wanted = "READ-COMMITTED, +00:00, STRICT_ALL_TABLES"
	for _, q := range []string{
		"SET NAMES binary", "SET SESSION sql_mode='STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION'",
		"SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED", "SET SESSION time_zone='+00:00'",
		"SET SESSION innodb_lock_wait_timeout=3",
	} {
		if _, err := d.conn.ExecContext(ctx, q); err != nil {
			return violation(q+": "+err.Error(), wanted, "das cannot set up its sessions: use its account directly, without a proxy that rewrites statements")
		}
	}
	isolation := "transaction_isolation"
	if d.kind == mariaDB {
		isolation = "tx_isolation"
	}
	var level, zone, mode string
	if err := d.conn.QueryRowContext(ctx, "SELECT @@SESSION."+isolation+",@@SESSION.time_zone,@@SESSION.sql_mode").Scan(&level, &zone, &mode); err != nil {
		return unchecked(wanted, err)
	}
	good := level == "READ-COMMITTED" && zone == "+00:00" && strings.Contains(mode, "STRICT_ALL_TABLES")
	return expect(good, Violation, level+", "+zone+", "+mode, wanted, "something between das and the server changes its sessions: connect without a proxy")
}

func (d *database) isolation(context.Context) Finding {
	name := "transaction_isolation"
	if _, there := d.vars[name]; !there {
		name = "tx_isolation"
	}
	return d.serverDefault(name, "READ-COMMITTED", "'READ-COMMITTED'")
}

func (d *database) timeZone(context.Context) Finding {
	return d.serverDefault("time_zone", "+00:00", "'+00:00'")
}

// serverDefault: das sets its own for its sessions; what others see of the data may differ.
func (d *database) serverDefault(name, wanted, quoted string) Finding {
	found := d.vars[name]
	if name == "time_zone" && (found == "UTC" || found == "SYSTEM" && d.vars["system_time_zone"] == "UTC") {
		return ok(found, wanted)
	}
	return expect(found == wanted, Warning, found, wanted, d.set(name, quoted)+"; das sets its own, tools and scripts do not")
}

func (d *database) mode(context.Context) Finding {
	found := d.vars["sql_mode"]
	return expect(strings.Contains(found, "STRICT_"), Warning, found, "STRICT_TRANS_TABLES or STRICT_ALL_TABLES",
		d.set("sql_mode", "CONCAT(@@sql_mode,',STRICT_TRANS_TABLES')")+"; das sets its own, a script could store what was cut off")
}

func (d *database) charset(context.Context) Finding {
	found := d.vars["character_set_server"]
	return expect(found == "utf8mb4", Warning, found, "utf8mb4", d.set("character_set_server", "utf8mb4")+"; Hongyan's tables name their own")
}

// packetLeast is what a commit of many messages is written in without being cut into pieces.
const packetLeast = 16 << 20

func (d *database) packet(context.Context) Finding {
	found := number(d.vars["max_allowed_packet"])
	wanted := fmt.Sprintf("at least %d MiB", packetLeast>>20)
	// A body may double when it is written as text, and stands beside others.
	if least := int64(4 * d.target.Sessions.MaxBody); found < least {
		return violation(bytesOf(found), wanted, d.set("max_allowed_packet", fmt.Sprint(packetLeast))+"; the longest message does not fit")
	}
	return expect(found >= packetLeast, Warning, bytesOf(found), wanted, d.set("max_allowed_packet", fmt.Sprint(packetLeast)))
}

func bytesOf(n int64) string {
	if n >= 1<<30 {
		return fmt.Sprintf("%.4g GiB", float64(n)/(1<<30))
	}
	if n >= 1<<20 {
		return fmt.Sprintf("%.4g MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%d bytes", n)
}

func (d *database) connections(context.Context) Finding {
	allowed, used := number(d.vars["max_connections"]), number(d.status["threads_connected"])
	need := int64(d.target.Sessions.Connections)
	found := fmt.Sprintf("%d allowed, %d open", allowed, used)
	if d.kind == tiDB && allowed == 0 {
		return ok("no limit", fmt.Sprintf("%d for das", need))
	}
	if need == 0 {
		return unchecked("as many as all das open", found+"; how many das there are is not known here")
	}
	// Administrators, replicas and backups want some too.
	wanted := fmt.Sprintf("%d: %d for das and 10 %% for others", need+need/10+5, need)
	return expect(allowed >= need+need/10+5, Violation, found, wanted, d.set("max_connections", fmt.Sprint(need*2)))
}

func (d *database) idle(context.Context) Finding {
	timeout, life := number(d.vars["wait_timeout"]), int64(d.target.Sessions.ConnLifetime.Seconds())
	if life == 0 || timeout == 0 {
		return Finding{}
	}
	return expect(timeout > life, Warning, fmt.Sprintf("closed after %d s", timeout), fmt.Sprintf("longer than das keeps them, %d s", life),
		d.set("wait_timeout", fmt.Sprint(2*life))+", or lower conn_lifetime; a commit on a closed connection costs a new one")
}

func (d *database) supported(context.Context) Finding {
	v := strings.TrimPrefix(d.version, mySQL+" ")
	var major, minor int
	_, _ = fmt.Sscanf(v, "%d.%d", &major, &minor)
	switch d.kind {
	case mariaDB:
		return expect(major > 10 || major == 10 && minor >= 11, Violation, d.version, "MariaDB 10.11 or newer", "upgrade it")
	case tiDB:
		_, after, _ := strings.Cut(v, "TiDB-v")
		_, _ = fmt.Sscanf(after, "%d.%d", &major, &minor)
		return expect(major >= 8, Warning, d.version, "TiDB 8 or newer", "upgrade it: older ones were not tested")
	}
	return expect(major == 8 || major == 9, Violation, d.version, "MySQL 8 or 9", "upgrade it")
}

// tables that hold what the checks ask, as das makes them.
const schemaVersion = "SELECT COALESCE(MAX(version_id),0) FROM hongyan_schema WHERE is_applied"

const errNoTable = 1146

func (d *database) schema(ctx context.Context) Finding {
	wanted := fmt.Sprintf("version %d or newer", d.target.Schema)
	var version int64
	err := d.conn.QueryRowContext(ctx, schemaVersion).Scan(&version)
	var server *mysql.MySQLError
	switch {
	case errors.As(err, &server) && server.Number == errNoTable:
		return violation("no tables", wanted, "hongyan db migrate")
	case err != nil:
		return unchecked(wanted, err)
	}
	return expect(version >= d.target.Schema, Violation, fmt.Sprintf("version %d", version), wanted, "hongyan db migrate")
}

func (d *database) asyncCommit(context.Context) Finding { return d.tiDBOff("tidb_enable_async_commit") }
func (d *database) onePhase(context.Context) Finding    { return d.tiDBOff("tidb_enable_1pc") }

func (d *database) tiDBOff(name string) Finding {
	if d.kind != tiDB {
		return Finding{}
	}
	return d.variable(name, "OFF", Violation, "acknowledged rows were seen to be lost with it when the server was killed")
}

func (d *database) storage(ctx context.Context) Finding {
	if d.kind != tiDB {
		return Finding{}
	}
	const wanted = "TiKV, 3 stores or more"
	config, err := d.row(ctx, "SHOW CONFIG WHERE type='tidb' AND name='store'")
	if err != nil {
		return unchecked(wanted, err)
	}
	var stores int
	if err := d.conn.QueryRowContext(ctx, "SELECT COUNT(*) FROM information_schema.cluster_info WHERE type='tikv'").Scan(&stores); err != nil {
		return unchecked(wanted, err)
	}
	if config["value"] != "tikv" {
		return warn("store = "+config["value"], wanted, "the embedded storage does not flush: for tests only. Run TiDB on TiKV")
	}
	return expect(stores >= 3, Warning, fmt.Sprintf("%d stores", stores), wanted, "with fewer than 3 stores of TiKV the loss of one stops or loses data")
}
