package sse

import (
	"slices"
	"strings"
	"testing"
)

// read gives the data of each event, from pieces of n bytes (whole when n is 0).
func read(t testing.TB, text string, n int) []string {
	t.Helper()
	var s Splitter
	var events []string
	var data strings.Builder
	for len(text) > 0 {
		piece := text
		if n > 0 && len(text) > n {
			piece = text[:n]
		}
		text = text[len(piece):]
		for len(piece) > 0 {
			used, tok := s.Next([]byte(piece))
			if used < 1 || used > len(piece) {
				t.Fatalf("%d bytes of %q were read", used, piece)
			}
			switch tok {
			case Data:
				data.WriteString(piece[:used])
			case Break:
				data.WriteByte('\n')
			case End:
				events = append(events, data.String())
				data.Reset()
			}
			piece = piece[used:]
		}
	}
	return events
}

func TestSplitter(t *testing.T) {
	for name, tc := range map[string]struct {
		in   string
		want []string
	}{
		"lines end in LF":       {"data: a\n\ndata: b\n\n", []string{"a", "b"}},
		"in CRLF":               {"data: a\r\n\r\ndata: b\r\n\r\n", []string{"a", "b"}},
		"in CR":                 {"data: a\r\rdata: b\r\r", []string{"a", "b"}},
		"mixed":                 {"data: a\r\n\ndata: b\n\r\ndata: c\r\n\r", []string{"a", "b", "c"}},
		"one space is removed":  {"data:a\n\ndata:  b\n\ndata:\n\n", []string{"a", " b", ""}},
		"several lines":         {"data: a\ndata:b\ndata\ndata: \n\n", []string{"a\nb\n"}},
		"other fields":          {"event: e\nid: data: 1\ndat: x\ndatax: y\n: data: c\n data: z\n\n", []string{""}},
		"blank lines":           {"\n\n", []string{"", ""}},
		"an event without end":  {"data: a\n", nil},
		"comment between":       {"data: a\n: c\ndata: b\n\n", []string{"a\nb"}},
		"colons in the data":    {"data: data: x:y\n\n", []string{"data: x:y"}},
		"begins with line feed": {"\r\ndata: a\n\n", []string{"", "a"}},
	} {
		t.Run(name, func(t *testing.T) {
			for n := range len(tc.in) + 1 {
				if got := read(t, tc.in, n); !slices.Equal(got, tc.want) {
					t.Errorf("in pieces of %d: %q, want %q", n, got, tc.want)
				}
			}
		})
	}
}

// Any split gives the events that no split gives.
func FuzzSplitter(f *testing.F) {
	f.Add("data: a\r\n\r\n: c\rdata:b\n\n", 2)
	f.Fuzz(func(t *testing.T, text string, n int) {
		want, got := read(t, text, 0), read(t, text, max(1, n%64))
		if !slices.Equal(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
	})
}
