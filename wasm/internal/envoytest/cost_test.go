package envoytest_test

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/wasm/internal/envoytest"
)

// What the adapter costs Envoy, as CPU time from /proc, with the adapter and
// without it in turn:
//
//	go test ./wasm/internal/envoytest -run '^$' -bench Cost -benchtime 1x

const (
	clients = 16
	chunks  = 100
)

// chunk is one of vLLM's, of 231 bytes.
const chunk = `data: {"id":"chatcmpl-5b1f7c1e0d3c4c8a9a44d2c7b2f0c111","object":"chat.completion.chunk","created":1700000000,"model":"deepseek-ai/DeepSeek-V3","choices":[{"index":0,"delta":{"content":" token"},"logprobs":null,"finish_reason":null}]}` + "\n\n"

func BenchmarkCostOfStreams(b *testing.B) {
	for _, pause := range []time.Duration{10 * time.Millisecond, 0} {
		answer := func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			out := http.NewResponseController(w)
			for range chunks {
				_, _ = io.WriteString(w, chunk)
				_ = out.Flush()
				time.Sleep(pause)
			}
			_, _ = io.WriteString(w, finish+usage+done)
		}
		b.Run(fmt.Sprintf("pause=%v", pause), func(b *testing.B) {
			rounds := 40
			if pause > 0 {
				rounds = 2
			}
			compare(b, answer, true, rounds, rounds*clients*chunks, "chunk")
		})
	}
}

func BenchmarkCostOfJSON(b *testing.B) {
	answer := `{"id":"chatcmpl-1","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"` +
		strings.Repeat("lorem ", 120) + `"},"finish_reason":"stop"}],"usage":{"prompt_tokens":500,"completion_tokens":120,"total_tokens":620}}`
	const rounds = 300
	compare(b, jsonAnswer(answer), false, rounds, rounds*clients, "request")
}

// compare runs the same load through Envoy with and without the adapter, in
// turn, and reports the CPU time of each for one unit.
func compare(b *testing.B, answer http.HandlerFunc, stream bool, rounds, units int, unit string) {
	from := newBackend(b, answer)
	from.forget = true
	body, req := request(`,"messages":[{"role":"user","content":"`+strings.Repeat("lorem ", 330)+`"}]}`, stream, stream)
	cfg := adapterConfig(req, target(b, from.Addr, ai.AdapterTarget{Pool: "p", Model: "real", BasePath: "/v1", Host: "h"}))
	with := envoytest.Start(b, cfg)
	cfg.Wasm = ""
	bare := envoytest.Start(b, cfg)
	for _, e := range []*envoytest.Envoy{with, bare} {
		load(b, e, body, max(1, rounds/4))
	}
	var cost [2]time.Duration
	n := 0
	for b.Loop() {
		for range 4 {
			for i, e := range []*envoytest.Envoy{with, bare} {
				before := cpu(b, e.PID())
				load(b, e, body, rounds)
				cost[i] += cpu(b, e.PID()) - before
			}
			n += units
		}
	}
	us := func(d time.Duration) float64 { return float64(d.Microseconds()) / float64(n) }
	b.ReportMetric(us(cost[0]), "µs/"+unit)
	b.ReportMetric(us(cost[1]), "bare-µs/"+unit)
	b.ReportMetric(float64(cost[0])/float64(cost[1]), "ratio")
	b.ReportMetric(0, "ns/op")
}

func load(b *testing.B, e *envoytest.Envoy, body []byte, rounds int) {
	b.Helper()
	var wg sync.WaitGroup
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: clients}}
	defer client.CloseIdleConnections()
	for range clients {
		wg.Go(func() {
			for range rounds {
				resp, err := client.Post(e.URL+"/v1/chat/completions", "application/json", strings.NewReader(string(body)))
				if err != nil {
					b.Error(err)
					return
				}
				_, err = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				if err != nil || resp.StatusCode != 200 {
					b.Errorf("status %d, %v", resp.StatusCode, err)
				}
			}
		})
	}
	wg.Wait()
}

// cpu is the CPU time that a process's threads have used, to the nanosecond:
// /proc/PID/stat counts in ticks of 10 ms.
func cpu(b *testing.B, pid int) time.Duration {
	b.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil || len(files) == 0 {
		b.Fatalf("no threads of process %d in /proc: %v", pid, err)
	}
	var sum time.Duration
	for _, file := range files {
		stat, err := os.ReadFile(file)
		if err != nil {
			continue // the thread has ended
		}
		ran, err := strconv.ParseInt(strings.Fields(string(stat))[0], 10, 64)
		if err != nil {
			b.Fatalf("%s: %v", file, err)
		}
		sum += time.Duration(ran)
	}
	return sum
}
