package sqlstore_test

import (
	"context"
	"database/sql"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/prometheus/client_golang/prometheus"

	"hongyan/das/store"
	sqlstore "hongyan/das/store/sql"
)

// The tests run over every server that is named by one of these variables, a DSN without
// database (root@tcp(127.0.0.1:3306)/) whose user may create databases. Where none is named
// and a mariadbd is installed, one is started on the loopback for the time of the tests.
var variables = []string{"HONGYAN_TEST_MARIADB", "HONGYAN_TEST_MYSQL", "HONGYAN_TEST_TIDB"}

// server is where tests make their databases.
type server struct{ name, dsn string }

// found looks for servers once. It does so within a test: what is read before the tests begin
// does not count for the cache of go test.
var found = sync.OnceValues(func() (servers []server, err error) {
	for _, v := range variables {
		dsn := os.Getenv(v)
		if dsn != "" {
			servers = append(servers, server{v[len("HONGYAN_TEST_"):], dsn})
		} else if required() && v != "HONGYAN_TEST_MARIADB" { // not part of the set
			return nil, fmt.Errorf("%s is not set (make servers)", v)
		}
	}
	if len(servers) > 0 {
		return servers, nil
	}
	dir, err := os.MkdirTemp("", "hongyan-mariadb-")
	if err != nil {
		return nil, err
	}
	atEnd = append(atEnd, func() { os.RemoveAll(dir) })
	s, stop, err := startMariaDB(dir)
	if err != nil {
		return nil, fmt.Errorf("no %v (make servers), and no MariaDB can be started here: %w", variables, err)
	}
	atEnd = append(atEnd, stop)
	return []server{s}, nil
})

// required tells that a server that is not there is a failure.
func required() bool { return os.Getenv("HONGYAN_TEST_REQUIRE_SERVERS") != "" }

// unavailable ends a test that lacks its server.
func unavailable(t testing.TB, why string) {
	t.Helper()
	if required() {
		t.Fatal(why)
	}
	fmt.Fprintf(os.Stderr, "%s: NOT TESTED: %s\n", t.Name(), why)
	t.Skip(why)
}

var atEnd []func()

func TestMain(m *testing.M) {
	status := m.Run()
	for _, end := range slices.Backward(atEnd) {
		end()
	}
	os.Exit(status)
}

// startMariaDB starts a server of its own in dir.
func startMariaDB(dir string) (server, func(), error) {
	daemon, err := exec.LookPath("mariadbd")
	if err != nil {
		if daemon, err = exec.LookPath("/usr/sbin/mariadbd"); err != nil {
			return server{}, nil, err
		}
	}
	data := filepath.Join(dir, "data")
	out, err := exec.Command("mariadb-install-db", "--no-defaults", "--datadir="+data, "--auth-root-authentication-method=normal",
		"--skip-test-db", userOption()).CombinedOutput()
	if err != nil {
		return server{}, nil, fmt.Errorf("mariadb-install-db: %w: %s", err, out)
	}
	port, err := freePort()
	if err != nil {
		return server{}, nil, err
	}
	cmd := exec.Command(daemon, "--no-defaults", "--datadir="+data, "--socket="+filepath.Join(dir, "s"),
		"--pid-file="+filepath.Join(dir, "pid"), "--log-error="+filepath.Join(dir, "log"), "--port="+strconv.Itoa(port),
		"--bind-address=127.0.0.1", "--skip-name-resolve", "--innodb-buffer-pool-size=256M", userOption())
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return server{}, nil, err
	}
	stop := func() { _ = cmd.Process.Kill(); _ = cmd.Wait() } // its data are thrown away
	s := server{"MARIADB", fmt.Sprintf("root@tcp(127.0.0.1:%d)/", port)}
	if err := s.ready(); err != nil {
		stop()
		return server{}, nil, err
	}
	return s, stop, nil
}

func userOption() string {
	if os.Geteuid() == 0 {
		return "--user=root"
	}
	return "--user=" + os.Getenv("USER")
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

func (s server) ready() error {
	db, err := sql.Open("mysql", s.dsn)
	if err != nil {
		return err
	}
	defer db.Close()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if err = db.Ping(); err == nil || time.Now().After(end) {
			return err
		}
	}
}

// exec runs statements as the user of the tests.
func (s server) exec(t testing.TB, database string, statements ...string) {
	t.Helper()
	db, err := sql.Open("mysql", s.dsn+database)
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

var databases atomic.Uint64

// database makes an empty database that lasts as long as the test.
func (s server) database(t testing.TB) sqlstore.Config {
	t.Helper()
	cfg := s.lasting(t)
	d, err := mysql.ParseDSN(cfg.DSN)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.exec(t, "", "DROP DATABASE "+d.DBName) })
	return cfg
}

// lasting makes an empty database that lasts as long as its server.
func (s server) lasting(t testing.TB) sqlstore.Config {
	t.Helper()
	d, err := mysql.ParseDSN(s.dsn)
	if err != nil {
		t.Fatal(err)
	}
	d.DBName = fmt.Sprintf("hongyan_test_%d_%d", os.Getpid(), databases.Add(1))
	s.exec(t, "", "CREATE DATABASE "+d.DBName)
	cfg := sqlstore.DefaultConfig()
	cfg.DSN = d.FormatDSN()
	return cfg
}

// migrated makes a database with all tables.
func (s server) migrated(t testing.TB) sqlstore.Config {
	t.Helper()
	cfg := s.database(t)
	if _, err := sqlstore.Migrate(context.Background(), cfg); err != nil {
		t.Fatal(err)
	}
	return cfg
}

func open(t testing.TB, cfg sqlstore.Config) *sqlstore.Store {
	t.Helper()
	return openWith(t, cfg, nil)
}

func openWith(t testing.TB, cfg sqlstore.Config, reg prometheus.Registerer) *sqlstore.Store {
	t.Helper()
	s, err := sqlstore.Open(context.Background(), cfg, sqlstore.Deps{Metrics: reg})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

// onServers runs a test over each server.
func onServers(t *testing.T, test func(t *testing.T, s server)) {
	t.Helper()
	servers, err := found()
	if err != nil {
		unavailable(t, err.Error())
	}
	for _, s := range servers {
		t.Run(s.name, func(t *testing.T) { test(t, s) })
	}
}

func commit(t testing.TB, s *sqlstore.Store, b *store.Batch) {
	t.Helper()
	if err := s.Commit(context.Background(), b); err != nil {
		t.Fatalf("commit: %v", err)
	}
}
