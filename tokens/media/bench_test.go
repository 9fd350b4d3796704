package media

import (
	"fmt"
	"strings"
	"testing"
)

const megabyte = 1 << 20

// photo is a JPEG of a megabyte with n bytes of Exif before its frame.
func photo(n int) []byte {
	return uri(behind(jpegOf(4032, 3024), segment(0xE1, n)) + strings.Repeat("pixels..", megabyte/8))
}

// hostile is the most work that a part can be: every character an escape.
func hostile() []byte {
	literal := []byte("data:;base64,")
	for _, c := range photo(60000)[len("data:application/pdf;base64,"):] {
		literal = fmt.Appendf(literal, `\u%04x`, c)
	}
	return literal
}

var parts = []struct {
	name    string
	literal []byte
	count   func(r Rules, literal []byte) Count
}{
	{"jpeg-1M", photo(20), picture},
	{"jpeg-1M-exif-60K", photo(60000), picture},
	{"jpeg-1M-slashes-escaped", []byte(strings.ReplaceAll(string(photo(60000)), "/", `\/`)), picture},
	{"png-1M", uri(pngMark + ihdr(1920, 1080) + idat + strings.Repeat("pixels..", megabyte/8)), picture},
	{"webp-1M", uri("RIFF....WEBPVP8L\x05\x00\x00\x00\x2f\x00\x40\x01\x00" + strings.Repeat("pixels..", megabyte/8)), picture},
	{"url", []byte("https://example.com/cat.jpg"), picture},
	{"hostile-escapes", hostile(), picture},
	{"hostile-segments", uri(soi + strings.Repeat(segment(0xE1, 280), 1024)), picture},
	{"wav-1M", uri(wav(1, 1, 16000, 16, megabyte, zeros(megabyte))), sound},
	{"mp3-1M-cover-200K", uri("ID3\x03\x00\x00\x00\x0c\x1a\x40" + zeros(200000) + strings.Repeat(mp3Silence, megabyte/72)), sound},
	{"ogg-1M", uri(opusTwo[:110] + zeros(megabyte)), sound},
	{"hostile-pdf", uri("%PDF-1.4 obj" + strings.Repeat("/Type/Pages", megabyte/11)), file},
	{"hostile-slashes", uri("%PDF-1.4 obj" + strings.Repeat("/", megabyte)), file},
	{"hostile-heif", uri("\x00\x00\x00\x10ftypheic\x00\x00\x00\x00" + strings.Repeat("\x00\x00\x01\x08free"+zeros(256), 1030)), picture},
	{"pdf-1M", uri(pdfOf(12, strings.Repeat("<</Type/Other>> pixels..", megabyte/24))), file},
}

func picture(r Rules, literal []byte) Count { return r.CountImage(literal, Auto) }
func sound(r Rules, literal []byte) Count   { return r.CountAudio(literal, "wav") }
func file(r Rules, literal []byte) Count    { return r.CountFile(literal) }

func BenchmarkCount(b *testing.B) {
	for _, bb := range parts {
		b.Run(bb.name, func(b *testing.B) {
			r := ForModel("qwen2.5-vl-7b-instruct")
			b.ReportAllocs()
			for b.Loop() {
				bb.count(r, bb.literal)
			}
		})
	}
}

func BenchmarkForModel(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		ForModel("models/gemini-3-pro")
	}
}

func TestNoAllocation(t *testing.T) {
	for _, tt := range parts {
		for _, model := range []string{"gpt-5.4", "Qwen/Qwen3-VL-8B", "claude-opus-4-7"} {
			if n := testing.AllocsPerRun(2, func() { tt.count(ForModel(model), tt.literal) }); n > 0 {
				t.Errorf("%s, %s: %v allocations, want 0", tt.name, model, n)
			}
		}
	}
}
