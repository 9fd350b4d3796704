package ai

import (
	"strings"
	"testing"
)

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
	all := Usage{Input: 1, CachedInput: 2, CacheWrite: 3, AudioInput: 4, ImageInput: 5, Output: 60, Reasoning: 7, AudioOutput: 8, ImageOutput: 9}
	u := AdapterUsage{Usage: all, Reported: true, Chunks: 4, TextBytes: 5, FirstToken: 6, Finish: "stop", Done: true}
	if got, err := ParseAdapterUsage(string(u.AppendTo(nil))); err != nil || got != u {
		t.Errorf("usage: %+v, %v", got, err)
	}
	newer := "in=5 in.video=7 in.smell=2 out=9 out.video=4 mood=good reported "
	if got, err := ParseAdapterUsage(newer); err != nil || got.Usage != (Usage{Input: 14, Output: 9}) {
		t.Errorf("of a newer filter: %+v, %v", got, err)
	}
	for _, bad := range []string{"in=x", "out=-1", "chunks=", "in.video=x", "in.write=-1"} {
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
	for in, want := range map[string]string{"Bearer k": "k", "bEARER k": "k", "Bearer k~!": "k~!", "Basic k": "", "Bearer": "", "Bearer ": "", "": "",
		"Bearer  k": "", "Bearer k ": "", " Bearer k": "", "Bearer\tk": "", "Bearer k l": "", "Bearer k,Bearer k": "", "Bearer k\x00": "", "Bearer k\u00e9": "", "Bearer k\t": "", "Bearer " + strings.Repeat("k", 16<<10+1): ""} {
		if got, ok := BearerToken(in); got != want || ok != (want != "") {
			t.Errorf("%q: %q, %v", in, got, ok)
		}
	}
}

// Nothing that a filter, of whatever version, may have written gives a negative
// figure, or panics.
func FuzzParseAdapterUsage(f *testing.F) {
	f.Add("in=1 cached=2 in.write=3 in.audio=4 in.image=5 out=6 reasoning=1 out.audio=1 out.image=1 reported done finish=stop")
	f.Add("in=9223372036854775807 in.x=9223372036854775807 in.y=9223372036854775807")
	f.Fuzz(func(t *testing.T, s string) {
		u, err := ParseAdapterUsage(s)
		if err != nil && u != (AdapterUsage{}) {
			t.Fatalf("an error, and %+v", u)
		}
		if u.Input < 0 || u.CachedInput < 0 || u.CacheWrite < 0 || u.AudioInput < 0 || u.ImageInput < 0 || u.Output < 0 {
			t.Fatalf("%+v", u)
		}
		checkClamped(t, u.Usage)
		again, err := ParseAdapterUsage(string(u.AppendTo(nil)))
		if err != nil || again != u {
			t.Fatalf("%+v became %+v, %v", u, again, err)
		}
	})
}
