package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

// TestMain lets the test binary start itself as a worker, as the program does, of
// peers that no program should have.
func TestMain(m *testing.M) {
	if len(os.Args) == 4 && os.Args[1] == "--worker" {
		counters["stuck"] = always(func(text []byte) (int, error) {
			for len(text) > 3 { // for good
			}
			return len(text), nil
		})
		counters["sick"] = always(func([]byte) (int, error) { return 0, errors.New("unwell") })
		counters["dying"] = always(func([]byte) (int, error) { panic("farewell") })
		counters["unsteady"] = func(string) (counter, error) {
			return func([]byte) (func() (int, error), error) {
				n := 0
				return func() (int, error) { n++; return n, nil }, nil
			}, nil
		}
		main()
		return
	}
	os.Exit(m.Run())
}

func always(count func(text []byte) (int, error)) func(string) (counter, error) {
	return func(string) (counter, error) {
		return func(text []byte) (func() (int, error), error) {
			return func() (int, error) { return count(text) }, nil
		}, nil
	}
}

func testLab(t *testing.T, rounds int) *lab {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	l := &lab{
		options: options{rounds: rounds, window: time.Millisecond}, limit: 300 * time.Millisecond, self: self,
		workers: map[contender]*process{},
	}
	t.Cleanup(l.close)
	return l
}

func TestServe(t *testing.T) {
	t.Parallel()
	lengths, _ := always(func(text []byte) (int, error) {
		if len(text) == 0 {
			return 0, errors.New("nothing")
		}
		return len(text), nil
	})("")
	for _, tc := range []struct {
		in, out, fault string
	}{
		{"", `^ready\n$`, ""},
		{"1000 5\nhello1 2\n\n\n", `^ready\npass 5 \d+\ndone \d+ \d+ 0\npass 2 \d+\ndone \d+ \d+ 0\n$`, ""},
		{"1 0\n1 1\nx", `^ready\nfail nothing\npass 1 \d+\ndone 1 \d+ 0\n$`, ""},
		{"1 5\nhell", `^ready\n$`, "unexpected EOF"},
		{"1", `^ready\n$`, "EOF"},
		{"hello\n", `^ready\n$`, "not a command"},
		{"1 -1\n", `^ready\n$`, "not a command"},
	} {
		var out bytes.Buffer
		err := serve(strings.NewReader(tc.in), &out, lengths)
		if (err == nil) != (tc.fault == "") || err != nil && !strings.Contains(err.Error(), tc.fault) {
			t.Errorf("%q: %v, want %q", tc.in, err, tc.fault)
		}
		if !regexp.MustCompile(tc.out).MatchString(out.String()) {
			t.Errorf("%q: %q, want %s", tc.in, out.String(), tc.out)
		}
	}
}

func TestNextBatch(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		passes        int
		spent, window time.Duration
		want          int
	}{{1, 1, 100, 1}, {8, 10, 100, 8}, {90, 90, 100, 10}, {99, 99, 100, 1}, {1, 0, 100, 1}, {5, 200, 100, 1}} {
		if got := nextBatch(tc.passes, tc.spent, tc.window); got != tc.want {
			t.Errorf("after %d in %v of %v: %d, want %d", tc.passes, tc.spent, tc.window, got, tc.want)
		}
	}
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		pass, done, fault string
		want              answer
	}{
		{"pass 12 345", "done 6 7000 8", "", answer{12, 345, 6, 7000, 8}},
		{"pass 0 1", "done 1 1", "", answer{0, 1, 1, 1, 0}},
		{"fail no such thing", "", "no such thing", answer{}},
		{"pass 1 1", "fail 3 tokens, and 1 before", "3 tokens, and 1 before", answer{}},
		{"pass x 1", "", `an answer of a worker: "pass x 1"`, answer{}},
		{"", "", `an answer of a worker: ""`, answer{}},
		{"pass 1 1", "pass 1 1", "an answer of a worker", answer{}},
		{"pass 1 1", "done 1 1 x", "an answer of a worker", answer{}},
		{"pass 1 1", "done 0 1", "made no pass", answer{}},
		{"pass 1 1", "done 1 0", "made no pass", answer{}},
	} {
		var got answer
		err := got.readPass(tc.pass)
		if err == nil {
			err = got.readDone(tc.done)
		}
		if tc.fault != "" {
			if err == nil || !strings.Contains(err.Error(), tc.fault) {
				t.Errorf("%q, %q: %v, want %s", tc.pass, tc.done, err, tc.fault)
			}
			told := failure("")
			if errors.As(err, &told) != strings.Contains(tc.pass+tc.done, "fail") {
				t.Errorf("%q, %q: a failure is what is told as one, not %T", tc.pass, tc.done, err)
			}
			continue
		}
		if diff := cmp.Diff(tc.want, got, cmp.AllowUnexported(answer{})); err != nil || diff != "" {
			t.Errorf("%q, %q: %v %s", tc.pass, tc.done, err, diff)
		}
	}
}

// Peers in processes of their own, the hopeless ones too.
func TestMeasure(t *testing.T) {
	l := testLab(t, 2)
	texts := []text{{"short", []byte("Hi.")}, {"long", []byte("Hello, world!")}}
	g := group{title: "o200k", texts: texts}
	for _, peer := range []string{weir, tiktokenGo, pkoukk, "stuck", "sick", "dying", "unsteady"} {
		g.contenders = append(g.contenders, contender{"o200k", peer})
	}
	p := &plan{only: regexp.MustCompile("^o200k/(short|long/[^u])"), vocab: []group{g}}
	r, err := l.measure(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for name, c := range r {
		got[name.text+" "+name.peer] = fmt.Sprintf("%d tokens, %d rounds%s", c.tokens, len(c.nanos), c.fault)
	}
	want := map[string]string{
		"short weir": "2 tokens, 2 rounds", "short tiktoken-go": "2 tokens, 2 rounds", "short pkoukk": "2 tokens, 2 rounds",
		"short stuck": "3 tokens, 2 rounds", "short sick": "0 tokens, 0 roundsfailed", "short dying": "0 tokens, 0 roundsfailed",
		"short unsteady": "0 tokens, 0 roundsfailed", // what its name says
		"long weir":      "4 tokens, 2 rounds", "long tiktoken-go": "4 tokens, 2 rounds", "long pkoukk": "4 tokens, 2 rounds",
		"long stuck": "0 tokens, 0 rounds> 0.3 s", "long sick": "0 tokens, 0 roundsfailed", "long dying": "0 tokens, 0 roundsfailed",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if c := r[cellName{contender{"o200k", weir}, "long"}]; c.allocations != 0 || len(c.first) != 2 {
		t.Errorf("%+v", c)
	}
}

func TestMeasureFails(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name  string
		who   contender
		fault string
	}{
		{"weir", contender{"no such", weir}, `weir has no vocabulary "no such"`},
		{"a peer", contender{"o200k", "nobody"}, `no such peer: "nobody"`},
		{"an agent", contender{"gpt-4o", coldTurn}, "round 1, gpt-4o/x/cold: "}, // of a text that is too short
	} {
		t.Run(tc.name, func(t *testing.T) {
			g := group{contenders: []contender{tc.who}, texts: []text{{"x", []byte("x")}}}
			_, err := testLab(t, 1).measure(t.Context(), &plan{only: regexp.MustCompile(""), vocab: []group{g}})
			if err == nil || !strings.Contains(err.Error(), tc.fault) {
				t.Errorf("%v, want %s", err, tc.fault)
			}
		})
	}
}

func TestMeasureStopsWhenAsked(t *testing.T) {
	t.Parallel()
	l := testLab(t, 1)
	l.limit = time.Minute
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	g := group{contenders: []contender{{"o200k", "stuck"}}, texts: []text{{"x", []byte("for good")}}}
	begin := time.Now()
	if _, err := l.measure(ctx, &plan{only: regexp.MustCompile(""), vocab: []group{g}}); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	if len(l.workers) > 0 || time.Since(begin) > 30*time.Second {
		t.Errorf("%d workers are left after %v", len(l.workers), time.Since(begin))
	}
}

func TestAgentTurns(t *testing.T) {
	t.Parallel()
	line := []byte("The quick brown fox jumps over 13 lazy dogs.\n")
	text := bytes.Repeat(line, (contextBytes+lastMessages*messageBytes)/len(line)+1)
	for _, choice := range agents {
		counts := map[string]int{}
		for name, turns := range map[string]func(string) (counter, error){coldTurn: newColdTurn, nextTurn: newNextTurn} {
			c, err := turns(choice.Model)
			if err != nil {
				t.Fatal(err)
			}
			pass, err := c(text)
			if err != nil {
				t.Fatal(err)
			}
			for range 3 * lastMessages {
				if counts[name], err = pass(); err != nil {
					t.Fatalf("%s, %s: %v", choice.Model, name, err)
				}
			}
		}
		if counts[coldTurn] != counts[nextTurn] || counts[coldTurn] < contextBytes/6 {
			t.Errorf("%s: %v", choice.Model, counts)
		}
	}
	if _, err := newColdTurn("nobody's"); err == nil {
		t.Error("an agent of no model")
	}
}

// fakeRoot is a source tree with corpora of one file a class.
func fakeRoot(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	for _, class := range classes {
		folder := filepath.Join(root, ".tools", "corpora", class)
		if err := os.MkdirAll(folder, 0o755); err != nil {
			t.Fatal(err)
		}
		for i := range 4 {
			line := fmt.Sprintf("Ein Satz über %s, Nummer %d.\n", class, i)
			if err := os.WriteFile(filepath.Join(folder, fmt.Sprint(i, ".txt")), []byte(strings.Repeat(line, 4000)), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := os.WriteFile(filepath.Join(root, ".tools", "corpora", ".done"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return root
}

func TestTexts(t *testing.T) {
	t.Parallel()
	texts, err := loadTexts(fakeRoot(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range texts {
		least, most := hostileBytes, hostileBytes+3
		switch {
		case strings.HasPrefix(x.name, "chat"):
			least, most = chatBytes-3, chatBytes
		case bytes.HasPrefix(x.bytes, []byte("Ein Satz")):
			least, most = 4*(headBytes-100), 4*headBytes
		}
		if len(x.bytes) < least || len(x.bytes) > most || !utf8.Valid(x.bytes) {
			t.Errorf("%s: %d bytes, want %d to %d, valid %v", x.name, len(x.bytes), least, most, utf8.Valid(x.bytes))
		}
	}
	if _, err := loadTexts(t.TempDir()); err == nil || !strings.Contains(err.Error(), "run make setup") {
		t.Error(err)
	}
}

func TestWhole(t *testing.T) {
	t.Parallel()
	for cut, want := range map[string]string{"": "", "ab": "ab", "aé": "aé", "a\xc3": "a", "世\xe7": "世", "世\xe7\x95": "世", "a\xf0\x9f\x91": "a"} {
		if got := string(whole([]byte(cut))); got != want {
			t.Errorf("%q: %q, want %q", cut, got, want)
		}
	}
}

func TestPlan(t *testing.T) {
	t.Parallel()
	root := fakeRoot(t)
	cells := func(only string) (list []string) {
		p, err := newPlan(root, regexp.MustCompile(only))
		if err != nil {
			return []string{err.Error()}
		}
		for _, g := range p.groups() {
			for _, x := range g.texts {
				for _, c := range g.contenders {
					list = append(list, cellName{c, x.name}.String())
				}
			}
		}
		return list
	}
	for only, want := range map[string][]string{
		"^o200k/spaces/":             {"o200k/spaces/weir", "o200k/spaces/tiktoken-go", "o200k/spaces/pkoukk", "o200k/spaces/bpe-openai"},
		"^(tekken|qwen)/(code|aB)/":  {"qwen/code/weir", "tekken/code/weir", "qwen/aB/weir", "tekken/aB/weir"},
		"cl100k/english/pkoukk|next": {"cl100k/english/pkoukk", "gpt-4o/context/next turn", "Qwen/Qwen3-8B/context/next turn", "deepseek-v3/context/next turn"},
		"nothing":                    {"--only leaves nothing"},
	} {
		if diff := cmp.Diff(want, cells(only)); diff != "" {
			t.Errorf("%s: %s", only, diff)
		}
	}
	if n, want := len(cells("")), 15*(2*4+3)+6; n != want {
		t.Errorf("%d cells, want %d", n, want)
	}
}

func TestCargoIsMissing(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, err := buildRust(t.Context(), "/")
	if err == nil || !strings.Contains(err.Error(), "missing tool: cargo") {
		t.Error(err)
	}
}

func TestCargoFails(t *testing.T) {
	bin := t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "cargo"), []byte("#!/bin/sh\necho no crates today >&2\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	_, err := buildRust(t.Context(), t.TempDir())
	if err == nil || !strings.Contains(err.Error(), "no crates today") {
		t.Error(err)
	}
}

func TestFlags(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"--rounds", "0"}, {"--window", "0s"}, {"--only", "("}, {"more"}} {
		if _, err := parseFlags(args); err == nil {
			t.Errorf("%q is accepted", args)
		}
	}
	if _, err := parseFlags([]string{"--help"}); !errors.Is(err, flag.ErrHelp) {
		t.Error(err)
	}
}

func TestLockedVersionIsOurs(t *testing.T) {
	t.Parallel()
	lock, err := os.ReadFile("rust/Cargo.lock")
	if err != nil {
		t.Fatal(err)
	}
	if v := lockedVersion(lock, bpeOpenAI); !strings.HasPrefix(v, "0.3.") {
		t.Errorf("bpe-openai %s, want 0.3", v)
	}
	if v := lockedVersion(lock, "nothing"); v != "unknown version" {
		t.Error(v)
	}
}
