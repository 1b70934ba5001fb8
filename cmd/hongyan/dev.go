package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"

	"hongyan/httpentry"
	"hongyan/imui"
	"hongyan/internal/control"
)

// devUsers are who the demo page and the printed lines speak of.
var devUsers = [2]string{"alice", "bob"}

// devConfig are the defaults of dev: everything on, for this machine only.
func devConfig() Config {
	cfg := defaultConfig()
	cfg.HTTPEntry.Demo = true
	cfg.Entry.Gate.DrainDelay, cfg.HTTPEntry.Gate.DrainDelay = 0, 0 // there is nowhere else to go
	return cfg
}

func newDevCmd() *cobra.Command {
	var load loadFlags
	var data, host string
	var tcpPort, httpPort, rpcPort uint16
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "every tier in one process, with embedded parts",
		Long: `Runs the whole system in one process, with nothing else to install. The first line on stdout says
that it is ready and where. What it stores in the data directory survives restarts and crashes.`,
		Example: "  hongyan dev\n  hongyan dev --data /tmp/hongyan --tcp-port 0 --http-port 0 --rpc-port 0",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			load.set(cmd, "data", "data", data)
			listen := func(port uint16) string { return net.JoinHostPort(host, strconv.Itoa(int(port))) }
			given := cmd.Flags().Changed
			config := func(overlay []byte) (*Config, error) {
				cfg, err := load.loadOver(devConfig(), "dev", overlay)
				if err != nil {
					return nil, err
				}
				if given("host") || given("tcp-port") || load.file == "" {
					cfg.Entry.Listen = listen(tcpPort)
				}
				if given("host") || given("http-port") || load.file == "" {
					cfg.HTTPEntry.Listen = listen(httpPort)
				}
				if err := addDemoApp(cfg); err != nil {
					return nil, err
				}
				return cfg, cfg.Validate()
			}
			return runDev(cmd.Context(), config, listen(rpcPort), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	load.register(cmd)
	f := cmd.Flags()
	f.StringVar(&data, "data", "data", "where the store, the queue and the demo keys are")
	f.StringVar(&host, "host", "127.0.0.1", "the address to listen on")
	f.Uint16Var(&tcpPort, "tcp-port", 7000, "for apps: TCP frames; 0 = any free port")
	f.Uint16Var(&httpPort, "http-port", 8000, "for browsers: HTTP, WebSocket, long poll, the demo page; 0 = any free port")
	f.Uint16Var(&rpcPort, "rpc-port", 9000, "for internal services: IMUI over Kitex; 0 = any free port")
	return cmd
}

// demoApp may call the HTTP API and IMUI of a dev that has no apps configured.
const demoApp = "demo"

// addDemoApp makes a calling system with a key of its own, kept in the data directory.
func addDemoApp(cfg *Config) error {
	if len(cfg.IMUI.Apps)+len(cfg.HTTPEntry.Apps) > 0 {
		return nil
	}
	if err := makeDir(cfg.Data); err != nil {
		return err
	}
	path := filepath.Join(cfg.Data, "demo-app.key")
	key, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		key = []byte(rand.Text())
		err = os.WriteFile(path, key, 0o600)
	}
	if err != nil {
		return fmt.Errorf("key of the demo app: %w", err)
	}
	cfg.IMUI.Apps = []imui.App{{Name: demoApp, Key: string(key), Tenants: []string{cfg.Tenant}}}
	cfg.HTTPEntry.Apps = []httpentry.App{{Name: demoApp, Key: string(key), Tenants: []string{cfg.Tenant}}}
	return nil
}

func runDev(ctx context.Context, config loader, rpcListen string, stdout, stderr io.Writer) error {
	cfg, err := config(nil)
	if err != nil {
		return err
	}
	net := newDirect()
	one := func(name string) control.Members {
		return control.Members{Slots: 1, Instances: []control.Instance{{Tier: name, Addr: name}}}
	}
	p, err := newProcess(ctx, "dev", cfg, config, net, map[string]control.Members{tierLogic: one(tierLogic), tierDas: one(tierDas)}, stderr)
	if err != nil {
		return err
	}
	defer func() {
		if err := p.close(); err != nil {
			p.log.Error("closing", "err", err)
		}
	}()
	ready, err := p.assembleDev(net, rpcListen)
	if err != nil {
		return err
	}
	return p.run(ctx, func() error {
		if err := awaitPool(ctx, p.logics); err != nil {
			return nil // asked to stop before it was up
		}
		p.welcome(ready, stderr)
		return json.NewEncoder(stdout).Encode(ready)
	})
}

// assembleDev puts one instance of every tier into the process.
func (p *process) assembleDev(net *direct, rpcListen string) (readyLine, error) {
	ready := newReadyLine()
	d, err := p.addDas(p.self(tierDas, tierDas, 0))
	if err != nil {
		return ready, err
	}
	net.add(tierDas, d)
	queue, err := p.openQueue()
	if err != nil {
		return ready, err
	}
	p.online = queue
	services, err := p.addJtransit()
	if err != nil {
		return ready, err
	}
	l, err := p.addLogic(p.self(tierLogic, tierLogic, 0), queue, services)
	if err != nil {
		return ready, err
	}
	net.add(tierLogic, l)
	if err := p.addExtLogic(p.self(tierExtLogic, tierExtLogic, 0), queue); err != nil {
		return ready, err
	}
	if ready.RPC, err = p.addIMUI(rpcListen, queue, operatorsQueue(rpcListen, queue)...); err != nil {
		return ready, err
	}
	e, err := p.addEntry(p.self("entry", "entry", 0))
	if err != nil {
		return ready, err
	}
	net.add("entry", e)
	h, err := p.addHTTPEntry(p.self("httpentry", "httpentry", 0))
	if err != nil {
		return ready, err
	}
	net.add("httpentry", h)
	ready.TCP, ready.HTTP = e.Addr().String(), "http://"+h.Addr().String()
	return ready, nil
}

// readyLine is the first line on stdout, a contract with scripts.
type readyLine struct {
	Ready bool   `json:"ready"`
	TCP   string `json:"tcp,omitempty"`
	HTTP  string `json:"http,omitempty"`
	RPC   string `json:"rpc,omitempty"`
	PID   int    `json:"pid"`
}

func newReadyLine() readyLine { return readyLine{Ready: true, PID: os.Getpid()} }

// welcome is for the person who started it.
func (p *process) welcome(ready readyLine, w io.Writer) {
	var tokens [2]string
	for i, uid := range devUsers {
		signed, err := p.demoToken(uid)
		if err != nil {
			p.log.Warn("no demo token", "uid", uid, "err", err)
			return
		}
		tokens[i] = signed
	}
	fmt.Fprintf(w, `
  hongyan dev is ready: every tier in this process, data in %s

  demo page   %s/demo
  HTTP API    %s/docs
  TCP         %s        IMUI (Kitex)  %s
  %-6s token %s
  %-6s token %s

  curl -s %s/v1/messages -H "Authorization: Bearer $(%s token --uid %s --data %s)" \
       -H "Content-Type: application/json" -d '{"to":"%s","text":"hello"}'

  internal systems call as app %q with the key in %s

`, p.cfg.Data, ready.HTTP, ready.HTTP, ready.TCP, ready.RPC,
		devUsers[0], tokens[0], devUsers[1], tokens[1],
		ready.HTTP, os.Args[0], devUsers[0], p.cfg.Data, devUsers[1], demoApp, filepath.Join(p.cfg.Data, "demo-app.key"))
}
