package mutation

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

const (
	page  = root + "/docs/reliability.md"
	begin = "<!-- mutations -->"
	end   = "<!-- /mutations -->"
)

// writing is held by whoever rewrites the page: mutations run side by side.
var writing sync.Mutex

// readPage splits the page at its markers, and reads the rows of earlier runs: a run
// may be made in parts.
func readPage(t *testing.T) (before, after string, rows map[string]string) {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), begin)
	between, after, closed := strings.Cut(rest, end)
	if !ok || !closed {
		t.Fatalf("%s has no place for the table: want %s and %s", page, begin, end)
	}
	rows = map[string]string{}
	for row := range strings.Lines(between) {
		cells := strings.Split(row, "|")
		if len(cells) > 2 && slices.ContainsFunc(table(), func(m mutation) bool { return m.name == strings.TrimSpace(cells[1]) }) {
			rows[strings.TrimSpace(cells[1])] = row
		}
	}
	return before, after, rows
}

// writeRow puts a mutation's row in its place.
func writeRow(t *testing.T, m mutation, caught []failure) {
	t.Helper()
	writing.Lock()
	defer writing.Unlock()
	before, after, rows := readPage(t)
	by, said := "**survives**", ""
	if !t.Failed() {
		var tests, lines []string
		for _, f := range caught {
			tests, lines = append(tests, "`"+f.test+"`"), append(lines, cell(f.line))
		}
		by, said = strings.Join(tests, "<br>"), strings.Join(lines, "<br>")
	}
	rows[m.name] = fmt.Sprintf("| %s | %s | %s | `%s` | %s | %s |\n", m.name, m.rule, m.without, m.file, by, said)
	var b strings.Builder
	fmt.Fprintf(&b, "%s%s\n%d of %d guards were undone, each by itself.\n\n| mutation | rule | without | in | caught by | which said |\n|---|---|---|---|---|---|\n", before, begin, len(rows), len(table()))
	for _, m := range table() {
		b.WriteString(rows[m.name])
	}
	if err := os.WriteFile(page, []byte(b.String()+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

// random is what differs from run to run: tokens, addresses, large numbers.
var random = regexp.MustCompile(`[A-Z2-7]{12,}|0x[0-9a-f]+|\d{5,}`)

// cell makes a line fit a table.
func cell(line string) string {
	line = random.ReplaceAllString(line, "…")
	line = strings.NewReplacer("|", "\\|", "<", "&lt;", "`", "'").Replace(line)
	if r := []rune(line); len(r) > 90 {
		line = string(r[:90]) + "…"
	}
	return line
}
