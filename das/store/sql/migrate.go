package sqlstore

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"path"

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
	err = withDatabase(cfg, func(db *sql.DB, name string) error {
		return migrating(ctx, db, name, func(p *goose.Provider) error {
			done, err := p.Up(ctx)
			for _, r := range done {
				steps = append(steps, Migration{r.Source.Version, path.Base(r.Source.Path), true})
			}
			return err
		})
	})
	return steps, err
}

// Migrations tells what was applied to a database and what was not. It changes nothing.
func Migrations(ctx context.Context, cfg Config) (list []Migration, err error) {
	err = withDatabase(cfg, func(db *sql.DB, _ string) error {
		list, err = migrationsOf(ctx, db)
		return err
	})
	return list, err
}

// migrationsOf reads goose's table, which need not be there yet.
func migrationsOf(ctx context.Context, db *sql.DB) ([]Migration, error) {
	names, err := fs.Glob(migrations, "migrations/*.sql")
	if err != nil {
		return nil, err
	}
	applied := make(map[int64]bool)
	rows, err := db.QueryContext(ctx, "SELECT version_id FROM "+schemaTable+" WHERE is_applied")
	if err == nil {
		defer rows.Close()
		for rows.Next() {
			var version int64
			if err := rows.Scan(&version); err != nil {
				return nil, err
			}
			applied[version] = true
		}
		err = rows.Err()
	}
	if err != nil && !isNoTable(err) {
		return nil, fmt.Errorf("read the version of the schema: %w", err)
	}
	list := make([]Migration, len(names))
	for i, name := range names {
		version, err := goose.NumericComponent(name)
		if err != nil {
			return nil, err
		}
		list[i] = Migration{version, path.Base(name), applied[version]}
	}
	return list, nil
}

// withDatabase calls work with a database.
func withDatabase(cfg Config, work func(db *sql.DB, name string) error) error {
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
	if err := work(db, d.DBName); err != nil {
		return fmt.Errorf("database %s at %s: %w", d.DBName, d.Addr, err)
	}
	return nil
}

// migrating calls work while nobody else works on the schema of this database.
func migrating(ctx context.Context, db *sql.DB, name string, work func(*goose.Provider) error) error {
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
	return work(p)
}

// lockName fits the 64 bytes that a lock's name may have.
func lockName(database string) string {
	name := "hongyan migrate " + database
	return name[:min(len(name), 64)]
}

func isNoTable(err error) bool {
	var server *mysql.MySQLError
	return errors.As(err, &server) && server.Number == 1146
}

// checkSchema refuses a database that this program is too new for.
func checkSchema(ctx context.Context, db *sql.DB) error {
	var version sql.NullInt64
	err := db.QueryRowContext(ctx, "SELECT MAX(version_id) FROM "+schemaTable+" WHERE is_applied").Scan(&version)
	switch {
	case isNoTable(err):
		return fmt.Errorf("%w: it has no tables yet", ErrSchema)
	case err != nil:
		return fmt.Errorf("read the version of the schema: %w", err)
	case version.Int64 < schemaVersion:
		return fmt.Errorf("%w: it has version %d, this program needs %d", ErrSchema, version.Int64, schemaVersion)
	}
	return nil
}
