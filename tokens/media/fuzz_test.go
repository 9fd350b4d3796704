package media

import (
	"bytes"
	"encoding/base64"
	"image"
	"testing"
)

// models stand for the rules of all kinds.
var models = []string{
	"gpt-4o", "gpt-4o-mini", "gpt-4.1-mini", "gpt-5.6-sol", "gpt-5-nano", "gpt-6", "qwen2-vl", "qwen3-vl",
	"qwen3-omni", "qwen-vl-max", "claude-sonnet-4", "claude-opus-5", "gemini-2.5-pro", "gemini-3", "llava",
}

// check looks at what holds for every count.
func check(t *testing.T, model string, c Count) {
	t.Helper()
	if c.Tokens < 0 || c.Tokens > c.Bound || c.Exact && c.Tokens != c.Bound {
		t.Fatalf("%s: %+v", model, c)
	}
}

func FuzzImage(f *testing.F) {
	f.Add([]byte(pngOf(3, 2)))
	f.Add([]byte(jpegOf(3, 2)))
	f.Add([]byte(behind(jpegOf(3, 2), segment(0xE1, 30))))
	f.Add([]byte(gifOf(3, 2)))
	f.Add([]byte(gifOn("!\xff\x0bNETSCAPE2.0\x03\x01\x00\x00\x00!\xf9\x04\x00\x00\x00\x00\x00", frame)))
	f.Add([]byte("MM\x00*\x00\x00\x00\x08\x00\x01\x01\x00\x00\x03\x00\x00\x00\x01\x00\x03\x00\x00"))
	for _, tt := range fixtures {
		f.Add([]byte(unbase64(tt.data)))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		literal := uri(string(data))
		s, _ := open(literal, false)
		size := readSize(&s)
		if s.pos > maxLook {
			t.Fatalf("%d characters were looked at", s.pos)
		}
		if size.Known && (size.Width < 1 || size.Height < 1 || size.Width > maxSide || size.Height > maxSide) {
			t.Fatalf("%+v", size)
		}
		like(t, data, size)
		for _, model := range models {
			for _, d := range []Detail{Auto, Low, High, Original} {
				r := ForModel(model)
				c := r.CountImage(literal, d)
				check(t, model, c)
				if most := r.CountImage(nil, d); c.Bound > most.Bound {
					t.Fatalf("%s: %+v is above the largest, %+v", model, c, most)
				}
			}
		}
	})
}

// like compares a size with what the standard library reads.
func like(t *testing.T, data []byte, size Size) {
	c, format, err := image.DecodeConfig(bytes.NewReader(data))
	if err != nil || !size.Known {
		return
	}
	w, h := int64(c.Width), int64(c.Height)
	if format == "gif" && size.Width >= w && size.Height >= h {
		return
	}
	if size.Width != w || size.Height != h {
		t.Fatalf("%s: %+v, the standard library says %d by %d", format, size, w, h)
	}
}

// A literal as it comes: anything that a JSON string can hold, and more.
func FuzzLiteral(f *testing.F) {
	f.Add([]byte("data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAMAAAACCAAAAAC4HznGAAAAAUlEQVQ"))
	f.Add([]byte(`data:image\/gif;base64,R0lGODlh\u0041QABAI\/AAAA`))
	f.Add([]byte("data:image/bmp,BM%00%00%00%00%00%00%00%00%00%00%00%00%0c%00%00%00%03%00%02%00"))
	f.Add([]byte("UklGRiQAAABXQVZFZm10IBAAAAABAAEAgD4AAAB9AAACABAAZGF0YQAAAAA="))
	f.Fuzz(func(t *testing.T, literal []byte) {
		for _, model := range models {
			r := ForModel(model)
			check(t, model, r.CountImage(literal, Auto))
			check(t, model, r.CountAudio(literal, "wav"))
			check(t, model, r.CountAudio(literal, "pcm16"))
			check(t, model, r.CountVideo(literal))
			check(t, model, r.CountFile(literal))
		}
	})
}

func FuzzAudio(f *testing.F) {
	f.Add([]byte(wav(1, 1, 16000, 16, 32, zeros(64))))
	f.Add([]byte(wav(0x11, 2, 8000, 4, 32, zeros(64))))
	for _, data := range []string{mp3Silence, mp3Info, m4aHalf, flacThree, opusTwo, vorbisHead + vorbisHead} {
		f.Add([]byte(data))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		l := AudioLength(uri(string(data)), "")
		if l.Millis < 0 || l.Most < 0 || l.Most > 0 && l.Millis > l.Most || l.Millis > maxMillis {
			t.Fatalf("%+v", l)
		}
		bare := []byte(base64.StdEncoding.EncodeToString(data))
		if again := AudioLength(bare, ""); again != l {
			t.Fatalf("bare %+v, as a URI %+v", again, l)
		}
		for _, model := range models {
			check(t, model, ForModel(model).CountAudio(bare, ""))
		}
	})
}

func FuzzDocument(f *testing.F) {
	f.Add([]byte(pdfOf(2, "")))
	f.Add([]byte("%PDF-1.5 /Linearized /N 3 /Type/Pages /Count 7"))
	f.Fuzz(func(t *testing.T, data []byte) {
		d := ReadDocument(uri(string(data)))
		if d.Pages < 0 || d.Bytes < 0 || d.Pages > 0 && d.Bytes > 0 || len(data) > 0 && d == (Document{}) {
			t.Fatalf("%+v", d)
		}
		check(t, "claude", claudeHigh.CountFile(uri(string(data))))
	})
}
