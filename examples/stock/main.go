// Command stock is a platform service for IM to call, in thrift: go run ./examples/stock, then
// hongyan dev --config examples/hongyan.yaml.
package main

import (
	"flag"
	"log/slog"
	"net"
	"os"

	"hongyan/examples/stock/service"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:9701", "host:port")
	flag.Parse()
	if err := run(*listen); err != nil {
		slog.Error("stock", "err", err)
		os.Exit(1)
	}
}

func run(listen string) error {
	ln, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	return service.New(ln, &service.Warehouse{}).Run()
}
