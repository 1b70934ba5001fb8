package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	hongyan "hongyan/sdk/go"
	"hongyan/tests/e2e/cluster"
	"hongyan/tests/servers"
)

// balancer is an nginx or HAProxy with the configuration of deploy/.
type balancer struct {
	t    testing.TB
	name string
	addr string // where clients reach it
	cmd  *exec.Cmd
	done chan struct{}
	log  string
}

// program finds a balancer, or skips the test.
func program(t testing.TB, name string) string {
	t.Helper()
	for _, path := range []string{name, "/usr/sbin/" + name} {
		if found, err := exec.LookPath(path); err == nil {
			return found
		}
	}
	servers.Missing(t, "no "+name+" here: run deploy/install-balancers.sh")
	return ""
}

// deployed reads a file of deploy/ and puts this test's addresses into it.
func deployed(t testing.TB, file string, replace ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "deploy", file))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(replace); i += 2 {
		if !strings.Contains(string(b), replace[i]) {
			t.Fatalf("deploy/%s has no %q", file, replace[i])
		}
	}
	return strings.NewReplacer(replace...).Replace(string(b))
}

// startNginx runs deploy/nginx/hongyan.conf in front of the httpentries.
func startNginx(t testing.TB, certs string, upstreams []string) *balancer {
	path := program(t, "nginx")
	dir := t.TempDir()
	b := &balancer{t: t, name: "nginx", addr: cluster.FreePorts(t, 1)[0], log: filepath.Join(dir, "log")}
	site := deployed(t, "nginx/hongyan.conf",
		"10.0.2.21:8000", upstreams[0], "10.0.2.22:8000", upstreams[1],
		"listen 443 ssl http2", "listen "+b.addr+" ssl http2", "im.shop.example", "127.0.0.1",
		"/etc/nginx/tls/im.crt", filepath.Join(certs, "im.crt"), "/etc/nginx/tls/im.key", filepath.Join(certs, "im.key"))
	main := fmt.Sprintf(`
daemon off; worker_processes 2; worker_shutdown_timeout 60s; pid %[1]s/pid; error_log %[1]s/log warn;
events { worker_connections 1024; }
http {
	client_body_temp_path %[1]s/a; proxy_temp_path %[1]s/b; fastcgi_temp_path %[1]s/c; uwsgi_temp_path %[1]s/d; scgi_temp_path %[1]s/e;
%[2]s
}`, dir, site)
	conf := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(conf, []byte(main), 0o600); err != nil {
		t.Fatal(err)
	}
	b.start(path, "-c", conf, "-p", dir, "-e", b.log)
	return b
}

// startHAProxy runs deploy/haproxy/haproxy.cfg in front of the entries.
func startHAProxy(t testing.TB, certs string, servers []string) *balancer {
	path := program(t, "haproxy")
	dir := t.TempDir()
	b := &balancer{t: t, name: "haproxy", addr: cluster.FreePorts(t, 1)[0], log: filepath.Join(dir, "log")}
	conf := filepath.Join(dir, "haproxy.cfg")
	text := deployed(t, "haproxy/haproxy.cfg",
		"10.0.2.11:7000", servers[0], "10.0.2.12:7000", servers[1], "bind :7443", "bind "+b.addr,
		"/etc/haproxy/tls/im.pem", filepath.Join(certs, "im.pem"), "/run/haproxy/admin.sock", filepath.Join(dir, "sock"),
		"maxconn 1000000", "maxconn 1000", "log /dev/log local0", "log stderr local0")
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	b.start(path, "-W", "-db", "-f", conf)
	return b
}

func (b *balancer) start(path string, args ...string) {
	b.t.Helper()
	out, err := os.OpenFile(b.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		b.t.Fatal(err)
	}
	defer out.Close()
	b.cmd, b.done = exec.Command(path, args...), make(chan struct{})
	b.cmd.Stdout, b.cmd.Stderr = out, out
	b.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := b.cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	go func() { _ = b.cmd.Wait(); close(b.done) }()
	b.t.Cleanup(func() {
		_ = b.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-b.done:
		case <-time.After(10 * time.Second):
			_ = b.cmd.Process.Kill()
			<-b.done
		}
		if text, _ := os.ReadFile(b.log); b.t.Failed() && len(text) > 0 {
			b.t.Logf("--- %s:\n%s", b.name, text)
		}
	})
	cluster.Eventually(b.t, patience, b.name+" listens", func() bool {
		c, err := net.Dial("tcp", b.addr)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

// reload makes it read its configuration anew, with new processes.
func (b *balancer) reload(sig syscall.Signal) {
	b.t.Helper()
	if err := b.cmd.Process.Signal(sig); err != nil {
		b.t.Fatal(err)
	}
	time.Sleep(time.Second)
}

// certify writes a certificate for 127.0.0.1 as im.crt, im.key and im.pem, which clients of
// this process trust.
func certify(t *testing.T, dir string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "im"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, BasicConstraintsValid: true, IsCA: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	crt := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	secret := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})
	for name, content := range map[string][]byte{"im.crt": crt, "im.key": secret, "im.pem": append(crt, secret...)} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("SSL_CERT_FILE", filepath.Join(dir, "im.crt")) // read when the first of them connects
}

// through connects a device by way of a balancer.
func (b *balancer) through(s *cluster.System, scheme, uid string) *device {
	b.t.Helper()
	d := &device{
		t: b.t, messages: map[string]map[uint64]*hongyan.Message{}, shown: map[string]int{},
		modified: map[uint64]hongyan.Modified{}, rows: map[string]*hongyan.Conversation{},
	}
	client, err := hongyan.New(hongyan.Options{
		Endpoints: []string{scheme + "://" + b.addr}, Token: func(context.Context) (string, error) { return s.Token(b.t, uid), nil },
		Device: uid + "-d", Platform: "web", Store: &hongyan.Memory{}, On: d.handlers(),
	})
	if err != nil {
		b.t.Fatal(err)
	}
	d.Client = client
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := client.Connect(ctx); err != nil {
		b.t.Fatalf("%s through %s: %v", uid, b.name, err)
	}
	b.t.Cleanup(func() { _ = client.Close() })
	return d
}

func bare(urls []string) []string {
	out := make([]string, len(urls))
	for i, u := range urls {
		out[i] = strings.TrimPrefix(u, "http://")
	}
	return out
}

// TestZZ18 runs the balancers of deploy/ in front of real gateways.
func TestZZ18(t *testing.T) {
	certs := t.TempDir()
	certify(t, certs)
	t.Run("httpentry behind nginx", func(t *testing.T) { behindNginx(t, certs) })
	t.Run("entry behind HAProxy", func(t *testing.T) { behindHAProxy(t, certs) })
}

// behindNginx: WebSocket, the API and a long poll held for 15 s through the
// nginx of deploy/; a reload and the restart of an httpentry lose nothing.
func behindNginx(t *testing.T, certs string) {
	t.Setenv("HONGYAN_HTTPENTRY_TRUSTED_PROXIES", "127.0.0.0/8")
	drainFor(t, time.Second)
	s := cluster.Gateways(t, "")
	b := startNginx(t, certs, bare(s.HTTP))
	web, poll := b.through(s, "wss", "alice"), b.through(s, "https", "bob")
	web.say("bob", "one")
	cluster.Eventually(t, patience, "a poll through nginx brings it", func() bool { return poll.has("p:alice:bob", "one") })

	// Silence for longer than a poll is held: the next message comes at once all the same.
	time.Sleep(17 * time.Second)
	began := time.Now()
	web.say("bob", "two")
	cluster.Eventually(t, patience, "a held poll is answered", func() bool { return poll.has("p:alice:bob", "two") })
	if took := time.Since(began); took > 8*time.Second {
		t.Errorf("it took %v: nginx buffers", took)
	}
	poll.say("alice", "three")
	cluster.Eventually(t, patience, "the WebSocket brings it", func() bool { return web.has("p:alice:bob", "three") })

	b.reload(syscall.SIGHUP)
	web.say("bob", "four")
	cluster.Eventually(t, patience, "after a reload", func() bool { return poll.has("p:alice:bob", "four") })
	for _, name := range []string{"httpentry-0", "httpentry-1"} {
		s.Procs[name].Stop()
		web.say("bob", "without "+name)
		cluster.Eventually(t, patience, "without "+name, func() bool { return poll.has("p:alice:bob", "without "+name) })
		s.Procs[name].Restart()
	}
	for _, path := range []string{"/metrics", "/readyz", "/healthz"} {
		rsp, err := http.Get("https://" + b.addr + path)
		if err != nil {
			t.Fatal(err)
		}
		rsp.Body.Close()
		if rsp.StatusCode != http.StatusNotFound {
			t.Errorf("%s is open to clients: %s", path, rsp.Status)
		}
	}
}

// behindHAProxy: TLS ends at the HAProxy of deploy/, frames go through, the
// client's address arrives; a reload keeps connections, the restart of an entry loses nothing.
func behindHAProxy(t *testing.T, certs string) {
	t.Setenv("HONGYAN_ENTRY_PROXY_PROTOCOL", "127.0.0.0/8")
	t.Setenv("HONGYAN_LOG_LEVEL", "debug")
	drainFor(t, time.Second)
	s := cluster.Gateways(t, "")
	b := startHAProxy(t, certs, s.TCP)
	alice, bob := b.through(s, "tls", "alice"), b.through(s, "tls", "bob")
	alice.say("bob", "one")
	cluster.Eventually(t, patience, "it arrives", func() bool { return bob.has("p:alice:bob", "one") })

	b.reload(syscall.SIGUSR2)
	alice.say("bob", "after a reload")
	cluster.Eventually(t, patience, "after a reload", func() bool { return bob.has("p:alice:bob", "after a reload") })
	carol := b.through(s, "tls", "carol")
	for _, name := range []string{"entry-0", "entry-1"} {
		s.Procs[name].Stop()
		alice.say("bob", "without "+name)
		carol.say("bob", "without "+name)
		cluster.Eventually(t, patience, "without "+name, func() bool {
			return bob.has("p:alice:bob", "without "+name) && bob.has("p:bob:carol", "without "+name)
		})
		s.Procs[name].Restart()
		time.Sleep(2500 * time.Millisecond) // two checks
	}
	if log := s.Procs["entry-0"].Log() + s.Procs["entry-1"].Log(); regexp.MustCompile(`balancer's connection was refused`).MatchString(log) {
		t.Error("an entry refused the balancer's connections")
	}
}
