package media

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"image"
	"image/color/palette"
	"image/gif"
	"image/jpeg"
	"image/png"
	"strings"
	"testing"
)

// uri is data as a data URI. The type in it says nothing.
func uri(data string) []byte {
	return []byte("data:application/pdf;base64," + base64.StdEncoding.EncodeToString([]byte(data)))
}

func pngOf(w, h int) string {
	var b bytes.Buffer
	_ = png.Encode(&b, image.NewGray(image.Rect(0, 0, w, h)))
	return b.String()
}

func jpegOf(w, h int) string {
	var b bytes.Buffer
	_ = jpeg.Encode(&b, image.NewYCbCr(image.Rect(0, 0, w, h), image.YCbCrSubsampleRatio420), nil)
	return b.String()
}

func gifOf(w, h int) string {
	var b bytes.Buffer
	_ = gif.Encode(&b, image.NewPaletted(image.Rect(0, 0, w, h), palette.Plan9), nil)
	return b.String()
}

// segment is a segment of a JPEG with n bytes.
func segment(marker byte, n int) string {
	return string([]byte{0xFF, marker, byte((n + 2) >> 8), byte(n + 2)}) + strings.Repeat("\xff\xd8\xff\xc0\x00", n)[:n]
}

// behind puts segments behind the start of a JPEG.
func behind(jpeg string, segments ...string) string {
	return jpeg[:2] + strings.Join(segments, "") + jpeg[2:]
}

// Sizes that the standard library's encoders wrote.
func TestImageSizeOfEncoders(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ w, h int }{{1, 1}, {1, 300}, {640, 480}, {37, 21}, {4000, 3}} {
		for name, data := range map[string]string{
			"png":            pngOf(tt.w, tt.h),
			"jpeg":           jpegOf(tt.w, tt.h),
			"gif":            gifOf(tt.w, tt.h),
			"jpeg, Exif":     behind(jpegOf(tt.w, tt.h), segment(0xE1, 65533), segment(0xE2, 65533), segment(0xFE, 0)),
			"jpeg, filled":   behind(jpegOf(tt.w, tt.h), strings.Repeat("\xff", 60)),
			"png, a profile": chunked(pngOf(tt.w, tt.h), 33, "iCCP", 30000),
		} {
			want := Size{int64(tt.w), int64(tt.h), true, true}
			if got := ImageSize(uri(data)); got != want {
				t.Errorf("%s, %d by %d: %+v", name, tt.w, tt.h, got)
			}
		}
	}
}

// chunked puts a chunk of n bytes into a PNG.
func chunked(png string, at int, kind string, n int) string {
	return png[:at] + string(binary.BigEndian.AppendUint32(nil, uint32(n))) + kind + strings.Repeat("x", n+4) + png[at:]
}

// Images of 37 by 21 pixels, written by Pillow 13 and pillow-heif. The HEIC's is
// cut from 64 by 64.
var fixtures = []struct {
	name, data string
	want       Size
}{
	{"webp, lossy", "UklGRkQAAABXRUJQVlA4IDgAAABwAwCdASolABUAP3G21GI0ryqmJWgCkC4JZwDOZoAAK/dimAAA/Mr8rH1Od/oUbKJPA8leMAAAAA==", Size{37, 21, true, true}},
	{"webp, lossless", "UklGRh4AAABXRUJQVlA4TBEAAAAvJAAFAAdQ5CrUo/+BiOh/AAA=", Size{37, 21, true, true}},
	{"webp, alpha", "UklGRmgAAABXRUJQVlA4WAoAAAAQAAAAJAAAFAAAQUxQSAoAAAABB1CtiAhERP8DVlA4IDgAAABwAwCdASolABUAP3G21GI0ryqmJWgCkC4JZwDOZoAAK/dimAAA/Mr8rH1Od/oUbKJPA8leMAAAAA==", Size{37, 21, true, true}},
	{"webp, animated", "UklGRsgAAABXRUJQVlA4WAoAAAACAAAAJAAAFAAAQU5JTQYAAAAAAAAAAABBTk1GUgAAAAAAAAAAACQAABQAAAAAAAJWUDggOgAAAJADAJ0BKiUAFQA/cbjUYjSvKqYlaAKQLglnAND6gAKnDIMXDAAA/Mr9T7+C7/xW+oGTWTxYaPpAAABBTk1GQgAAAAAAAAAAACQAABQAAAAAAABWUDggKgAAAHQCAJ0BKiUAFQAvLbjcbgAAEsS0gAEheU0j2AAA/u+aR/gLEn/gLBQAAA==", Size{37, 21, true, true}},
	{"webp, a profile", "UklGRpAAAABXRUJQVlA4WAoAAAAgAAAAJAAAFAAASUNDUDIAAABwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcFZQOCA4AAAAcAMAnQEqJQAVAD9xttRiNK8qpiVoApAuCWcAzmaAACv3YpgAAPzK/Kx9Tnf6FGyiTwPJXjAAAAA=", Size{37, 21, true, true}},
	{"bmp", "Qk3mAAAAAAAAAD4AAAAoAAAAJQAAABUAAAABAAEAAAAAAKgAAADEDgAAxA4AAAIAAAACAAAAAAAAAP///w==", Size{37, 21, true, false}},
	{"tiff", "SUkqAA4AAAD///gAgAgJAAABAwABAAAAJQAAAAEBAwABAAAAFQAAAAIBAwABAAAAAQAAAAMBAwABAAAABAAAAAYBAwABAAAAAQAAABEBBAABAAAACAAAABYBAwABAAAAFQAAABcBBAABAAAABgAAABwBAwABAAAAAQAAAAAAAAA=", Size{37, 21, true, false}},
	{"avif", "AAAAIGZ0eXBhdmlmAAAAAGF2aWZtaWYxbWlhZk1BMUIAAADrbWV0YQAAAAAAAAAhaGRscgAAAAAAAAAAcGljdAAAAAAAAAAAAAAAAAAAAAAOcGl0bQAAAAAAAQAAAB5pbG9jAAAAAEQAAAEAAQAAAAEAAAETAAAAKAAAAChpaW5mAAAAAAABAAAAGmluZmUCAAAAAAEAAGF2MDFDb2xvcgAAAABqaXBycAAAAEtpcGNvAAAAFGlzcGUAAAAAAAAAJQAAABUAAAAQcGl4aQAAAAADCAgIAAAADGF2MUOBAAwAAAAAE2NvbHJuY2x4AAEADQAGgAAAABdpcG1hAAAAAAAAAAEAAQQBAoMEAAAAMG1kYXQSAAoJGBUko0QENBoQMhkf94eFFd///+LPwIDcqL/irw/jd20Exhsw", Size{37, 21, true, false}},
	{"heic", "AAAAGGZ0eXBoZWljAAAAAG1pZjFoZWljAAABfG1ldGEAAAAAAAAAIWhkbHIAAAAAAAAAAHBpY3QAAAAAAAAAAAAAAAAAAAAAImlsb2MAAAAAREAAAQABAAAAAAGcAAEAAAAAAAAAJQAAACNpaW5mAAAAAAABAAAAFWluZmUCAAAAAAEAAGh2YzEAAAAADnBpdG0AAAAAAAEAAAD8aXBycAAAANxpcGNvAAAAdWh2Y0MBA3AAAACQAAAAAAAe8AD8/fj4AAAPA2AAAQAYQAEMAf//A3AAAAMAkAAAAwAAAwAeugJAYQABAClCAQEDcAAAAwCQAAADAAADAB6gIIEFluqumubgIaDAgAAADIAAAAMAhGIAAQAGRAHBc8GJAAAAE2NvbHJuY2x4AAEADQAGgAAAABRpc3BlAAAAAAAAAEAAAABAAAAAKGNsYXAAAAAlAAAAAQAAABUAAAAB////5QAAAAL////VAAAAAgAAABBwaXhpAAAAAAMICAgAAAAYaXBtYQAAAAAAAAABAAEFgQIDBYQAAAAtbWRhdAAAACEoAa8FEhMM4Pq6UjuOD7Hr8RfZ8qCs7xb8oJVaEJHxW0A=", Size{64, 64, true, false}},
}

func TestImageSizeOfFixtures(t *testing.T) {
	t.Parallel()
	for _, tt := range fixtures {
		if got := ImageSize([]byte("data:;base64," + tt.data)); got != tt.want {
			t.Errorf("%s: %+v, want %+v", tt.name, got, tt.want)
		}
	}
}

// Of an image that is cut off, the size is the true one or not known.
func TestImageSizeOfBeginnings(t *testing.T) {
	t.Parallel()
	for name, data := range map[string]string{"png": pngOf(9, 7), "jpeg": jpegOf(9, 7), "gif": gifOf(9, 7)} {
		beginnings(t, name, data, ImageSize(uri(data)))
	}
	for _, tt := range fixtures {
		data, err := base64.StdEncoding.DecodeString(tt.data)
		if err != nil {
			t.Fatal(err)
		}
		beginnings(t, tt.name, string(data), tt.want)
	}
}

func beginnings(t *testing.T, name, data string, want Size) {
	for n := range len(data) {
		got := ImageSize(uri(data[:n]))
		if got.Known && (got.Width != want.Width || got.Height != want.Height) || got.Sure && !want.Sure {
			t.Errorf("%s, %d bytes: %+v", name, n, got)
		}
	}
}

func sof(marker byte, w, h uint16, bits, components byte) string {
	b := []byte{0xFF, marker, 0, 8 + 3*components, bits, byte(h >> 8), byte(h), byte(w >> 8), byte(w), components}
	return string(append(b, make([]byte, 3*int(components))...))
}

const (
	soi = "\xff\xd8"
	sos = "\xff\xda\x00\x08"
)

func ihdr(w, h uint32) string {
	b := append([]byte("\x00\x00\x00\x0dIHDR"), make([]byte, 17)...)
	binary.BigEndian.PutUint32(b[8:], w)
	binary.BigEndian.PutUint32(b[12:], h)
	return string(b)
}

const (
	pngMark = "\x89PNG\r\n\x1a\n"
	idat    = "\x00\x00\x00\x01IDAT"
)

// gifOn is a GIF with a screen of 1 by 1, extensions, and a frame.
func gifOn(extensions, frame string) string {
	return "GIF89a\x01\x00\x01\x00\x80\x00\x00rgbrgb" + extensions + "," + frame
}

const frame = "\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02"

func TestImageSize(t *testing.T) {
	t.Parallel()
	short := strings.Repeat("\x00", 60)
	tests := []struct {
		name, data string
		w, h       int64
	}{
		{"nothing", "", 0, 0},
		{"text", "Not an image, but long enough to be one.", 0, 0},
		{"svg", `<svg xmlns="http://www.w3.org/2000/svg" width="10" height="10"/>`, 0, 0},

		{"png", pngMark + ihdr(3, 2) + idat, 3, 2},
		{"png with a private chunk first", pngMark + "\x00\x00\x00\x04CgBI\x00\x00\x00\x00\x00\x00\x00\x00" + ihdr(3, 2) + idat, 3, 2},
		{"png, no width", pngMark + ihdr(0, 2) + idat, 0, 0},
		{"png, too wide", pngMark + ihdr(1<<31-1, 2) + idat, 0, 0},
		{"png, the last bit", pngMark + ihdr(1<<31, 1<<31) + idat, 0, 0},
		{"png, two headers", pngMark + ihdr(1, 1) + ihdr(64, 64) + idat, 0, 0},
		{"png, no pixels", pngMark + ihdr(3, 2), 0, 0},
		{"png, pixels first", pngMark + idat + ihdr(3, 2), 0, 0},
		{"png, an endless chunk", pngMark + ihdr(3, 2) + "\xff\xff\xff\xfftEXt" + short, 0, 0},
		{"png, a header of another length", pngMark + "\x00\x00\x00\x0e" + ihdr(3, 2)[4:] + "x" + idat, 0, 0},
		{"png, many chunks", pngMark + ihdr(3, 2) + strings.Repeat("\x00\x00\x00\x00tEXtcrc!", 2000) + idat, 0, 0},

		{"jpeg", soi + sof(0xC0, 3, 2, 8, 3) + sos, 3, 2},
		{"jpeg, progressive", soi + sof(0xC2, 3, 2, 8, 1) + sos, 3, 2},
		{"jpeg, twice the same", soi + sof(0xC0, 3, 2, 8, 3) + sof(0xC0, 3, 2, 8, 3) + sos, 3, 2},
		{"jpeg, two sizes", soi + sof(0xC0, 3, 2, 8, 3) + sof(0xC0, 300, 200, 8, 3) + sos, 0, 0},
		{"jpeg, tables are no frame", soi + segment(0xC4, 8) + segment(0xCC, 8) + sof(0xC1, 3, 2, 8, 4) + sos, 3, 2},
		{"jpeg, the height comes later", soi + sof(0xC0, 3, 0, 8, 3) + sos, 0, 0},
		{"jpeg of 12 bits", soi + sof(0xC1, 3, 2, 12, 3) + sos, 0, 0},
		{"jpeg of two components", soi + sof(0xC0, 3, 2, 8, 2) + sos, 0, 0},
		{"jpeg, no frame", soi + segment(0xE0, 10) + sos + short, 0, 0},
		{"jpeg, no scan", soi + sof(0xC0, 3, 2, 8, 3), 0, 0},
		{"jpeg, the end", soi + sof(0xC0, 3, 2, 8, 3) + "\xff\xd9" + sos, 0, 0},
		{"jpeg, a frame in what Pillow does not pass over", soi + sof(0xC0, 3, 2, 8, 3) + segment(0xF0, 10) + sos, 0, 0},
		{"jpeg, something between", soi + segment(0xE0, 10) + "x" + sof(0xC0, 3, 2, 8, 3) + sos, 0, 0},
		{"jpeg, a segment without a length", soi + "\xff\xe0\x00\x01" + sof(0xC0, 3, 2, 8, 3) + sos, 0, 0},
		{"jpeg, many segments", soi + strings.Repeat(segment(0xE0, 0), 3000) + sof(0xC0, 3, 2, 8, 3) + sos, 0, 0},
		{"jpeg, far too much before", soi + strings.Repeat(segment(0xE1, 65533), 9) + sof(0xC0, 3, 2, 8, 3) + sos, 0, 0},
		{"jpeg, filled for ever", soi + strings.Repeat("\xff", 5000) + "\xc0", 0, 0},

		{"gif", gifOn("", frame), 1, 1},
		{"gif, a frame beyond the screen", gifOn("", "\x0a\x00\x05\x00\x64\x00\x07\x00\x00\x02"), 110, 12},
		{"gif, a frame with colours", gifOn("", frame[:8]+"\x80rgbrgb\x02"), 1, 1},
		{"gif, comments", gifOn("!\xfe\x03abc\x02de\x00!\xfe\x00", frame), 1, 1},
		{"gif, a loop", gifOn("!\xff\x0bNETSCAPE2.0\x03\x01\x00\x00\x00!\xf9\x04\x00\x00\x00\x00\x00", frame), 1, 1},
		{"gif, no loop in it", gifOn("!\xff\x0bNETSCAPE2.0\x00", frame), 0, 0},
		{"gif, an empty extension", gifOn("!\x01\x00", frame), 0, 0},
		{"gif, a short control", gifOn("!\xf9\x02\x00\x00\x00", frame), 0, 0},
		{"gif, something else", gifOn("x", frame), 0, 0},
		{"gif, no frame", gifOn("", "")[:19] + ";" + short, 0, 0},
		{"gif, no pixels", gifOn("", frame[:9]), 0, 0},
		{"gif, many blocks", gifOn("!\xfe"+strings.Repeat("\x01x", 5000)+"\x00", frame), 0, 0},
		{"gif, no screen", "GIF89a\x00\x00\x01\x00\x00\x00\x00," + frame, 0, 0},

		{"webp, a canvas of another size", "RIFF....WEBPVP8X\x0a\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x01\x00\x00VP8L\x05\x00\x00\x00\x2f\x00\x00\x00\x00\x00", 0, 0},
		{"webp, a canvas", "RIFF....WEBPVP8X\x0a\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00VP8L\x05\x00\x00\x00\x2f\x00\x00\x00\x00\x00", 1, 1},
		{"webp, no key frame", "RIFF....WEBPVP8 \x20\x00\x00\x00\x01\x00\x00\x9d\x01\x2a\x05\x00\x05\x00" + short, 0, 0},
		{"webp, another chunk", "RIFF....WEBPALPH\x05\x00\x00\x00" + short, 0, 0},

		{"bmp, core", "BM" + short[:12] + "\x0c\x00\x00\x00\x03\x00\x02\x00" + short, 3, 2},
		{"bmp, from the top", "BM" + short[:12] + "\x28\x00\x00\x00\x03\x00\x00\x00\xfe\xff\xff\xff" + short, 3, 2},
		{"bmp, wide below zero", "BM" + short[:12] + "\x28\x00\x00\x00\xfd\xff\xff\xff\x02\x00\x00\x00" + short, 0, 0},
		{"bmp, the lowest height", "BM" + short[:12] + "\x28\x00\x00\x00\x03\x00\x00\x00\x00\x00\x00\x80" + short, 0, 0},
		{"bmp, another header", "BM" + short[:12] + "\x20\x00\x00\x00\x03\x00\x00\x00\x02\x00\x00\x00" + short, 0, 0},

		{"tiff, the other order", "MM\x00*\x00\x00\x00\x08\x00\x02" + "\x01\x00\x00\x03\x00\x00\x00\x01\x00\x03\x00\x00" + "\x01\x01\x00\x04\x00\x00\x00\x01\x00\x00\x00\x02", 3, 2},
		{"tiff, two widths", "MM\x00*\x00\x00\x00\x08\x00\x03" + strings.Repeat("\x01\x00\x00\x03\x00\x00\x00\x01\x00\x03\x00\x00", 2) + "\x01\x01\x00\x04\x00\x00\x00\x01\x00\x00\x00\x02", 0, 0},
		{"tiff, no height", "MM\x00*\x00\x00\x00\x08\x00\x01" + "\x01\x00\x00\x03\x00\x00\x00\x01\x00\x03\x00\x00", 0, 0},
		{"tiff, a directory before itself", "MM\x00*\x00\x00\x00\x02" + short, 0, 0},

		{"heif, boxes that end with what they are in", "\x00\x00\x00\x10ftypheic\x00\x00\x00\x00\x00\x00\x00\x30meta\x00\x00\x00\x00\x00\x00\x00\x00iprp\x00\x00\x00\x00ipco\x00\x00\x00\x14ispe\x00\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x02junk", 3, 2},
		{"heif, a film", "\x00\x00\x00\x10ftypavis\x00\x00\x00\x00" + short, 0, 0},
		{"heif, boxes in boxes for ever", "\x00\x00\x00\x10ftypheic\x00\x00\x00\x00" + strings.Repeat("\x00\x00\x00\x00meta\x00\x00\x00\x00", 9), 0, 0},
		{"heif, a box of the largest size", "\x00\x00\x00\x10ftypheic\x00\x00\x00\x00\x00\x00\x00\x01free\x7f\xff\xff\xff\xff\xff\xff\xff" + short, 0, 0},
		{"heif, a box below its own head", "\x00\x00\x00\x10ftypheic\x00\x00\x00\x00\x00\x00\x00\x07free" + short, 0, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := ImageSize(uri(tt.data))
			if got.Width != tt.w || got.Height != tt.h || got.Known != (tt.w > 0) {
				t.Errorf("%+v, want %d by %d", got, tt.w, tt.h)
			}
		})
	}
}

// Files that Pillow 13 was seen to open in another format than the one that they
// begin as, and text that decoders of base64 read differently.
func TestImageSizeIsNotSure(t *testing.T) {
	t.Parallel()
	spider := "RIFF\x42\x80\x00\x00WEBPVP8L\x3f\x80\x00\x00\x2f\x00\x00\x00\x00" + strings.Repeat("\x00", 100)
	im := "RIFF\xc8\x00\x00\x00WEBPVP8L\xb4\x00\x00\x00\x2f\x00\x00\x00\x00a:b\nImage size (x*y): 70*60\r\n\x1a"
	pcd := pngOf(5, 5)
	pcd = pcd[:41] + strings.Repeat("x", 2048-41) + "PCD_"
	fli := behind(jpegOf(5, 5), segment(0xE5, 0x11AF-2))
	text := string(uri(pngOf(5, 5)))
	bmp := "BM" + strings.Repeat("\x00", 12) + "\x0c\x00\x00\x00\x03\x00\x02\x00......"
	for name, text := range map[string]string{
		"spider":                      string(uri(spider)),
		"im":                          string(uri(im)),
		"pcd":                         string(uri(pcd)),
		"fli":                         string(uri(fli)),
		"a character that is dropped": text[:60] + "!" + text[60:],
		"the other alphabet":          "data:;base64," + base64.URLEncoding.EncodeToString([]byte(jpegOf(5, 5))),
		"a rare format":               string(uri(bmp)),
	} {
		literal := []byte(text)
		got := ImageSize(literal)
		if !got.Known || got.Sure {
			t.Errorf("%s: %+v, want known and not sure", name, got)
		}
		c, most := ForModel("qwen2-vl").CountImage(literal, Auto), ForModel("qwen2-vl").Image.Unknown(Auto)
		if c.Bound != most.Bound || c.Tokens > 10 {
			t.Errorf("%s: %v, want the bound %d", name, c, most.Bound)
		}
	}
}

func TestCountImage(t *testing.T) {
	t.Parallel()
	big := string(uri(jpegOf(1024, 1024)))
	tests := []struct {
		name, model, literal string
		detail               Detail
		want                 Count
	}{
		{"jpeg", "gpt-4o", big, High, Count{Tokens: 765, Bound: 765}},
		{"slashes escaped", "gpt-4o", strings.ReplaceAll(big, "/", `\/`), High, Count{Tokens: 765, Bound: 765}},
		{"low", "gpt-4o", big, Low, Count{Tokens: 85, Bound: 85}},
		{"qwen", "qwen2.5-vl-7b", big, Auto, Count{Tokens: 1371, Bound: 1371}},
		{"URL", "gpt-4o", "https://example.com/cat.jpg", High, Count{Tokens: 1105, Bound: 1445}},
		{"URL, low", "gpt-4o", "https://example.com/cat.jpg", Low, Count{Tokens: 85, Bound: 85}},
		{"URL, qwen", "qwen2.5-vl-7b", "https://example.com/cat.jpg", Auto, Count{Tokens: 1026, Bound: 16386}},
		{"no limit but the context", "gpt-5.6-sol", "https://example.com/cat.jpg", Auto, Count{Tokens: 1231, Bound: 1050000}},
		{"unknown model", "llava", big, Auto, Count{Tokens: 37*37 + 2, Bound: 32768}},
		{"nothing", "gpt-4o", "", High, Count{Tokens: 1105, Bound: 1445}},
	}
	for _, tt := range tests {
		tt.want.Exact = tt.want.Tokens == tt.want.Bound
		if got := ForModel(tt.model).CountImage([]byte(tt.literal), tt.detail); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

// The header alone is decoded, however large the image.
func TestImageLooksAtTheHeader(t *testing.T) {
	t.Parallel()
	noise := strings.Repeat("pixels", 1<<18)
	for name, tt := range map[string]struct {
		data string
		most int // characters
	}{
		"png":  {pngMark + ihdr(3, 2) + idat + noise, 100},
		"jpeg": {jpegOf(1000, 1000) + noise, 1200},
		"exif": {behind(jpegOf(100, 100), segment(0xE1, 60000)) + noise, 82000},
		"huge": {behind(jpegOf(100, 100), strings.Repeat(segment(0xE1, 60000), 30)) + noise, maxLook},
		"webp": {"RIFF....WEBPVP8L\x05\x00\x10\x00\x2f\x00\x00\x00\x00" + noise, 80},
	} {
		s, _ := open(uri(tt.data), false)
		readSize(&s)
		if s.pos > tt.most {
			t.Errorf("%s: %d characters were looked at, want at most %d", name, s.pos, tt.most)
		}
	}
}
