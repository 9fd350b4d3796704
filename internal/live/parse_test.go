package live

import (
	"strings"
	"testing"

	"github.com/weirproxy/weir/dialect/profile"
)

// What each backend writes, as its source has it.
var answers = map[string]struct {
	text string
	want reading
}{
	"vllm": {`# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="Qwen/Qwen3-8B"} 3.0
vllm:num_requests_running{engine="1",model_name="Qwen/Qwen3-8B"} 4.0
vllm:num_requests_waiting{engine="0",model_name="odd } \" name"} 2.0
vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 9.0
vllm:kv_cache_usage_perc{engine="0"} 0.25
vllm:kv_cache_usage_perc{engine="1"} 0.75
`, reading{running: 7, waiting: 2, kvUse: 0.5, hasKV: true}},
	"vllm-ascend": {"vllm:num_requests_running 1\nvllm:num_requests_waiting 0\nvllm:gpu_cache_usage_perc 0.125\n",
		reading{running: 1, kvUse: 0.125, hasKV: true}},
	"sglang": {`sglang:num_running_reqs{model_name="m",tp_rank="0"} 5 1732600000000
sglang:num_queue_reqs{model_name="m"} 6
sglang:token_usage{model_name="m"} 0.9
`, reading{running: 5, waiting: 6, kvUse: 0.9, hasKV: true}},
	"mindie": {"num_requests_running{model_name=\"m\"} 2\nnum_requests_waiting{model_name=\"m\"} 1\nnum_requests_swapped 8\nnpu_cache_usage_perc 0.5\n",
		reading{running: 2, waiting: 1, kvUse: 0.5, hasKV: true}},
	"llama.cpp": {"llamacpp:requests_processing 1\nllamacpp:requests_deferred 3\n", reading{running: 1, waiting: 3}},
	"tgi":       {"tgi_batch_current_size 12\ntgi_queue_size 2\ntgi_batch_current_size_bucket{le=\"1\"} 99\n", reading{running: 12, waiting: 2}},
}

func TestEveryProfilesMetrics(t *testing.T) {
	for _, p := range profile.All() {
		if p.Metrics.Path == "" {
			continue
		}
		a, ok := answers[p.Name]
		if !ok {
			t.Errorf("%s: no answer to try", p.Name)
			continue
		}
		got, err := parse(strings.NewReader(a.text), &p.Metrics)
		if err != nil || *got != a.want {
			t.Errorf("%s: %+v, %v", p.Name, got, err)
		}
	}
}

func TestMalformedMetrics(t *testing.T) {
	kind, _ := profile.ByName("vllm")
	for name, text := range map[string]string{
		"empty":        "",
		"html":         "<html><body>vllm:num_requests_running 3</body></html>",
		"no value":     "vllm:num_requests_running\nvllm:num_requests_waiting{a=\"b\"}\n",
		"open label":   "vllm:num_requests_running{a=\"b} 3\n",
		"not a number": "vllm:num_requests_running three\n",
		"NaN":          "vllm:num_requests_running NaN\nvllm:num_requests_waiting +Inf\n",
		"negative":     "vllm:num_requests_running -1\n",
		"other":        "go_goroutines 5\n",
		"too many":     "vllm:num_requests_running 3 4 5\n",
		"comment":      "# vllm:num_requests_running 3\n",
	} {
		if r, err := parse(strings.NewReader(text), &kind.Metrics); err == nil {
			t.Errorf("%s: %+v", name, r)
		}
	}
	long := "vllm:num_requests_running 1\n" + strings.Repeat("x", maxLine+1) + "\n"
	if _, err := parse(strings.NewReader(long), &kind.Metrics); err == nil {
		t.Error("a line that is too long is taken")
	}
}

func FuzzParse(f *testing.F) {
	for _, a := range answers {
		f.Add(a.text)
	}
	kind, _ := profile.ByName("vllm")
	f.Fuzz(func(t *testing.T, text string) {
		r, err := parse(strings.NewReader(text), &kind.Metrics)
		if err == nil && !(r.running >= 0 && r.waiting >= 0 && r.kvUse >= 0 && r.kvUse <= 1) {
			t.Errorf("%+v", r)
		}
	})
}
