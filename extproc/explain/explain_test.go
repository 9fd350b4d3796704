package explain_test

import (
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/weirproxy/weir/extproc/explain"
	"github.com/weirproxy/weir/extproc/pipeline"
	"github.com/weirproxy/weir/extproc/stage/access"
	"github.com/weirproxy/weir/extproc/stage/auth"
	"github.com/weirproxy/weir/extproc/stage/decode"
	"github.com/weirproxy/weir/extproc/stage/models"
	"github.com/weirproxy/weir/extproc/stage/network"
	"github.com/weirproxy/weir/extproc/stage/quota"
	"github.com/weirproxy/weir/extproc/stage/route"
	"github.com/weirproxy/weir/extproc/stage/tokens"
	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
	"github.com/weirproxy/weir/internal/rule"
	"github.com/weirproxy/weir/limit"
	counting "github.com/weirproxy/weir/tokens"
)

type condition bool

func (c condition) Holds(*plan.Facts) (bool, error) { return bool(c), nil }

func testPlan() *plan.Plan {
	counts, err := counting.New(counting.Choice{Model: "deepseek-v3", Adapter: "vllm"})
	if err != nil {
		panic(err)
	}
	near := &plan.Pool{Name: "near", Tokenizer: counts, Placement: ai.Private, Model: "deepseek-v3"}
	far := &plan.Pool{Name: "far", Placement: ai.Public, Model: "qwen-max"}
	steps := []plan.Step{{Choices: []plan.Choice{{Pool: far, Weight: 1}}}, {Choices: []plan.Choice{{Pool: near, Weight: 1}}}}
	m := &plan.Model{Name: "chat", Aliases: []string{"gpt"}, DefaultMaxTokens: 100, Targets: steps, Pools: []*plan.Pool{far, near}, Rules: []*plan.Rule{
		{Name: "no", Source: "stream", When: condition(false), Targets: steps},
		{Name: "yes", Source: "true", When: condition(true), Targets: steps},
		{Name: "later", Source: "tools", When: condition(true), Targets: steps},
	}}
	key := &plan.Key{Name: "ci", Principal: ai.Principal{Key: "ci", Team: "build", Roles: []string{"dev"}}, Roles: []*plan.Role{{Name: "dev", AllModels: true}}}
	p := &plan.Plan{
		Models: map[string]*plan.Model{"chat": m, "gpt": m}, ModelList: []*plan.Model{m}, KeyList: []*plan.Key{key},
		Bounds: plan.Bounds{MaxBodyBytes: 1 << 20, MaxDepth: 64},
		Limits: []*plan.Limit{{Name: "minute", Unit: plan.UnitTokens, Amount: 50, Window: time.Minute, PerKey: true}},
	}
	p.SetHashSecret([]byte("s"))
	p.Keys = map[plan.KeyHash]*plan.Key{plan.HashKey([]byte("s"), "sk-ci"): key}
	return p
}

func explained(t *testing.T, p *plan.Plan, in explain.Input) *explain.Result {
	t.Helper()
	ledger := limit.New(time.Now)
	run := pipeline.New(auth.Stage{}, network.Stage{}, access.Stage{}, models.Stage{}, decode.Stage{}, tokens.New(nil, counting.NewLearned()), quota.NewGate(ledger), route.New(route.NewRests()), quota.New(ledger, limit.NewOutputs()))
	return explain.Explain(t.Context(), run, p, in)
}

const body = `{"model":"gpt","stream":true,"max_tokens":7,"messages":[{"role":"user","content":"hello"}]}`

// A key by its name and the key itself are explained alike, and no plan is changed.
func TestAllowed(t *testing.T) {
	for _, key := range []string{"sk-ci", "ci"} {
		p := testPlan()
		p.Limits[0].Amount = 5000
		before := len(p.Keys)
		got := explained(t, p, explain.Input{Key: key, Path: "/v1/chat/completions", Body: []byte(body)})
		if !got.Allowed() || len(p.Keys) != before {
			t.Fatalf("%s: %+v", key, got)
		}
		target := func(pool, placement, model, dropped string) explain.Target {
			return explain.Target{Pool: pool, Placement: placement, Model: model, Dropped: dropped}
		}
		counted := func(t explain.Target) explain.Target {
			t.InputTokens, t.InputBound, t.InputCertainty = 4, 4, "counted" // three marks and "hello"
			return t
		}
		want := &explain.Result{
			Verdict: "allowed", Caller: &explain.Caller{Key: "ci", Team: "build", Roles: []string{"dev"}, Identity: "key"},
			Roles:         []explain.Role{{Name: "dev", Permits: "models *; no egress"}},
			EgressRefused: "next",
			Request:       &explain.Request{Kind: "chat", RequestedModel: "gpt", Model: "chat", Stream: true, MaxOutputTokens: 7, InputCertainty: "counted"},
			Rules: []explain.Rule{{Name: "no", When: "stream", Outcome: explain.DidNot}, {Name: "yes", When: "true", Outcome: explain.Held},
				{Name: "later", When: "tools", Outcome: explain.NotTried}},
			Route:   "yes",
			Targets: []explain.Target{counted(target("near", "private", "deepseek-v3", "")), target("far", "public", "qwen-max", "egress_not_allowed")},
			Reserved: &explain.Reserve{Limits: []explain.Limit{{Name: "minute", Unit: "tokens", Amount: 5000, Window: "1m0s"}},
				OutputTokens: 7, MaxOutputTokens: 7, Held: true},
			Edits: []explain.Edit{{Offset: len(body) - 1, Text: `,"stream_options":{"include_usage":true}`}},
		}
		for _, name := range []string{"auth", "network", "access", "models", "decode", "tokens", "quota", "route"} {
			want.Stages = append(want.Stages, explain.Stage{Name: name, Mode: "enforce", Verdict: "go on"})
		}
		ignore := cmp.Options{cmpopts.IgnoreFields(explain.Stage{}, "Micros"), cmpopts.IgnoreFields(explain.Request{}, "InputTokens"),
			cmpopts.IgnoreFields(explain.Reserve{}, "InputTokens")}
		if diff := cmp.Diff(want, got, ignore); diff != "" {
			t.Errorf("%s (-want +got):\n%s", key, diff)
		}
	}
}

func TestRefused(t *testing.T) {
	for _, tc := range []struct {
		name, key, path, body string
		modes                 map[string]plan.Mode
		reason, stage         string
		text                  []string
	}{
		{name: "limit", key: "ci", path: "/v1/chat/completions", body: strings.Replace(body, "hello", strings.Repeat("hello ", 100), 1), reason: "limit_exceeded", stage: "quota",
			text: []string{"refused with 429 by quota: limit_exceeded", "minute: 50 tokens in 1m0s: refuses", "far (public, qwen-max): dropped, egress_not_allowed", "yes: held"}},
		{name: "unknown key", key: "nobody", path: "/v1/chat/completions", body: body, reason: "invalid_key", stage: "auth", text: []string{"refused with 401 by auth"}},
		{name: "path", key: "ci", path: "/v1/responses", body: body, reason: "unknown_path", stage: "inbound", text: []string{"refused with 404"}},
		{name: "body", key: "ci", path: "/v1/chat/completions", body: `{`, reason: "invalid_json", stage: "decode", text: []string{"key ci, application -, team build, roles dev"}},
		{name: "shadow", key: "ci", path: "/v1/chat/completions", body: strings.Replace(body, "hello", strings.Repeat("hello ", 100), 1), modes: map[string]plan.Mode{"quota": plan.Shadow},
			text: []string{"verdict  allowed", "quota (shadow): would refuse limit_exceeded"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := testPlan()
			p.Modes = tc.modes
			got := explained(t, p, explain.Input{Key: tc.key, Path: tc.path, Body: []byte(tc.body)})
			if got.Reason != tc.reason || got.Stage != tc.stage || got.Allowed() != (tc.reason == "") {
				t.Errorf("%+v", got)
			}
			var text strings.Builder
			if err := got.WriteText(&text); err != nil {
				t.Fatal(err)
			}
			for _, want := range tc.text {
				if !strings.Contains(text.String(), want) {
					t.Errorf("text lacks %q:\n%s", want, text.String())
				}
			}
			if strings.Contains(text.String(), "sk-ci") {
				t.Error("the text holds the key")
			}
		})
	}
}

// Each role is told, with what it permits and what ended it.
func TestRoles(t *testing.T) {
	p := testPlan()
	p.Limits = nil
	hours := plan.NewHours(time.UTC)
	hours.Add(time.Monday, 8*60, 18*60)
	p.KeyList[0].Roles = []*plan.Role{
		{Name: "day", AllModels: true, Hours: hours, Denied: plan.Vision | plan.Streaming, MaxContext: 9, MaxOutput: 8},
		{Name: "lists", AllModels: true, Endpoints: []ai.Kind{ai.KindModels, ai.KindEmbedding}},
		{Name: "other", Models: map[string]bool{"x": true, "a": true}},
		{Name: "out", AllModels: true, Pools: map[string]bool{"far": true}},
		{Name: "works", AllModels: true},
	}
	p.Models["chat"].Rules[1].RefuseEgress = true
	got := explained(t, p, explain.Input{Key: "ci", Path: "/v1/chat/completions", Body: []byte(body), Now: time.Date(2026, 6, 2, 0, 0, 0, 0, time.UTC)})
	want := []explain.Role{
		{Name: "day", Permits: "models *; no vision; no streaming; at most 9 input tokens; at most 8 output tokens; no egress; at UTC Mon 08:00-18:00", EndedBy: "outside_hours"},
		{Name: "lists", Permits: "models *; endpoints models, embedding; no egress", EndedBy: "endpoint_not_allowed"},
		{Name: "other", Permits: "models a, x; no egress", EndedBy: "model_not_allowed"},
		{Name: "out", Permits: "models *; pools far; no egress", EndedBy: "egress_not_allowed"},
		{Name: "works", Permits: "models *; no egress", EndedBy: "egress_not_allowed"},
	}
	if diff := cmp.Diff(want, got.Roles); diff != "" {
		t.Errorf("roles (-want +got):\n%s", diff)
	}
	var text strings.Builder
	if err := got.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"refused with 403 by route: egress_not_allowed", "day: ended, outside_hours", "egress that is not permitted: refuse", "far (public, qwen-max): dropped, egress_not_allowed"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("text lacks %q:\n%s", want, text.String())
		}
	}
}

// bindsAlice binds every token to the key's team.
type bindsAlice struct{ caller *plan.Key }

func (b bindsAlice) Bind(map[string]any) (*plan.Key, string, error) { return b.caller, "alice", nil }

// Callers without a key are explained as they would be known, from where they are.
func TestCallersWithoutKeys(t *testing.T) {
	p := testPlan()
	p.Limits = nil
	caller := func(name string) *plan.Key {
		return &plan.Key{Name: name, Principal: ai.Principal{Key: name, Team: "build", Roles: []string{"dev"}}, Roles: p.KeyList[0].Roles}
	}
	p.TokenIssuers = []*plan.TokenIssuer{{Name: "idp", Issuer: "https://idp", Binding: bindsAlice{caller("issuer:idp")}}}
	p.Workloads.Add("spiffe://x/a", caller("workload:a"))
	net := func(cidr string) *plan.Network {
		return plan.NewNetwork([]netip.Prefix{netip.MustParsePrefix(cidr)}, nil)
	}
	p.TeamNetworks = map[string]*plan.Network{"build": net("10.0.0.0/8")}
	p.Proxies = &plan.ProxyTrust{Hops: 1, Proxies: net("10.9.0.0/16")}
	for name, tc := range map[string]struct {
		in            explain.Input
		reason, known string
	}{
		"a token":               {explain.Input{Claims: []byte(`{"iss":"https://idp"}`), ClientIP: "10.1.1.1"}, "", "issuer:idp jwt alice 10.1.1.1"},
		"a token from nowhere":  {explain.Input{Claims: []byte(`{"iss":"https://idp"}`)}, "network_not_allowed", "issuer:idp jwt alice "},
		"another issuer's":      {explain.Input{Claims: []byte(`{"iss":"https://else"}`), ClientIP: "10.1.1.1"}, "invalid_token", ""},
		"claims that are none":  {explain.Input{Claims: []byte(`{`), ClientIP: "10.1.1.1"}, "invalid_token", ""},
		"a workload":            {explain.Input{SPIFFEID: "spiffe://x/a", ClientIP: "10.1.1.1"}, "", "workload:a workload  10.1.1.1"},
		"a workload at a proxy": {explain.Input{SPIFFEID: "spiffe://x/a", ClientIP: "10.9.1.1"}, "", "workload:a workload  10.9.1.1"},
		"another workload":      {explain.Input{SPIFFEID: "spiffe://x/b", ClientIP: "10.1.1.1"}, "unknown_workload", ""},
		"a key":                 {explain.Input{Key: "ci", ClientIP: "::ffff:10.1.1.1"}, "", "ci key  10.1.1.1"},
		"a key, elsewhere":      {explain.Input{Key: "ci", ClientIP: "11.1.1.1"}, "network_not_allowed", "ci key  11.1.1.1"},
	} {
		tc.in.Path, tc.in.Body = "/v1/chat/completions", []byte(body)
		got := explained(t, p, tc.in)
		known := ""
		if c := got.Caller; c != nil {
			known = strings.Join([]string{c.Key, c.Identity, c.User, c.Address}, " ")
		}
		if got.Reason != tc.reason || known != tc.known {
			t.Errorf("%s: %q, %q; want %q, %q", name, got.Reason, known, tc.reason, tc.known)
		}
	}
}

func TestModelsAreAnswered(t *testing.T) {
	got := explained(t, testPlan(), explain.Input{Key: "ci", Path: "/v1/models"})
	var list struct{ Data []struct{ ID string } }
	if err := json.Unmarshal([]byte(got.Answer), &list); err != nil || len(list.Data) != 2 || !got.Allowed() || got.Status != 200 || got.Rules != nil {
		t.Errorf("%+v, %v", got, err)
	}
}

// What a rule reads comes from the input.
func TestHeadersAndTime(t *testing.T) {
	p := testPlan()
	p.Limits = nil
	p.Bounds.HeaderFacts = []string{"x-tier"}
	p.Models["chat"].Rules = []*plan.Rule{{Name: "gold", When: reads{}, Targets: p.Models["chat"].Targets}}
	in := explain.Input{Key: "ci", Path: "/v1/chat/completions", Body: []byte(body), Headers: map[string]string{"X-Tier": "gold"}, Now: time.Unix(7, 0)}
	if got := explained(t, p, in); got.Route != "gold" {
		t.Errorf("%+v", got)
	}
}

type reads struct{}

func (reads) Holds(f *plan.Facts) (bool, error) {
	return f.Headers["x-tier"] == "gold" && f.Now.Equal(time.Unix(7, 0)), nil
}

// Live judges by what is used, tells what is left, and takes nothing.
func TestLive(t *testing.T) {
	p := testPlan()
	p.Limits[0].Amount = 5000
	p.Limits = append(p.Limits, &plan.Limit{Name: "few", Unit: plan.UnitRequests, Amount: 2, Window: time.Minute})
	ledger := limit.New(time.Now)
	run := pipeline.New(auth.Stage{}, access.Stage{}, models.Stage{}, decode.Stage{}, tokens.New(nil, counting.NewLearned()), quota.NewGate(ledger), route.New(route.NewRests()), quota.New(ledger, limit.NewOutputs()))
	in := explain.Input{Key: "ci", Path: "/v1/chat/completions", Body: []byte(body)}
	left := func() (all []int64) {
		got := explain.Live(t.Context(), run, p, in, ledger)
		if !got.Allowed() || got.Reserved.Held || len(got.Reserved.Limits) != 2 {
			t.Fatalf("%+v", got)
		}
		var text strings.Builder
		if err := got.WriteText(&text); err != nil || !strings.Contains(text.String(), "few: 2 requests in 1m0s, ") {
			t.Errorf("%v: %s", err, &text)
		}
		for _, l := range got.Reserved.Limits {
			all = append(all, l.Left.Remaining)
		}
		return all
	}
	if got := left(); !slices.Equal(got, []int64{5000, 2}) {
		t.Errorf("left: %v", got)
	}
	caller := ai.Principal{Key: "ci", Team: "build", Roles: []string{"dev"}}
	ledger.Reserve(p.Limits, &limit.Request{
		ID: "other", Principal: caller, Model: "chat", Targets: []limit.Target{{Pool: "near", Input: 30}}, Options: []limit.Option{{Output: 70}},
	})
	for range 3 {
		if got := left(); !slices.Equal(got, []int64{4900, 1}) || ledger.Held() != 1 {
			t.Errorf("left: %v, %d reservations", got, ledger.Held())
		}
	}
}

// What a rollout does with the request is told.
func TestRollout(t *testing.T) {
	p := testPlan()
	m := p.Models["chat"]
	next := &plan.Pool{Name: "next", Placement: ai.Private}
	m.Pools, m.Rollout = append(m.Pools, next), &plan.Rollout{From: m.Pools[1], To: next}
	routes := route.New(route.NewRests())
	routes.Share = func(*plan.Model) float64 { return 0.25 }
	for drawn, want := range map[float64]string{0.2: "25 % of what goes to near goes to next first: this one too", 0.3: "25 % of what goes to near goes to next first: not this one"} {
		routes.Draw = func(n uint64) uint64 { return uint64(drawn * float64(n)) }
		ledger := limit.New(time.Now)
		r := explain.Live(t.Context(), pipeline.New(auth.Stage{}, network.Stage{}, access.Stage{}, models.Stage{}, decode.Stage{}, tokens.New(counting.NewMemo(), counting.NewLearned()), quota.NewGate(ledger), routes, quota.New(ledger, limit.NewOutputs())),
			p, explain.Input{Key: "ci", Path: "/v1/chat/completions", Body: []byte(`{"model":"chat","max_tokens":5,"messages":[{"role":"user","content":"hi"}]}`), Now: time.Now()}, ledger)
		var b strings.Builder
		if err := r.WriteText(&b); err != nil || !strings.Contains(b.String(), want) {
			t.Errorf("%v, no %q in\n%s", err, want, b.String())
		}
	}
}

// states are what is known of pools.
type states map[string]plan.PoolState

func (s states) Pool(name string) (plan.PoolState, bool) { is, ok := s[name]; return is, ok }

// What rules read of pools and limits is told with its value and its age, of those that
// were tried; what is not known is said to be so.
func TestFactsOfRules(t *testing.T) {
	p := testPlan()
	m, now := p.ModelList[0], time.Now()
	near, far := m.Pools[1], m.Pools[0]
	compiler, err := rule.NewCompiler(rule.Vocabulary{Pools: map[string]*plan.Pool{"near": near, "far": far}})
	if err != nil {
		t.Fatal(err)
	}
	for i, when := range []string{`pools["near"].waiting > 20`, `pools["near"].waiting < 4 && pools["far"].error_rate < 0.5`, `pools["far"].open > 1`} {
		cond, faults := compiler.Compile(when)
		if faults != nil {
			t.Fatal(faults[0])
		}
		m.Rules[i].Source, m.Rules[i].When = when, cond
	}
	stage := route.New(route.NewRests())
	stage.Live = states{"near": {Endpoints: 1, Healthy: 1, Heard: now.Add(-1500 * time.Millisecond), Waiting: 3}, "far": {Endpoints: 1, Healthy: 1, Open: 9}}
	run := pipeline.New(auth.Stage{}, network.Stage{}, access.Stage{}, models.Stage{}, decode.Stage{}, tokens.New(nil, counting.NewLearned()), stage)
	got := explain.Explain(t.Context(), run, p, explain.Input{Key: "ci", Path: "/v1/chat/completions", Body: []byte(body), Now: now})
	want := []explain.Fact{
		{Name: `pools["near"].waiting`, Value: int64(3), Known: true, Age: "1.5s"},
		{Name: `pools["far"].error_rate`, Value: 0.0},
	}
	if diff := cmp.Diff(want, got.Facts); diff != "" {
		t.Errorf("facts (-want +got):\n%s", diff)
	}
	var text strings.Builder
	if err := got.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`pools["near"].waiting is 3, told 1.5s ago`, `pools["far"].error_rate is 0, which stands for not known`} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("text lacks %q:\n%s", want, text.String())
		}
	}
	if strings.Contains(text.String(), `"far"].open is`) {
		t.Errorf("a rule that was not tried read something:\n%s", text.String())
	}
}
