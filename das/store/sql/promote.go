package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/go-sql-driver/mysql"
)

// Promotion says how a replica is made the primary.
type Promotion struct {
	// Old is the primary so far. Without a DSN, or where nobody answers at it, it is taken for
	// dead: then the operator makes sure that it is, and stays so.
	Old Config
	// Replica is the server to be promoted. Its DSN and that of Old are an administrator's.
	Replica Config
	// WithoutReplica lets the new primary commit without a replica of its own. Otherwise its
	// commits wait for one from the beginning.
	WithoutReplica bool
	// Wait bounds each step that waits: for commits under way on the old primary, for the replica
	// to apply what it has received.
	Wait time.Duration
	// Log is told of each step; it may be nil.
	Log *slog.Logger
}

// Promoted is what a promotion has done.
type Promoted struct {
	Epoch  uint64 // of all buckets, higher than any before
	Fenced bool   // the old primary answered and takes no writes any more
}

// takeover is what a promotion says to a kind of server.
type takeover struct {
	// position is what a server has executed; received the column of SHOW REPLICA STATUS with
	// what a replica has got; await waits for a position at most so many seconds, and is 0 then.
	position, received, await string
	// close and open are the statements that let nobody write any more, and everybody again;
	// admit lets administrators alone write.
	close, admit, open []string
	// forgets: a replica both of whose threads are stopped throws away what it has received, and
	// not applied, when one of them is started.
	forgets bool
	// semiSync are the statements that make commits wait for a replica, alone not to.
	semiSync, alone string
}

// What is persisted holds over a restart: a primary that was demoted must not come back as one.
var mySQLTakeover = takeover{
	position: "@@GLOBAL.gtid_executed", received: "Retrieved_Gtid_Set", await: "WAIT_FOR_EXECUTED_GTID_SET",
	close: []string{"SET PERSIST super_read_only=ON"}, admit: []string{"SET PERSIST super_read_only=OFF"},
	open:     []string{"SET PERSIST super_read_only=OFF", "SET PERSIST read_only=OFF"},
	semiSync: "SET PERSIST rpl_semi_sync_source_enabled=ON", alone: "SET PERSIST rpl_semi_sync_source_enabled=OFF",
}

// MariaDB has no PERSIST, and its read_only does not bind administrators: there the bucket rows
// are what holds.
var mariaDBTakeover = takeover{
	position: "@@GLOBAL.gtid_binlog_pos", received: "Gtid_IO_Pos", await: "MASTER_GTID_WAIT",
	forgets: true,
	close:   []string{"SET GLOBAL read_only=ON"}, open: []string{"SET GLOBAL read_only=OFF"},
	semiSync: "SET GLOBAL rpl_semi_sync_master_enabled=ON", alone: "SET GLOBAL rpl_semi_sync_master_enabled=OFF",
}

// Promote makes a replica the primary of its database (R18). The old primary is fenced first, if
// it answers, and then the replica gets its last commits; what the replica has received it has
// applied before it takes writes, at a higher epoch. Until the replica leaves its source a
// failure undoes the fence; after that Promote can be called again to finish.
func Promote(ctx context.Context, p Promotion) (done Promoted, err error) {
	if p.Log == nil {
		p.Log = slog.New(slog.DiscardHandler)
	}
	r, err := administer(ctx, p.Replica, p.Wait)
	if err != nil {
		return done, fmt.Errorf("the replica: %w", err)
	}
	defer r.close()
	if done.Epoch, err = r.promotable(ctx); err != nil {
		return done, fmt.Errorf("the replica: %w", err)
	}
	old, err := p.reach(ctx)
	if err != nil {
		return done, err
	}
	if old != nil {
		defer old.close()
		epoch, err := p.handOver(ctx, old, r)
		if err != nil {
			return done, err
		}
		done.Epoch, done.Fenced = max(done.Epoch, epoch), true
	}
	done.Epoch++
	return done, p.takeOver(ctx, r, done.Epoch)
}

// reach connects to the old primary; nil if nobody answers there.
func (p *Promotion) reach(ctx context.Context) (*administrator, error) {
	if p.Old.DSN == "" {
		p.Log.Warn("the old primary is taken for dead: it must not come back with a replica of its own")
		return nil, nil
	}
	old, err := administer(ctx, p.Old, p.Wait)
	var answered *mysql.MySQLError
	switch {
	case err == nil:
		return old, nil
	case errors.As(err, &answered) || errors.Is(err, errUnfit) || ctx.Err() != nil:
		return nil, fmt.Errorf("the old primary: %w", err)
	}
	p.Log.Warn("the old primary does not answer: it must not come back with a replica of its own", "err", err)
	return nil, nil
}

// handOver fences the old primary and lets the replica catch up with it. It returns the highest
// epoch of the old primary.
func (p *Promotion) handOver(ctx context.Context, old, r *administrator) (epoch uint64, err error) {
	if epoch, err = old.epoch(ctx); err != nil {
		return 0, fmt.Errorf("the old primary: %w", err)
	}
	p.Log.Info("fencing the old primary")
	closed, err := old.fence(ctx)
	if err == nil {
		var last string
		p.Log.Info("waiting for the replica to have the old primary's last commit")
		if last, err = old.text(ctx, "SELECT "+old.server.takeover.position); err == nil {
			err = r.await(ctx, last)
		}
		if err == nil {
			return epoch, nil
		}
		err = fmt.Errorf("the replica does not catch up with the old primary: %w", err)
	} else {
		err = fmt.Errorf("the old primary answers and cannot be fenced; kill it (SIGKILL: a clean stop would answer commits that no replica has), then try again: %w", err)
	}
	return 0, errors.Join(err, old.release(context.WithoutCancel(ctx), closed))
}

// takeOver makes the replica a primary of the given epoch.
func (p *Promotion) takeOver(ctx context.Context, r *administrator, epoch uint64) error {
	if err := r.leave(ctx, p.Log); err != nil {
		return fmt.Errorf("the replica: %w", err)
	}
	p.Log.Info("raising the epoch of all buckets", "epoch", epoch)
	t := r.server.takeover
	steps := append([]string{t.alone}, t.admit...) // alone: there is nobody yet to wait for
	steps = append(steps, fmt.Sprintf("UPDATE bucket SET epoch=%d", epoch))
	if !p.WithoutReplica {
		steps = append(steps, t.semiSync)
	}
	if err := r.exec(ctx, append(steps, t.open...)...); err != nil {
		return fmt.Errorf("the replica has left its source and is no primary yet, promote it again: %w", err)
	}
	return nil
}

// administrator is a connection to one server of a pair.
type administrator struct {
	db     *sql.DB
	conn   *sql.Conn
	server *dialect
	wait   time.Duration
}

// errUnfit: the server answers and is not one that can be promoted or fenced.
var errUnfit = errors.New("unfit for a promotion")

func administer(ctx context.Context, cfg Config, wait time.Duration) (*administrator, error) {
	d, err := cfg.driver()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errUnfit, err)
	}
	c, err := mysql.NewConnector(d)
	if err != nil {
		return nil, fmt.Errorf("%w: dsn: %w", errUnfit, err)
	}
	a := &administrator{db: sql.OpenDB(c), wait: wait}
	if a.conn, err = a.db.Conn(ctx); err == nil {
		err = a.begin(ctx)
	}
	if err != nil {
		a.close()
		return nil, fmt.Errorf("database %s at %s: %w", d.DBName, d.Addr, err)
	}
	return a, nil
}

func (a *administrator) begin(ctx context.Context) error {
	version, err := a.text(ctx, "SELECT VERSION()")
	if err != nil {
		return err
	}
	if a.server, err = dialectOf(version); err != nil {
		return fmt.Errorf("%w: %w", errUnfit, err)
	}
	if a.server.takeover == nil {
		return fmt.Errorf("%w: %s fails over by itself", errUnfit, a.server.name)
	}
	if err := checkSchema(ctx, a.db); err != nil {
		return fmt.Errorf("%w: %w", errUnfit, err)
	}
	return a.exec(ctx, fmt.Sprintf("SET SESSION lock_wait_timeout=%d", a.seconds()), fmt.Sprintf("SET SESSION innodb_lock_wait_timeout=%d", a.seconds()))
}

func (a *administrator) close() {
	if a.conn != nil {
		_ = a.conn.Close()
	}
	_ = a.db.Close()
}

func (a *administrator) seconds() int { return max(1, int(a.wait/time.Second)) }

func (a *administrator) exec(ctx context.Context, statements ...string) error {
	for _, q := range statements {
		if _, err := a.conn.ExecContext(ctx, q); err != nil {
			return fmt.Errorf("%s: %w", q, err)
		}
	}
	return nil
}

func (a *administrator) text(ctx context.Context, q string) (s string, err error) {
	return s, a.conn.QueryRowContext(ctx, q).Scan(&s)
}

func (a *administrator) epoch(ctx context.Context) (n uint64, err error) {
	return n, a.conn.QueryRowContext(ctx, "SELECT IFNULL(MAX(epoch),0) FROM bucket").Scan(&n)
}

// promotable wants a replica that works, or one that an earlier promotion has left half done.
// It returns its highest epoch.
func (a *administrator) promotable(ctx context.Context) (epoch uint64, err error) {
	state, err := replication(ctx, a.conn)
	if err != nil {
		return 0, err
	}
	var readOnly bool
	if err := a.conn.QueryRowContext(ctx, "SELECT "+a.server.readOnly).Scan(&readOnly); err != nil {
		return 0, err
	}
	switch {
	case state == nil && !readOnly:
		return 0, fmt.Errorf("%w: it is no replica, and takes writes already", errUnfit)
	case state == nil:
		return a.epoch(ctx)
	case state["Last_SQL_Errno"] != "0":
		return 0, fmt.Errorf("%w: it cannot apply what it receives: %s", errUnfit, state["Last_SQL_Error"])
	case state["Auto_Position"] == "0" || state["Using_Gtid"] == "No":
		return 0, fmt.Errorf("%w: it does not follow its source by GTID", errUnfit)
	case a.server.takeover.forgets && state["Slave_IO_Running"] == "No" && state["Slave_SQL_Running"] == "No":
		return 0, fmt.Errorf("%w: both its threads are stopped, and starting one would throw away what it has received: let it follow its source first", errUnfit)
	}
	return a.epoch(ctx)
}

// replication is the row of SHOW REPLICA STATUS; nil if the server is no replica.
func replication(ctx context.Context, conn *sql.Conn) (state map[string]string, err error) {
	rows, err := conn.QueryContext(ctx, "SHOW REPLICA STATUS")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil || !rows.Next() {
		return nil, errors.Join(err, rows.Err())
	}
	values, into := make([]sql.NullString, len(columns)), make([]any, len(columns))
	for i := range values {
		into[i] = &values[i]
	}
	if err := rows.Scan(into...); err != nil {
		return nil, err
	}
	state = make(map[string]string, len(columns))
	for i, c := range columns {
		state[c] = values[i].String
	}
	return state, rows.Err()
}

// fence lets nobody write here any more, and returns the buckets that it has closed. Their rows
// are closed beside the binary log: replicas must not follow.
func (a *administrator) fence(ctx context.Context) (closed []uint32, err error) {
	rows, err := a.conn.QueryContext(ctx, "SELECT id FROM bucket WHERE open=1")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var id uint32
		if err := rows.Scan(&id); err != nil {
			return nil, err
		}
		closed = append(closed, id)
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	err = a.exec(ctx, append([]string{"SET SESSION sql_log_bin=0", "UPDATE bucket SET open=0"}, a.server.takeover.close...)...)
	return closed, err
}

// release undoes fence.
func (a *administrator) release(ctx context.Context, closed []uint32) error {
	ctx, cancel := context.WithTimeout(ctx, a.wait)
	defer cancel()
	q := text("UPDATE bucket SET open=1 WHERE id IN (-1")
	for _, id := range closed {
		q.uints(uint64(id))
	}
	q.raw(")")
	if err := a.exec(ctx, append(a.server.takeover.open, "SET SESSION sql_log_bin=0", string(q))...); err != nil {
		return fmt.Errorf("the old primary stays fenced: %w", err)
	}
	return nil
}

// leave ends the replication once all that was received is applied. The thread that applies is
// at work before the one that receives is stopped: see takeover.forgets.
func (a *administrator) leave(ctx context.Context, log *slog.Logger) error {
	state, err := replication(ctx, a.conn)
	if err != nil || state == nil {
		return err
	}
	log.Info("applying what the replica has received")
	if err := a.exec(ctx, "START REPLICA SQL_THREAD", "STOP REPLICA IO_THREAD"); err != nil {
		return err
	}
	if state, err = replication(ctx, a.conn); err != nil {
		return err
	}
	received := state[a.server.takeover.received]
	if err := a.await(ctx, received); err != nil {
		return fmt.Errorf("apply what was received, up to %q: %w", received, err)
	}
	return a.exec(ctx, "STOP REPLICA", "RESET REPLICA ALL")
}

// await waits until a position is applied.
func (a *administrator) await(ctx context.Context, position string) error {
	if err := a.exec(ctx, "START REPLICA SQL_THREAD"); err != nil {
		return err
	}
	q := text("SELECT " + a.server.takeover.await + "(")
	q.str(position)
	q.raw(fmt.Sprintf(",%d)", a.seconds()))
	var result sql.NullInt64
	if err := a.conn.QueryRowContext(ctx, string(q)).Scan(&result); err != nil {
		return err
	}
	if !result.Valid || result.Int64 != 0 {
		return fmt.Errorf("not within %v", a.wait)
	}
	return nil
}
