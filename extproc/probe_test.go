package extproc_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/google/go-cmp/cmp"

	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
	"github.com/weirproxy/weir/internal/probe"
)

var probeKey = probe.KeyOf([]byte("the secret of the hashes"))

func probedPlan() *plan.Plan {
	p := withLimit(testPlan())
	p.Probe, p.Version = probeKey, "v1"
	return p
}

// marked makes a token, for the header of a probe.
func marked(as string) (probe.Nonce, string) {
	t := probe.Token{Nonce: probe.NewNonce(), At: time.Now(), As: as}
	return t.Nonce, probeKey.Mint(t)
}

// probe sends a probe and returns the status, and what weir signs of it. A probe
// must leave no trace and must be answered.
func (g *gateway) probe(t *testing.T, nonce probe.Nonce, h []*corev3.HeaderValue, body string) (int, *probe.Answer) {
	t.Helper()
	im := g.ask(t, h, body).GetImmediateResponse()
	if im == nil {
		t.Fatal("the probe was let through")
	}
	set := setHeaders(im.GetHeaders())
	a, err := probeKey.Open(nonce, set[probe.Header])
	if err != nil {
		t.Fatalf("%v: %v %s", err, set, im.GetBody())
	}
	if a.ID != set[ai.DecisionHeader] || !ai.IsProbeID(a.ID) || a.Plan != "v1" || im.GetDetails() != "weir" {
		t.Errorf("answer %+v, headers %v", a, set)
	}
	if n := len(g.journal.decisions); n != 0 || g.ledger.Held() != 0 {
		t.Errorf("%d decisions journalled, %d reservations held", n, g.ledger.Held())
	}
	return int(im.GetStatus().GetCode()), a
}

// A probe that stands for a key runs through every stage, sees that key's limits,
// and ends at weir.
func TestProbeThroughAllStages(t *testing.T) {
	g := start(t, probedPlan())
	nonce, token := marked("open")
	status, got := g.probe(t, nonce, post("/v1/chat/completions", "made-up", probe.Header, token, "x-weir-a", nonce.String(), "x-b", "fine"), chatBody)
	want := &probe.Answer{ID: got.ID, Plan: "v1", Verdict: probe.Passed, Limits: []probe.Limit{{Name: "few"}, {Name: "small"}}, Leaked: []string{"x-weir-a"}}
	for _, name := range []string{"auth", "network", "access", "models", "decode", "tokens", "quota", "route"} {
		want.Stages = append(want.Stages, probe.Stage{Name: name, Mode: "enforce", Ran: true})
	}
	if diff := cmp.Diff(want, got); diff != "" || status != 200 {
		t.Errorf("status %d (-want +got):\n%s", status, diff)
	}
	// However many there are, nothing is used up.
	for range 5 {
		nonce, token := marked("open")
		if _, a := g.probe(t, nonce, post("/v1/chat/completions", "made-up", probe.Header, token), chatBody); a.Verdict != probe.Passed {
			t.Fatalf("%+v", a)
		}
	}
}

// A probe is judged by what is used: who is over a limit is refused as a probe too.
func TestProbeOverALimit(t *testing.T) {
	g := start(t, probedPlan())
	for range 3 {
		g.ask(t, post("/v1/chat/completions", "sk-open"), `{"model":"chat","max_tokens":1,"messages":[]}`)
	}
	for _, d := range g.journal.wait(t, 3) {
		g.ledger.Settle(d.Id, nil)
	}
	g.journal.decisions = nil
	nonce, token := marked("open")
	status, a := g.probe(t, nonce, post("/v1/chat/completions", "made-up", probe.Header, token), chatBody)
	if status != 429 || a.Reason != "limit_exceeded" || a.Stage != "quota" || !slices.Contains(a.Limits, probe.Limit{Name: "few", Refused: true}) {
		t.Errorf("status %d: %+v", status, a)
	}
}

// A marked request is judged by what it carries.
func TestProbesThatAreRefused(t *testing.T) {
	p := probedPlan()
	p.Modes = map[string]plan.Mode{"quota": plan.Shadow}
	for name, tc := range map[string]struct {
		as     string
		h      []*corev3.HeaderValue
		body   string
		status int
		reason string
		stage  string
	}{
		"no key":                {"", hdr(":method", "POST", ":path", "/v1/chat/completions"), chatBody, 401, "missing_key", "auth"},
		"a wrong key":           {"", post("/v1/chat/completions", "made-up"), chatBody, 401, "invalid_key", "auth"},
		"a disabled key":        {"gone", post("/v1/chat/completions", "made-up"), chatBody, 401, "key_disabled", "auth"},
		"a key that is no more": {"nobody", post("/v1/chat/completions", "made-up"), chatBody, 401, "invalid_key", "auth"},
		"a key without a token": {"open", hdr(":method", "POST", ":path", "/v1/chat/completions"), chatBody, 401, "missing_key", "auth"},
		"no path":               {"", post("/v1/nothing", "made-up"), "", 404, "unknown_path", "inbound"},
		"a key twice in JSON":   {"open", post("/v1/chat/completions", "made-up"), `{"model":"chat","model":"away"}`, 400, "duplicate_key", "decode"},
		"too large":             {"open", post("/v1/chat/completions", "made-up", "content-length", "999999999"), chatBody, 413, "body_too_large", "decode"},
		"not a model of theirs": {"private", post("/v1/chat/completions", "made-up"), `{"model":"away","messages":[]}`, 404, "model_not_allowed", "route"},
	} {
		t.Run(name, func(t *testing.T) {
			g := start(t, p)
			nonce, token := marked(tc.as)
			h := append(tc.h, hdr(probe.Header, token)...)
			status, a := g.probe(t, nonce, h, tc.body)
			if status != tc.status || a.Verdict != probe.Refused || a.Reason != tc.reason || a.Stage != tc.stage {
				t.Errorf("status %d: %+v", status, a)
			}
			quota := slices.IndexFunc(a.Stages, func(s probe.Stage) bool { return s.Name == "quota" })
			if quota < 0 || a.Stages[quota].Mode != "shadow" {
				t.Errorf("the stages are %+v", a.Stages)
			}
		})
	}
}

// What is no token of this configuration's, of this minute and for the first time,
// is an ordinary header: the request is judged and journalled as ever, and the
// header goes to no backend.
func TestProbeTokensThatAreNone(t *testing.T) {
	g := start(t, probedPlan())
	_, used := marked("open")
	g.ask(t, post("/v1/chat/completions", "made-up", probe.Header, used), chatBody)
	old := probeKey.Mint(probe.Token{Nonce: probe.NewNonce(), At: time.Now().Add(-2 * probe.Validity), As: "open"})
	foreign := probe.KeyOf([]byte("the secret of others")).Mint(probe.Token{Nonce: probe.NewNonce(), At: time.Now(), As: "open"})
	_, once := marked("open")
	for name, h := range map[string][]*corev3.HeaderValue{
		"used":    hdr(probe.Header, used),
		"old":     hdr(probe.Header, old),
		"foreign": hdr(probe.Header, foreign),
		"garbage": hdr(probe.Header, strings.Repeat("A", 5000)),
		"empty":   hdr(probe.Header, ""),
		"twice":   hdr(probe.Header, once, probe.Header, once),
	} {
		t.Run(name, func(t *testing.T) {
			g.journal.decisions = nil
			_, set := g.refused(t, g.ask(t, append(post("/v1/chat/completions", "made-up"), h...), chatBody), ai.ReasonInvalidKey, "auth")
			if set[probe.Header] != "" || ai.IsProbeID(set[ai.DecisionHeader]) {
				t.Errorf("headers %v", set)
			}
		})
	}
	a := g.ask(t, post("/v1/chat/completions", "sk-open", probe.Header, foreign), chatBody)
	if removed := a.GetRequestBody().GetResponse().GetHeaderMutation().GetRemoveHeaders(); !slices.Contains(removed, probe.Header) {
		t.Errorf("removed headers %v", removed)
	}
}

// The configuration without a secret, as before the first plan, knows no probes.
func TestNoProbesWithoutAKey(t *testing.T) {
	g := start(t, withLimit(testPlan()))
	token := probe.Key{}.Mint(probe.Token{Nonce: probe.NewNonce(), At: time.Now(), As: "open"})
	g.refused(t, g.ask(t, post("/v1/chat/completions", "made-up", probe.Header, token), chatBody), ai.ReasonInvalidKey, "auth")
}
