package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/weirproxy/weir/benchmarks/internal/bench"
)

// rate is MB/s, of nanoseconds for so many bytes.
func rate(s bench.Spread, bytes int) bench.Spread {
	return s.Each(func(nanos float64) float64 { return float64(bytes) / nanos * 1e3 })
}

func micros(s bench.Spread) bench.Spread {
	return s.Each(func(nanos float64) float64 { return nanos / 1e3 })
}

// report renders all results as Markdown.
func report(o options, about []string, p *plan, r results) string {
	var b strings.Builder
	b.WriteString("# Token counters\n\n")
	for _, line := range about {
		fmt.Fprintf(&b, "- %s\n", line)
	}
	fmt.Fprintf(&b, "- Rounds: %d, interleaved, %v of CPU time a cell after a pass to warm up; medians (least–most). One process a counter, "+
		"GOMAXPROCS=1, GOGC=100, one at a time. Times are CPU times, garbage collection included.\n", o.rounds, o.window)
	b.WriteString("- A text is counted over and over: what a counter remembers of it, it has. A *first pass* comes after another text.\n")
	for _, g := range p.vocab {
		speed(&b, "MB/s, ", g, r, func(c *cell) bench.Spread { return c.nanos })
		g.failures(&b, r)
	}
	for _, g := range p.vocab {
		speed(&b, "First pass, MB/s, ", g, r, func(c *cell) bench.Spread { return c.first })
	}
	for _, g := range p.vocab {
		counts(&b, g, r)
	}
	ofWeir(&b, p, r)
	ofAgent(&b, p.agent, r)
	return b.String()
}

// write writes a table.
func write(b *strings.Builder, title string, head []string, rows [][]string) {
	fmt.Fprintf(b, "\n## %s\n\n| %s |\n|%s\n", title, strings.Join(head, " | "), strings.Repeat(" --- |", len(head)))
	for _, row := range rows {
		fmt.Fprintf(b, "| %s |\n", strings.Join(row, " | "))
	}
}

// heads are the titles of a group's columns: peers, or vocabularies.
func (g *group) heads() []string {
	head := []string{"", "bytes"}
	for _, c := range g.contenders {
		if slices.Contains(shared, c.vocabulary) {
			head = append(head, c.peer)
		} else {
			head = append(head, c.vocabulary)
		}
	}
	return head
}

// rows are the rows of a group: a text's name, its size, and a figure of each
// contender's.
func (g *group) rows(r results, figure func(t *text, name cellName, c *cell) string) (rows [][]string) {
	for i := range g.texts {
		t := &g.texts[i]
		row := []string{t.name, fmt.Sprint(len(t.bytes))}
		for _, who := range g.contenders {
			name := cellName{who, t.name}
			if c := r[name]; c != nil {
				row = append(row, figure(t, name, c))
			} else {
				row = append(row, "")
			}
		}
		rows = append(rows, row)
	}
	return rows
}

// speed is a table of a group's speeds.
func speed(b *strings.Builder, title string, g group, r results, nanos func(*cell) bench.Spread) {
	head := g.heads()
	rows := g.rows(r, func(t *text, _ cellName, c *cell) string { return c.figure(rate(nanos(c), len(t.bytes))) })
	if slices.Contains(shared, g.title) {
		head = append(head, "weir ÷ best peer")
		for i := range rows {
			rows[i] = append(rows[i], g.ratio(r, g.texts[i].name, nanos))
		}
	}
	write(b, title+g.title, head, rows)
}

// failures says why peers failed.
func (g *group) failures(b *strings.Builder, r results) {
	title := "\nFailed:\n\n"
	g.rows(r, func(_ *text, name cellName, c *cell) string {
		if c.failure != "" {
			fmt.Fprintf(b, "%s- %s on %s: %s\n", title, name.peer, name.text, c.failure)
			title = ""
		}
		return ""
	})
}

// figure is what is shown of a cell: the fault of one that has no figure.
func (c *cell) figure(v any) string {
	if c.fault != "" {
		return c.fault
	}
	return fmt.Sprint(v)
}

// ratio is how often weir counts a text while the fastest peer counts it once.
func (g *group) ratio(r results, text string, nanos func(*cell) bench.Spread) string {
	own, best := 0.0, 0.0 // nanoseconds
	for _, who := range g.contenders {
		c := r[cellName{who, text}]
		if c == nil || c.fault != "" {
			continue
		}
		if n := nanos(c).Median(); who.peer == weir {
			own = n
		} else if best == 0 || n < best {
			best = n
		}
	}
	if own == 0 || best == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f", best/own)
}

// counts is the table of the tokens that a group's contenders count.
func counts(b *strings.Builder, g group, r results) {
	var differ []string
	rows := g.rows(r, func(_ *text, name cellName, c *cell) string {
		own := r[cellName{contender{name.vocabulary, weir}, name.text}]
		switch {
		case c.fault != "":
			return "–"
		case own == nil || own.fault != "" || own.tokens == c.tokens:
			return fmt.Sprint(c.tokens)
		}
		differ = append(differ, name.text+" ("+name.peer+")")
		return fmt.Sprintf("**≠ %d (%+d)**", c.tokens, c.tokens-own.tokens)
	})
	write(b, "Tokens, "+g.title, g.heads(), rows)
	if len(differ) > 0 {
		fmt.Fprintf(b, "\nOther than weir's: %s.\n", strings.Join(differ, ", "))
	} else if slices.Contains(shared, g.title) {
		b.WriteString("\nAll counts are weir's.\n")
	}
}

// ofWeir are weir's allocations, and the texts that it is slowest on.
func ofWeir(b *strings.Builder, p *plan, r results) {
	all := group{}
	for _, g := range p.vocab {
		for _, c := range g.contenders {
			if c.peer == weir {
				all.contenders = append(all.contenders, c)
				all.texts = g.texts
			}
		}
	}
	if len(all.contenders) == 0 {
		return
	}
	head := []string{"", "bytes"}
	for _, c := range all.contenders {
		head = append(head, c.vocabulary)
	}
	write(b, "weir, allocations a call", head, all.rows(r, func(_ *text, _ cellName, c *cell) string {
		return c.figure(c.allocations)
	}))
	b.WriteString("\n## weir, slowest text of each vocabulary\n\n")
	for _, c := range all.contenders {
		fmt.Fprintf(b, "- %s: %s\n", c.vocabulary, slowest(all.texts, c, r))
	}
}

func slowest(texts []text, who contender, r results) string {
	least, name := 0.0, ""
	for _, t := range texts {
		switch c := r[cellName{who, t.name}]; {
		case c == nil:
		case c.fault != "":
			return t.name + ", " + c.fault
		default:
			if speed := rate(c.nanos, len(t.bytes)).Median(); name == "" || speed < least {
				least, name = speed, t.name
			}
		}
	}
	return fmt.Sprintf("%s, %s MB/s", name, bench.Number(least))
}

// ofAgent is the table of an agent's context.
func ofAgent(b *strings.Builder, g group, r results) {
	if len(g.contenders) == 0 {
		return
	}
	var rows [][]string
	name := g.texts[0].name
	for _, choice := range agents {
		cold, next := r[cellName{contender{choice.Model, coldTurn}, name}], r[cellName{contender{choice.Model, nextTurn}, name}]
		if cold == nil && next == nil {
			continue
		}
		row := []string{choice.Model}
		tokens := ""
		for _, c := range []*cell{cold, next} {
			switch {
			case c == nil:
				row = append(row, "", "")
			case c.fault != "":
				row = append(row, c.fault, "")
			default:
				row = append(row, micros(c.nanos).String(), fmt.Sprint(c.allocations))
				tokens = fmt.Sprint(c.tokens)
			}
		}
		share := ""
		if cold != nil && next != nil && len(cold.nanos) > 0 && len(next.nanos) > 0 {
			share = fmt.Sprintf("%.3f", next.nanos.Median()/cold.nanos.Median())
		}
		rows = append(rows, append(row, share, tokens))
	}
	title := fmt.Sprintf("A chat of %d KB whose last %d KB are new", contextBytes>>10, messageBytes>>10)
	write(b, title, []string{"", "never seen, µs", "allocations", "next turn, µs", "allocations", "next ÷ never seen", "tokens"}, rows)
	b.WriteString("\n`tokens.Tokenizer.Count` of a parsed request; the next turn with a Memo that has the messages before it.\n")
}

// about describes the machine and the programs.
func about(ctx context.Context, root string, p *plan) []string {
	list := []string{bench.Machine()}
	for _, peer := range peers {
		if !p.has(peer.name) {
			continue
		}
		version := ""
		switch {
		case peer.module != "":
			version = " " + moduleVersion(peer.module)
		case peer.name == bpeOpenAI:
			lock, _ := os.ReadFile(filepath.Join(root, rustFolder, "Cargo.lock"))
			rustc, _ := exec.CommandContext(ctx, "rustc", "--version").Output()
			version = " " + lockedVersion(lock, bpeOpenAI) + ", " + strings.TrimSpace(string(rustc))
		}
		list = append(list, fmt.Sprintf("**%s**: %s%s", peer.name, peer.about, version))
	}
	return list
}

func moduleVersion(path string) string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if m.Path == path {
				return m.Version
			}
		}
	}
	return "unknown version"
}
