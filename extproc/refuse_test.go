package extproc_test

import (
	"encoding/json"
	"strconv"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	pb "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"

	"github.com/weirproxy/weir/internal/ai"
)

func itoa(n int) string { return strconv.Itoa(n) }

// errorBody is an error in OpenAI's shape.
type errorBody struct {
	Error struct {
		Message string
		Type    string
		Param   *string
		Code    string
	}
}

// refused checks that the answer is this refusal, and that it says so
// everywhere: status, body, header, journal.
func (g *gateway) refused(t *testing.T, a *pb.ProcessingResponse, reason ai.Reason, stage string) (errorBody, map[string]string) {
	t.Helper()
	im := a.GetImmediateResponse()
	if im == nil {
		t.Fatalf("not refused: %v", a)
	}
	want := reason.Answer()
	var body errorBody
	if err := json.Unmarshal(im.GetBody(), &body); err != nil {
		t.Fatalf("body %q: %v", im.GetBody(), err)
	}
	if int(im.GetStatus().GetCode()) != want.Status || body.Error.Code != want.Code || body.Error.Type != want.Type || body.Error.Message == "" {
		t.Errorf("status %v, error %+v; want %+v", im.GetStatus(), body, want)
	}
	d, set := g.journal.only(t), setHeaders(im.GetHeaders())
	if set["content-type"] != "application/json" || set[ai.DecisionHeader] != d.Id || im.GetDetails() != "weir" {
		t.Errorf("headers %v, details %q", set, im.GetDetails())
	}
	if d.Verdict != "refused" || d.Reason != string(reason) || d.Stage != stage || int(d.Status) != want.Status {
		t.Errorf("decision %v, want reason %q at stage %q", d, reason, stage)
	}
	return body, set
}

func TestRefusedByHeaders(t *testing.T) {
	for _, tc := range []struct {
		name    string
		headers []*corev3.HeaderValue
		end     bool
		reason  ai.Reason
		stage   string
	}{
		{"unknown path", post("/v1/responses", "sk-open"), false, ai.ReasonUnknownPath, "inbound"},
		{"trailing slash", post("/v1/chat/completions/", "sk-open"), false, ai.ReasonUnknownPath, "inbound"},
		{"two slashes", post("//v1/chat/completions", "sk-open"), false, ai.ReasonUnknownPath, "inbound"},
		{"escaped path", post("/v1/chat%2fcompletions", "sk-open"), false, ai.ReasonUnknownPath, "inbound"},
		{"no path", hdr(":method", "POST"), false, ai.ReasonUnknownPath, "inbound"},
		{"two paths", hdr(":method", "POST", ":path", "/v1/embeddings", ":path", "/v1/models"), false, ai.ReasonUnknownPath, "inbound"},
		{"no headers", nil, true, ai.ReasonUnknownPath, "inbound"},
		{"wrong method", hdr(":method", "GET", ":path", "/v1/chat/completions"), true, ai.ReasonMethod, "inbound"},
		{"post to models", post("/v1/models", "sk-open"), false, ai.ReasonMethod, "inbound"},
		{"no key", hdr(":method", "POST", ":path", "/v1/chat/completions"), false, ai.ReasonMissingKey, "auth"},
		{"unknown key", post("/v1/chat/completions", "sk-wrong"), false, ai.ReasonInvalidKey, "auth"},
		{"empty key", post("/v1/chat/completions", ""), false, ai.ReasonInvalidKey, "auth"},
		{"other scheme", hdr(":method", "POST", ":path", "/v1/chat/completions", "authorization", "Basic sk-open"), false, ai.ReasonInvalidKey, "auth"},
		{"key in another header", hdr(":method", "POST", ":path", "/v1/chat/completions", "x-goog-api-key", "sk-open"), false, ai.ReasonMissingKey, "auth"},
		{"two keys", post("/v1/chat/completions", "sk-open", "authorization", "Bearer sk-private"), false, ai.ReasonAmbiguousCredential, "auth"},
		{"two keys in two headers", post("/v1/chat/completions", "sk-open", "x-api-key", "sk-private"), false, ai.ReasonAmbiguousCredential, "auth"},
		{"two keys in one", post("/v1/chat/completions", "sk-open, Bearer sk-open"), false, ai.ReasonInvalidKey, "auth"},
		{"disabled key", post("/v1/chat/completions", "sk-gone"), false, ai.ReasonKeyDisabled, "auth"},
		{"models without key", hdr(":method", "GET", ":path", "/v1/models"), true, ai.ReasonMissingKey, "auth"},
		{"compressed", post("/v1/chat/completions", "sk-open", "content-encoding", "gzip"), false, ai.ReasonEncodedBody, "decode"},
		{"announced too long", post("/v1/chat/completions", "sk-open", "content-length", "65537"), false, ai.ReasonTooLarge, "decode"},
		{"no body", post("/v1/chat/completions", "sk-open"), true, ai.ReasonEmptyBody, "decode"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			g := start(t, testPlan())
			answers, err := g.exchange(t, headersMessage(tc.headers, tc.end))
			if err != nil || len(answers) != 1 {
				t.Fatalf("%d answers, %v", len(answers), err)
			}
			g.refused(t, answers[0], tc.reason, tc.stage)
		})
	}
}

// What a client learns of a key that is disabled is what it learns of one that
// does not exist.
func TestKeysTellNothing(t *testing.T) {
	bodies := map[string]bool{}
	for _, token := range []string{"sk-wrong", "sk-gone", strings.Repeat("k", 9000), "\x00\xff"} {
		g := start(t, testPlan())
		im := g.ask(t, post("/v1/chat/completions", token), "").GetImmediateResponse()
		bodies[string(im.GetBody())] = true
		if strings.Contains(string(im.GetBody()), token) {
			t.Errorf("the answer repeats the key %q", token)
		}
	}
	if len(bodies) != 1 {
		t.Errorf("answers differ: %v", bodies)
	}
}

func TestRefusedByBody(t *testing.T) {
	for _, tc := range []struct {
		name, token, body string
		reason            ai.Reason
		stage, param      string
	}{
		{"not JSON", "sk-open", `hello`, ai.ReasonInvalidJSON, "decode", ""},
		{"two values", "sk-open", chatBody + chatBody, ai.ReasonInvalidJSON, "decode", ""},
		{"duplicate key", "sk-open", `{"model":"chat","model":"away","messages":[]}`, ai.ReasonDuplicateKey, "decode", ""},
		{"bad UTF-8", "sk-open", "{\"model\":\"\xff\",\"messages\":[]}", ai.ReasonInvalidUTF8, "decode", ""},
		{"deep", "sk-open", `{"model":"chat","messages":` + strings.Repeat("[", 70) + strings.Repeat("]", 70) + `}`, ai.ReasonTooDeep, "decode", ""},
		{"long", "sk-open", strings.Repeat(" ", 64<<10) + chatBody, ai.ReasonTooLarge, "decode", ""},
		{"no model", "sk-open", `{"messages":[{"role":"user","content":"x"}]}`, ai.ReasonInvalidField, "decode", "model"},
		{"unknown model", "sk-open", `{"model":"nope","messages":[{"role":"user","content":"x"}]}`, ai.ReasonUnknownModel, "route", "model"},
		{"model not allowed", "sk-private", `{"model":"away","messages":[{"role":"user","content":"x"}]}`, ai.ReasonModelNotAllowed, "route", "model"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			g := start(t, testPlan())
			body, _ := g.refused(t, g.ask(t, post("/v1/chat/completions", tc.token), tc.body), tc.reason, tc.stage)
			if got := body.Error.Param; tc.param == "" && got != nil || tc.param != "" && (got == nil || *got != tc.param) {
				t.Errorf("param %v, want %q", got, tc.param)
			}
			if d := g.journal.only(t); d.Key == "" || len(d.Targets) != 0 {
				t.Errorf("decision %v: want the caller and no targets", d)
			}
		})
	}
}

func TestRequestThatIsNotAccountedForIsRefused(t *testing.T) {
	g := start(t, withLimit(testPlan()))
	g.journal.fails = true
	for _, body := range []string{chatBody, "broken"} {
		im := g.ask(t, post("/v1/chat/completions", "sk-open"), body).GetImmediateResponse()
		if im.GetStatus().GetCode() != 503 || setHeaders(im.GetHeaders())["retry-after"] == "" {
			t.Errorf("answer %v", im)
		}
	}
	if n := g.ledger.Held(); n != 0 {
		t.Errorf("%d reservations held", n)
	}
}
