package simulate

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// start serves s on a free port for the length of the test.
func start(tb testing.TB, s *Server) (addr string) {
	tb.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Serve(ctx, ln) }()
	tb.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			tb.Error(err)
		}
	})
	return ln.Addr().String()
}

// serve asks the handler directly.
func serve(s *Server, method, path, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w
}

const hello = `{"model":"m","messages":[{"role":"user","content":"hello"}]}`

func TestTokenRule(t *testing.T) {
	for _, tc := range []struct {
		body string
		want int
	}{
		{hello, 4 + 2},
		{`{"messages":[{"role":"user","content":"\u00e4\n\u00e4"}]}`, 4 + 2},
		{`{"messages":[{"role":"user","name":"ann","content":""},{"role":"assistant","content":null}]}`, 8 + 1},
		{`{"messages":[{"role":"user","content":[{"type":"text","text":"abcd"},{"type":"input_audio","input_audio":{}}]}]}`, 4 + 1 + 256},
		{`{"messages":[{"role":"assistant","tool_calls":[{"function":{"name":"f","arguments":"{\"a\":1}"}}]}]}`, 4 + 2},
		{`{"messages":[{"role":"user","content":"x"}],"tools":[{"a":1}]}`, 4 + 1 + 3},
	} {
		got, ok := CountPrompt(tc.body)
		if !ok || got != tc.want {
			t.Errorf("%s: %d, %v, want %d", tc.body, got, ok, tc.want)
		}
		w := serve(New(Options{}), "POST", "/v1/chat/completions", tc.body)
		var res struct{ Usage struct{ Prompt_tokens int } }
		if err := json.Unmarshal(w.Body.Bytes(), &res); err != nil || res.Usage.Prompt_tokens != tc.want {
			t.Errorf("%s: answer %s: %v", tc.body, w.Body, err)
		}
		w = serve(New(Options{}), "POST", "/tokenize", tc.body)
		var tok struct {
			Count  int
			Tokens []int
		}
		if err := json.Unmarshal(w.Body.Bytes(), &tok); err != nil || tok.Count != tc.want || len(tok.Tokens) != tc.want {
			t.Errorf("%s: tokenize says %s: %v", tc.body, w.Body, err)
		}
	}
}

func TestDeterministic(t *testing.T) {
	content := func(body string) string {
		var res struct {
			Choices []struct{ Message struct{ Content string } }
		}
		w := serve(New(Options{}), "POST", "/v1/chat/completions", body)
		if err := json.Unmarshal(w.Body.Bytes(), &res); err != nil || len(res.Choices) == 0 {
			t.Fatalf("%s: %v", w.Body, err)
		}
		return res.Choices[0].Message.Content
	}
	a := content(hello)
	if b := content(strings.Replace(hello, `"m"`, `"other","temperature":1`, 1)); a != b {
		t.Errorf("the model's name changes the answer: %q, %q", a, b)
	}
	if b := content(strings.Replace(hello, "hello", "hallo", 1)); a == b {
		t.Errorf("two prompts have one answer: %q", a)
	}
	if b := content(strings.Replace(hello, `"m"`, `"m","seed":2`, 1)); a == b {
		t.Errorf("two seeds have one answer: %q", a)
	}
}

func TestBadRequests(t *testing.T) {
	chat := "/v1/chat/completions"
	message := `"messages":[{"role":"user","content":"x"}]`
	for _, tc := range []struct {
		path, body string
		want       int
	}{
		{chat, ``, 400},
		{chat, `[]`, 400},
		{chat, `{"messages":[{"role":"user","content":"` + "\xff" + `"}]}`, 400},
		{chat, `{` + message + `} {}`, 400},
		{chat, strings.Repeat("[", 2000), 400},
		{chat, strings.Repeat(`{"a":`, 2000) + "1" + strings.Repeat("}", 2000), 400},
		{chat, `{"messages":[{"role":"user","content":"` + strings.Repeat("[", 2000) + `"}]}`, 200},
		{chat, `{"messages":"x"}`, 400},
		{chat, `{"messages":["x"]}`, 400},
		{chat, `{"messages":[{"role":"nobody","content":"x"}]}`, 400},
		{chat, `{"messages":[{"role":"user","content":1}]}`, 400},
		{chat, `{"messages":[{"role":"user","content":[{"type":"odd"}]}]}`, 400},
		{chat, `{` + message + `,"stream":"yes"}`, 400},
		{chat, `{` + message + `,"n":0}`, 400},
		{chat, `{` + message + `,"n":129}`, 400},
		{chat, `{` + message + `,"max_tokens":1.5}`, 400},
		{chat, `{` + message + `,"temperature":3}`, 400},
		{chat, `{` + message + `,"top_p":0}`, 400},
		{chat, `{` + message + `,"tool_choice":"required"}`, 400},
		{chat, `{` + message + `,"tool_choice":{"type":"function"}}`, 400},
		{chat, `{` + message + `,"max_tokens":null,"stream":null,"n":null,"stream_options":null}`, 200},
		{"/v1/completions", `{"prompt":{}}`, 400},
		{"/v1/completions", `{"prompt":[[1,2],[3]],"max_tokens":2}`, 200},
		{"/v1/completions", `{"prompt":[` + strings.Repeat(`"x",`, 1024) + `"x"]}`, 400},
		{"/v1/embeddings", `{}`, 400},
		{"/v1/embeddings", `{"input":"x","dimensions":0}`, 400},
		{"/v1/embeddings", `{"input":"x","encoding_format":"int8"}`, 400},
		{"/v1/embeddings", `{"input":[1,2,3]}`, 200},
		{"/v1/none", `{}`, 404},
		{"/v1/models", `{}`, 405},
	} {
		w := serve(New(Options{}), "POST", tc.path, tc.body)
		if w.Code != tc.want || !json.Valid(w.Body.Bytes()) {
			t.Errorf("%s %.60s: %d %s, want %d", tc.path, tc.body, w.Code, w.Body, tc.want)
		}
	}
	r := httptest.NewRequest("POST", chat, strings.NewReader(hello))
	w := httptest.NewRecorder()
	if New(Options{}).ServeHTTP(w, r); w.Code != 415 {
		t.Errorf("without a content type: %d", w.Code)
	}
}

func TestEmbeddingFormats(t *testing.T) {
	s := New(Options{})
	var floats struct {
		Data []struct{ Embedding []float32 }
	}
	if err := json.Unmarshal(serve(s, "POST", "/v1/embeddings", `{"input":"x"}`).Body.Bytes(), &floats); err != nil {
		t.Fatal(err)
	}
	var text struct{ Data []struct{ Embedding string } }
	if err := json.Unmarshal(serve(s, "POST", "/v1/embeddings", `{"input":"x","encoding_format":"base64"}`).Body.Bytes(), &text); err != nil {
		t.Fatal(err)
	}
	raw, err := base64.StdEncoding.DecodeString(text.Data[0].Embedding)
	if err != nil {
		t.Fatal(err)
	}
	var got []float32
	for ; len(raw) >= 4; raw = raw[4:] {
		got = append(got, math.Float32frombits(binary.LittleEndian.Uint32(raw)))
	}
	if diff := cmp.Diff(floats.Data[0].Embedding, got); diff != "" || len(got) != embeddingDimensions {
		t.Errorf("base64 differs: %s", diff)
	}
}

func TestSideEndpoints(t *testing.T) {
	s := New(Options{Model: "m", Aliases: []string{"n"}})
	serve(s, "POST", "/v1/chat/completions", strings.Replace(hello, `"m"`, `"m","max_tokens":5`, 1))
	for _, tc := range []struct{ path, want string }{
		{"/health", ""},
		{"/ping", ""},
		{"/version", `{"version":"0.33.0"}`},
		{"/load", `{"server_load":0}`},
		{"/v1/models", `"id":"n"`},
		{"/metrics", `vllm:num_requests_running{engine="0",model_name="m"} 0`},
		{"/metrics", `vllm:num_requests_waiting{engine="0",model_name="m"} 0`},
		{"/metrics", `vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0`},
		{"/metrics", `vllm:prompt_tokens_total{engine="0",model_name="m"} 6`},
		{"/metrics", `vllm:generation_tokens_total{engine="0",model_name="m"} 5`},
		{"/metrics", `vllm:time_to_first_token_seconds_count{engine="0",model_name="m"} 1`},
		{"/metrics", `vllm:request_success_total{engine="0",finished_reason="length",model_name="m"} 1`},
	} {
		if w := serve(s, "GET", tc.path, ""); w.Code != 200 || !strings.Contains(w.Body.String(), tc.want) {
			t.Errorf("%s: %d %s, want %s", tc.path, w.Code, w.Body, tc.want)
		}
		if w := serve(New(Options{Profile: OpenAI}), "GET", tc.path, ""); tc.path != "/v1/models" && w.Code != 404 {
			t.Errorf("a provider answers %s with %d", tc.path, w.Code)
		}
	}
	if n := len(s.Requests()); n != 2 { // the chat and /v1/models
		t.Errorf("%d requests recorded", n)
	}
}

func TestBasePathAndOpenPaths(t *testing.T) {
	s := New(Options{BasePath: "/compatible-mode/v1/", APIKey: "k"})
	if w := serve(s, "POST", "/compatible-mode/v1/chat/completions", hello); w.Code != 401 || w.Body.String() != `{"error":"Unauthorized"}` {
		t.Errorf("chat: %d %s", w.Code, w.Body)
	}
	if w := serve(s, "POST", "/tokenize", hello); w.Code != 200 {
		t.Errorf("tokenize: %d %s", w.Code, w.Body)
	}
	if w := serve(s, "POST", "/v1/chat/completions", hello); w.Code != 404 {
		t.Errorf("another base path: %d %s", w.Code, w.Body)
	}
}

func TestOptions(t *testing.T) {
	for _, o := range []Options{{Profile: "odd"}, {BasePath: "v1"}, {PerToken: -1}} {
		if o.Validate() == nil {
			t.Errorf("%+v is accepted", o)
		}
	}
	if o := (Options{}); o.Validate() != nil {
		t.Error("the zero value is refused")
	}
}

// TestWire speaks HTTP/1.1 by hand.
func TestWire(t *testing.T) {
	post := "POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n"
	chunked := post + "Transfer-Encoding: chunked\r\n\r\n1e\r\n" + hello[:30] + "\r\n1e\r\n" + hello[30:60] + "\r\n0\r\n\r\n"
	if len(hello) != 60 {
		t.Fatalf("%d bytes", len(hello))
	}
	for _, tc := range []struct {
		name, request string
		want          []int
	}{
		{"pipelined", strings.Repeat(post+"Content-Length: 60\r\n\r\n"+hello, 3), []int{200, 200, 200}},
		{"chunked, then another", chunked + "GET /health HTTP/1.1\r\nHost: h\r\n\r\n", []int{200, 200}},
		{"expects 100", post + "Expect: 100-continue\r\nContent-Length: 60\r\n\r\n" + hello, []int{100, 200}},
		{"bad chunk", post + "Transfer-Encoding: chunked\r\n\r\nzz\r\n", []int{400}},
		{"not HTTP", "hello\r\n\r\n", []int{400}},
		{"no host", "GET /health HTTP/1.1\r\n\r\n", []int{400}},
		{"two lengths", post + "Content-Length: 60\r\nContent-Length: 61\r\n\r\n" + hello, []int{400}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			conn, err := net.Dial("tcp", start(t, New(Options{})))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := io.WriteString(conn, tc.request); err != nil {
				t.Fatal(err)
			}
			br := bufio.NewReader(conn)
			for i, want := range tc.want {
				res, err := http.ReadResponse(br, nil)
				if err != nil || res.StatusCode != want {
					t.Fatalf("answer %d: %v, %v, want %d", i, res, err, want)
				}
				if _, err := io.Copy(io.Discard, res.Body); err != nil {
					t.Fatalf("answer %d: %v", i, err)
				}
			}
		})
	}
	if res, err := http.Head("http://" + start(t, New(Options{})) + "/health"); err != nil || res.StatusCode != 200 {
		t.Errorf("HEAD: %v, %v", res, err)
	}
}

func FuzzBody(f *testing.F) {
	f.Add("/v1/chat/completions", hello)
	f.Add("/v1/chat/completions", `{"messages":[{"role":"user","content":[{"type":"text","text":"\ud800"}]}],"stream":true,"n":2,"stream_options":{"include_usage":true,"continuous_usage_stats":true}}`)
	f.Add("/v1/chat/completions", `{"messages":[{"role":"user"}],"tools":[{"function":{"name":"f","parameters":{"properties":{"a":{"type":"string"}}}}}],"tool_choice":"required"}`)
	f.Add("/v1/completions", `{"prompt":[[1],"x"],"max_tokens":3}`)
	f.Add("/v1/embeddings", `{"input":["x",[2]],"dimensions":3}`)
	f.Add("/tokenize", `{"prompt":"x"}`)
	f.Add("/_control", `{"faults":[{"status":503,"match":{"model":"m","times":1}}]}`)
	s := New(Options{MaxModelLen: 64, Record: 2, RecordBody: 8})
	f.Fuzz(func(t *testing.T, path, body string) {
		if path == "" || path[0] != '/' || strings.ContainsAny(path, " %?#") || !isPrint(path) {
			path = "/v1/chat/completions"
		}
		if path == "/_control" {
			s = New(Options{MaxModelLen: 64})
			serve(s, "POST", path, body)
			_ = s.SetFaults() // what it orders may take for ever
			return
		}
		w := serve(s, "POST", path, body)
		if w.Code >= 500 {
			t.Fatalf("%d: %s", w.Code, w.Body)
		}
		if !strings.HasPrefix(w.Header().Get("Content-Type"), "text/event-stream") {
			if !json.Valid(w.Body.Bytes()) && w.Code == 200 && path != "/health" && path != "/metrics" {
				t.Fatalf("not JSON: %s", w.Body)
			}
			return
		}
		for event := range bytes.SplitSeq(bytes.TrimSuffix(w.Body.Bytes(), []byte("data: [DONE]\n\n")), []byte("\n\n")) {
			if data, ok := bytes.CutPrefix(event, []byte("data: ")); len(event) > 0 && (!ok || !json.Valid(data)) {
				t.Fatalf("not an event: %s", event)
			}
		}
	})
}

func isPrint(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) < 0
}
