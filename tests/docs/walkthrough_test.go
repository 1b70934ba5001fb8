package docs

import (
	"go/parser"
	"go/token"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/cloudwego/kitex/server"

	orders "hongyan/examples/orders/service"
	stock "hongyan/examples/stock/service"
	"hongyan/tests/e2e/cluster"
)

// TestExamplesWalkThrough runs every line of examples/README.md, in order, in one shell,
// against a hongyan dev and services at ports of their own.
func TestExamplesWalkThrough(t *testing.T) {
	script := strings.Join(blocks(t, "../examples/README.md", "sh"), "")
	start := blocks(t, "../examples/README.md", "sh start")[0]
	t.Chdir("../..") // the paths of the page are those of a checkout
	dir := t.TempDir()
	ports := cluster.FreePorts(t, 3)
	port := func(i int) string { return ports[i][strings.LastIndexByte(ports[i], ':')+1:] }
	shop, _ := cluster.ServeExample(t, "127.0.0.1:0", func(ln net.Listener) server.Server { return orders.New(ln, &orders.Shop{}) })
	warehouse, _ := cluster.ServeExample(t, "127.0.0.1:0", func(ln net.Listener) server.Server { return stock.New(ln, &stock.Warehouse{}) })
	at := strings.NewReplacer(
		"127.0.0.1:9700", shop, "127.0.0.1:9701", warehouse,
		"127.0.0.1:8000", ports[1], "127.0.0.1:9000", ports[2],
		"bin/hongyan", cluster.Binary(t), "--data data", "--data "+dir, " data/", " "+dir+"/",
	)
	for _, line := range []string{"./examples/orders -listen 127.0.0.1:9700", "./examples/stock -listen 127.0.0.1:9701", "--config examples/hongyan.yaml"} {
		if !strings.Contains(start, line) {
			t.Errorf("the page does not start %s", line)
		}
	}
	text, err := os.ReadFile("examples/hongyan.yaml")
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "hongyan.yaml")
	if err := os.WriteFile(config, []byte(at.Replace(string(text))), 0o600); err != nil {
		t.Fatal(err)
	}
	cluster.Start(t, "dev", "dev", "--data", dir, "--config", config,
		"--tcp-port", port(0), "--http-port", port(1), "--rpc-port", port(2))
	out := run(t, ".", nil, "sh", "-eu", "-c", at.Replace(script))
	for _, want := range []string{
		`"status":"PAID"`, `"places":[{"warehouse":"north","shelf":"A3"},{"warehouse":"south"}]`, `"reserved":{"alice":2}`,
		"\n\"3\"\n", `mallory is closed out`, `"conv":"p:alice:bob"`, `"carol":{"uid":"carol","status":{"name":"ok"`,
		`"total":`, "your teapot is on its way", `"users":[`,
	} {
		if !strings.Contains(out, want) {
			t.Errorf("nothing printed %s:\n%s", want, out)
		}
	}
}

// TestExamplesImportNothingOfOurs: who reads them sees what an outsider needs.
func TestExamplesImportNothingOfOurs(t *testing.T) {
	for _, name := range []string{"orders", "stock", "caller"} {
		if err := fs.WalkDir(os.DirFS("../../examples/"+name), ".", func(file string, d fs.DirEntry, err error) error {
			if err != nil || filepath.Ext(file) != ".go" {
				return err
			}
			parsed, err := parser.ParseFile(token.NewFileSet(), filepath.Join("../../examples", name, file), nil, parser.ImportsOnly)
			if err != nil {
				return err
			}
			for _, i := range parsed.Imports {
				path, _ := strconv.Unquote(i.Path.Value)
				if strings.HasPrefix(path, "hongyan/") && !strings.HasPrefix(path, "hongyan/examples/"+name+"/") {
					t.Errorf("examples/%s/%s imports %s", name, file, path)
				}
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
}
