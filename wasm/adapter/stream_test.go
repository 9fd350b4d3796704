package adapter

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weirproxy/weir/internal/ai"
)

const (
	evRole   = `data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}],"usage":null}` + "\n\n"
	evHello  = `data: {"choices":[{"index":0,"delta":{"content":"Hello"}}],"usage":null}` + "\n\n"
	evTool   = `data: {"choices":[{"delta":{"tool_calls":[{"function":{"arguments":"{}"}}]}}]}` + "\n\n"
	evFinish = `data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}` + "\n\n"
	evUsage  = `data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":2}}` + "\n\n"
	evLast   = `data: {"choices":[{"delta":{},"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":2}}` + "\n\n"
	evError  = `data: {"error":{"message":"out of memory"}}` + "\n\n"
	evDone   = "data: [DONE]\n\n"
	evPing   = ": ping\n\n"
)

// through feeds a response in pieces of n bytes (whole when n is 0) and returns
// what is passed on and what was used.
func through(text string, strip bool, n int) (string, ai.AdapterUsage) {
	s := stream{strip: strip}
	var out strings.Builder
	for rest := text; ; {
		piece := rest
		if n > 0 && len(rest) > n {
			piece = rest[:n]
		}
		rest = rest[len(piece):]
		p, _ := s.feed([]byte(piece), rest == "")
		out.Write(p)
		if rest == "" {
			break
		}
	}
	var u ai.AdapterUsage
	s.usage(&u)
	return out.String(), u
}

var (
	nine2 = ai.Usage{Input: 9, Output: 2}
	crlf  = strings.NewReplacer("\n", "\r\n")
	cr    = strings.NewReplacer("\n", "\r")
)

var streamCases = map[string]struct {
	in, stripped string
	usage        ai.AdapterUsage
}{
	"whole": {
		evPing + evRole + evHello + evTool + evFinish + evUsage + evDone,
		evPing + evRole + evHello + evTool + evFinish + evDone,
		ai.AdapterUsage{Usage: nine2, Reported: true, Chunks: 2, TextBytes: 7, Finish: "stop", Done: true},
	},
	"usage in the last choice stays": {
		evHello + evLast + evDone, evHello + evLast + evDone,
		ai.AdapterUsage{Usage: nine2, Reported: true, Chunks: 1, TextBytes: 5, Finish: "stop", Done: true},
	},
	"CRLF": {
		crlf.Replace(evHello + evUsage + evDone), crlf.Replace(evHello + evDone),
		ai.AdapterUsage{Usage: nine2, Reported: true, Chunks: 1, TextBytes: 5, Done: true},
	},
	"CR": {
		cr.Replace(evHello + evUsage + evDone), cr.Replace(evHello + evDone),
		ai.AdapterUsage{Usage: nine2, Reported: true, Chunks: 1, TextBytes: 5, Done: true},
	},
	"no space, several lines of data, other fields": {
		"event: x\ndata:{\"choices\":[{\"delta\":\ndata: {\"content\":\"ab\"}}]}\nid: 1\n\ndata:[DONE]\n\n",
		"event: x\ndata:{\"choices\":[{\"delta\":\ndata: {\"content\":\"ab\"}}]}\nid: 1\n\ndata:[DONE]\n\n",
		ai.AdapterUsage{Chunks: 1, TextBytes: 2, Done: true},
	},
	"usage event in several lines": {
		"data: {\"choices\":[],\ndata: \"usage\":{\"prompt_tokens\":9,\ndata:\"completion_tokens\":2}}\n\n" + evDone, evDone,
		ai.AdapterUsage{Usage: nine2, Reported: true, Done: true},
	},
	"the usage event is cut by the end": {
		evHello + strings.TrimSuffix(evUsage, "\n\n"), evHello,
		ai.AdapterUsage{Usage: nine2, Reported: true, Chunks: 1, TextBytes: 5},
	},
	"content is cut by the end": {
		evHello + evHello[:40], evHello + evHello[:40],
		ai.AdapterUsage{Chunks: 1, TextBytes: 5},
	},
	"a field that is not data": {
		"data_x: {}\ndat: 1\ndata\n:data: [DONE]\n\n", "data_x: {}\ndat: 1\ndata\n:data: [DONE]\n\n", ai.AdapterUsage{},
	},
	"not done": {"data: [DONE]x\n\ndata:  [DONE]\n\n", "data: [DONE]x\n\ndata:  [DONE]\n\n", ai.AdapterUsage{}},
	"empty":    {},
	"not a stream of events": {
		`{"choices":[],"usage":{"prompt_tokens":1}}`, `{"choices":[],"usage":{"prompt_tokens":1}}`, ai.AdapterUsage{},
	},
}

// However the bytes are split, the client gets the same, and the usage is the same.
func TestStream(t *testing.T) {
	for name, tc := range streamCases {
		t.Run(name, func(t *testing.T) {
			for n := range len(tc.in) + 1 {
				for _, strip := range []bool{false, true} {
					want := tc.in
					if strip {
						want = tc.stripped
					}
					got, u := through(tc.in, strip, n)
					if got != want || u != tc.usage {
						t.Fatalf("strip %v, pieces of %d: usage %+v, passed on:\n%s", strip, n, u, cmp.Diff(want, got))
					}
				}
			}
		})
	}
}

// What is not withheld is passed on at once: a chunk never waits for the next.
func TestStreamPassesOnAtOnce(t *testing.T) {
	s := stream{strip: true}
	for _, piece := range []string{evPing, evRole, evHello, evTool, evFinish, evDone, evHello[:60], evHello[60:]} {
		out, differs := s.feed([]byte(piece), false)
		if string(out) != piece || differs {
			t.Errorf("%q became %q, differs %v", piece, out, differs)
		}
	}
	if out, _ := s.feed([]byte(evHello[:16]), false); len(out) != 0 {
		t.Errorf("%q of what may be a usage event was passed on", out)
	}
}

// An event that is too long to be withheld is passed on, and metered.
func TestStreamBound(t *testing.T) {
	s := stream{strip: true}
	pad := strings.Repeat("x", 1<<12)
	long := `data: {"id":"` + strings.Repeat(pad, 2*maxWithheld>>12)
	var out strings.Builder
	rest := long + evUsage[len(`data: {`):]
	rest = strings.Replace(rest, `"choices"`, `","choices"`, 1)
	for len(rest) > 0 {
		n := min(len(rest), len(pad))
		p, _ := s.feed([]byte(rest[:n]), false)
		out.Write(p)
		rest = rest[n:]
		if len(s.withheld) > maxWithheld {
			t.Fatalf("%d bytes are withheld", len(s.withheld))
		}
	}
	if !strings.HasPrefix(out.String(), long) || !strings.HasSuffix(out.String(), "}}\n\n") {
		t.Errorf("%d bytes were passed on", out.Len())
	}
	var u ai.AdapterUsage
	if s.usage(&u); u.Usage != nine2 {
		t.Errorf("usage %+v", u)
	}
}

// What ends the wait for the first content.
func TestStreamStarted(t *testing.T) {
	for text, want := range map[string]bool{
		evPing: false, evRole: false, evUsage: false, evHello[:60]: false,
		evHello: true, evTool: true, evFinish: true, evError: true, evDone: true,
	} {
		var s stream
		s.feed([]byte(text), false)
		if s.started != want {
			t.Errorf("%q: started is %v", text, s.started)
		}
	}
}

func FuzzStream(f *testing.F) {
	for _, tc := range streamCases {
		f.Add(tc.in, true, 3)
		f.Add(tc.in, false, 7)
	}
	f.Fuzz(func(t *testing.T, text string, strip bool, n int) {
		want, wantUsage := through(text, strip, 0)
		got, u := through(text, strip, max(1, n%256))
		if got != want || u != wantUsage {
			t.Errorf("usage %+v, want %+v, passed on:\n%s", u, wantUsage, cmp.Diff(want, got))
		}
		if !strip && want != text {
			t.Errorf("%q became %q", text, want)
		}
	})
}
