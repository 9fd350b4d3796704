package extproc_test

import (
	"encoding/json"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/weirproxy/weir/internal/ai"
	usagev1 "github.com/weirproxy/weir/proto/weir/usage/v1"
)

const chatBody = `{"model":"gpt-4o","messages":[{"role":"user","content":"hello there"}]}`

func TestAllowedRequest(t *testing.T) {
	g := start(t, testPlan())
	const trace = "0af7651916cd43dd8448eb211c80319c"
	a := g.ask(t, post("/v1/chat/completions?x=1", "sk-open", "traceparent", "00-"+trace+"-b7ad6b7169203331-01"), chatBody)
	common := a.GetRequestBody().GetResponse()
	if common == nil {
		t.Fatalf("not let through: %v", a)
	}
	if common.GetBodyMutation() != nil {
		t.Errorf("body changed without need: %v", common.GetBodyMutation())
	}
	if !common.GetClearRouteCache() {
		t.Error("route cache not cleared: the targets would not be read")
	}
	for _, o := range common.GetHeaderMutation().GetSetHeaders() {
		if o.GetAppendAction() != corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD {
			t.Errorf("%s: %v", o.GetHeader().GetKey(), o.GetAppendAction())
		}
	}
	wantSet := map[string]string{"content-type": "application/json", "x-envoy-max-retries": "1", "x-envoy-upstream-rq-per-try-timeout-ms": "600000", "accept-encoding": "identity"}
	if diff := cmp.Diff(wantSet, setHeaders(common.GetHeaderMutation())); diff != "" {
		t.Errorf("set headers (-want +got):\n%s", diff)
	}
	wantDropped := []string{"authorization", "proxy-authorization", "x-api-key", "api-key", "cookie", "weir-probe"}
	if diff := cmp.Diff(wantDropped, common.GetHeaderMutation().GetRemoveHeaders()); diff != "" {
		t.Errorf("removed headers (-want +got):\n%s", diff)
	}

	d := g.journal.only(t)
	group := func(pool string) map[string]any {
		return map[string]any{"name": pool, "clusters": []any{map[string]any{"cluster_name": "pool/" + pool, "weight": 1.0}}}
	}
	wantMeta := map[string]any{
		ai.MetadataNamespace: map[string]any{ai.MetaID: d.Id, ai.MetaRequest: "9 8 -"},
		ai.PriorityNamespace: map[string]any{"priority_groups": []any{group("near"), group("far")}},
	}
	if diff := cmp.Diff(wantMeta, a.GetDynamicMetadata().AsMap()); diff != "" {
		t.Errorf("metadata (-want +got):\n%s", diff)
	}

	want := &usagev1.Decision{
		Id: d.Id, Time: d.Time, Key: "open", Application: "open-app", Team: "open", Model: "chat", RequestedModel: "gpt-4o",
		Kind: "chat", Verdict: "allowed", Rule: "default", Targets: []string{"near", "far"}, TraceId: trace, Identity: "key",
		InputTokens: 9, InputCertainty: usagev1.Certainty_CERTAINTY_COUNTED,
		Prices:              []*usagev1.TargetPrice{{Pool: "near", Input: 1, CachedInput: 1, Output: 2}, {Pool: "far", Input: 3, CachedInput: 4, Output: 5, BillsAbandoned: true}},
		AllowedOutputTokens: 256,
	}
	if diff := cmp.Diff(want, d, protocmp.Transform()); diff != "" {
		t.Errorf("decision (-want +got):\n%s", diff)
	}
	if len(d.Id) != 32 || d.InputTokens < 2 || d.Time.AsTime().IsZero() || !d.Time.IsValid() {
		t.Errorf("id %q, input tokens %d, time %v", d.Id, d.InputTokens, d.Time)
	}
}

func TestStreamAsksForUsageAndSaysSo(t *testing.T) {
	g := start(t, testPlan())
	const body = `{"stream":true,"model":"chat","messages":[{"role":"user","content":"hello"}]}`
	a := g.ask(t, post("/v1/chat/completions", "sk-open"), body)
	common := a.GetRequestBody().GetResponse()
	sent := common.GetBodyMutation().GetBody()
	var got struct {
		Model         string
		Stream        bool
		StreamOptions struct {
			IncludeUsage bool `json:"include_usage"`
		} `json:"stream_options"`
	}
	if err := json.Unmarshal(sent, &got); err != nil || !got.StreamOptions.IncludeUsage || !got.Stream || got.Model != "chat" {
		t.Fatalf("sent %q: %v", sent, err)
	}
	set := setHeaders(common.GetHeaderMutation())
	if set["content-length"] != itoa(len(sent)) || set["x-envoy-upstream-rq-per-try-timeout-ms"] != "30000" {
		t.Errorf("set headers: %v, body %d bytes", set, len(sent))
	}
	meta := a.GetDynamicMetadata().AsMap()[ai.MetadataNamespace].(map[string]any)[ai.MetaRequest].(string)
	r, err := ai.ParseAdapterRequest(meta)
	if err != nil || !r.Stream || !r.StripUsage || string(sent[r.ModelOffset:r.ModelOffset+r.ModelLength]) != `"chat"` {
		t.Errorf("adapter request %q: %+v, %v", meta, r, err)
	}
	if d := g.journal.only(t); !d.Stream {
		t.Error("decision does not say that it is a stream")
	}
}

func TestStreamWithUsageIsLeftAlone(t *testing.T) {
	g := start(t, testPlan())
	a := g.ask(t, post("/v1/chat/completions", "sk-open"),
		`{"model":"chat","stream":true,"stream_options":{"include_usage":true},"messages":[{"role":"user","content":"hello"}]}`)
	if a.GetRequestBody().GetResponse().GetBodyMutation() != nil {
		t.Error("body changed")
	}
	meta := a.GetDynamicMetadata().AsMap()[ai.MetadataNamespace].(map[string]any)[ai.MetaRequest]
	if meta != "9 6 s" {
		t.Errorf("adapter request %q: want the usage kept", meta)
	}
}

func TestOtherKinds(t *testing.T) {
	for path, tc := range map[string]struct{ body, kind string }{
		"/v1/completions": {`{"model":"chat","prompt":"once"}`, "completion"},
		"/v1/embeddings":  {`{"model":"chat","input":["a","b"]}`, "embedding"},
	} {
		g := start(t, testPlan())
		a := g.ask(t, post(path, "sk-open"), tc.body)
		if a.GetRequestBody() == nil || g.journal.only(t).Kind != tc.kind {
			t.Errorf("%s: %v", path, a)
		}
	}
}

// A large body comes in many frames.
func TestLargeBody(t *testing.T) {
	p := testPlan()
	p.Bounds.MaxBodyBytes = 32 << 20
	g := start(t, p)
	long := make([]byte, 20<<20)
	for i := range long {
		long[i] = 'a' + byte(i%26)
	}
	body := `{"model":"away","stream":true,"messages":[{"role":"user","content":"` + string(long) + `"}]}`
	a := g.ask(t, post("/v1/chat/completions", "sk-open"), body)
	sent := a.GetRequestBody().GetResponse().GetBodyMutation().GetBody()
	if len(sent) <= len(body) || string(sent[:1000]) != body[:1000] {
		t.Fatalf("sent %d bytes for %d", len(sent), len(body))
	}
}
