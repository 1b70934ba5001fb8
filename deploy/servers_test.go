// Package deploy holds what operators run; its test holds deploy/servers and compose.yaml in
// step: versions, ports on this machine and settings.
package deploy

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

type service struct {
	Image   string   `yaml:"image"`
	Command []string `yaml:"command"`
	Ports   []string `yaml:"ports"`
	Volumes []string `yaml:"volumes"`
	EnvFile []string `yaml:"env_file"`
	Health  any      `yaml:"healthcheck"`
	Restart string   `yaml:"restart"`
}

// pair is one server as servers.sh runs it and as compose.yaml does.
type pair struct {
	service string
	image   string   // with %s for the version
	version string   // name in set.env
	ports   []string // names in set.env; a number counts from the port before
	conf    []string // files of servers/conf, all of which servers/lib uses
}

func pairs() []pair {
	return []pair{
		{"mysql-0-source", "mysql:%s", "MYSQL_VERSION", []string{"MYSQL_0_SOURCE_PORT"}, []string{"mysql.cnf", "mysql-source.cnf", "mysql-init.sql"}},
		{"mysql-0-replica", "mysql:%s", "MYSQL_VERSION", []string{"MYSQL_0_REPLICA_PORT"}, []string{"mysql.cnf", "mysql-init.sql"}},
		{"mysql-0-join", "mysql:%s", "MYSQL_VERSION", nil, []string{"mysql-join.sh"}},
		{"mysql-1-source", "mysql:%s", "MYSQL_VERSION", []string{"MYSQL_1_SOURCE_PORT"}, []string{"mysql.cnf", "mysql-source.cnf", "mysql-init.sql"}},
		{"mysql-1-replica", "mysql:%s", "MYSQL_VERSION", []string{"MYSQL_1_REPLICA_PORT"}, []string{"mysql.cnf", "mysql-init.sql"}},
		{"mysql-1-join", "mysql:%s", "MYSQL_VERSION", nil, []string{"mysql-join.sh"}},
		{"tidb", "pingcap/tidb:v%s", "TIDB_VERSION", []string{"TIDB_PORT", "TIDB_STATUS_PORT"}, []string{"tidb.toml", "tidb.sql"}},
		{"rocketmq-namesrv", "apache/rocketmq:%s", "ROCKETMQ_VERSION", []string{"ROCKETMQ_NAMESRV_PORT"}, []string{"namesrv.conf"}},
		{"rocketmq-broker", "apache/rocketmq:%s", "ROCKETMQ_VERSION", []string{"ROCKETMQ_BROKER_PORT", "-2"}, []string{"broker.conf"}},
		{"redis", "redis:%s", "REDIS_VERSION", []string{"REDIS_PORT"}, []string{"redis.conf"}},
		{"etcd", "quay.io/coreos/etcd:v%s", "ETCD_VERSION", []string{"ETCD_PORT", "ETCD_PEER_PORT"}, []string{"etcd.env"}},
	}
}

func TestComposeRunsTheServersOfMakeServers(t *testing.T) {
	set, services := readSet(t), readCompose(t)
	scripts := readAll(t, "servers/lib/*.sh")
	for _, p := range pairs() {
		t.Run(p.service, func(t *testing.T) {
			s, ok := services[p.service]
			if !ok {
				t.Fatalf("compose.yaml has no service %s", p.service)
			}
			if want := fmt.Sprintf(p.image, set[p.version]); s.Image != want {
				t.Errorf("image is %s, servers/set.env says %s", s.Image, want)
			}
			if want := published(set, p.ports); !slices.Equal(hostPorts(t, s.Ports), want) {
				t.Errorf("ports on this machine are %v, servers/set.env says %v", hostPorts(t, s.Ports), want)
			}
			if got := confOf(s); !slices.Equal(got, p.conf) {
				t.Errorf("settings come from %v, want %v", got, p.conf)
			}
			for _, file := range p.conf {
				if _, err := os.Stat(filepath.Join("servers/conf", file)); err != nil {
					t.Error(err)
				}
				used := "conf/" + strings.NewReplacer("mysql.cnf", "$engine.cnf", "mysql-source.cnf", "$engine-source.cnf",
					"namesrv.conf", "$name.conf", "broker.conf", "$name.conf").Replace(file)
				if !strings.Contains(scripts, used) {
					t.Errorf("servers/lib does not use %s", file)
				}
			}
			if p.ports != nil && s.Health == nil {
				t.Error("it has no health check")
			}
		})
	}
}

// Settings beside the shared files would be settings of one side only. What stands here is
// addresses and places.
func TestComposeAddsNoSettings(t *testing.T) {
	place := regexp.MustCompile(`^(--(server-id|config|initialize-sql-file|path|data-dir|bind|protected-mode|` +
		`(listen|advertise|initial-advertise)-(client|peer)-urls|initial-cluster)(=.*)?|-[cn])$`)
	services := readCompose(t)
	for _, p := range pairs() {
		for _, arg := range services[p.service].Command {
			if strings.HasPrefix(arg, "-") && !place.MatchString(arg) {
				t.Errorf("%s: %s is a setting: it belongs into servers/conf", p.service, arg)
			}
		}
	}
}

// What servers store outlives their containers, and a machine that restarts brings all back.
func TestComposeKeepsWhatItStores(t *testing.T) {
	services := readCompose(t)
	for _, name := range []string{"mysql-0-source", "mysql-0-replica", "mysql-1-source", "mysql-1-replica", "tidb", "rocketmq-broker", "etcd"} {
		if !slices.ContainsFunc(services[name].Volumes, func(v string) bool { return !strings.HasPrefix(v, ".") && !strings.HasPrefix(v, "/") }) {
			t.Errorf("%s stores in its container: %v", name, services[name].Volumes)
		}
	}
	for name, s := range services {
		if runs := s.Health != nil; runs != (s.Restart == "unless-stopped") {
			t.Errorf("%s: health check %v, restart %q", name, s.Health, s.Restart)
		}
	}
}

// What no side may lose: the promises P3, P5 and P6 stand on it.
func TestServersHaveTheirSafeSettings(t *testing.T) {
	for file, settings := range map[string][]string{
		"mysql.cnf": {
			"innodb_flush_log_at_trx_commit=1", "sync_binlog=1", "transaction_isolation=READ-COMMITTED", "default_time_zone=+00:00",
			"loose-rpl_semi_sync_source_wait_point=AFTER_SYNC", "loose-rpl_semi_sync_source_timeout=4294967295", "loose-rpl_semi_sync_replica_enabled=ON",
		},
		"mysql-source.cnf": {"loose-rpl_semi_sync_source_enabled=ON"},
		"mariadb.cnf": {
			"innodb_flush_log_at_trx_commit=1", "sync_binlog=1", "transaction_isolation=READ-COMMITTED", "default_time_zone=+00:00",
			"rpl_semi_sync_master_wait_point=AFTER_SYNC", "rpl_semi_sync_master_timeout=4294967295", "rpl_semi_sync_slave_enabled=ON",
		},
		"mariadb-source.cnf": {"rpl_semi_sync_master_enabled=ON"},
		"tidb.sql":           {"SET GLOBAL tidb_enable_async_commit = OFF;", "SET GLOBAL tidb_enable_1pc = OFF;"},
		"broker.conf":        {"flushDiskType=SYNC_FLUSH", "autoCreateTopicEnable=false", "autoCreateSubscriptionGroup=true"},
		"redis.conf":         {"maxmemory-policy noeviction", `save ""`, "appendonly no"},
	} {
		lines := strings.Split(readAll(t, filepath.Join("servers/conf", file)), "\n")
		for _, s := range settings {
			if !slices.Contains(lines, s) {
				t.Errorf("servers/conf/%s lacks %s", file, s)
			}
		}
	}
}

// A version is written where its tool needs it, and in set.env.
func TestVersionsAreThoseOfTheModules(t *testing.T) {
	set := readSet(t)
	for _, v := range []struct{ file, text string }{
		{"servers/etcd/go.mod", "go.etcd.io/etcd/server/v3 v" + set["ETCD_VERSION"]},
		{"servers/rocketmq/pom.xml", "<rocketmq.version>" + set["ROCKETMQ_VERSION"] + "</rocketmq.version>"},
		{"servers/conf/namesrv.conf", "listenPort=" + set["ROCKETMQ_NAMESRV_PORT"]},
		{"servers/conf/broker.conf", "listenPort=" + set["ROCKETMQ_BROKER_PORT"]},
		{"servers/conf/mysql-init.sql", fmt.Sprintf("CREATE USER %s@'%%' IDENTIFIED BY '%s';", set["DB_USER"], set["DB_PASSWORD"])},
		{"servers/conf/tidb.sql", fmt.Sprintf("CREATE USER IF NOT EXISTS %s@'%%' IDENTIFIED BY '%s';", set["DB_USER"], set["DB_PASSWORD"])},
		{"servers/conf/mysql-init.sql", "CREATE DATABASE IF NOT EXISTS " + set["DB_NAME"] + " "},
		{"servers/conf/tidb.sql", "CREATE DATABASE IF NOT EXISTS " + set["DB_NAME"] + " "},
	} {
		if !strings.Contains(readAll(t, v.file), v.text) {
			t.Errorf("%s lacks %q, which servers/set.env says", v.file, v.text)
		}
	}
}

// readSet gives the lines of set.env without their SERVERS_.
func readSet(t *testing.T) map[string]string {
	t.Helper()
	set := map[string]string{}
	for line := range strings.Lines(readAll(t, "servers/set.env")) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(name, "#") {
			set[strings.TrimPrefix(name, "SERVERS_")] = value
		}
	}
	return set
}

func readCompose(t *testing.T) map[string]service {
	t.Helper()
	var file struct {
		Services map[string]service `yaml:"services"`
	}
	if err := yaml.Unmarshal([]byte(readAll(t, "compose.yaml")), &file); err != nil {
		t.Fatal(err)
	}
	return file.Services
}

func readAll(t *testing.T, pattern string) string {
	t.Helper()
	names, err := filepath.Glob(pattern)
	if err != nil || len(names) == 0 {
		t.Fatalf("no file %s (%v)", pattern, err)
	}
	var all strings.Builder
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(b)
	}
	return all.String()
}

// published are the values of the named ports; a name that is a number counts from the one before.
func published(set map[string]string, names []string) []string {
	var ports []string
	for _, name := range names {
		var delta, last int
		if _, err := fmt.Sscan(name, &delta); err == nil {
			_, _ = fmt.Sscan(ports[len(ports)-1], &last)
			ports = append(ports, fmt.Sprint(last+delta))
			continue
		}
		ports = append(ports, set[name])
	}
	return ports
}

// hostPorts of "127.0.0.1:HOST:CONTAINER".
func hostPorts(t *testing.T, published []string) []string {
	t.Helper()
	var ports []string
	for _, p := range published {
		parts := strings.Split(p, ":")
		if len(parts) != 3 || parts[0] != "127.0.0.1" {
			t.Errorf("port %s is open to other machines", p)
			continue
		}
		ports = append(ports, parts[1])
	}
	return ports
}

// confOf are the files of servers/conf that a service reads.
func confOf(s service) []string {
	var files []string
	for _, source := range append(slices.Clone(s.Volumes), s.EnvFile...) {
		if file, ok := strings.CutPrefix(source, "./servers/conf/"); ok {
			file, _, _ = strings.Cut(file, ":")
			files = append(files, file)
		}
	}
	return files
}
