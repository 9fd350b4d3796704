package query

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/usage/store"
)

// fixed answers every query with the same rows.
type fixed struct {
	store.Reader
	rows []store.Row
	got  store.Query
	err  error
}

func (f *fixed) Usage(_ context.Context, q store.Query) ([]store.Row, error) {
	f.got = q
	return slices.Clone(f.rows), f.err
}

var (
	by   = []store.Dimension{store.Team, store.Model}
	rows = []store.Row{
		{By: []string{"risk", "chat"}, Requests: 2, Tokens: ai.Usage{Input: 60, CachedInput: 50, CacheWrite: 25, AudioInput: 10, ImageInput: 5, Output: 50, Reasoning: 9, AudioOutput: 8, ImageOutput: 7},
			Cost: 412_000, InputCost: 300_000, OutputCost: 100_000, AbandonedCost: 10_000, Abandoned: 77, Estimated: 50},
		{By: []string{"", "=cmd"}, Requests: 1, Cost: 1},
	}
)

func TestUsageSortsAndChecks(t *testing.T) {
	f := &fixed{rows: rows}
	since, until := time.Unix(0, 0), time.Unix(10, 0)
	got, err := Usage(t.Context(), f, since, until, by)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]store.Row{rows[1], rows[0]}, got); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(store.Query{Since: since, Until: until, By: by}, f.got); diff != "" {
		t.Error(diff)
	}
	if _, err := Usage(t.Context(), f, until, until, by); err == nil {
		t.Error("no time at all was accepted")
	}
	f.err = errors.New("locked")
	if _, err := Usage(t.Context(), f, since, until, by); !errors.Is(err, f.err) {
		t.Error(err)
	}
}

func TestParseBy(t *testing.T) {
	got, err := ParseBy(" team, model,key ,")
	if diff := cmp.Diff([]store.Dimension{store.Team, store.Model, store.Key}, got); diff != "" || err != nil {
		t.Error(diff, err)
	}
	if got, err := ParseBy(""); got != nil || err != nil {
		t.Error(got, err)
	}
	for in, want := range map[string]string{"team,tem": `unknown dimension "tem"`, "team,team": "stands twice", "id;drop": "unknown dimension"} {
		if _, err := ParseBy(in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", in, err)
		}
	}
}

func TestRender(t *testing.T) {
	for format, want := range map[string]string{
		"table": "" +
			"TEAM   MODEL  REQUESTS  INPUT  CACHED  OUTPUT     COST USD  GIVEN UP  ESTIMATED\n" +
			"risk   chat          2    100      50      50     0.000412   0.00001      25.0%\n" +
			"-      =cmd          1      0       0       0  0.000000001      0.00       0.0%\n" +
			"total                3    100      50      50  0.000412001   0.00001      25.0%\n",
		"csv": "" +
			"team,model,requests,input_tokens,cached_input_tokens,cache_write_tokens,audio_input_tokens,image_input_tokens,output_tokens,reasoning_tokens,audio_output_tokens,image_output_tokens," +
			"cost_usd,input_cost_usd,output_cost_usd,abandoned_cost_usd,abandoned_tokens,estimated_tokens\n" +
			"risk,chat,2,60,50,25,10,5,50,9,8,7,0.000412,0.0003,0.0001,0.00001,77,50\n" +
			",'=cmd,1,0,0,0,0,0,0,0,0,0,0.000000001,0.00,0.00,0.00,0,0\n",
	} {
		var b strings.Builder
		if err := Render(&b, format, by, rows); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, b.String()); diff != "" {
			t.Errorf("%s: %s", format, diff)
		}
	}
	if err := Render(&strings.Builder{}, "xml", by, rows); err == nil {
		t.Error("an unknown format was accepted")
	}
}

func TestRenderJSON(t *testing.T) {
	var b strings.Builder
	if err := Render(&b, "json", by, rows[:1]); err != nil {
		t.Fatal(err)
	}
	var got []map[string]any
	if err := json.Unmarshal([]byte(b.String()), &got); err != nil {
		t.Fatal(err)
	}
	want := []map[string]any{{"team": "risk", "model": "chat", "requests": 2.0, "input_tokens": 60.0, "cached_input_tokens": 50.0,
		"cache_write_tokens": 25.0, "audio_input_tokens": 10.0, "image_input_tokens": 5.0,
		"output_tokens": 50.0, "reasoning_tokens": 9.0, "audio_output_tokens": 8.0, "image_output_tokens": 7.0,
		"cost_usd": "0.000412", "input_cost_usd": "0.0003", "output_cost_usd": "0.0001", "abandoned_cost_usd": "0.00001",
		"abandoned_tokens": 77.0, "estimated_tokens": 50.0}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	b.Reset()
	if err := Render(&b, "json", by, nil); err != nil || strings.TrimSpace(b.String()) != "[]" {
		t.Errorf("nothing is written as %q, %v", b.String(), err)
	}
}
