package arch

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const root = "../.."

func page(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(path.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// testsOf finds all test functions of the tree, as "das.TestR01...": folder and name; and
// the cases of the suite for stores, as "storetest.R01...".
func testsOf(t *testing.T) []string {
	t.Helper()
	declaration := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark)\w+)\(`)
	var names []string
	if err := fs.WalkDir(os.DirFS(root), ".", func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() && elsewhere.MatchString(file) {
			return fs.SkipDir
		}
		if !strings.HasSuffix(file, "_test.go") {
			return nil
		}
		for _, m := range declaration.FindAllStringSubmatch(page(t, file), -1) {
			names = append(names, path.Dir(file)+"."+m[1])
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`\{"(\w+)", test`).FindAllStringSubmatch(page(t, "das/store/storetest/storetest.go"), -1) {
		names = append(names, "storetest."+m[1])
	}
	return names
}

// section is a heading of a page that begins with an id, and the text below it.
type section struct{ id, text string }

func sections(text, id string) []section {
	heading := regexp.MustCompile(`(?m)^#+ .*$`)
	starts := regexp.MustCompile(`^#+ (` + id + `)\b`)
	var out []section
	at := heading.FindAllStringIndex(text, -1)
	for i, h := range at {
		m := starts.FindStringSubmatch(text[h[0]:h[1]])
		if m == nil {
			continue
		}
		end := len(text)
		if i+1 < len(at) {
			end = at[i+1][0]
		}
		out = append(out, section{m[1], text[h[1]:end]})
	}
	return out
}

var named = regexp.MustCompile("`([a-z0-9/_]+\\.(?:Test|Fuzz)\\w+|storetest\\.\\w+)`")

// namedTests are the tests that a text names, as "folder.TestName".
func namedTests(text string) []string {
	var out []string
	for _, m := range named.FindAllStringSubmatch(text, -1) {
		out = append(out, m[1])
	}
	return out
}

// TestRulesHaveTheirTests: docs/races.md tells all thirty rules, the tests it names exist,
// and every rule that is held has a test with its id in the name.
func TestRulesHaveTheirTests(t *testing.T) {
	all := testsOf(t)
	rules := sections(page(t, "docs/races.md"), `R\d\d`)
	var ids []string
	for _, r := range rules {
		ids = append(ids, r.id)
		names := namedTests(r.text)
		for _, n := range names {
			if !slices.Contains(all, n) {
				t.Errorf("%s names %s, which does not exist", r.id, n)
			}
		}
		held := strings.Contains(r.text, "**Held.**")
		if !held && !strings.Contains(r.text, "**With ") {
			t.Errorf("%s says neither that it is held nor with what it comes", r.id)
		}
		own := func(name string) bool { return strings.Contains(path.Ext(name), r.id) }
		if held && !slices.ContainsFunc(names, own) {
			t.Errorf("%s is held, but the page names no test with its id", r.id)
		}
	}
	var want []string
	for n := range 30 {
		want = append(want, fmt.Sprintf("R%02d", n+1))
	}
	slices.Sort(ids)
	if !slices.Equal(ids, want) {
		t.Errorf("the page tells %v", ids)
	}
}

// TestDocsNameWhatExists: links between pages resolve, and what stands in code as the path
// of a file is one.
func TestDocsNameWhatExists(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	file := regexp.MustCompile("`([A-Za-z0-9_.-]+(?:/[A-Za-z0-9_.-]+)+\\.(?:go|proto|md|sh|tsv))`")
	anchor := regexp.MustCompile(`(?m)^#+ (.*)$`)
	pages, err := fs.Glob(os.DirFS(root), "docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	decisions, err := fs.Glob(os.DirFS(root), "docs/*/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range slices.Concat(pages, decisions, []string{"README.md", "CONTRIBUTING.md"}) {
		text := page(t, name)
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			to, place, _ := strings.Cut(m[1], "#")
			if strings.Contains(to, "://") {
				continue
			}
			target := name
			if to != "" {
				target = path.Join(path.Dir(name), to)
			}
			if _, err := os.Stat(path.Join(root, target)); err != nil {
				t.Errorf("%s links to %s: %v", name, m[1], err)
				continue
			}
			if place == "" {
				continue
			}
			headings := anchor.FindAllStringSubmatch(page(t, target), -1)
			if !slices.ContainsFunc(headings, func(h []string) bool { return slug(h[1]) == place }) {
				t.Errorf("%s links to %s, a heading that is not there", name, m[1])
			}
		}
		for _, m := range file.FindAllStringSubmatch(text, -1) {
			_, below := os.Stat(path.Join(root, m[1]))
			_, beside := os.Stat(path.Join(root, path.Dir(name), m[1]))
			if below != nil && beside != nil {
				t.Errorf("%s speaks of %s, which is no file", name, m[1])
			}
		}
	}
}

// slug is how a heading is linked to.
func slug(heading string) string {
	heading = strings.ToLower(strings.ReplaceAll(heading, " ", "-"))
	return regexp.MustCompile(`[^\p{L}\p{N}_-]`).ReplaceAllString(heading, "")
}

// TestPagesNameTestsThatExist: a page that names a test as "folder.TestName" names one.
func TestPagesNameTestsThatExist(t *testing.T) {
	all := testsOf(t)
	pages, err := fs.Glob(os.DirFS(root), "docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range pages {
		for _, n := range namedTests(page(t, name)) {
			if !slices.Contains(all, n) {
				t.Errorf("%s names %s, which does not exist", name, n)
			}
		}
	}
}

// guides are the pages that people follow: docs, and the READMEs of other folders.
func guides(t *testing.T) []string {
	t.Helper()
	pages := []string{"README.md", "examples/README.md", "deploy/servers/README.md"}
	for _, pattern := range []string{"docs/*.md", "docs/decisions/*.md"} {
		list, err := fs.Glob(os.DirFS(root), pattern)
		if err != nil {
			t.Fatal(err)
		}
		pages = append(pages, list...)
	}
	return pages
}

// TestPagesNameCommandsThatExist: "hongyan db promote" on a page is a command, and so are its
// flags somewhere in cmd/hongyan.
func TestPagesNameCommandsThatExist(t *testing.T) {
	files, err := fs.Glob(os.DirFS(root), "cmd/hongyan/*.go")
	if err != nil {
		t.Fatal(err)
	}
	var source strings.Builder
	for _, f := range files {
		source.WriteString(page(t, f))
	}
	commands := []string{"das", "entry", "extlogic", "httpentry", "imui", "jtransit", "logic", "help"} // targets
	for _, m := range regexp.MustCompile(`Use:\s+"([a-z-]+)`).FindAllStringSubmatch(source.String(), -1) {
		commands = append(commands, m[1])
	}
	parents := []string{"bench", "config", "control", "db", "mq", "dlq"} // their next word is a command too
	line := regexp.MustCompile("(?m)(?:^|[`(/ ])hongyan((?: [a-z-]+)+)([^`\n]*)")
	flag := regexp.MustCompile(`--([a-z-]+)`)
	for _, name := range guides(t) {
		code := strings.Join(regexp.MustCompile("(?ms)^```.*?^```|`[^`\n]+`").FindAllString(page(t, name), -1), "\n")
		for _, m := range line.FindAllStringSubmatch(code, -1) {
			for _, word := range strings.Fields(m[1]) {
				if !slices.Contains(commands, word) {
					t.Errorf("%s: hongyan%s: there is no %s", name, m[1], word)
				}
				if !slices.Contains(parents, word) {
					break
				}
			}
			for _, f := range flag.FindAllStringSubmatch(m[2], -1) {
				if !strings.Contains(source.String(), `"`+f[1]+`"`) {
					t.Errorf("%s: hongyan%s: there is no flag --%s", name, m[1], f[1])
				}
			}
		}
	}
}

// TestPagesNameKeysThatExist: `tier.key` on a page is a key of docs/configuration.md.
func TestPagesNameKeysThatExist(t *testing.T) {
	var keys []string
	sections := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z_.\\[\\]]+)` \\|").FindAllStringSubmatch(page(t, "docs/configuration.md"), -1) {
		keys = append(keys, m[1])
		section, _, _ := strings.Cut(m[1], ".")
		sections[section] = true
	}
	if len(keys) < 100 {
		t.Fatalf("only %d keys found on the page of the configuration", len(keys))
	}
	for _, name := range guides(t) {
		for _, m := range regexp.MustCompile("`([a-z]+)(\\.[a-z_.]+)(?::[^`]*)?`").FindAllStringSubmatch(page(t, name), -1) {
			ending := path.Ext(m[1] + m[2])
			if sections[m[1]] && !slices.Contains(keys, m[1]+m[2]) && !slices.Contains([]string{".go", ".json", ".md", ".proto", ".yaml"}, ending) {
				t.Errorf("%s speaks of %s%s, which is no key", name, m[1], m[2])
			}
		}
	}
}

// TestRulesSayWhereTheyLive: "file.go (name, name)" on docs/races.md names functions,
// methods or fields of that file. Words with spaces are prose.
func TestRulesSayWhereTheyLive(t *testing.T) {
	place := regexp.MustCompile("`([a-z0-9_/]+\\.go)` \\(([^)]+)\\)")
	found := place.FindAllStringSubmatch(page(t, "docs/races.md"), -1)
	if len(found) == 0 {
		t.Fatal("the page says nowhere where a rule lives")
	}
	for _, m := range found {
		source := page(t, m[1])
		for _, name := range strings.Split(m[2], ", ") {
			if strings.Contains(name, " ") {
				continue
			}
			name = name[strings.LastIndex(name, ".")+1:]
			if !regexp.MustCompile(`\b` + name + `\b`).MatchString(source) {
				t.Errorf("docs/races.md: %s has no %s", m[1], name)
			}
		}
	}
}

// TestHTTPPageTellsEveryRoute: docs/http-api.md has a heading for each row of httpentry's
// route table, and none for what is not there. Files of pages are no interface.
func TestHTTPPageTellsEveryRoute(t *testing.T) {
	row := regexp.MustCompile(`method: "(\w+)", path: (?:"([^"]+)"|(\w+)),`)
	constant := regexp.MustCompile(`(\w+)\s+= "(/[^"]*)"`)
	files, err := fs.Glob(os.DirFS(root), "httpentry/*.go")
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	constants := map[string]string{}
	var rows [][]string
	for _, f := range files {
		if strings.HasSuffix(f, "_test.go") {
			continue
		}
		source := page(t, f)
		rows = append(rows, row.FindAllStringSubmatch(source, -1)...)
		for _, c := range constant.FindAllStringSubmatch(source, -1) {
			constants[c[1]] = c[2]
		}
	}
	for _, r := range rows {
		want = append(want, r[1]+" "+r[2]+constants[r[3]])
	}
	if len(want) < 20 {
		t.Fatalf("only %d routes found in httpentry: has the table another form?", len(want))
	}
	text := page(t, "docs/http-api.md")
	var got []string
	for _, h := range regexp.MustCompile(`(?m)^### ([A-Z]+ /.*)$`).FindAllStringSubmatch(text, -1) {
		got = append(got, h[1])
	}
	for _, r := range want {
		if !slices.Contains(got, r) {
			t.Errorf("docs/http-api.md does not tell %s", r)
		}
	}
	for _, r := range got {
		if !slices.Contains(want, r) {
			t.Errorf("docs/http-api.md tells %s, which is no route", r)
		}
	}
}

// TestDecisionsAreNumberedAndListed: pages of docs/decisions have the numbers 0001 and up, one
// each, and its README lists each under its heading.
func TestDecisionsAreNumberedAndListed(t *testing.T) {
	pages, err := fs.Glob(os.DirFS(root), "docs/decisions/[0-9]*.md")
	if err != nil {
		t.Fatal(err)
	}
	list := page(t, "docs/decisions/README.md")
	for i, name := range pages {
		number := fmt.Sprintf("%04d", i+1)
		if !strings.HasPrefix(path.Base(name), number+"-") {
			t.Errorf("%s: the number should be %s", name, number)
		}
		heading, _, _ := strings.Cut(strings.TrimPrefix(page(t, name), "# "), "\n")
		if row := fmt.Sprintf("| [%s](%s) | %s |", number, path.Base(name), heading); !strings.Contains(list, row) {
			t.Errorf("docs/decisions/README.md lacks %s", row)
		}
	}
}

// built are the requirements that this version meets.
var built = strings.Fields(`ZZ-01 ZZ-02 ZZ-03 ZZ-04 ZZ-05 ZZ-06 ZZ-07 ZZ-08 ZZ-09 ZZ-10 ZZ-11 ZZ-12 ZZ-13 ZZ-15 ZZ-16 ZZ-17 ZZ-18 ZZ-19 ZZ-20 ZZ-21 ZZ-22 ZZ-23
	DD-01 DD-08 DD-11 DD-16 DD-17 MF-02 MF-05 MF-07 MF-08 MF-11 JM-05 JM-06 JM-08 JM-11 JM-13 JT-02 JT-04 JT-05 JT-13`)

// TestRequirementsHaveTheirTests: docs/requirements.md has a row for each requirement that is
// built, with a test. (That the test exists: TestPagesNameTestsThatExist.)
func TestRequirementsHaveTheirTests(t *testing.T) {
	rows := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^\| ([A-Z]{2}-\d\d) \| (.*)$`).FindAllStringSubmatch(page(t, "docs/requirements.md"), -1) {
		if rows[m[1]] != "" {
			t.Errorf("%s has two rows", m[1])
		}
		rows[m[1]] = m[2]
	}
	for _, id := range built {
		if len(namedTests(rows[id])) == 0 {
			t.Errorf("docs/requirements.md names no test of %s", id)
		}
	}
}

// TestProtocolPageTellsEveryCommand: docs/protocol.md names each command of im.proto.
func TestProtocolPageTellsEveryCommand(t *testing.T) {
	text := page(t, "docs/protocol.md")
	_, enum, _ := strings.Cut(page(t, "idl/im.proto"), "enum Cmd {")
	enum, _, _ = strings.Cut(enum, "}")
	commands := regexp.MustCompile(`(?m)^\s*([A-Z_]+) = `).FindAllStringSubmatch(enum, -1)
	if len(commands) < 20 {
		t.Fatalf("only %d commands found in im.proto", len(commands))
	}
	for _, m := range commands {
		if m[1] != "NONE" && !regexp.MustCompile(`\b`+m[1]+`\b`).MatchString(text) {
			t.Errorf("docs/protocol.md does not tell %s", m[1])
		}
	}
}
