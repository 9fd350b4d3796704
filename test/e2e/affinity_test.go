package e2e

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/tidwall/gjson"

	"github.com/weirproxy/weir/internal/simulate"
)

// Coding sessions of several turns, replayed at pools of four simulated vLLMs that have
// a prefix cache: one pool is chosen from by prefix, the other as pools are by default.
func TestPrefixAffinity(t *testing.T) {
	t.Parallel()
	const (
		endpoints, sessions, turns, atOnce = 4, 64, 6, 16
		cacheBytes                         = 16 << 20 // more than all sessions
	)
	pool := func() (list []*backend, yaml string) {
		var urls []string
		for i := range endpoints {
			b := newBackend(t, simulate.Options{Model: realModelA, Name: fmt.Sprint(i), PrefixCache: cacheBytes, Record: sessions * turns, RecordBody: 64 << 10})
			list = append(list, b)
			urls = append(urls, fmt.Sprintf("{url: %q}", b.url))
		}
		return list, "endpoints: [" + strings.Join(urls, ", ") + "]\n    metrics: {off: true}\n    max_output_tokens: 100\n    model: " + realModelA + "\n    placement: private\n    adapter: vllm\n"
	}
	near, nearPool := pool()
	drawn, drawnPool := pool()
	_, _, text := newBackends(t,
		"models:\n", "  - name: near\n    "+nearPool+"    prefix_affinity: {}\n  - name: drawn\n    "+drawnPool+"models:\n",
		"  - name: embed\n    targets: [{pool: a}]\n", "  - name: embed\n    targets: [{pool: near}]\n",
		"  - name: restricted\n    targets: [{pool: a}]\n", "  - name: restricted\n    targets: [{pool: drawn}]\n")
	g := up(t, strings.Replace(text, "by-rule, embed, limited]", "by-rule, embed, limited, restricted]", 1))

	replay := func(model string, pool []*backend) (prefilled, prompt int, most float64) {
		var wg sync.WaitGroup
		next := make(chan int)
		for range atOnce {
			wg.Go(func() {
				for n := range next {
					session(t, g, model, n, turns)
				}
			})
		}
		for n := range sessions {
			next <- n
		}
		close(next)
		wg.Wait()
		for _, b := range pool {
			requests := b.Requests()
			most = max(most, float64(len(requests))*endpoints/(sessions*turns))
			for i := range requests {
				prompt += requests[i].PromptTokens
				prefilled += requests[i].PromptTokens - requests[i].CachedTokens
				if key := requests[i].Headers.Get("x-weir-affinity"); key != "" {
					t.Errorf("the backend learns the affinity key %q", key)
				}
			}
		}
		return prefilled, prompt, most
	}
	nearPrefilled, prompt, nearMost := replay("embed", near)
	drawnPrefilled, drawnPrompt, drawnMost := replay("restricted", drawn)
	if prompt != drawnPrompt {
		t.Fatalf("the replays differ: %d and %d tokens of prompts", prompt, drawnPrompt)
	}
	inTurn, ideal := inTurn(near, endpoints, cacheBytes), inTurn(near, 1, cacheBytes)
	t.Logf("of %d tokens: by prefix %d prefilled (busiest endpoint %.2f × the mean), by fewest requests %d (%.2f ×), round robin %d, one endpoint alone %d",
		prompt, nearPrefilled, nearMost, drawnPrefilled, drawnMost, inTurn, ideal)
	if nearPrefilled*10 > inTurn*7 || nearPrefilled*10 > drawnPrefilled*7 {
		t.Errorf("prefilled %d, round robin %d, by fewest requests %d: less than 30 %% saved", nearPrefilled, inTurn, drawnPrefilled)
	}
	if nearMost > 1.5 {
		t.Errorf("one endpoint got %.2f × the mean", nearMost)
	}
	// An endpoint dies: its conversations go on at the others.
	near[0].fault(t, simulate.Fault{Status: 503})
	for n := range 8 {
		session(t, g, "embed", n, 2)
	}
}

// session is a conversation of an agent: a system prompt that many share, a task of its
// own, and in each turn what the model said and what a tool gave.
func session(t *testing.T, g *gateway, model string, n, turns int) {
	type message struct {
		Role    string `json:"role"`
		Content string `json:"content"`
	}
	lines := func(what string, n int) string {
		var s strings.Builder
		for i := range n {
			fmt.Fprintf(&s, "%s %d: func handle%d(ctx context.Context, r *Request) error { return r.step(%d) }\n", what, i, i, i*7)
		}
		return s.String()
	}
	chat := []message{
		{"system", lines(fmt.Sprintf("rule of agent %d", n%3), 40)},
		{"user", fmt.Sprintf("Task %d. ", n) + lines(fmt.Sprintf("file %d", n), 30)},
	}
	for turn := range turns {
		body, err := json.Marshal(map[string]any{"model": model, "max_tokens": 40, "messages": chat})
		if err != nil {
			t.Error(err)
			return
		}
		got, err := g.send("POST", "/v1/chat/completions", string(body), "Authorization", "Bearer "+testKey)
		if err != nil || got.status != 200 {
			t.Errorf("session %d, turn %d: status %d, %v: %s", n, turn, got.status, err, got.body)
			return
		}
		chat = append(chat, message{"assistant", gjson.Get(got.body, "choices.0.message.content").Str},
			message{"user", lines(fmt.Sprintf("result %d of %d", turn, n), 10)})
	}
}

// inTurn is how many tokens so many endpoints would have prefilled, each with a cache
// like the backends', had they got the backends' requests in turn, in the order in which
// these came.
func inTurn(pool []*backend, endpoints, cacheBytes int) (prefilled int) {
	var all []simulate.Request
	for _, b := range pool {
		all = append(all, b.Requests()...)
	}
	slices.SortFunc(all, func(a, b simulate.Request) int { return a.Time.Compare(b.Time) })
	var caches []*simulate.PrefixCache
	for range endpoints {
		caches = append(caches, simulate.NewPrefixCache(cacheBytes))
	}
	for i := range all {
		text := gjson.Get(all[i].Body, "messages").Raw
		prefilled += all[i].PromptTokens - all[i].PromptTokens*caches[i%endpoints].Prefill(text)/max(1, len(text))
	}
	return prefilled
}
