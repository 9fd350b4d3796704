package query

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/weirproxy/weir/usage/store"
)

// Formats are the formats that Render writes.
var Formats = []string{"table", "json", "csv"}

// Render writes rows as Usage returned them, with by as it was given there.
//
// table is for people, with a total below; csv has a header line; json is an
// array of objects. Input is what was computed, without the cached part; costs
// are exact decimals in US dollars, in json as strings.
func Render(w io.Writer, format string, by []store.Dimension, rows []store.Row) error {
	switch format {
	case "table":
		return renderTable(w, by, rows)
	case "json":
		return renderJSON(w, by, rows)
	case "csv":
		return renderCSV(w, by, rows)
	}
	return fmt.Errorf("usage: unknown format %q: want one of %s", format, strings.Join(Formats, ", "))
}

func renderTable(w io.Writer, by []store.Dimension, rows []store.Row) error {
	var lines [][]string
	line := func(cells ...string) { lines = append(lines, cells) }
	head := make([]string, 0, len(by)+6)
	for _, d := range by {
		head = append(head, strings.ToUpper(string(d)))
	}
	line(append(head, "REQUESTS", "INPUT", "CACHED", "OUTPUT", "COST USD", "ESTIMATED")...)
	cells := func(r *store.Row) []string {
		return []string{itoa(r.Requests), itoa(r.Tokens.Input), itoa(r.Tokens.CachedInput), itoa(r.Tokens.Output),
			r.Cost.Decimal(), strconv.FormatFloat(100*estimatedShare(r), 'f', 1, 64) + "%"}
	}
	for i := range rows {
		row := make([]string, 0, len(by)+6)
		for _, name := range rows[i].By {
			row = append(row, shown(name))
		}
		line(append(row, cells(&rows[i])...)...)
	}
	if len(by) > 0 {
		row := append([]string{"total"}, make([]string, len(by)-1)...)
		sum := total(rows)
		line(append(row, cells(&sum)...)...)
	}
	return writeAligned(w, lines, len(by))
}

// writeAligned writes cells in columns: the first names to the left, figures to
// the right.
func writeAligned(w io.Writer, lines [][]string, names int) error {
	widths := make([]int, len(lines[0]))
	for _, cells := range lines {
		for i, c := range cells {
			widths[i] = max(widths[i], utf8.RuneCountInString(c))
		}
	}
	var b strings.Builder
	for _, cells := range lines {
		for i, c := range cells {
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c))
			if i > 0 {
				b.WriteString("  ")
			}
			if i < names {
				b.WriteString(c + pad)
			} else {
				b.WriteString(pad + c)
			}
		}
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// shown is a name in a table: nothing would be hard to see, and control
// characters would steer the terminal.
func shown(name string) string {
	if name == "" {
		return "-"
	}
	for _, r := range name {
		if !strconv.IsGraphic(r) {
			return strconv.QuoteToGraphic(name)
		}
	}
	return name
}

func renderCSV(w io.Writer, by []store.Dimension, rows []store.Row) error {
	cw := csv.NewWriter(w)
	head := make([]string, 0, len(by)+7)
	for _, d := range by {
		head = append(head, string(d))
	}
	if err := cw.Write(append(head, "requests", "input_tokens", "cached_input_tokens", "output_tokens", "reasoning_tokens", "cost_usd", "estimated_tokens")); err != nil {
		return err
	}
	for _, r := range rows {
		cells := make([]string, 0, len(by)+7)
		for _, name := range r.By {
			cells = append(cells, unformula(name))
		}
		cells = append(cells, itoa(r.Requests), itoa(r.Tokens.Input), itoa(r.Tokens.CachedInput),
			itoa(r.Tokens.Output), itoa(r.Tokens.Reasoning), r.Cost.Decimal(), itoa(r.Estimated))
		if err := cw.Write(cells); err != nil {
			return err
		}
	}
	cw.Flush()
	return cw.Error()
}

// unformula keeps a spreadsheet from taking a name for a formula.
func unformula(s string) string {
	if s != "" && strings.ContainsRune("=+-@\t\r", rune(s[0])) {
		return "'" + s
	}
	return s
}

func renderJSON(w io.Writer, by []store.Dimension, rows []store.Row) error {
	list := make([]map[string]any, len(rows))
	for i, r := range rows {
		list[i] = map[string]any{
			"requests":            r.Requests,
			"input_tokens":        r.Tokens.Input,
			"cached_input_tokens": r.Tokens.CachedInput,
			"output_tokens":       r.Tokens.Output,
			"reasoning_tokens":    r.Tokens.Reasoning,
			"cost_usd":            r.Cost.Decimal(),
			"estimated_tokens":    r.Estimated,
		}
		for j, d := range by {
			list[i][string(d)] = r.By[j]
		}
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(list)
}

func itoa(n int64) string { return strconv.FormatInt(n, 10) }
