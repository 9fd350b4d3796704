package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/weirproxy/weir/benchmarks/internal/bench"
)

// column is one figure of a cell. ok is false when the target has none.
type column struct {
	title string
	value func(t target, c cell) (float64, bool)
}

func always(f func(c cell) float64) func(target, cell) (float64, bool) {
	return func(_ target, c cell) (float64, bool) { return f(c), true }
}

// per divides a CPU time by what was served: events of streams, or requests.
func per(unit func(cell) int64, which func(cell) float64, has func(target) bool) func(target, cell) (float64, bool) {
	return func(t target, c cell) (float64, bool) {
		if n := unit(c); has(t) && n > 0 {
			return which(c) / float64(n), true
		}
		return 0, false
	}
}

func requestsOf(c cell) int64    { return c.Requests }
func eventsOf(c cell) int64      { return c.Events }
func envoyMicros(c cell) float64 { return float64(c.envoyCPU.Nanoseconds()) / 1e3 }
func serveMicros(c cell) float64 { return float64(c.serveCPU.Nanoseconds()) / 1e3 }
func allMicros(c cell) float64   { return envoyMicros(c) + serveMicros(c) }
func hasEnvoy(t target) bool     { return t.envoy != 0 }
func hasServe(t target) bool     { return t.serve != 0 }

func cpuColumns(unit string, of func(cell) int64) []column {
	return []column{
		{"Envoy CPU, µs/" + unit, per(of, envoyMicros, hasEnvoy)},
		{"Go CPU, µs/" + unit, per(of, serveMicros, hasServe)},
		{"both", per(of, allMicros, hasEnvoy)},
	}
}

var memoryColumns = []column{
	{"Envoy RSS, MB", func(t target, c cell) (float64, bool) { return float64(c.envoyRSS) / 1e6, hasEnvoy(t) }},
	{"Go RSS, MB", func(t target, c cell) (float64, bool) { return float64(c.serveRSS) / 1e6, hasServe(t) }},
}

// table is how one group of scenarios is shown.
type table struct {
	title   string
	prefix  string // of the scenarios' names
	columns []column
	ratio   int // the column whose ratio to bare Envoy and to the no-op is shown; -1 for none
	added   int // the column of which the difference to bare Envoy is shown; -1 for none
}

var (
	rate = column{"requests/s", always(func(c cell) float64 { return float64(c.Requests) / c.Seconds })}
	p50  = column{"p50, µs", always(func(c cell) float64 { return c.P50 })}
	p99  = column{"p99, µs", always(func(c cell) float64 { return c.P99 })}
)

var tables = []table{
	{"Requests of 2 KB, answers of 1 KB, by connections", "json-", slices.Concat([]column{rate, p50, p99}, cpuColumns("request", requestsOf), memoryColumns), 5, -1},
	{"Bodies, 4 connections", "body-", slices.Concat([]column{rate, p50, p99}, cpuColumns("request", requestsOf), memoryColumns), 5, -1},
	{"The same body each time: 2 KB by 32 connections, 200 KB by 4", "same-", slices.Concat([]column{rate, p50, p99}, cpuColumns("request", requestsOf), memoryColumns), 5, -1},
	{"1000 requests a second", "paced-", slices.Concat([]column{p50, p99, rate}, cpuColumns("request", requestsOf), memoryColumns), 5, 0},
	{"16 streams of 100 chunks", "stream-", slices.Concat([]column{
		{"chunks/s", always(func(c cell) float64 { return float64(c.Events) / c.Seconds })},
		{"first token p50, µs", always(func(c cell) float64 { return c.First50 })},
		{"first token p99, µs", always(func(c cell) float64 { return c.First99 })},
	}, cpuColumns("chunk", eventsOf), memoryColumns), 5, -1},
	{"At rest", "rest", slices.Concat([]column{
		{"Envoy CPU, ms/s", func(t target, c cell) (float64, bool) { return envoyMicros(c) / 1e3 / c.Seconds, hasEnvoy(t) }},
		{"Go CPU, ms/s", func(t target, c cell) (float64, bool) { return serveMicros(c) / 1e3 / c.Seconds, hasServe(t) }},
	}, memoryColumns), -1, -1},
}

// report renders all results as markdown.
func report(o options, about []string, r *results) string {
	var b strings.Builder
	b.WriteString("# Benchmarks\n\n")
	for _, line := range about {
		fmt.Fprintf(&b, "- %s\n", line)
	}
	fmt.Fprintf(&b, "- %d rounds, interleaved, %v a cell; medians (least–most). Envoy has one worker everywhere. All processes share the cores, "+
		"load generator and backend too, so trust CPU figures more than throughput.\n", o.rounds, o.window)
	b.WriteString("- The event with the role, the one with the finish reason and [DONE] count as chunks too: 103 a stream.\n\n")
	for _, t := range r.targets {
		if o.targets.MatchString(t.name) {
			fmt.Fprintf(&b, "- **%s**: %s\n", t.name, t.about)
		}
	}
	for _, tab := range tables {
		tab.render(&b, r)
	}
	return b.String()
}

func (tab *table) render(b *strings.Builder, r *results) {
	head := []string{"", ""}
	for _, c := range tab.columns {
		head = append(head, c.title)
	}
	if tab.added >= 0 {
		head = append(head, "p50 added", "× no-op's", "p99 added")
	}
	if tab.ratio >= 0 {
		head = append(head, "CPU × bare", "CPU × no-op")
	}
	rows := 0
	for _, s := range r.scenarios {
		if !strings.HasPrefix(s.name, tab.prefix) {
			continue
		}
		if rows++; rows == 1 {
			fmt.Fprintf(b, "\n## %s\n\n| %s |\n|%s\n", tab.title, strings.Join(head, " | "), strings.Repeat(" --- |", len(head)))
		}
		for _, t := range r.targets {
			if len(r.cells[s.name+" "+t.name]) > 0 {
				fmt.Fprintf(b, "| %s |\n", strings.Join(tab.row(r, s, t), " | "))
			}
		}
	}
}

func (tab *table) row(r *results, s scenario, t target) []string {
	row := []string{strings.TrimPrefix(s.name, tab.prefix), t.name}
	for _, c := range tab.columns {
		row = append(row, r.spread(s, t, c).String())
	}
	bare, noop := r.target("bare"), r.target("noop")
	if tab.added >= 0 {
		added := r.minus(s, t, bare, tab.columns[tab.added])
		row = append(row, added.String(), ratio(added, r.minus(s, noop, bare, tab.columns[tab.added])),
			r.minus(s, t, bare, tab.columns[tab.added+1]).String())
	}
	if tab.ratio < 0 {
		return row
	}
	cpu := tab.columns[tab.ratio]
	mine := r.spread(s, t, cpu)
	return append(row, ratio(mine, r.spread(s, bare, cpu)), ratio(mine, r.spread(s, noop, cpu)))
}

func ratio(a, b bench.Spread) string {
	if a.Median() == 0 || b.Median() == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f", a.Median()/b.Median())
}

func (r *results) target(name string) target {
	i := slices.IndexFunc(r.targets, func(t target) bool { return t.name == name })
	if i < 0 {
		return target{name: name}
	}
	return r.targets[i]
}

func (r *results) spread(s scenario, t target, col column) bench.Spread {
	var list bench.Spread
	for _, c := range r.cells[s.name+" "+t.name] {
		if v, ok := col.value(t, c); ok {
			list = append(list, v)
		}
	}
	return list
}

// minus is the difference round by round.
func (r *results) minus(s scenario, t, base target, col column) bench.Spread {
	a, b := r.spread(s, t, col), r.spread(s, base, col)
	n := min(len(a), len(b))
	if t.envoy == 0 || t.name == base.name {
		return nil
	}
	list := make(bench.Spread, n)
	for i := range n {
		list[i] = a[i] - b[i]
	}
	return list
}
