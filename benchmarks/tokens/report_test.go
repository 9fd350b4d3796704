package main

import (
	"bytes"
	"flag"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weirproxy/weir/benchmarks/internal/bench"
)

var update = flag.Bool("update", false, "renew testdata/report.md")

// reported are results of each kind: figures, other counts, cells without.
func reported() (*plan, results) {
	texts := []text{{"english", make([]byte, 1000)}, {"spaces", make([]byte, 2000)}}
	p := &plan{agent: group{texts: []text{{"context", make([]byte, 1000)}}}}
	r := results{}
	for _, v := range []string{"o200k", "cl100k"} {
		g := group{title: v, texts: texts}
		for _, peer := range peers {
			g.contenders = append(g.contenders, contender{v, peer.name})
		}
		p.vocab = append(p.vocab, g)
	}
	p.vocab = append(p.vocab, group{
		title: "vocabularies that the peers have not", texts: texts,
		contenders: []contender{{"qwen", weir}, {"tekken", weir}},
	})
	set := func(vocabulary, text, peer string, c cell) { r[cellName{contender{vocabulary, peer}, text}] = &c }
	set("o200k", "english", weir, cell{tokens: 250, nanos: bench.Spread{10_000, 12_500, 20_000}, first: bench.Spread{40_000, 40_000, 50_000}})
	set("o200k", "english", tiktokenGo, cell{tokens: 252, nanos: bench.Spread{100_000, 100_000, 125_000}, first: bench.Spread{50_000, 50_000, 50_000}})
	set("o200k", "english", pkoukk, cell{tokens: 249, nanos: bench.Spread{400_000, 400_000, 400_000}, first: bench.Spread{50_000, 50_000, 50_000}})
	set("o200k", "english", bpeOpenAI, cell{tokens: 250, nanos: bench.Spread{25_000, 25_000, 25_000}, first: bench.Spread{50_000, 50_000, 50_000}})
	set("o200k", "spaces", weir, cell{tokens: 16, nanos: bench.Spread{100_000, 100_000, 100_000}, first: bench.Spread{100_000, 100_000, 100_000}, allocations: 3})
	set("o200k", "spaces", tiktokenGo, cell{tokens: 16, nanos: bench.Spread{50_000, 50_000, 50_000}, first: bench.Spread{50_000, 50_000, 50_000}})
	set("o200k", "spaces", pkoukk, cell{fault: "> 3 s"})
	set("o200k", "spaces", bpeOpenAI, cell{fault: "failed", failure: "unwell"})
	set("cl100k", "english", weir, cell{tokens: 260, nanos: bench.Spread{10_000}, first: bench.Spread{10_000}})
	set("cl100k", "english", bpeOpenAI, cell{tokens: 260, nanos: bench.Spread{5_000}, first: bench.Spread{20_000}})
	set("qwen", "english", weir, cell{tokens: 270, nanos: bench.Spread{10_000}, first: bench.Spread{10_000}})
	set("tekken", "english", weir, cell{tokens: 280, nanos: bench.Spread{10_000}, first: bench.Spread{10_000}})
	set("tekken", "spaces", weir, cell{fault: "> 3 s"})
	for _, choice := range agents {
		p.agent.contenders = append(p.agent.contenders, contender{choice.Model, coldTurn}, contender{choice.Model, nextTurn})
	}
	set("gpt-4o", "context", coldTurn, cell{tokens: 50_000, nanos: bench.Spread{4_000_000, 5_000_000}})
	set("gpt-4o", "context", nextTurn, cell{tokens: 50_000, nanos: bench.Spread{90_000, 90_000}, allocations: 1})
	set("deepseek-v3", "context", nextTurn, cell{tokens: 51_000, nanos: bench.Spread{90_000, 90_000}})
	return p, r
}

func TestReport(t *testing.T) {
	t.Parallel()
	p, r := reported()
	got := report(options{rounds: 3, window: 200 * time.Millisecond}, []string{"a machine", "a peer"}, p, r)
	if *update {
		if err := os.WriteFile("testdata/report.md", []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("testdata/report.md")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(bytes.TrimSpace(want)), string(bytes.TrimSpace([]byte(got)))); diff != "" {
		t.Error(diff)
	}
}

// A table that Markdown shows has as many cells in each row as in its head.
func TestReportIsRectangular(t *testing.T) {
	t.Parallel()
	p, r := reported()
	columns := 0
	for line := range bytes.SplitSeq([]byte(report(options{}, nil, p, r)), []byte("\n")) {
		n := bytes.Count(line, []byte("|"))
		if n == 0 {
			columns = 0
			continue
		}
		if columns == 0 {
			columns = n
		}
		if n != columns {
			t.Errorf("%d bars, want %d: %s", n, columns, line)
		}
	}
}

func TestSpread(t *testing.T) {
	t.Parallel()
	for want, s := range map[string]bench.Spread{"": nil, "5.00": {5}, "2.00 (1.00–300)": {300, 1, 2}, "1.50 (1.00–2.00)": {2, 1}, "0": {0}, "12.3": {12.34}} {
		if s.String() != want {
			t.Errorf("%q, want %q", s, want)
		}
	}
	if diff := cmp.Diff(bench.Spread{500, 250}, rate(bench.Spread{2000, 4000}, 1000*1000).Each(func(v float64) float64 { return v / 1000 })); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(bench.Spread{2, 4}, micros(bench.Spread{2000, 4000})); diff != "" {
		t.Error(diff)
	}
}
