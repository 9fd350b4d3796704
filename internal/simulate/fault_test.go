package simulate

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// post sends body and reads what comes, also when it breaks off.
func post(t *testing.T, url, body string) (*http.Response, string, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "POST", url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, "", err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	return res, string(text), err
}

const streamed = `{"model":"m","stream":true,"stream_options":{"include_usage":true},"messages":[{"role":"user","content":"hello"}]}`

func order(t *testing.T, base, faults string) {
	t.Helper()
	res, text, err := post(t, base+"/_control", faults)
	if err != nil || res.StatusCode != http.StatusNoContent {
		t.Fatalf("control: %v %s %v", res, text, err)
	}
}

func TestFaults(t *testing.T) {
	const chunks = 20
	for _, tc := range []struct {
		fault  string
		body   string
		status int // 0: no answer
		events int // content events that arrive
		broken bool
		want   []string // in the text
		not    []string
		record Outcome
	}{
		{`{"status":503,"headers":{"retry-after":"1"}}`, hello, 503, 0, false, []string{"ServiceUnavailableError"}, nil, Completed},
		{`{"status":429,"body":"{\"x\":1}"}`, streamed, 429, 0, false, []string{`{"x":1}`}, nil, Completed},
		{`{"reset":true}`, hello, 0, 0, true, nil, nil, Cut},
		{`{"delay_ms":1,"stall_before_headers_ms":1,"stall_first_token_ms":1}`, hello, 200, 0, false, []string{`"usage"`}, nil, Completed},
		{`{"stall_first_token_ms":1,"chunk_delay_ms":1,"chunks":20}`, streamed, 200, chunks, false, []string{"[DONE]"}, nil, Completed},
		{`{"cut_after_chunks":0}`, streamed, 200, 0, true, []string{"assistant"}, []string{"[DONE]"}, Cut},
		{`{"cut_after_chunks":3}`, streamed, 200, 3, true, nil, []string{"[DONE]"}, Cut},
		{`{"chunks":20,"cut_after_chunks":20}`, streamed, 200, chunks, true, nil, []string{"[DONE]"}, Cut},
		{`{"cut_after_chunks":1}`, hello, 200, 0, true, []string{`{"id"`}, []string{"usage"}, Cut},
		{`{"error_after_chunks":2}`, streamed, 200, 2, false, []string{`{"error":`, "[DONE]"}, []string{`"stop"`}, Completed},
		{`{"chunks":20,"usage":"missing"}`, streamed, 200, chunks, false, []string{"[DONE]"}, []string{`"usage"`}, Completed},
		{`{"usage":"missing"}`, hello, 200, 0, false, []string{`"stop"`}, []string{`"usage"`}, Completed},
		{`{"chunks":20,"usage":"wrong"}`, hello, 200, 0, false, []string{`"prompt_tokens":1012,`, `"completion_tokens":1040,`}, nil, Completed},
		{`{"usage":"zero"}`, hello, 200, 0, false, []string{`"total_tokens":0,`}, nil, Completed},
		{`{"usage":"null"}`, hello, 200, 0, false, []string{`"usage":null}`}, nil, Completed},
		{`{"usage_body":{"prompt_tokens":3,"x":[1]}}`, hello, 200, 0, false, []string{`"usage":{"prompt_tokens":3,"x":[1]}`}, nil, Completed},
		{`{"usage":"cached"}`, hello, 200, 0, false, []string{`"prompt_tokens_details":{"cached_tokens":3}`}, nil, Completed},
		{`{"chunks":20,"usage":"reasoning"}`, hello, 200, 0, false, []string{`"completion_tokens_details":{"reasoning_tokens":10}`}, nil, Completed},
		{`{"chunks":20,"no_done":true}`, streamed, 200, chunks, false, []string{`"usage"`}, []string{"[DONE]"}, Completed},
		{`{"garbage":"{not json"}`, hello, 200, 0, false, []string{"{not json"}, []string{"usage"}, Completed},
		{`{"chunks":20,"garbage":"{not json"}`, streamed, 200, chunks - 1, false, []string{"data: {not json\n\n"}, nil, Completed},
		{`{"chunks":20,"coalesce":true}`, streamed, 200, chunks, false, []string{"[DONE]"}, nil, Completed},
		{`{"chunks":20,"split_bytes":7}`, streamed, 200, chunks, false, []string{"[DONE]"}, nil, Completed},
		{`{"chunks":20,"comments":true}`, streamed, 200, chunks, false, []string{": keep-alive\n\ndata: [DONE]\n\n"}, nil, Completed},
		{`{"chunks":20,"crlf":true}`, streamed, 200, chunks, false, []string{"data: [DONE]\r\n\r\n"}, nil, Completed},
	} {
		t.Run(tc.fault, func(t *testing.T) {
			s := New(Options{})
			base := "http://" + start(t, s)
			order(t, base, `{"faults":[`+tc.fault+`]}`)
			res, text, err := post(t, base+"/v1/chat/completions", tc.body)
			if (err != nil) != tc.broken || (res == nil) != (tc.status == 0) || res != nil && res.StatusCode != tc.status {
				t.Fatalf("%v, %v, want %d", res, err, tc.status)
			}
			if got := strings.Count(text, `"delta":{"content":"`); got != tc.events {
				t.Errorf("%d content events, want %d: %s", got, tc.events, text)
			}
			for _, want := range tc.want {
				if !strings.Contains(text, want) {
					t.Errorf("%q is missing in %s", want, text)
				}
			}
			for _, not := range tc.not {
				if strings.Contains(text, not) {
					t.Errorf("%q is in %s", not, text)
				}
			}
			list, err := s.Wait(t.Context(), Ended(1))
			if err != nil || list[0].Outcome != tc.record || list[0].Status != tc.status {
				t.Errorf("recorded %+v, %v", list, err)
			}
			if tc.status == 503 && res.Header.Get("Retry-After") != "1" {
				t.Errorf("headers %v", res.Header)
			}
		})
	}
}

func TestResetIsAReset(t *testing.T) {
	s := New(Options{})
	base := "http://" + start(t, s)
	order(t, base, `{"faults":[{"reset":true,"cut_after_chunks":2,"match":{"times":1}}]}`)
	if _, _, err := post(t, base+"/v1/chat/completions", streamed); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%v, want a reset", err)
	}
}

func TestFaultsThatOnlyChangeTheBytes(t *testing.T) {
	s := New(Options{})
	base := "http://" + start(t, s)
	contents := func() (list []string) {
		_, text, err := post(t, base+"/v1/chat/completions", streamed)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.SplitSeq(strings.ReplaceAll(text, "\r", ""), "\n") {
			if _, after, ok := strings.Cut(line, `"choices":`); ok {
				list = append(list, after)
			}
		}
		return list
	}
	want := contents()
	for _, fault := range []string{`"coalesce":true`, `"split_bytes":1`, `"crlf":true,"comments":true,"split_bytes":3`} {
		order(t, base, `{"faults":[{`+fault+`}]}`)
		if diff := cmp.Diff(want, contents()); diff != "" {
			t.Errorf("%s: %s", fault, diff)
		}
	}
}

func TestMatch(t *testing.T) {
	s := New(Options{})
	ask := func(body string) int { return serve(s, "POST", "/v1/chat/completions", body).Code }
	other := strings.Replace(hello, `"m"`, `"o"`, 1)
	for _, tc := range []struct {
		match string
		want  []int // statuses of hello, other, hello, other
	}{
		{`{}`, []int{503, 503, 503, 503}},
		{`{"times":1}`, []int{503, 200, 200, 200}},
		{`{"nth":2}`, []int{200, 503, 200, 200}},
		{`{"model":"o"}`, []int{200, 503, 200, 503}},
		{`{"model":"o","nth":2}`, []int{200, 200, 200, 503}},
		{`{"body_contains":"\"o\""}`, []int{200, 503, 200, 503}},
		{`{"path":"/v1/completions"}`, []int{200, 200, 200, 200}},
		{`{"header":{"content-type":"application/json"}}`, []int{503, 503, 503, 503}},
		{`{"header":{"x-other":"1"}}`, []int{200, 200, 200, 200}},
	} {
		if w := serve(s, "POST", "/_control", `{"faults":[{"status":503,"match":`+tc.match+`}]}`); w.Code != 204 {
			t.Fatalf("%s: %s", tc.match, w.Body)
		}
		got := []int{ask(hello), ask(other), ask(hello), ask(other)}
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("%s: %s", tc.match, diff)
		}
	}
	var state struct{ Faults []faultState }
	if err := json.Unmarshal(serve(s, "GET", "/_control", "").Body.Bytes(), &state); err != nil || len(state.Faults) != 1 {
		t.Errorf("%+v, %v", state, err)
	}
	if serve(s, "DELETE", "/_control", ""); s.faults.some.Load() {
		t.Error("faults after DELETE")
	}
}

func TestControlRefuses(t *testing.T) {
	s := New(Options{})
	for _, body := range []string{
		`{"faults":[{"statu":503}]}`, `{"faults":[{"status":99}]}`, `{"faults":[{"usage":"odd"}]}`, `{"faults":[{"chunks":-1}]}`,
		`{"faults":[{"cut_after_chunks":-1}]}`, `nothing`,
	} {
		if w := serve(s, "POST", "/_control", body); w.Code != 400 {
			t.Errorf("%s: %d", body, w.Code)
		}
	}
	if w := serve(s, "PUT", "/_control", ""); w.Code != 405 {
		t.Errorf("PUT: %d", w.Code)
	}
}

func TestRecords(t *testing.T) {
	now := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	s := New(Options{Record: 2, RecordBody: 10, Now: func() time.Time { return now }})
	base := "http://" + start(t, s)
	for range 2 {
		if _, _, err := post(t, base+"/v1/none", "x"); err != nil {
			t.Fatal(err)
		}
	}
	body := strings.Replace(streamed, `"m"`, `"m","max_tokens":7`, 1)
	req, _ := http.NewRequestWithContext(t.Context(), "POST", base+"/v1/chat/completions?q=1", strings.NewReader(body))
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer secret")
	req.Header.Set("X-Envoy-Attempt-Count", "2")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, res.Body)
	list, err := s.Wait(t.Context(), Ended(2))
	if err != nil || len(list) != 2 || list[0].Seq != 2 || list[0].Status != 404 {
		t.Fatalf("%+v, %v", list, err)
	}
	got := list[1]
	if got.Headers.Get("Authorization") != "Bearer secret" {
		t.Errorf("headers %v", got.Headers)
	}
	got.Headers = nil
	want := Request{
		Seq: 3, Time: now, Method: "POST", Path: "/v1/chat/completions?q=1", Host: strings.TrimPrefix(base, "http://"),
		Body: body[:10], BodyBytes: len(body), Attempt: 2,
		Status: 200, Outcome: Completed, Chunks: 7, PromptTokens: 6, CompletionTokens: 7,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	var over struct {
		Requests []Request
		Served   int64
	}
	if err := json.Unmarshal(serve(s, "GET", "/_requests", "").Body.Bytes(), &over); err != nil || len(over.Requests) != 2 || over.Served != 1 {
		t.Errorf("%+v, %v", over, err)
	}
	if serve(s, "DELETE", "/_requests", ""); len(s.Requests()) != 0 {
		t.Errorf("%d records after DELETE", len(s.Requests()))
	}
}

// TestClientGone leaves at each place where the server waits.
func TestClientGone(t *testing.T) {
	for _, tc := range []struct{ fault, body string }{
		{`{"delay_ms":-1}`, hello},
		{`{"status":503,"stall_before_headers_ms":-1}`, hello},
		{`{"stall_before_headers_ms":-1}`, hello},
		{`{"chunk_delay_ms":-1}`, hello},
		{`{"stall_first_token_ms":-1}`, hello},
		{`{"stall_before_headers_ms":-1}`, streamed},
		{`{"stall_first_token_ms":-1}`, streamed},
		{`{"chunk_delay_ms":-1}`, streamed},
	} {
		t.Run(tc.fault, func(t *testing.T) {
			s := New(Options{})
			base := "http://" + start(t, s)
			order(t, base, `{"faults":[`+tc.fault+`]}`)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			req, _ := http.NewRequestWithContext(ctx, "POST", base+"/v1/chat/completions", strings.NewReader(tc.body))
			req.Header.Set("Content-Type", "application/json")
			go func() {
				if res, err := http.DefaultClient.Do(req); err == nil {
					_, _ = io.Copy(io.Discard, res.Body)
					res.Body.Close()
				}
			}()
			arrived := func(list []Request) bool { return len(list) == 1 && list[0].BodyBytes > 0 }
			if _, err := s.Wait(t.Context(), arrived); err != nil {
				t.Fatal(err)
			}
			cancel()
			list, err := s.Wait(t.Context(), Ended(1))
			if err != nil || list[0].Outcome != Aborted {
				t.Errorf("%+v, %v", list, err)
			}
			if s.Served() != 0 {
				t.Errorf("served %d", s.Served())
			}
		})
	}
}

func TestPacing(t *testing.T) {
	s := New(Options{FirstToken: 20 * time.Millisecond, PerToken: 5 * time.Millisecond})
	base := "http://" + start(t, s)
	for _, body := range []string{hello, streamed} {
		begin := time.Now()
		_, text, err := post(t, base+"/v1/chat/completions", strings.Replace(body, `"m"`, `"m","max_tokens":5`, 1))
		if took := time.Since(begin); err != nil || took < 40*time.Millisecond {
			t.Errorf("took %v: %s, %v", took, text, err)
		}
	}
}

func TestBodyBufferIsNotShared(t *testing.T) {
	s := New(Options{})
	first := serve(s, "POST", "/v1/chat/completions", hello).Body.Bytes()
	kept := bytes.Clone(first)
	serve(s, "POST", "/v1/chat/completions", strings.ToUpper(streamed))
	serve(s, "POST", "/v1/chat/completions", strings.Replace(hello, "hello", "goodbye", 1))
	if !bytes.Equal(first, kept) || s.Requests()[0].Body != hello {
		t.Errorf("%s\n%s\n%s", first, kept, s.Requests()[0].Body)
	}
}
