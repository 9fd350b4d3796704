package doctor

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weirproxy/weir/dialect/openai"
	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
	"github.com/weirproxy/weir/internal/probe"
)

var testKey = probe.KeyOf([]byte("the secret of the hashes"))

// testPlan has two keys, two models and three limits, one of which counts nothing.
func testPlan() *plan.Plan {
	chat, far := &plan.Model{Name: "chat"}, &plan.Model{Name: "far"}
	all, some := []*plan.Role{{Name: "all", AllModels: true}}, []*plan.Role{{Name: "some", Models: map[string]bool{"chat": true}}}
	return &plan.Plan{
		Version: "v1", Probe: testKey, Bounds: plan.Bounds{MaxBodyBytes: 1000},
		ModelList: []*plan.Model{chat, far},
		KeyList: []*plan.Key{
			{Name: "gone", Disabled: true, Roles: all},
			{Name: "one", Principal: ai.Principal{Key: "one", Team: "a"}, Roles: some},
			{Name: "two", Principal: ai.Principal{Key: "two", Team: "b"}, Roles: all},
		},
		Limits: []*plan.Limit{
			{Name: "all"}, {Name: "far-b", Teams: map[string]bool{"b": true}, Models: map[string]bool{"far": true}},
			{Name: "idle", Teams: map[string]bool{"a": true}, Models: map[string]bool{"far": true}},
		},
	}
}

// gateway stands for an Envoy with weir behind it, as far as a probe sees them.
type gateway struct {
	t    *testing.T
	key  probe.Key
	plan *plan.Plan
	// What is out of order.
	open   bool                      // weir is not asked
	status int                       // and Envoy answers with it
	leaks  []string                  // headers that reach weir
	alter  func(*probe.Answer)       // what weir signs
	body   func(http.ResponseWriter) // in weir's place
}

func (g *gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if g.open {
		w.WriteHeader(g.status)
		return
	}
	if g.body != nil {
		g.body(w)
		return
	}
	token, ok := g.key.Read(r.Header.Get(probe.Header), time.Now())
	if !ok {
		g.t.Errorf("%s: a probe without a token", r.URL)
	}
	a := g.judge(r, token)
	if g.alter != nil {
		g.alter(a)
	}
	w.Header().Set(ai.DecisionHeader, a.ID)
	w.Header().Set(probe.Header, g.key.Sign(token.Nonce, a))
	status := http.StatusOK
	if a.Verdict == probe.Refused {
		status = ai.Reason(a.Reason).Answer().Status
	}
	w.WriteHeader(status)
	_, _ = w.Write(openai.ErrorBody(ai.Reason(a.Reason), "", ""))
}

// judge is what the pipeline says of the request.
func (g *gateway) judge(r *http.Request, token probe.Token) *probe.Answer {
	a := &probe.Answer{ID: "decided", Plan: g.plan.Version, Verdict: probe.Refused}
	for name := range r.Header {
		if r.Header.Get(name) == token.Nonce.String() && slices.Contains(g.leaks, strings.ToLower(name)) {
			a.Leaked = append(a.Leaked, strings.ToLower(name))
		}
	}
	refuse := func(stage string, reason ai.Reason) *probe.Answer {
		a.Stage, a.Reason = stage, string(reason)
		return a
	}
	i := slices.IndexFunc(g.plan.KeyList, func(k *plan.Key) bool { return k.Name == token.As })
	switch {
	case r.URL.Path != chatPath:
		return refuse("inbound", ai.ReasonUnknownPath)
	case r.Header.Get("authorization") == "":
		return refuse("auth", ai.ReasonMissingKey)
	case i < 0:
		return refuse("auth", ai.ReasonInvalidKey)
	case r.ContentLength > g.plan.Bounds.MaxBodyBytes:
		return refuse("decode", ai.ReasonTooLarge)
	}
	body, _ := io.ReadAll(r.Body)
	if strings.Count(string(body), `"model"`) > 1 {
		return refuse("decode", ai.ReasonDuplicateKey)
	}
	var asked struct{ Model string }
	if err := json.Unmarshal(body, &asked); err != nil {
		g.t.Error(err)
	}
	for _, name := range []string{"auth", "decode", "route", "quota"} {
		a.Stages = append(a.Stages, probe.Stage{Name: name, Mode: g.plan.Mode(name).String(), Ran: g.plan.Mode(name) != plan.Off})
	}
	for _, l := range g.plan.Limits {
		if l.Applies(&g.plan.KeyList[i].Principal, asked.Model) {
			a.Limits = append(a.Limits, probe.Limit{Name: l.Name})
		}
	}
	a.Verdict = probe.Passed
	return a
}

// examine is what is found about a gateway, by policy, as "state: evidence".
func examine(t *testing.T, g *gateway, p *plan.Plan) map[string]string {
	t.Helper()
	server := httptest.NewServer(g)
	t.Cleanup(server.Close)
	got := map[string]string{}
	for _, f := range new(Examiner).Examine(t.Context(), p, Target{Proxy: "edge-1", Listener: "main", URL: server.URL}) {
		if _, twice := got[f.Policy]; twice {
			t.Errorf("%s is told twice", f.Policy)
		}
		if f.Proxy != "edge-1" || f.Listener != "main" || f.Evidence == "" {
			t.Errorf("%+v", f)
		}
		got[f.Policy] = string(f.State)
		if f.Chosen {
			got[f.Policy] += " chosen"
		}
		if f.State != InForce {
			got[f.Policy] += ": " + f.Evidence
		}
	}
	return got
}

var inForce = map[string]string{
	"decisions": "yes", "plan": "yes", "authentication": "yes", "api keys": "yes", "headers": "yes", "paths": "yes", "strict reading": "yes",
	"body size": "yes", "stage auth": "yes", "stage decode": "yes", "stage route": "yes", "stage quota": "yes", "limit all": "yes", "limit far-b": "yes",
}

func TestExamine(t *testing.T) {
	for name, tc := range map[string]struct {
		edit func(*gateway)
		want map[string]string // what differs; alone when it begins with decisions
	}{
		"all in force": {func(*gateway) {}, nil},
		"no weir":      {func(g *gateway) { g.open, g.status = true, 200 }, map[string]string{"decisions": "NO: a request without a key gets status 200, and weir was not asked"}},
		"another 401":  {func(g *gateway) { g.open, g.status = true, 401 }, map[string]string{"decisions": "NO: a request without a key gets status 401, and weir was not asked"}},
		"fails closed": {func(g *gateway) { g.open, g.status = true, 503 }, map[string]string{"decisions": "could not tell: nothing passes: a request without a key gets status 503, and not from weir"}},
		"a stranger's weir": {func(g *gateway) {
			g.body = func(w http.ResponseWriter) { w.Header().Set(ai.DecisionHeader, "x"); w.WriteHeader(401) }
		}, map[string]string{"decisions": "could not tell: a weir refuses there that does not know this one's probes: do they share key_hash_secret?"}},
		"an older plan": {func(g *gateway) { g.alter = func(a *probe.Answer) { a.Plan = "v0" } }, map[string]string{"plan": "NO: plan v0 decides there, and v1 is in force here"}},
		"headers leak":  {func(g *gateway) { g.leaks = []string{"x-vllm-priority"} }, map[string]string{"headers": `NO: a client can send ["x-vllm-priority"]`}},
		"any key opens": {func(g *gateway) {
			g.alter = func(a *probe.Answer) {
				if a.Reason == string(ai.ReasonInvalidKey) {
					a.Verdict, a.Reason = probe.Passed, ""
				}
			}
		}, map[string]string{"api keys": "NO: a wrong key is let through"}},
		"refused before": {func(g *gateway) {
			g.alter = func(a *probe.Answer) {
				if a.Reason == string(ai.ReasonMissingKey) {
					a.Stage, a.Reason = "network", string(ai.ReasonModelNotAllowed)
				}
			}
		}, map[string]string{"authentication": "could not tell: a request without a key is refused by stage network: model_not_allowed"}},
		"a stage is passed by": {func(g *gateway) {
			g.alter = func(a *probe.Answer) {
				if len(a.Stages) > 0 {
					a.Stages[2].Ran = false
				}
			}
		}, map[string]string{"stage route": "NO: a probe ran through all stages, and not through it"}},
		"a limit is passed by": {func(g *gateway) { g.alter = func(a *probe.Answer) { a.Limits = nil } },
			map[string]string{"limit all": "NO: a probe that it should count passed, and was not counted", "limit far-b": "NO: a probe that it should count passed, and was not counted"}},
		"used up": {func(g *gateway) {
			g.alter = func(a *probe.Answer) {
				if a.Verdict == probe.Passed {
					a.Verdict, a.Stage, a.Reason, a.Stages[2].Ran = probe.Refused, "quota", string(ai.ReasonLimitExceeded), false
				}
			}
		}, map[string]string{"stage route": "could not tell: no probe came that far: as key two, stage quota refused: limit_exceeded"}},
	} {
		t.Run(name, func(t *testing.T) {
			p := testPlan()
			g := &gateway{t: t, key: testKey, plan: p}
			tc.edit(g)
			want := map[string]string{}
			if _, alone := tc.want["decisions"]; !alone {
				for k, v := range inForce {
					want[k] = v
				}
			}
			for k, v := range tc.want {
				want[k] = v
			}
			if diff := cmp.Diff(want, examine(t, g, p)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// A stage that the configuration does not enforce is named, and its limits with it.
func TestExamineShadow(t *testing.T) {
	for mode, word := range map[plan.Mode]string{plan.Shadow: "shadow", plan.Off: "off"} {
		p := testPlan()
		p.Modes = map[string]plan.Mode{"quota": mode}
		got := examine(t, &gateway{t: t, key: testKey, plan: p}, p)
		for policy, want := range map[string]string{
			"stage quota": "NO chosen: the stage's mode is " + word, "limit all": "NO chosen: the mode of stage quota is " + word, "stage route": "yes",
		} {
			if got[policy] != want {
				t.Errorf("%s: %s, want %s", policy, got[policy], want)
			}
		}
	}
}

// A configuration whose keys are elsewhere, and one that cannot be reached.
func TestExamineWhatCannotBeTold(t *testing.T) {
	p := testPlan()
	p.KeyList, p.Limits = nil, nil
	got := examine(t, &gateway{t: t, key: testKey, plan: p}, p)
	if want := "could not tell: the configuration has no key that may call a model, for which a probe could stand"; got["every stage behind auth"] != want || got["api keys"] != "yes" {
		t.Errorf("%v", got)
	}
	f := new(Examiner).Examine(t.Context(), p, Target{Proxy: "p", Listener: "l", URL: "http://127.0.0.1:1"})
	if len(f) != 1 || f[0].Policy != Decisions || f[0].State != Unknown {
		t.Errorf("%+v", f)
	}
}

// A token goes to nobody who has not proved to be weir, and follows no redirection.
func TestTokensStay(t *testing.T) {
	var asked int
	thief := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		asked++
		if token, ok := testKey.Read(r.Header.Get(probe.Header), time.Now()); ok && token.As != "" {
			t.Error("the thief has a token that stands for a key")
		}
	}))
	defer thief.Close()
	there := httptest.NewServer(http.RedirectHandler(thief.URL, http.StatusTemporaryRedirect))
	defer there.Close()
	for _, url := range []string{thief.URL, there.URL} {
		if f := new(Examiner).Examine(t.Context(), testPlan(), Target{URL: url}); len(f) != 1 || f[0].State != NotInForce {
			t.Errorf("%+v", f)
		}
	}
	if asked != 1 {
		t.Errorf("the thief was asked %d times", asked)
	}
}

// A limit that only reports is not in force, whatever it counts.
func TestExamineReport(t *testing.T) {
	p := testPlan()
	p.Limits[0].OnBreach = plan.BreachReport
	got := examine(t, &gateway{t: t, key: testKey, plan: p}, p)
	if want := "NO chosen: it reports, and lets through"; got["limit all"] != want || got["limit far-b"] != "yes" {
		t.Errorf("%v", got)
	}
}

// A key that may chat now comes before one that may not; with that one alone its
// limits are not idle.
func TestCoverOfWhoMayChat(t *testing.T) {
	p := testPlan()
	never := []*plan.Role{{Name: "never", AllModels: true, Endpoints: []ai.Kind{ai.KindEmbedding}}}
	p.KeyList[1].Roles = never
	if c := cover(p, time.Unix(0, 0).UTC()); c.walks[0].key.Name != "two" {
		t.Errorf("%+v", c.walks[0].key)
	}
	p.KeyList[2].Roles = never
	if c := cover(p, time.Unix(0, 0).UTC()); len(c.walks) == 0 || c.walks[0].key.Name != "one" || len(c.idle) != 0 {
		t.Errorf("%+v", c)
	}
}

func TestIdle(t *testing.T) {
	if f := Idle(testPlan()); len(f) != 1 || f[0].Policy != "limit idle" || f[0].State != Unknown || f[0].Proxy != "" {
		t.Errorf("%+v", f)
	}
}

func TestReport(t *testing.T) {
	r := &Report{At: time.Unix(0, 0), Plan: "v1", Findings: []Finding{
		{Proxy: "p", Listener: "l", Policy: "plan", State: InForce, Evidence: "plan v1"},
		{Proxy: "p", Listener: "l", Policy: "stage quota", State: NotInForce, Evidence: "the stage's mode is\x1b[31m shadow", Chosen: true},
		{Policy: "configuration", State: Warning, Evidence: "w"},
	}}
	r.Sort()
	var out strings.Builder
	if err := r.WriteText(&out); err != nil {
		t.Fatal(err)
	}
	want := `PROXY  LISTENER  POLICY         IN FORCE         EVIDENCE
-      -         configuration  warning          w
p      l         stage quota    NO (configured)  the stage's mode is [31m shadow
p      l         plan           yes              plan v1

1 not in force, 0 could not be told, 1 in force, under plan v1, 1970-01-01T00:00:00Z.
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
	if r.State() != NotInForce || r.Findings[1].Wrong() {
		t.Error(r.State())
	}
	r.Findings[1].State = Unknown
	if r.State() != Unknown {
		t.Error(r.State())
	}
	r.Findings = r.Findings[:1]
	if r.State() != InForce {
		t.Error("a warning alone proves nothing")
	}
}
