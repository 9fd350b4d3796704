package simulate

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Fault says how requests are to be answered that Match selects. The fields
// that are set apply together; times are in milliseconds, and a negative one
// lasts until the client goes.
type Fault struct {
	Match Match `json:"match"`

	// Answer with this status instead of the model's answer, with Body, or with
	// an error in the profile's shape when Body is empty.
	Status int    `json:"status,omitempty"`
	Body   string `json:"body,omitempty"`
	// Headers of the answer, whichever it is.
	Headers map[string]string `json:"headers,omitempty"`

	// Wait before the request is looked at: a busy server.
	DelayMS int `json:"delay_ms,omitempty"`
	// Wait before the response headers, with the answer ready.
	StallBeforeHeadersMS int `json:"stall_before_headers_ms,omitempty"`
	// Send the headers and the event with the role, then wait. An answer that is
	// not streamed waits between its headers and its body.
	StallFirstTokenMS int `json:"stall_first_token_ms,omitempty"`
	// The time between two content events.
	ChunkDelayMS int `json:"chunk_delay_ms,omitempty"`

	// Content tokens of the answer, instead of what the rule gives.
	Chunks int `json:"chunks,omitempty"`
	// Close the connection after so many content events; 0 is after the headers.
	// An answer that is not streamed is cut in its middle.
	CutAfterChunks *int `json:"cut_after_chunks,omitempty"`
	// Reset the connection: at once, or with CutAfterChunks where it cuts.
	Reset bool `json:"reset,omitempty"`
	// End the stream well after so many content events, without saying why.
	EndAfterChunks *int `json:"end_after_chunks,omitempty"`
	// Send an error event after so many content events, and end the stream.
	ErrorAfterChunks *int `json:"error_after_chunks,omitempty"`
	// What is said about usage: missing, null, zero, wrong (prompt and completion
	// tokens doubled, plus 1000), cached (half of the prompt, rounded down, was
	// cached), reasoning (half of the answer, rounded down, was reasoning).
	Usage string `json:"usage,omitempty"`
	// Send this JSON where the usage object stands: any form of any backend.
	UsageBody json.RawMessage `json:"usage_body,omitempty"`
	// Leave out the stream's last event, [DONE].
	NoDone bool `json:"no_done,omitempty"`
	// Send this text instead of the first content event or the whole JSON body.
	Garbage string `json:"garbage,omitempty"`
	// Write a stream in pieces of so many bytes, each flushed.
	SplitBytes int `json:"split_bytes,omitempty"`
	// Write a stream in one piece.
	Coalesce bool `json:"coalesce,omitempty"`
	// Send an SSE comment before each event.
	Comments bool `json:"comments,omitempty"`
	// End the lines of a stream with CR LF.
	CRLF bool `json:"crlf,omitempty"`
}

// Match selects requests; an empty field selects all. Only requests to a
// model's endpoints are asked.
type Match struct {
	Path         string            `json:"path,omitempty"`
	Model        string            `json:"model,omitempty"`         // as it stands in the body
	Header       map[string]string `json:"header,omitempty"`        // all of them, exact values
	BodyContains string            `json:"body_contains,omitempty"` // anywhere in the body
	// Only the Nth request that the fields above select, counted from 1.
	Nth int `json:"nth,omitempty"`
	// At most so many times. 0: always.
	Times int `json:"times,omitempty"`
}

// Check tells what is wrong with a fault.
func (f *Fault) Check() error {
	if f.Status != 0 && (f.Status < 200 || f.Status > 599) {
		return fmt.Errorf("status %d: want 200 to 599", f.Status)
	}
	usages := []string{"", "missing", "null", "zero", "wrong", "cached", "reasoning"}
	if !slices.Contains(usages, f.Usage) {
		return fmt.Errorf("usage %q: want one of %s", f.Usage, strings.Join(usages[1:], ", "))
	}
	if f.UsageBody != nil && (f.Usage != "" || !json.Valid(f.UsageBody)) {
		return errors.New("usage_body: want JSON, and no usage beside it")
	}
	negative := func(n *int) bool { return n != nil && *n < 0 }
	if f.Chunks < 0 || f.SplitBytes < 0 || f.Match.Nth < 0 || f.Match.Times < 0 ||
		negative(f.CutAfterChunks) || negative(f.ErrorAfterChunks) || negative(f.EndAfterChunks) {
		return errors.New("a count is negative")
	}
	return nil
}

// faultState is a fault with its counts.
type faultState struct {
	Fault
	Matched int `json:"matched"` // requests that it selected, Nth and Times left aside
	Applied int `json:"applied"`
}

// faults holds the faults in force. Without any, looking costs one atomic load.
type faults struct {
	some atomic.Bool
	mu   sync.Mutex
	list []*faultState
}

// SetFaults replaces the faults in force; without arguments there are none. A
// request is answered by the first one that applies to it.
func (s *Server) SetFaults(list ...Fault) error {
	states := make([]*faultState, len(list))
	for i, f := range list {
		if err := f.Check(); err != nil {
			return fmt.Errorf("faults[%d]: %w", i, err)
		}
		states[i] = &faultState{Fault: f}
	}
	s.faults.mu.Lock()
	defer s.faults.mu.Unlock()
	s.faults.list = states
	s.faults.some.Store(len(list) > 0)
	return nil
}

var noFault = new(Fault)

// pick finds the fault for a request. It never returns nil.
func (fs *faults) pick(r *http.Request, body string) *Fault {
	if !fs.some.Load() {
		return noFault
	}
	fs.mu.Lock()
	defer fs.mu.Unlock()
	for _, f := range fs.list {
		if !f.Match.selects(r, body) {
			continue
		}
		f.Matched++
		if f.Match.Nth != 0 && f.Match.Nth != f.Matched || f.Match.Times != 0 && f.Applied >= f.Match.Times {
			continue
		}
		f.Applied++
		return &f.Fault
	}
	return noFault
}

func (m *Match) selects(r *http.Request, body string) bool {
	if m.Path != "" && m.Path != r.URL.Path {
		return false
	}
	for name, value := range m.Header {
		if r.Header.Get(name) != value {
			return false
		}
	}
	if m.BodyContains != "" && !strings.Contains(body, m.BodyContains) {
		return false
	}
	return m.Model == "" || m.Model == modelIn(body)
}

func milliseconds(n int) time.Duration { return time.Duration(n) * time.Millisecond }

// faultList is what the control endpoint reads.
type faultList struct {
	Faults []Fault `json:"faults"`
}

// control is /_control: POST replaces the faults, GET shows them with their
// counts, DELETE removes them.
func (s *Server) control(w http.ResponseWriter, r *http.Request) {
	switch r.Method {
	case http.MethodPost:
		var list faultList
		dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20))
		dec.DisallowUnknownFields()
		err := dec.Decode(&list)
		if err == nil {
			err = s.SetFaults(list.Faults...)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	case http.MethodGet:
		s.faults.mu.Lock()
		text, err := json.Marshal(map[string]any{"faults": s.faults.list})
		s.faults.mu.Unlock()
		writeJSON(w, text, err)
	case http.MethodDelete:
		_ = s.SetFaults()
		w.WriteHeader(http.StatusNoContent)
	default:
		http.Error(w, "want GET, POST or DELETE", http.StatusMethodNotAllowed)
	}
}

func writeJSON(w http.ResponseWriter, text []byte, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(text)
}
