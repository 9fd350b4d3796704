package envoytest_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// received is a request as a backend got it.
type received struct {
	Path, Host string
	Header     http.Header
	Length     int64
	Body       []byte
}

// backend records what it receives and answers by its handler.
type backend struct {
	Addr   string
	forget bool // record nothing

	mu     sync.Mutex
	got    []received
	answer http.HandlerFunc
}

func newBackend(t testing.TB, answer http.HandlerFunc) *backend {
	t.Helper()
	b := &backend{answer: answer}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Errorf("backend reads the body: %v", err)
		}
		b.mu.Lock()
		if !b.forget {
			b.got = append(b.got, received{r.RequestURI, r.Host, r.Header, r.ContentLength, body})
		}
		answer := b.answer
		b.mu.Unlock()
		answer(w, r)
	}))
	srv.Config.Protocols = new(http.Protocols)
	srv.Config.Protocols.SetHTTP1(true)
	srv.Config.Protocols.SetUnencryptedHTTP2(true)
	srv.Start()
	t.Cleanup(func() {
		srv.CloseClientConnections()
		srv.Close()
	})
	b.Addr = strings.TrimPrefix(srv.URL, "http://")
	return b
}

func (b *backend) requests() []received {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]received(nil), b.got...)
}

// answers changes how the backend answers from now on.
func (b *backend) answers(h http.HandlerFunc) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.answer = h
}

// stream answers with server-sent events, one write a piece.
func stream(pieces ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
		out := http.NewResponseController(w)
		w.WriteHeader(http.StatusOK)
		_ = out.Flush()
		for _, p := range pieces {
			if p == stall {
				<-r.Context().Done()
				return
			}
			time.Sleep(2 * time.Millisecond) // so that each is a chunk of its own
			_, _ = io.WriteString(w, p)
			_ = out.Flush()
		}
	}
}

// stall in a stream waits until the client is gone.
const stall = "\x00stall"

func status(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
}

func jsonAnswer(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, body)
	}
}

// answer is what a client got.
type answer struct {
	Status int
	Header http.Header
	Body   string
	Err    error // of reading the body
}

// post sends body; headers are name, value pairs.
func post(t testing.TB, url string, body []byte, headers ...string) answer {
	t.Helper()
	req, err := http.NewRequest(http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("content-type", "application/json")
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatalf("POST %s: %v", url, err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, string(got), err}
}
