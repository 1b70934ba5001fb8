package doctor

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
)

// Shard is one database: a primary and its copies. Which is which is found out.
type Shard struct {
	Name string
	// Members are the servers, each a DSN user:password@tcp(host:port)/database.
	Members []string
	// Buckets tells which are this shard's by the map; nil = all of an only shard, of several
	// not known.
	Buckets func(bucket uint32) bool
	// RequireReplica: das ask that a commit is answered when a replica has it (P3).
	RequireReplica bool
}

// Sessions is what all das together ask of one server.
type Sessions struct {
	Connections  int           // open at once; 0 = not known
	ConnLifetime time.Duration // they are closed when older
	MaxBody      int           // bytes of the largest message
}

// Kinds of SQL servers.
const (
	mySQL   = "MySQL"
	mariaDB = "MariaDB"
	tiDB    = "TiDB"
)

// database is one server of a shard, with what it said of itself.
type database struct {
	name    string // kind, address and shard
	addr    string
	shard   *Shard
	target  *Target
	pool    *sql.DB
	conn    *sql.Conn // the only one: sessions are set up on it
	kind    string
	version string
	vars    map[string]string // SHOW GLOBAL VARIABLES
	status  map[string]string // SHOW GLOBAL STATUS
	// replication is SHOW REPLICA STATUS: nil for none; replicationErr: it may not be asked.
	replication    map[string]string
	replicationErr error
}

// examineShard examines the servers of a shard, and what they are to each other.
func (t *Target) examineShard(ctx context.Context, i int, k *skews) (findings []Finding) {
	s := &t.Shards[i]
	var writable, copies []string
	replicates := false // by itself, or to a replica that is not listed
	for _, dsn := range s.Members {
		d, err := openDatabase(ctx, t, s, dsn)
		if err != nil {
			findings = append(findings, unreachable(d.name, err)...)
			continue
		}
		findings = append(findings, reachable(d.name, d.version))
		findings = append(findings, examine(ctx, d.name, d, databaseChecks())...)
		clock := k.clock(ctx, d.name, 0, d.now)
		clock.Server, clock.Check = d.name, "clock"
		findings = append(findings, clock)
		replicates = replicates || d.kind == tiDB || number(d.semiSync(d.status, "clients")) > 0
		if d.takesWrites() {
			writable = append(writable, d.addr)
		} else {
			copies = append(copies, d.addr)
		}
		d.close()
	}
	return append(findings, s.members(writable, copies, replicates)...)
}

// members checks what the servers of a shard are to each other.
func (s *Shard) members(writable, copies []string, replicates bool) []Finding {
	server := "shard " + s.Name
	primary := expect(len(writable) == 1, Violation, list(writable), "exactly one server that takes writes",
		"of several, fence all but the right one: SET PERSIST super_read_only = ON (MariaDB: SET GLOBAL read_only = ON); of none, promote a replica that has applied all it received")
	primary.Server, primary.Check = server, "one primary"
	if replicates && len(copies) == 0 {
		return []Finding{primary}
	}
	standby := expect(len(copies) > 0, Warning, list(copies), "at least one copy",
		"with one server its loss is the loss of what it holds: add a replica, and set require_replica")
	if s.RequireReplica && len(copies) == 0 && len(writable) > 0 {
		standby.Verdict, standby.Advice = Violation, "require_replica is set: without a replica every send is refused. Start it, and list it in store.shards"
	}
	standby.Server, standby.Check = server, "copies"
	return []Finding{primary, standby}
}

func list(addrs []string) string {
	if len(addrs) == 0 {
		return "none"
	}
	return strings.Join(addrs, ", ")
}

// openDatabase connects and asks for all that the checks look at. The database it returns has
// a name even when it could not.
func openDatabase(ctx context.Context, t *Target, s *Shard, dsn string) (*database, error) {
	d := &database{name: "database (shard " + s.Name + ")", shard: s, target: t}
	cfg, err := mysql.ParseDSN(dsn)
	if err != nil {
		return d, errors.New("the DSN cannot be read: want user:password@tcp(host:port)/database")
	}
	d.addr = cfg.Addr
	d.name = fmt.Sprintf("database %s (shard %s)", cfg.Addr, s.Name)
	cfg.Timeout, cfg.InterpolateParams, cfg.Logger = 3*time.Second, true, &mysql.NopLogger{}
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		return d, err
	}
	d.pool = sql.OpenDB(connector)
	if d.conn, err = d.pool.Conn(ctx); err == nil {
		err = d.load(ctx)
	}
	if err != nil {
		d.close()
	}
	return d, err
}

func (d *database) close() {
	if d.conn != nil {
		_ = d.conn.Close() // it only read
	}
	_ = d.pool.Close()
}

func (d *database) load(ctx context.Context) (err error) {
	if err := d.conn.QueryRowContext(ctx, "SELECT VERSION()").Scan(&d.version); err != nil {
		return err
	}
	switch {
	case strings.Contains(d.version, tiDB):
		d.kind = tiDB
	case strings.Contains(d.version, mariaDB):
		d.kind = mariaDB
	default:
		d.kind, d.version = mySQL, mySQL+" "+d.version
	}
	if d.vars, err = d.pairs(ctx, "SHOW GLOBAL VARIABLES"); err != nil {
		return err
	}
	if d.status, err = d.pairs(ctx, "SHOW GLOBAL STATUS"); err != nil {
		return err
	}
	switch d.kind {
	case mySQL:
		d.replication, d.replicationErr = d.row(ctx, "SHOW REPLICA STATUS")
	case mariaDB:
		d.replication, d.replicationErr = d.row(ctx, "SHOW SLAVE STATUS")
	}
	return nil
}

// pairs reads rows of (name, value); names in lower case.
func (d *database) pairs(ctx context.Context, query string) (map[string]string, error) {
	rows, err := d.conn.QueryContext(ctx, query)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	pairs := make(map[string]string)
	for rows.Next() {
		var name string
		var value sql.NullString
		if err := rows.Scan(&name, &value); err != nil {
			return nil, err
		}
		pairs[strings.ToLower(name)] = value.String
	}
	return pairs, rows.Err()
}

// row reads the first row of a query as a map, nil when there is none. Replication is told in
// the words of one server: those of MariaDB are translated.
func (d *database) row(ctx context.Context, query string) (map[string]string, error) {
	rows, err := d.conn.QueryContext(ctx, query)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil || !rows.Next() {
		return nil, errors.Join(err, rows.Err())
	}
	values := make([]sql.NullString, len(columns))
	into := make([]any, len(columns))
	for i := range values {
		into[i] = &values[i]
	}
	if err := rows.Scan(into...); err != nil {
		return nil, err
	}
	row := make(map[string]string, len(columns))
	for i, c := range columns {
		name := strings.NewReplacer("slave", "replica", "master", "source").Replace(strings.ToLower(c))
		row[name] = values[i].String
	}
	return row, nil
}

// now is the server's clock.
func (d *database) now(ctx context.Context) (time.Time, error) {
	var us int64
	err := d.conn.QueryRowContext(ctx, "SELECT CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED)").Scan(&us)
	return time.UnixMicro(us), err
}

// first is the value of the first of these variables that the server has: their names changed
// over the versions. Empty = none.
func first(from map[string]string, names ...string) string {
	for _, n := range names {
		if v, ok := from[n]; ok {
			return v
		}
	}
	return ""
}

func (d *database) takesWrites() bool {
	return !on(first(d.vars, "read_only")) && !on(first(d.vars, "super_read_only"))
}

// isReplica tells that the server follows another.
func (d *database) isReplica() bool { return d.replication != nil }

// on tells the spellings of a switch that is on.
func on(v string) bool { return slices.Contains([]string{"ON", "1", "YES"}, strings.ToUpper(v)) }

// number reads a variable, 0 for none.
func number(v string) int64 {
	n, _ := strconv.ParseInt(v, 10, 64)
	return n
}
