package media

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// rest reads all that is left.
func rest(s *source) []byte {
	var all []byte
	var b [7]byte
	for {
		n := s.some(b[:])
		if n == 0 {
			return all
		}
		all = append(all, b[:n]...)
	}
}

func TestOpen(t *testing.T) {
	t.Parallel()
	const data = "AAECA/+A"
	want := "\x00\x01\x02\x03\xff\x80"
	tests := []struct {
		name, literal string
		bare          bool
		ok            bool
		want          string
		doubt         bool
	}{
		{"plain", "data:image/png;base64," + data, false, true, want, false},
		{"capitals", "DATA:image/png;BASE64," + data, false, true, want, false},
		{"parameters", "data:image/png;charset=utf-8;base64," + data, false, true, want, false},
		{"no type", "data:;base64," + data, false, true, want, false},
		{"spaces in the head", " data:image/png; base64 ," + data, false, true, want, false},
		{"slashes escaped", `data:image\/png;base64,AAECA\/+A`, false, true, want, false},
		{"escapes", `\u0064ata:image/png;base64\u002cAAECA\u002F\u002bA`, false, true, want, false},
		{"lines", `data:image/png;base64,AAEC\r\nA/+\tA`, false, true, want, false},
		{"a space", "data:image/png;base64,AAEC A/+A", false, true, want, false},
		{"URL alphabet", "data:image/png;base64,AAECA_-A", false, true, want, true},
		{"one padding", "data:image/png;base64,AAECA/8=", false, true, want[:5], false},
		{"two paddings", "data:image/png;base64,AAECAw==", false, true, want[:4], false},
		{"no padding", "data:image/png;base64,AAECAw", false, true, want[:4], false},
		{"one character too many", "data:image/png;base64,AAECA", false, true, want[:3], false},
		{"behind the padding", "data:image/png;base64,AAEC=A/+A", false, true, want[:3], false},
		{"dropped by some", "data:image/png;base64,AAEC!A/+A", false, true, want, true},
		{"an unknown escape", `data:image/png;base64,AAEC\qA/+A`, false, true, want, true},
		{"not ASCII", "data:image/png;base64,AAEC\u00e9A/+A", false, true, want, true},
		{"not ASCII, escaped", `data:image/png;base64,AAEC\u0041\u0441`, false, true, "\x00\x01\x02", true},
		{"empty", "data:image/png;base64,", false, true, "", false},
		{"percent", "data:text/plain,a%20b%2", false, true, "a b%2", true},
		{"percent, well-formed", "data:,a%20%e4+", false, true, "a \xe4+", false},
		{"base64 not at the end", "data:;base64;x,AAEC", false, true, "AAEC", false},
		{"only the word", "data:base64,AAEC", false, true, "AAEC", false},
		{"no comma", "data:image/png;base64", false, false, "", false},
		{"no end of the head", "data:" + strings.Repeat("x", 300) + ",AAEC", false, false, "", false},
		{"bare", data, true, true, want, false},
		{"bare, where none may be", data, false, false, "", false},
		{"URL", "https://example.com/a.png", true, false, "", false},
		{"nothing", "", false, false, "", false},
		{"cut escape", `data:;base64,AAEC\u00`, false, true, "\x00\x01\x02", true},
		{"backslash at the end", `data:;base64,AAEC\`, false, true, "\x00\x01\x02", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s, ok := open([]byte(tt.literal), tt.bare)
			if ok != tt.ok {
				t.Fatalf("ok is %t", ok)
			}
			if !ok {
				return
			}
			left := s.left()
			got := string(rest(&s))
			if got != tt.want || s.doubt != tt.doubt {
				t.Errorf("%q, doubt %t; want %q, %t", got, s.doubt, tt.want, tt.doubt)
			}
			if left < int64(len(got)) {
				t.Errorf("%d bytes left, but %d were read", left, len(got))
			}
		})
	}
}

func TestPlain(t *testing.T) {
	t.Parallel()
	const good = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	long := []byte(good + good[:5])
	if n := plain(long); n != len(long) {
		t.Fatalf("%d of %d", n, len(long))
	}
	for c := range 256 {
		if strings.IndexByte(good, byte(c)) >= 0 {
			continue
		}
		for at := range 24 {
			b := bytes.Clone(long)
			b[at] = byte(c)
			if n := plain(b); n != at {
				t.Fatalf("character %#x at %d: %d", c, at, n)
			}
		}
	}
}

// written is data as a JSON string, in one of the ways in which it may stand in a
// body.
func written(rng *rand.Rand, data []byte) []byte {
	text := base64.StdEncoding.EncodeToString(data)
	if rng.IntN(2) == 0 {
		text = strings.TrimRight(text, "=")
	}
	var b []byte
	often := 1 << rng.IntN(12)
	for i := range len(text) {
		switch c := text[i]; {
		case rng.IntN(often) > 0:
			b = append(b, c)
		case rng.IntN(2) == 0:
			b = append(b, [...]string{" ", `\n`, `\r\n`, `\u0009`}[rng.IntN(4)]...)
			b = append(b, c)
		default:
			b = fmt.Appendf(b, `\u%04x`, c)
		}
	}
	return append([]byte("data:application/octet-stream;base64,"), b...)
}

// However the bytes are asked for, in pieces read and passed over, they are the
// same.
func TestAnySplit(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(5, 6))
	for range 3000 {
		data := make([]byte, rng.IntN(400))
		for i := range data {
			data[i] = byte(rng.Uint32())
		}
		literal := written(rng, data)
		s, ok := open(literal, false)
		if !ok {
			t.Fatalf("not opened: %s", literal)
		}
		for at := 0; at < len(data); {
			k := 1 + rng.IntN(min(len(data)-at, 1+rng.IntN(100)))
			if rng.IntN(2) == 0 {
				if !s.skip(int64(k)) {
					t.Fatalf("%s: %d bytes at %d are not passed over", literal, k, at)
				}
			} else {
				b := make([]byte, k)
				if !s.fill(b) || !bytes.Equal(b, data[at:at+k]) {
					t.Fatalf("%s: at %d, %x, want %x", literal, at, b, data[at:at+k])
				}
			}
			at += k
			if s.offset != int64(at) || s.left() < int64(len(data)-at) {
				t.Fatalf("%s: offset %d and %d left at %d of %d", literal, s.offset, s.left(), at, len(data))
			}
		}
		if s.fill(make([]byte, 1)) || s.doubt {
			t.Fatalf("%s: more than %d bytes, doubt %t", literal, len(data), s.doubt)
		}
	}
}

func FuzzSource(f *testing.F) {
	f.Add([]byte(`data:image\/png;base64,AAEC\nA\/+A`), uint64(1))
	f.Add([]byte(`data:,a%20\u00e9`), uint64(2))
	f.Add([]byte("data:;base64,AAEC A=="), uint64(3))
	f.Fuzz(func(t *testing.T, literal []byte, seed uint64) {
		s, ok := open(literal, true)
		if !ok {
			return
		}
		left, start := s.left(), s
		all := rest(&s)
		if left < int64(len(all)) || s.pos > maxLook {
			t.Fatalf("%d bytes left, but %d were read; looked at %d", left, len(all), s.pos)
		}
		if want, ok := reference(literal); ok && !s.doubt && len(literal) < maxLook && !bytes.Equal(all, want) {
			t.Fatalf("%q, want %q", all, want)
		}
		rng := rand.New(rand.NewPCG(seed, 0))
		for at := 0; at < len(all); {
			k := 1 + rng.IntN(len(all)-at)
			b := make([]byte, k)
			if rng.IntN(2) == 0 {
				if !start.skip(int64(k)) {
					t.Fatalf("%d bytes at %d are not passed over", k, at)
				}
			} else if !start.fill(b) || !bytes.Equal(b, all[at:at+k]) {
				t.Fatalf("%x at %d, want %x", b, at, all[at:at+k])
			}
			at += k
		}
	})
}

// reference decodes with the standard library what that takes: base64 with
// padding and nothing besides.
func reference(literal []byte) ([]byte, bool) {
	var text string
	if json.Unmarshal([]byte(`"`+string(literal)+`"`), &text) != nil {
		return nil, false
	}
	text, ok := strings.CutPrefix(text, "data:;base64,")
	if !ok {
		return nil, false
	}
	data, err := base64.StdEncoding.DecodeString(text)
	return data, err == nil
}
