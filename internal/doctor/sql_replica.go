package doctor

import (
	"context"
	"fmt"
)

// lagMost is how far behind a replica may be without a warning: SYNC then reads the primary.
const lagMost = 5 // seconds

// semiSync reads a variable or a status of the source's side by its names over the versions.
func (d *database) semiSync(from map[string]string, suffix string) string {
	return first(from, "rpl_semi_sync_source_"+suffix, "rpl_semi_sync_master_"+suffix)
}

// source tells whether the checks of the source's side apply: TiDB replicates by itself, and
// a replica has no replica of its own.
func (d *database) source() bool { return d.kind != tiDB && d.takesWrites() }

// needed is how bad it is that commits do not wait for a replica.
func (d *database) needed() Verdict {
	if d.shard.RequireReplica || len(d.shard.Members) > 1 {
		return Violation
	}
	return Warning
}

func (d *database) semiSyncName(suffix string) string {
	if _, there := d.vars["rpl_semi_sync_source_enabled"]; there {
		return "rpl_semi_sync_source_" + suffix
	}
	return "rpl_semi_sync_master_" + suffix
}

func (d *database) semiSyncPlugin(context.Context) Finding {
	if !d.source() {
		return Finding{}
	}
	_, source := d.vars["rpl_semi_sync_source_enabled"]
	_, master := d.vars["rpl_semi_sync_master_enabled"]
	switch {
	case d.kind == mySQL && master && !source:
		return violation("semisync_master", "semisync_source", "das asks for Rpl_semi_sync_source_status, which this plugin does not have: UNINSTALL PLUGIN rpl_semi_sync_master; INSTALL PLUGIN rpl_semi_sync_source SONAME 'semisync_source.so'")
	case !source && !master:
		return Finding{Found: "not loaded", Wanted: "loaded", Verdict: d.needed(), Advice: "INSTALL PLUGIN rpl_semi_sync_source SONAME 'semisync_source.so' (the replica: rpl_semi_sync_replica, semisync_replica.so), and plugin-load-add under [mysqld]"}
	}
	return ok("loaded", "loaded")
}

func (d *database) semiSyncEnabled(context.Context) Finding {
	v := d.semiSync(d.vars, "enabled")
	if !d.source() || v == "" {
		return Finding{}
	}
	name := d.semiSyncName("enabled")
	return expect(on(v), d.needed(), name+" = "+v, "ON", d.set(name, "ON")+"; an acknowledged message could be lost with this server (P3)")
}

func (d *database) semiSyncActive(context.Context) Finding {
	v := d.semiSync(d.status, "status")
	if !d.source() || v == "" {
		return Finding{}
	}
	return expect(on(v), d.needed(), "status "+v, "ON",
		"commits are answered without a replica: see that one is connected (SHOW REPLICAS), then "+d.set(d.semiSyncName("enabled"), "OFF")+", and ON again")
}

func (d *database) semiSyncPoint(context.Context) Finding {
	v := d.semiSync(d.vars, "wait_point")
	if !d.source() || v == "" {
		return Finding{}
	}
	name := d.semiSyncName("wait_point")
	return expect(v == "AFTER_SYNC", d.needed(), v, "AFTER_SYNC", d.set(name, "AFTER_SYNC")+"; with AFTER_COMMIT others read what no replica has yet")
}

// timeoutLeast: a finite wait goes on alone when it ends, silently. Who set a week meant for ever.
const timeoutLeast = 7 * 24 * 3600 * 1000 // milliseconds

func (d *database) semiSyncTimeout(context.Context) Finding {
	v := d.semiSync(d.vars, "timeout")
	if !d.source() || v == "" {
		return Finding{}
	}
	name := d.semiSyncName("timeout")
	return expect(number(v) >= timeoutLeast, d.needed(), v+" ms", "4294967295 ms, for ever",
		d.set(name, "4294967295")+"; when it ends, commits go on without a replica. das refuses such commits, but other writers do not")
}

func (d *database) semiSyncReplicas(context.Context) Finding {
	v := d.semiSync(d.status, "clients")
	if !d.source() || v == "" {
		return Finding{}
	}
	return expect(number(v) > 0, d.needed(), v+" connected", "at least 1",
		"without one, sends are refused: start the replica, START REPLICA (MariaDB: START SLAVE), and set rpl_semi_sync_replica_enabled = ON on it")
}

func (d *database) requireReplica(context.Context) Finding {
	if !d.source() || len(d.shard.Members) < 2 && number(d.semiSync(d.status, "clients")) == 0 {
		return Finding{}
	}
	return expect(d.shard.RequireReplica, Violation, fmt.Sprintf("require_replica = %v", d.shard.RequireReplica), "true",
		"set require_replica: true for the databases in the configuration of das; without it a failover can lose what was acknowledged")
}

// role: a server is a primary that takes writes and follows nobody, or a replica that takes none.
func (d *database) role(context.Context) Finding {
	const wanted = "a primary, or a replica that takes no writes"
	switch {
	case d.kind == tiDB:
		return Finding{}
	case d.replicationErr != nil:
		return unchecked(wanted, fmt.Sprintf("%v; GRANT REPLICATION CLIENT ON *.* to the account, or run doctor with one that has it", d.replicationErr))
	case d.takesWrites() && d.isReplica():
		return violation("takes writes and follows "+d.replication["source_host"], wanted,
			"a replica: SET PERSIST super_read_only = ON. A promoted one: STOP REPLICA; RESET REPLICA ALL, after it has applied all that it received")
	case d.takesWrites():
		return ok("primary", wanted)
	case d.isReplica():
		return ok("replica of "+d.replication["source_host"]+":"+d.replication["source_port"], wanted)
	}
	return warn("takes no writes and follows nobody", wanted, "an old primary that was fenced: make it a replica of the new one, or take it out of store.shards")
}

func (d *database) readOnly(context.Context) Finding {
	if !d.isReplica() {
		return Finding{}
	}
	if d.kind == mariaDB {
		return d.variable("read_only", "ON", Violation, "writes on a replica are lost, and end the replication")
	}
	return d.variable("super_read_only", "ON", Violation, "writes on a replica are lost, and end the replication; read_only alone lets administrators through")
}

func (d *database) replicating(context.Context) Finding {
	if !d.isReplica() {
		return Finding{}
	}
	io, sql := d.replication["replica_io_running"], d.replication["replica_sql_running"]
	found := "receives: " + io + ", applies: " + sql
	for _, e := range []string{"last_io_error", "last_sql_error"} {
		if d.replication[e] != "" {
			found += "; " + d.replication[e]
		}
	}
	return expect(io == "Yes" && sql == "Yes", Violation, found, "receives: Yes, applies: Yes", "mend what it says, then START REPLICA (MariaDB: START SLAVE)")
}

func (d *database) lag(context.Context) Finding {
	behind, told := d.replication["seconds_behind_source"]
	if !d.isReplica() || !told {
		return Finding{}
	}
	wanted := fmt.Sprintf("at most %d s", lagMost)
	if behind == "" {
		return unchecked(wanted, "it does not say: replication does not run")
	}
	return expect(number(behind) <= lagMost, Warning, behind+" s behind", wanted, "its reads go to the primary until it has caught up; more appliers: SET GLOBAL replica_parallel_workers = 8")
}

func (d *database) acknowledges(context.Context) Finding {
	v := first(d.vars, "rpl_semi_sync_replica_enabled", "rpl_semi_sync_slave_enabled")
	if !d.isReplica() {
		return Finding{}
	}
	advice := d.set("rpl_semi_sync_replica_enabled", "ON") + "; STOP REPLICA IO_THREAD; START REPLICA IO_THREAD (MariaDB: slave in place of replica)"
	return expect(on(v), Violation, "enabled = "+v, "ON", advice)
}

func (d *database) order(context.Context) Finding {
	v, there := d.vars["replica_preserve_commit_order"]
	if !d.isReplica() || !there {
		return Finding{}
	}
	return expect(on(v), Warning, v, "ON", d.set("replica_preserve_commit_order", "ON")+"; a copy could show a user's head before the messages under it")
}

func (d *database) relayLog(context.Context) Finding {
	v, there := d.vars["relay_log_recovery"]
	if !d.isReplica() || !there || d.kind != mySQL {
		return Finding{}
	}
	return expect(on(v), Warning, v, "ON", "relay_log_recovery=ON under [mysqld], and restart: a replica that crashed must fetch again what it had not flushed")
}
