package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weirproxy/weir/benchmarks/internal/bench"
	"github.com/weirproxy/weir/internal/config"
)

// TestMain lets the test binary start itself in its roles, as the program does.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "--role" {
		main()
		return
	}
	os.Exit(m.Run())
}

// serveOnce answers one request with text, in pieces of size bytes.
func serveOnce(t *testing.T, text string, size int) (addr string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = conn.Read(make([]byte, 1024))
		for len(text) > 0 {
			n := min(size, len(text))
			if _, err := conn.Write([]byte(text[:n])); err != nil {
				return
			}
			text = text[n:]
		}
	}()
	return ln.Addr().String()
}

func TestRoundTrip(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\n"
	stream := ok + "transfer-encoding: chunked\r\n\r\n" +
		"9\r\ndata: a\n\n\r\n" + "c\r\ndata: b\n\ndat\r\n" + "6\r\na: c\n\n\r\n" + "e\r\ndata: [DONE]\n\n\r\n" + "0\r\n\r\n"
	for _, tc := range []struct {
		name, text string
		expect     expectation
		body       string
		fault      string
	}{
		{"length", ok + "Content-Length: 5\r\n\r\nhello", expectation{contains: "ell"}, "hello", ""},
		{"stream", stream, expectation{contains: "data: c", events: 4}, "data: a\n\ndata: b\n\ndata: c\n\ndata: [DONE]\n\n", ""},
		{"too few events", stream, expectation{events: 5}, "", "4 events, want 5"},
		{"status", "HTTP/1.1 503 x\r\ncontent-length: 2\r\n\r\nno", expectation{}, "", "status 503: no"},
		{"content", ok + "content-length: 2\r\n\r\nno", expectation{contains: "yes"}, "", `"yes" is missing in no`},
		{"cut", ok + "content-length: 9\r\n\r\nhello", expectation{}, "", "read: the connection was closed"},
		{"cut stream", stream[:len(stream)-5], expectation{events: 4}, "", "read: the connection was closed"},
		{"bad chunk", ok + "transfer-encoding: chunked\r\n\r\nzz\r\n", expectation{events: 1}, "", "a bad chunk"},
		{"no HTTP", "hello world, hello\r\n\r\n", expectation{}, "", "not an HTTP/1.1 answer"},
		{"no length", ok + "x: y\r\n\r\n", expectation{}, "", "an answer without length"},
	} {
		for _, size := range []int{1, 2, 3, 7, 4096} {
			t.Run(fmt.Sprint(tc.name, " in pieces of ", size), func(t *testing.T) {
				c, err := dial(serveOnce(t, tc.text, size))
				if err != nil {
					t.Fatal(err)
				}
				defer c.close()
				counted := 0
				a, err := c.roundTrip([]byte("request"), tc.expect.events > 0, func(n int) { counted += n })
				if err == nil {
					err = tc.expect.check(&a)
				}
				if err != nil || tc.fault != "" {
					if err == nil || !strings.Contains(err.Error(), tc.fault) || tc.fault == "" {
						t.Fatalf("%v, want %q", err, tc.fault)
					}
					return
				}
				if diff := cmp.Diff(tc.body, string(a.body)); diff != "" {
					t.Error(diff)
				}
				if counted != tc.expect.events || (tc.expect.events > 1) == a.first.IsZero() {
					t.Errorf("%d events heard of, first token at %v", counted, a.first)
				}
			})
		}
	}
}

func TestRequest(t *testing.T) {
	for _, size := range []int{2 << 10, 20 << 10, 200 << 10, 2 << 20} {
		r := newRequest(&loadSpec{Model: "m", Key: "k", BodyBytes: size, MaxTokens: 7, Stream: true}, 3)
		body := func() string {
			_, text, ok := strings.Cut(string(r.next()), "\r\n\r\n")
			if !ok || !json.Valid([]byte(text)) {
				t.Fatalf("not a request: %.200s", text)
			}
			return text
		}
		a, b := body(), body()
		if a == b {
			t.Errorf("two bodies of %d bytes are the same", size)
		}
		if d := len(a) - size; d < -size/20 || d > size/20 {
			t.Errorf("%d bytes, want about %d", len(a), size)
		}
	}
}

func TestReportRatios(t *testing.T) {
	at := func(requests int64, envoy, serve time.Duration, p50 float64) cell {
		return cell{loadResult: loadResult{Seconds: 1, Requests: requests, P50: p50, P99: 2 * p50}, envoyCPU: envoy, serveCPU: serve}
	}
	r := &results{
		scenarios: []scenario{{name: "paced-1000"}},
		targets:   []target{{name: "direct"}, {name: "bare", envoy: 1}, {name: "noop", envoy: 2, serve: 3}, {name: "weir", envoy: 4, serve: 5}},
		cells: map[string][]cell{
			"paced-1000 direct": {at(1000, 0, 0, 50)},
			"paced-1000 bare":   {at(1000, 30*time.Millisecond, 0, 100), at(1000, 50*time.Millisecond, 0, 110)},
			"paced-1000 noop":   {at(1000, 60*time.Millisecond, 20*time.Millisecond, 300), at(1000, 60*time.Millisecond, 20*time.Millisecond, 310)},
			"paced-1000 weir":   {at(1000, 80*time.Millisecond, 20*time.Millisecond, 400), at(1000, 80*time.Millisecond, 20*time.Millisecond, 410)},
		},
	}
	o, err := parseFlags(nil)
	if err != nil {
		t.Fatal(err)
	}
	text := report(o, nil, r)
	var weir []string
	for line := range strings.SplitSeq(text, "\n") {
		if strings.HasPrefix(line, "| 1000 | weir |") {
			weir = strings.Split(strings.Trim(line, "| "), " | ")
		}
	}
	want := []string{
		"1000", "weir", "405 (400–410)", "810 (800–820)", "1000 (1000–1000)", "80.0 (80.0–80.0)", "20.0 (20.0–20.0)", "100 (100–100)",
		"0 (0–0)", "0 (0–0)", "300 (300–300)", "1.50", "600 (600–600)", "2.50", "1.25",
	}
	if diff := cmp.Diff(want, weir); diff != "" {
		t.Errorf("%s\n%s", diff, text)
	}
}

func TestQuantilesAndSpread(t *testing.T) {
	var list []time.Duration
	for i := range 101 {
		list = append(list, time.Duration(100-i)*time.Microsecond)
	}
	if a, b := quantiles(list); a != 50 || b != 99 {
		t.Errorf("p50 %v, p99 %v", a, b)
	}
	for want, s := range map[string]bench.Spread{"": nil, "5.00": {5}, "2.00 (1.00–300)": {300, 1, 2}, "1.50 (1.00–2.00)": {2, 1}} {
		if s.String() != want {
			t.Errorf("%q, want %q", s, want)
		}
	}
}

func TestProcessFigures(t *testing.T) {
	pid := os.Getpid()
	before, err := bench.CPUTime(pid)
	if err != nil {
		t.Fatal(err)
	}
	sum := 0
	for begin := time.Now(); time.Since(begin) < 20*time.Millisecond; {
		sum++
	}
	after, err := bench.CPUTime(pid)
	if d := after - before; err != nil || d < time.Millisecond || d > 10*time.Second {
		t.Errorf("%v of CPU for 20 ms of counting to %d: %v", d, sum, err)
	}
	if n, err := residentBytes(pid); err != nil || n < 1<<20 || n > 1<<34 {
		t.Errorf("%d bytes: %v", n, err)
	}
}

func TestWeirConfigIsValid(t *testing.T) {
	text, err := weirConfig{Backend: "8000", Model: plainModel, KeyEnv: keyEnv, PoolKeyEnv: poolKeyEnv}.render()
	if err != nil {
		t.Fatal(err)
	}
	_, err = config.Parse("weir.yaml", []byte(text), config.Options{
		DataDir: t.TempDir(), ReadOnly: true, Getenv: func(name string) (string, bool) { return "secret-of-" + name, true },
		Warn: func(f config.Fault) { t.Errorf("warning: %v", f) },
	})
	if err != nil {
		t.Error(err)
	}
}

// TestRun measures for moments, through real Envoys.
func TestRun(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out.md")
	args := []string{
		"--rounds", "2", "--window", "200ms", "--targets", "^(direct|bare|noop)$", "--only", "^(json-1|stream-unpaced|paced-1000)$", "--out", out,
	}
	if err := run(t.Context(), args); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"| 1 | direct |", "| 1 | bare |", "| 1 | noop |", "| unpaced | noop |", "| 1000 | noop |"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("%q is missing in\n%s", want, text)
		}
	}
	if _, err := childNamed(os.Getpid(), "envoy"); err == nil {
		t.Error("an Envoy is left")
	}
}

func TestRunStopsWhenAsked(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
	defer cancel()
	if err := run(ctx, []string{"--targets", "^(direct|bare)$", "--window", "20s"}); err == nil {
		t.Error("no error")
	}
	if _, err := childNamed(os.Getpid(), "envoy"); err == nil {
		t.Error("an Envoy is left")
	}
}
