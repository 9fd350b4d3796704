package xds_test

import (
	"encoding/json"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
)

// openAIError reads an error in OpenAI's shape, and nothing else.
func openAIError(t *testing.T, a answer) (kind, code string) {
	t.Helper()
	var e struct {
		Error struct {
			Message string  `json:"message"`
			Type    string  `json:"type"`
			Param   *string `json:"param"`
			Code    string  `json:"code"`
		} `json:"error"`
	}
	if err := json.Unmarshal([]byte(a.body), &e); err != nil {
		t.Fatalf("status %d, body %q: %v", a.status, a.body, err)
	}
	if e.Error.Message == "" || !strings.Contains(a.body, `"param":null`) {
		t.Errorf("body %q: no message, or no param", a.body)
	}
	if got := a.header.Get("content-type"); got != "application/json" {
		t.Errorf("content-type %q", got)
	}
	return e.Error.Type, e.Error.Code
}

// TestLocalReplies: what Envoy answers itself has OpenAI's shape; what weir or a
// backend answers is left as it is.
func TestLocalReplies(t *testing.T) {
	t.Parallel()
	ok := startBackend(t, answering(200, `{"ok":true}`))
	busy := startBackend(t, answering(503, `a backend's own words`))
	slow := startBackend(t, stalling)
	p := planOf(pool("ok", ok.endpoint(t)), pool("busy", busy.endpoint(t)), pool("slow", slow.endpoint(t)),
		pool("refused", refusedEndpoint(t)), pool("unknown-name", plan.Endpoint{Host: "nowhere.invalid", Port: 80}))
	p.Bounds.MaxBodyBytes = 2 << 20
	r := startRig(t, p, false)

	to := func(pools ...string) decision { return decision{id: "d1", targets: pools, retries: -1} }
	hasty := to("slow")
	hasty.perTry = 100 * time.Millisecond
	for _, c := range []struct {
		name     string
		decision decision
		body     string
		status   int
		kind     string
		code     string
	}{
		{"connection refused", to("refused"), "{}", 503, "server_error", "service_unavailable"},
		{"name does not resolve", to("unknown-name"), "{}", 503, "server_error", "service_unavailable"},
		{"no such cluster", to("absent"), "{}", 503, "server_error", "service_unavailable"},
		{"no targets", to(), "{}", 503, "server_error", "service_unavailable"},
		{"attempt too slow", hasty, "{}", 504, "server_error", "upstream_timeout"},
		{"body too large", to("ok"), strings.Repeat("x", 3<<20), 413, "invalid_request_error", "request_too_large"},
		{"weir hangs", decision{hang: true}, "{}", 503, "server_error", "service_unavailable"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r.ext.set(func(map[string]string, []byte) decision { return c.decision })
			a := r.post(c.body)
			kind, code := openAIError(t, a)
			got := []any{a.status, kind, code}
			if diff := cmp.Diff([]any{c.status, c.kind, c.code}, got); diff != "" {
				t.Errorf("-want +got:\n%s%s", diff, a.body)
			}
		})
	}

	t.Run("malformed path", func(t *testing.T) {
		if kind, code := openAIError(t, r.do("GET", "/v1%2fmodels", "")); kind+code != "invalid_request_errorbad_request" {
			t.Error(kind, code)
		}
	})
	t.Run("weir's own", func(t *testing.T) {
		r.ext.set(func(map[string]string, []byte) decision {
			return decision{id: "mine", refuse: 429, reply: `{"error":"in weir's words"}`}
		})
		a := r.post("{}")
		if a.status != 429 || a.body != `{"error":"in weir's words"}` || a.header.Get("retry-after") != "7" ||
			a.header.Get(ai.DecisionHeader) != "mine" || a.header.Get("content-type") != "application/json" {
			t.Errorf("%+v", a)
		}
		// The decision's metadata reaches the access log even so.
		if line := r.logLine(`"id":"mine"`); !strings.Contains(line, `"details":"weir"`) || !strings.Contains(line, `"rid":"mine"`) {
			t.Error(line)
		}
	})
	t.Run("a backend's own", func(t *testing.T) {
		r.ext.to("busy")
		if a := r.post("{}"); a.status != 503 || a.body != "a backend's own words" {
			t.Errorf("%+v", a)
		}
	})
	t.Run("other paths and methods ask weir without a body", func(t *testing.T) {
		if a := r.do("GET", "/v1/chat/completions", ""); a.status != 404 || !strings.Contains(a.body, "unknown_url") {
			t.Errorf("%+v", a)
		}
	})
	t.Run("weir is down", func(t *testing.T) {
		r.extSrv.Stop()
		a := r.post("{}")
		if kind, code := openAIError(t, a); a.status != 503 || kind+code != "server_errorservice_unavailable" {
			t.Errorf("%+v", a)
		}
		r.startExtProc()
		r.ext.to("ok")
		deadline := time.Now().Add(5 * time.Second)
		for r.post("{}").status != 200 {
			if time.Now().After(deadline) {
				t.Fatal("no answer after weir came back")
			}
			time.Sleep(50 * time.Millisecond)
		}
	})
}

// refusedEndpoint is an address where nobody listens.
func refusedEndpoint(t *testing.T) plan.Endpoint {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return plan.Endpoint{Host: "127.0.0.1", Port: uint32(l.Addr().(*net.TCPAddr).Port), Weight: 1}
}
