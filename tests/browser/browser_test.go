package browser

import (
	"context"
	"os"
	"os/exec"
	"testing"
	"time"

	"hongyan/tests/e2e/cluster"
)

// chromiums are the names of the browser, first found first used.
func chromium() string {
	for _, name := range []string{os.Getenv("CHROMIUM"), "chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); name != "" && err == nil {
			return path
		}
	}
	return ""
}

// DD-01, DD-17, MF-02, MF-08: two users chat on the demo page.
func TestDemoPage(t *testing.T) {
	browser := chromium()
	_, noNode := exec.LookPath("node")
	_, noDriver := os.Stat("node_modules/playwright-core")
	if browser == "" || noNode != nil || noDriver != nil {
		const why = "NOT TESTED: the demo page, for want of Chromium, Node or the driver. tests/browser/setup.sh installs them."
		if os.Getenv("HONGYAN_REQUIRE_BROWSER") != "" {
			t.Fatal(why)
		}
		t.Skip(why)
	}
	system := cluster.Dev(t)
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "node", "demo.mjs", system.HTTP[0], browser)
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatalf("the page failed: %v", err)
	}
}
