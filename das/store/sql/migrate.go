package sqlstore

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"

	"github.com/go-sql-driver/mysql"
	"github.com/pressly/goose/v3"
)

//go:embed migrations/*.sql
var migrations embed.FS

// schemaTable holds which migrations were applied.
const schemaTable = "hongyan_schema"

// schemaVersion is the newest migration this program relies on. The database may be ahead
// (expand), never behind.
const schemaVersion = 1

// ErrSchema: the tables are missing or too old.
var ErrSchema = errors.New("schema is out of date, run hongyan db migrate")

// Migration is one step of the schema.
type Migration struct {
	Version int64
	Name    string
	Applied bool
}

// Migrate applies what is missing to a database and returns the steps it took. Of several
// that try at the same time one works and the others wait. The user needs the right to
// create tables.
func Migrate(ctx context.Context, cfg Config) (steps []Migration, err error) {
	err = withSchema(ctx, cfg, func(ctx context.Context, p *goose.Provider) error {
		done, err := p.Up(ctx)
		for _, r := range done {
			steps = append(steps, Migration{r.Source.Version, r.Source.Path, true})
		}
		return err
	})
	return steps, err
}

// Migrations tells what was applied to a database and what was not.
func Migrations(ctx context.Context, cfg Config) (list []Migration, err error) {
	err = withSchema(ctx, cfg, func(ctx context.Context, p *goose.Provider) error {
		all, err := p.Status(ctx)
		for _, m := range all {
			list = append(list, Migration{m.Source.Version, m.Source.Path, m.State == goose.StateApplied})
		}
		return err
	})
	return list, err
}

// withSchema calls work while nobody else works on the schema of this database.
func withSchema(ctx context.Context, cfg Config, work func(context.Context, *goose.Provider) error) error {
	d, err := cfg.driver()
	if err != nil {
		return err
	}
	c, err := mysql.NewConnector(d)
	if err != nil {
		return fmt.Errorf("dsn: %w", err)
	}
	db := sql.OpenDB(c)
	defer db.Close()
	if err := migrating(ctx, db, d.DBName, work); err != nil {
		return fmt.Errorf("schema of database %s at %s: %w", d.DBName, d.Addr, err)
	}
	return nil
}

func migrating(ctx context.Context, db *sql.DB, name string, work func(context.Context, *goose.Provider) error) error {
	var version string
	if err := db.QueryRowContext(ctx, "SELECT VERSION()").Scan(&version); err != nil {
		return err
	}
	dialect, err := dialectOf(version)
	if err != nil {
		return err
	}
	lock, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer lock.Close() // lets go of the lock, since it closes before its pool
	var got sql.NullInt64
	var q text
	q.raw("SELECT GET_LOCK(")
	q.str(lockName(name))
	q.raw(",60)")
	if err := lock.QueryRowContext(ctx, string(q)).Scan(&got); err != nil {
		return fmt.Errorf("lock: %w", err)
	}
	if got.Int64 != 1 {
		return errors.New("another migration has been running for a minute")
	}
	defer discard(lock)
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(dialect.goose, db, files, goose.WithTableName(schemaTable), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return err
	}
	return work(ctx, p)
}

// lockName fits the 64 bytes that a lock's name may have.
func lockName(database string) string {
	name := "hongyan migrate " + database
	return name[:min(len(name), 64)]
}

// checkSchema refuses a database that this program is too new for.
func checkSchema(ctx context.Context, db *sql.DB) error {
	var version sql.NullInt64
	err := db.QueryRowContext(ctx, "SELECT MAX(version_id) FROM "+schemaTable+" WHERE is_applied").Scan(&version)
	var server *mysql.MySQLError
	switch {
	case errors.As(err, &server) && server.Number == 1146: // no such table
		return fmt.Errorf("%w: it has no tables yet", ErrSchema)
	case err != nil:
		return fmt.Errorf("read the version of the schema: %w", err)
	case version.Int64 < schemaVersion:
		return fmt.Errorf("%w: it has version %d, this program needs %d", ErrSchema, version.Int64, schemaVersion)
	}
	return nil
}
