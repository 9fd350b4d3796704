package simulate

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Outcome is how a request ended.
type Outcome string

// The outcomes.
const (
	Open      Outcome = "open"      // it has not ended
	Completed Outcome = "completed" // answered to the end, errors included
	Aborted   Outcome = "aborted"   // the client went
	Cut       Outcome = "cut"       // a fault closed the connection
)

// Request is a record of one request and of what it got.
type Request struct {
	Seq     int64       `json:"seq"` // from 1, in the order of arrival
	Time    time.Time   `json:"time"`
	Method  string      `json:"method"`
	Path    string      `json:"path"` // with the query
	Host    string      `json:"host"`
	Headers http.Header `json:"headers"`
	// The body's beginning, as far as it is kept, and its whole length in bytes.
	Body      string `json:"body"`
	BodyBytes int    `json:"body_bytes"`
	// x-envoy-attempt-count; 0 when the header is absent.
	Attempt int `json:"attempt"`

	Status  int     `json:"status"` // 0: no headers were sent
	Outcome Outcome `json:"outcome"`
	// Content events sent, each a token; a JSON answer counts its tokens.
	Chunks int `json:"chunks"`
	// Tokens by this package's rule, whatever a fault made the answer say.
	PromptTokens     int `json:"prompt_tokens"`
	CompletionTokens int `json:"completion_tokens"`
	// Of the prompt, what the prefix cache had.
	CachedTokens int `json:"cached_tokens"`
}

// recorder keeps the newest requests in a ring.
type recorder struct {
	size, bodyBytes int // size is 0 when nothing is kept

	mu      sync.Mutex
	ring    []*Request
	total   int64
	cleared int64         // records up to this one were deleted
	changed chan struct{} // closed at the next change; nil when nobody waits
}

func (l *recorder) init(size, bodyBytes int) {
	l.size, l.bodyBytes = max(size, 0), bodyBytes
	l.ring = make([]*Request, l.size)
}

// begin records a request. It returns nil when nothing is recorded.
func (l *recorder) begin(r *http.Request, now time.Time) *Request {
	if l.size == 0 {
		return nil
	}
	attempt, _ := strconv.Atoi(r.Header.Get("X-Envoy-Attempt-Count"))
	rec := &Request{
		Time: now, Method: r.Method, Path: r.URL.RequestURI(), Host: r.Host, Headers: r.Header,
		Attempt: attempt, Outcome: Open,
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total++
	rec.Seq = l.total
	l.ring[(rec.Seq-1)%int64(l.size)] = rec
	l.announce()
	return rec
}

// update changes a record; rec may be nil.
func (l *recorder) update(rec *Request, change func(*Request)) {
	if rec == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	change(rec)
	l.announce()
}

// setBody keeps the beginning of the body.
func (l *recorder) setBody(rec *Request, body string) {
	text := body
	if len(body) > l.bodyBytes {
		text = strings.Clone(body[:l.bodyBytes])
	}
	l.update(rec, func(r *Request) { r.Body, r.BodyBytes = text, len(body) })
}

func (l *recorder) announce() {
	if l.changed != nil {
		close(l.changed)
		l.changed = nil
	}
}

// snapshot copies the records, oldest first, and returns the channel that is
// closed at the next change.
func (l *recorder) snapshot(watch bool) ([]Request, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	first := max(l.cleared, l.total-int64(l.size))
	list := make([]Request, 0, l.total-first)
	for seq := first; seq < l.total; seq++ {
		list = append(list, *l.ring[seq%int64(l.size)])
	}
	if watch && l.changed == nil {
		l.changed = make(chan struct{})
	}
	return list, l.changed
}

// Requests copies the records that are kept, oldest first. The headers are
// shared: do not change them.
func (s *Server) Requests() []Request {
	list, _ := s.log.snapshot(false)
	return list
}

// ClearRequests deletes the records. Numbers go on.
func (s *Server) ClearRequests() {
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	s.log.cleared = s.log.total
	s.log.announce()
}

// Wait returns the records as soon as cond holds for them. cond is asked at
// each change.
func (s *Server) Wait(ctx context.Context, cond func([]Request) bool) ([]Request, error) {
	for {
		list, changed := s.log.snapshot(true)
		if cond(list) {
			return list, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return list, ctx.Err()
		}
	}
}

// Ended is a condition for Wait: n requests have ended, or more.
func Ended(n int) func([]Request) bool {
	return func(list []Request) bool {
		ended := 0
		for i := range list {
			if list[i].Outcome != Open {
				ended++
			}
		}
		return ended >= n
	}
}

// requests is /_requests: GET lists the records, DELETE deletes them.
func (s *Server) requests(w http.ResponseWriter, r *http.Request) {
	switch r.Method {
	case http.MethodGet:
		list := s.Requests()
		var text bytes.Buffer
		enc := json.NewEncoder(&text)
		enc.SetEscapeHTML(false)
		err := enc.Encode(map[string]any{"requests": list, "served": s.Served()})
		writeJSON(w, text.Bytes(), err)
	case http.MethodDelete:
		s.ClearRequests()
		w.WriteHeader(http.StatusNoContent)
	default:
		http.Error(w, "want GET or DELETE", http.StatusMethodNotAllowed)
	}
}
