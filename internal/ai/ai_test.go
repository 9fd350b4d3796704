package ai

import (
	"math"
	"testing"
)

func TestCost(t *testing.T) {
	p := Price{Input: 270_000_000, CachedInput: 70_000_000, Output: 1_100_000_000}
	for _, tc := range []struct {
		name string
		u    Usage
		want NanoUSD
	}{
		{"nothing", Usage{}, 0},
		{"a million of each", Usage{Input: 1e6, CachedInput: 1e6, Output: 1e6}, 1_440_000_000},
		{"one input token", Usage{Input: 1}, 270},
		{"rounds up", Usage{CachedInput: 1, Output: 3}, 70 + 3300},
		{"negative counts are nothing", Usage{Input: -5}, 0},
		{"saturates", Usage{Input: math.MaxInt64, Output: math.MaxInt64}, math.MaxInt64},
	} {
		if got := p.Cost(tc.u); got != tc.want {
			t.Errorf("%s: cost %d, want %d", tc.name, got, tc.want)
		}
	}
	if got := (Price{Input: 1}).Cost(Usage{Input: 1}); got != 1 {
		t.Errorf("a fraction of a nano-dollar costs %d, want 1", got)
	}
}

func TestWireRoundTrip(t *testing.T) {
	r := AdapterRequest{ModelOffset: 9, ModelLength: 7, Stream: true, StripUsage: true}
	if got, err := ParseAdapterRequest(r.String()); err != nil || got != r {
		t.Errorf("request: %+v, %v", got, err)
	}
	for _, bad := range []string{"", "1", "1 2", "x 2 s", "-1 2 s", "1 1 s"} {
		if _, err := ParseAdapterRequest(bad); err == nil {
			t.Errorf("request %q: no error", bad)
		}
	}
	u := AdapterUsage{Usage: Usage{Input: 1, CachedInput: 2, Output: 3, Reasoning: 1}, Reported: true, Chunks: 4, TextBytes: 5, FirstToken: 6, Finish: "stop", Done: true}
	if got, err := ParseAdapterUsage(string(u.AppendTo(nil))); err != nil || got != u {
		t.Errorf("usage: %+v, %v", got, err)
	}
	for _, bad := range []string{"in=x", "out=-1", "chunks="} {
		if _, err := ParseAdapterUsage(bad); err == nil {
			t.Errorf("usage %q: no error", bad)
		}
	}
}

func TestProbeID(t *testing.T) {
	const id = "0192f0e07c5a7d3e8f00112233445566"
	got := ProbeID(id)
	if got != "0192f0e07c5a8d3e8f00112233445566" || !IsProbeID(got) || IsProbeID(id) {
		t.Errorf("%s", got)
	}
	if short := "explain"; ProbeID(short) != short || IsProbeID(short) {
		t.Error("an id that is none")
	}
}

func TestEveryReasonHasAnAnswer(t *testing.T) {
	for r, a := range answers {
		if a.Status < 400 || a.Type == "" || a.Code == "" {
			t.Errorf("%s: %+v", r, a)
		}
	}
	if got := Reason("no such").Answer(); got != answers[ReasonInternal] {
		t.Errorf("unknown reason: %+v", got)
	}
}

func TestBearerToken(t *testing.T) {
	for in, want := range map[string]string{"Bearer k": "k", "bearer  k ": "k", "Basic k": "", "Bearer": "", "Bearer ": "", "": ""} {
		if got, ok := BearerToken(in); got != want || ok != (want != "") {
			t.Errorf("%q: %q, %v", in, got, ok)
		}
	}
}
