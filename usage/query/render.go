package query

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/usage/store"
)

// Formats are the formats that Render writes.
var Formats = []string{"table", "json", "csv"}

// Render writes rows as Usage returned them, with by as it was given there.
//
// table is for people, with a total below: INPUT is all that was computed, GIVEN UP
// what of the cost is for attempts without an answer. csv has a header line; json is
// an array of objects. There each class of input is by itself, and the parts of the
// output are in output_tokens too; costs are exact decimals in US dollars, in json
// as strings. What each request costs is in cost_usd alone.
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
	head := make([]string, 0, len(by)+7)
	for _, d := range by {
		head = append(head, strings.ToUpper(string(d)))
	}
	line(append(head, "REQUESTS", "INPUT", "CACHED", "OUTPUT", "COST USD", "GIVEN UP", "ESTIMATED")...)
	cells := func(r *store.Row) []string {
		return []string{itoa(r.Requests), itoa(r.Tokens.ComputedInput()), itoa(r.Tokens.CachedInput), itoa(r.Tokens.Output),
			r.Cost.Decimal(), r.AbandonedCost.Decimal(), strconv.FormatFloat(100*estimatedShare(r), 'f', 1, 64) + "%"}
	}
	for i := range rows {
		row := make([]string, 0, len(by)+7)
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

// field is one figure of a row for programs: a count, or an amount.
type field struct {
	name  string
	value func(*store.Row) any
}

func tokens(name string, n func(*store.Row) int64) field {
	return field{name, func(r *store.Row) any { return n(r) }}
}

func money(name string, n func(*store.Row) ai.NanoUSD) field {
	return field{name, func(r *store.Row) any { return n(r).Decimal() }}
}

// fields are in the order of csv's columns.
var fields = []field{
	tokens("requests", func(r *store.Row) int64 { return r.Requests }),
	tokens("input_tokens", func(r *store.Row) int64 { return r.Tokens.Input }),
	tokens("cached_input_tokens", func(r *store.Row) int64 { return r.Tokens.CachedInput }),
	tokens("cache_write_tokens", func(r *store.Row) int64 { return r.Tokens.CacheWrite }),
	tokens("audio_input_tokens", func(r *store.Row) int64 { return r.Tokens.AudioInput }),
	tokens("image_input_tokens", func(r *store.Row) int64 { return r.Tokens.ImageInput }),
	tokens("output_tokens", func(r *store.Row) int64 { return r.Tokens.Output }),
	tokens("reasoning_tokens", func(r *store.Row) int64 { return r.Tokens.Reasoning }),
	tokens("audio_output_tokens", func(r *store.Row) int64 { return r.Tokens.AudioOutput }),
	tokens("image_output_tokens", func(r *store.Row) int64 { return r.Tokens.ImageOutput }),
	money("cost_usd", func(r *store.Row) ai.NanoUSD { return r.Cost }),
	money("input_cost_usd", func(r *store.Row) ai.NanoUSD { return r.InputCost }),
	money("output_cost_usd", func(r *store.Row) ai.NanoUSD { return r.OutputCost }),
	money("abandoned_cost_usd", func(r *store.Row) ai.NanoUSD { return r.AbandonedCost }),
	tokens("abandoned_tokens", func(r *store.Row) int64 { return r.Abandoned }),
	tokens("estimated_tokens", func(r *store.Row) int64 { return r.Estimated }),
}

func renderCSV(w io.Writer, by []store.Dimension, rows []store.Row) error {
	cw := csv.NewWriter(w)
	head := make([]string, 0, len(by)+len(fields))
	for _, d := range by {
		head = append(head, string(d))
	}
	for _, f := range fields {
		head = append(head, f.name)
	}
	if err := cw.Write(head); err != nil {
		return err
	}
	for i := range rows {
		cells := make([]string, 0, len(head))
		for _, name := range rows[i].By {
			cells = append(cells, unformula(name))
		}
		for _, f := range fields {
			cells = append(cells, fmt.Sprint(f.value(&rows[i])))
		}
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
	for i := range rows {
		list[i] = make(map[string]any, len(by)+len(fields))
		for _, f := range fields {
			list[i][f.name] = f.value(&rows[i])
		}
		for j, d := range by {
			list[i][string(d)] = rows[i].By[j]
		}
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(list)
}

func itoa(n int64) string { return strconv.FormatInt(n, 10) }
