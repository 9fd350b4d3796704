package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/weirproxy/weir/internal/simulate"
)

// costRow is a row of `weir usage --by model --format json`.
type costRow struct {
	Model         string `json:"model"`
	Requests      int64  `json:"requests"`
	Input         int64  `json:"input_tokens"`
	Cached        int64  `json:"cached_input_tokens"`
	Written       int64  `json:"cache_write_tokens"`
	AudioIn       int64  `json:"audio_input_tokens"`
	ImageIn       int64  `json:"image_input_tokens"`
	Output        int64  `json:"output_tokens"`
	Reasoning     int64  `json:"reasoning_tokens"`
	AudioOut      int64  `json:"audio_output_tokens"`
	ImageOut      int64  `json:"image_output_tokens"`
	Cost          string `json:"cost_usd"`
	InputCost     string `json:"input_cost_usd"`
	OutputCost    string `json:"output_cost_usd"`
	AbandonedCost string `json:"abandoned_cost_usd"`
	Abandoned     int64  `json:"abandoned_tokens"`
	Estimated     int64  `json:"estimated_tokens"`
}

// costs waits until n requests of a model are accounted for.
func (g *gateway) costs(t *testing.T, model string, n int64) (row costRow) {
	t.Helper()
	eventually(t, 20*time.Second, func() string {
		out, errs, code := weir(t, "", "usage", "--data", g.dir, "--by", "model", "--format", "json")
		var rows []costRow
		if err := json.Unmarshal([]byte(out), &rows); err != nil || code != 0 {
			t.Fatalf("weir usage: exit %d: %v: %s%s", code, err, out, errs)
		}
		row = costRow{}
		for _, r := range rows {
			if r.Model == model {
				row = r
			}
		}
		if row.Requests != n {
			return fmt.Sprintf("%d events of %s, want %d", row.Requests, model, n)
		}
		return ""
	})
	return row
}

// A stream whose usage has every class, through the filter in a real Envoy, costs
// what its price says, by hand; so do the forms of other backends, whole and streamed.
func TestEveryClassCostsItsPrice(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "price: {input: 1, output: 4}",
		"price: {input: 1, cached_input: 0.1, cache_write: 1.25, audio_input: 32, image_input: 2, output: 4, reasoning: 6, audio_output: 64, image_output: 8, per_request: 0.001}")
	w.b.fault(t, simulate.Fault{UsageBody: json.RawMessage(`{"prompt_tokens":1000,"completion_tokens":500,"total_tokens":1500,
		"prompt_tokens_details":{"cached_tokens":200,"cache_write_tokens":100,"audio_tokens":50,"image_tokens":30},
		"completion_tokens_details":{"reasoning_tokens":120,"audio_tokens":80,"image_tokens":20}}`)})
	got := w.post("/v1/chat/completions", chatBody("cloud", true), "authorization", "Bearer "+testKey)
	if got.status != 200 || !strings.Contains(got.body, "[DONE]") {
		t.Fatalf("status %d: %s", got.status, got.body)
	}
	// Input: 620 × $1 + 200 × $0.1 + 100 × $1.25 + 50 × $32 + 30 × $2 = $2425 for a million.
	// Output: 280 × $4 + 120 × $6 + 80 × $64 + 20 × $8 = $7120. And $0.001 for the request.
	want := costRow{
		Model: "cloud", Requests: 1, Input: 620, Cached: 200, Written: 100, AudioIn: 50, ImageIn: 30,
		Output: 500, Reasoning: 120, AudioOut: 80, ImageOut: 20,
		Cost: "0.010545", InputCost: "0.002425", OutputCost: "0.00712", AbandonedCost: "0.00",
	}
	if row := w.costs(t, "cloud", 1); row != want {
		t.Errorf("\n%+v, want\n%+v", row, want)
	}
	// xAI's form, whole: its reasoning is beside the completion.
	w.b.fault(t, simulate.Fault{UsageBody: json.RawMessage(`{"prompt_tokens":32,"completion_tokens":9,"total_tokens":135,"completion_tokens_details":{"reasoning_tokens":94}}`)})
	if got := w.chat("cloud"); got.status != 200 {
		t.Fatalf("status %d: %s", got.status, got.body)
	}
	// 32 × $1, 9 × $4 + 94 × $6, and $0.001.
	want.Requests, want.Input, want.Output, want.Reasoning = 2, 652, 603, 214
	want.Cost, want.InputCost, want.OutputCost = "0.012177", "0.002457", "0.00772"
	if row := w.costs(t, "cloud", 2); row != want {
		t.Errorf("\n%+v, want\n%+v", row, want)
	}
}

// A public attempt that timed out is charged at its most, shows in the line of the
// request, in `weir usage` and in the metrics; the private one before it costs nothing.
func TestTimedOutPublicAttemptIsCharged(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "  - name: cloud\n    targets: [{pool: b}]", "  - name: cloud\n    attempt_timeout: 1s\n    targets: [{pool: a}, {pool: b}]")
	w.a.fault(t, simulate.Fault{StallBeforeHeadersMS: -1})
	w.b.fault(t, simulate.Fault{StallBeforeHeadersMS: -1})
	if got := w.chat("cloud"); got.status != 504 {
		t.Fatalf("status %d: %s", got.status, got.body)
	}
	row := w.costs(t, "cloud", 1)
	// The decision tells its input as the first target counts it; 12 tokens were asked for.
	input := row.Abandoned - 12
	if input < 5 || input > 40 {
		t.Fatalf("an abandoned attempt of %d tokens: %+v", row.Abandoned, row)
	}
	want := costRow{Model: "cloud", Requests: 1, Abandoned: row.Abandoned, InputCost: "0.00", OutputCost: "0.00"}
	if err := sameMoney(row.Cost, fmt.Sprintf("%.6f", float64(input+12*4)/1e6)); err != nil {
		t.Error(err)
	}
	want.Cost, want.AbandonedCost = row.Cost, row.Cost
	if row != want {
		t.Errorf("\n%+v, want\n%+v", row, want)
	}
	if line := lineWith(w.log.String(), "cloud", "given up $"+want.Cost, "tried a - no_response, b - timeout"); line == "" {
		t.Errorf("no line tells of it:\n%s", last(w.log.String(), 2000))
	}
	if m := w.metricsText(t); !strings.Contains(m, `weir_usage_abandoned_attempts_total{pool="b"} 1`) || strings.Contains(m, `weir_usage_abandoned_attempts_total{pool="a"}`) {
		t.Error("the metrics do not tell of one attempt at b")
	}
}

// An attempt that was given up is charged beside the answer that came from elsewhere;
// where the pool says that such attempts are free, it is not.
func TestGivenUpAndAnsweredElsewhere(t *testing.T) {
	t.Parallel()
	for _, free := range []bool{false, true} {
		t.Run(fmt.Sprintf("free=%v", free), func(t *testing.T) {
			edits := []string{"  - name: cloud\n    targets: [{pool: b}]", "  - name: cloud\n    first_token_timeout: 1s\n    targets: [{pool: b}, {pool: a}]"}
			if free {
				edits = append(edits, "price: {input: 1, output: 4}", "price: {input: 1, output: 4}\n    abandoned_attempts: free")
			}
			w := newWorld(t, edits...)
			w.a.fault(t)
			w.b.fault(t, simulate.Fault{StallFirstTokenMS: -1})
			got := w.post("/v1/chat/completions", chatBody("cloud", true), "authorization", "Bearer "+testKey)
			if got.status != 200 || got.header.Get("x-simulator") != "a" {
				t.Fatalf("status %d from %q: %s", got.status, got.header.Get("x-simulator"), got.body)
			}
			row := w.costs(t, "cloud", 1)
			answer := fmt.Sprintf("%.7f", (float64(row.Input)*0.5+float64(row.Output)*2)/1e6)
			given := row.Abandoned - 12 // the input, as weir told it
			if free && (row.Abandoned != 0 || row.AbandonedCost != "0.00" || sameMoney(row.Cost, answer) != nil) {
				t.Errorf("%+v, want %s for the answer and nothing else", row, answer)
			}
			if whole := (float64(row.Input)*0.5 + float64(row.Output)*2 + float64(given) + 12*4) / 1e6; !free {
				if given < 5 || given > 200 || sameMoney(row.AbandonedCost, fmt.Sprintf("%.7f", (float64(given)+12*4)/1e6)) != nil {
					t.Errorf("%+v: what was given up is charged otherwise", row)
				}
				if err := sameMoney(row.Cost, fmt.Sprintf("%.7f", whole)); err != nil {
					t.Errorf("%+v: %v", row, err)
				}
			}
		})
	}
}

// sameMoney compares decimals but for the zeros at their ends.
func sameMoney(a, b string) error {
	if strings.TrimRight(a, "0") != strings.TrimRight(b, "0") {
		return fmt.Errorf("%s is not %s", a, b)
	}
	return nil
}

func (w *world) metricsText(t *testing.T) string {
	t.Helper()
	_, text := w.adminGet(t, "/metrics")
	return text
}
