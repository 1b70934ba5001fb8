package doctor

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// Write prints the findings for people: a block a server, a line a check, the advice below
// what needs one.
func Write(w io.Writer, findings []Finding) error {
	var b strings.Builder
	var names, founds int
	for _, f := range findings {
		names = max(names, utf8.RuneCountInString(f.Check))
		founds = max(founds, utf8.RuneCountInString(short(f.Found)))
	}
	server := ""
	for _, f := range findings {
		if f.Server != server {
			if server = f.Server; b.Len() > 0 {
				b.WriteByte('\n')
			}
			fmt.Fprintf(&b, "%s\n", server)
		}
		found := short(f.Found)
		fmt.Fprintf(&b, "  %-11s  %-*s  %-*s  wanted: %s\n", f.Verdict, names, f.Check, founds, found, f.Wanted)
		if found != f.Found {
			fmt.Fprintf(&b, "               %s\n", f.Found)
		}
		if f.Verdict != OK && f.Advice != "" {
			fmt.Fprintf(&b, "               -> %s\n", f.Advice)
		}
	}
	fmt.Fprintf(&b, "\n%d ok, %d warnings, %d violations, %d not checked\n",
		Count(findings, OK), Count(findings, Warning), Count(findings, Violation), Count(findings, NotChecked))
	_, err := io.WriteString(w, b.String())
	return err
}

// foundWidth keeps the table narrow; what is longer stands whole below its line.
const foundWidth = 44

func short(s string) string {
	if utf8.RuneCountInString(s) <= foundWidth {
		return s
	}
	return string([]rune(s)[:foundWidth-1]) + "…"
}
