package servers

import (
	"crypto/rand"
	"database/sql"
	"strings"
	"testing"

	_ "github.com/go-sql-driver/mysql" // for sql.Open
)

// SQL is a SQL server that tests share: each makes databases of its own there.
type SQL struct {
	Name string // MYSQL, MARIADB or TIDB
	DSN  string // without a database
}

// SQLs are the names of all kinds of SQL servers.
func SQLs() []string { return []string{"MYSQL", "MARIADB", "TIDB"} }

// SharedSQL is the shared server of a name.
func SharedSQL(t testing.TB, name string) SQL {
	t.Helper()
	return SQL{name, Shared(t, "HONGYAN_TEST_"+name)}
}

// EachSQL runs a test over each of them.
func EachSQL(t *testing.T, test func(t *testing.T, s SQL)) {
	t.Helper()
	for _, name := range SQLs() {
		t.Run(name, func(t *testing.T) { test(t, SharedSQL(t, name)) })
	}
}

// Exec runs statements as a user who may do everything. database may be empty.
func (s SQL) Exec(t testing.TB, database string, statements ...string) {
	t.Helper()
	db, err := sql.Open("mysql", s.DSN+database)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, q := range statements {
		if _, err := db.Exec(q); err != nil {
			t.Fatalf("%s: %v", q, err)
		}
	}
}

// Database makes an empty database that lasts as long as the test.
func (s SQL) Database(t testing.TB) (name string) {
	t.Helper()
	name = s.Lasting(t)
	t.Cleanup(func() { s.Exec(t, "", "DROP DATABASE "+name) })
	return name
}

// Lasting makes an empty database that lasts as long as its server: one of a set of the test's
// own.
func (s SQL) Lasting(t testing.TB) (name string) {
	t.Helper()
	name = "hongyan_test_" + strings.ToLower(rand.Text()[:10])
	s.Exec(t, "", "CREATE DATABASE "+name)
	return name
}
