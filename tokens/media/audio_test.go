package media

import (
	"encoding/base64"
	"encoding/binary"
	"strings"
	"testing"
)

// wav is a WAV of pcm with the length that its header states.
func wav(tag, channels, rate, bits int, stated uint32, data string) string {
	return "RIFF\x00\x00\x00\x00WAVE" + format(tag, channels, rate, bits) + "data" + le32(stated) + data
}

func format(tag, channels, rate, bits int) string {
	block := channels * ((bits + 7) / 8)
	b := []byte("fmt \x10\x00\x00\x00")
	b = binary.LittleEndian.AppendUint16(b, uint16(tag))
	b = binary.LittleEndian.AppendUint16(b, uint16(channels))
	b = binary.LittleEndian.AppendUint32(b, uint32(rate))
	b = binary.LittleEndian.AppendUint32(b, uint32(rate*block))
	b = binary.LittleEndian.AppendUint16(b, uint16(block))
	return string(binary.LittleEndian.AppendUint16(b, uint16(bits)))
}

func le32(n uint32) string { return string(binary.LittleEndian.AppendUint32(nil, n)) }

func be32(n uint32) string { return string(binary.BigEndian.AppendUint32(nil, n)) }

func zeros(n int) string { return strings.Repeat("\x00", n) }

func unbase64(text string) string {
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// Beginnings of files that libavformat 62 wrote of silence: LAME's frames at
// 8 kbit/s, with and without the number of frames, an M4A of half a second, a
// FLAC of three, and a Vorbis.
var (
	mp3Silence = unbase64("/+MYxAAAAANIAAAAAExBTUUzLjEwMFVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVMQU1FMy4xMDBVVVVVVVVVVVVV")
	mp3Info    = unbase64("SUQzAwAAAAAAI1RTU0UAAAAPAAAATGF2ZjYyLjEyLjEwMgAAAAAAAAAAAAAA//NYwAAAAAAAAAAAAEluZm8AAAAPAAAAHgAABOwAKysrMzMzOjo6QUFBQUlJSVBQUFdXV1dfX19mZmZtbW1d")
	m4aHalf    = unbase64("AAAAHGZ0eXBNNEEgAAACAE00QSBpc29taXNvMgAAAx9tb292AAAAbG12aGQAAAAAAAAAAAAAAAAAAAPoAAAB9AABAAABAAAA")
	flacThree  = unbase64("ZkxhQwAAACICQAJAAAALAAANAfQA8AAAXcB4PuPhuJFsgnNExHexQQOHBAAALg0AAABM")
	opusTwo    = unbase64("T2dnUwACAAAAAAAAAABNoEuKAAAAAEst9bsBE09wdXNIZWFkAQE4AYC7AAAAAABPZ2dTAAAAAAAAAAAAAE2gS4oBAAAAfDDQIAE2T3B1c1RhZ3MN") +
		zeros(600) + unbase64("T2dnUwAEOHgBAAAAAABNoEuKBAAAALHkSE8BBggIrLMOxg==")
	vorbisHead = "OggS\x00\x02" + zeros(20) + "\x01\x1e\x01vorbis" + zeros(4) + "\x02" + le32(44100) + zeros(14)
)

func TestAudioLength(t *testing.T) {
	t.Parallel()
	mulaw := wav(7, 1, 8000, 8, 16000, zeros(16000))
	tests := []struct {
		name, data string
		want       Length
	}{
		{"wav", wav(1, 1, 16000, 16, 32000, zeros(32000)), Length{1000, 1000}},
		{"wav, stereo of 24 bits", wav(1, 2, 48000, 24, 288000, zeros(288000)), Length{1000, 1000}},
		{"wav, float", wav(3, 1, 8000, 32, 32000, zeros(32000)), Length{1000, 1000}},
		{"wav, mu-law", mulaw, Length{2000, 2000}},
		{"wav that says that it is short", wav(1, 1, 16000, 16, 32, zeros(320000)), Length{10000, 10000}},
		{"wav that says that it is empty", wav(1, 1, 16000, 16, 0, zeros(32000)), Length{1000, 1000}},
		{"wav of a stream", wav(1, 1, 16000, 16, 0xFFFFFFFF, zeros(32000)), Length{1000, 1000}},
		{"wav that says that it is long", wav(1, 1, 16000, 16, 320000, zeros(32000)), Length{1000, 1000}},
		{"wav at one hertz", wav(1, 1, 1, 8, 5000, zeros(5000)), Length{5000000, 5000000}},
		{"wav, blocks smaller than the samples", strings.Replace(wav(1, 2, 8000, 16, 32000, zeros(32000)), "\x04\x00\x10\x00data", "\x01\x00\x10\x00data", 1), Length{1000, 4000}},
		{"wav, odd chunks before", "RIFF\x00\x00\x00\x00WAVEJUNK\x03\x00\x00\x00xxx\x00" + mulaw[12:], Length{2000, 2000}},
		{"wav, rf64", "RF64\xff\xff\xff\xffWAVEds64\x1c\x00\x00\x00" + zeros(28) + wav(1, 1, 16000, 16, 0xFFFFFFFF, zeros(32000))[12:], Length{1000, 1000}},
		{"wav, extensible", strings.Replace(wav(0xFFFE, 1, 16000, 16, 32000, zeros(32000)), "fmt \x10", "fmt \x28", 1)[:36] + "\x16\x00\x10\x00\x00\x00\x00\x00\x01\x00" + zeros(14) + "data" + le32(32000) + zeros(32000), Length{1000, 1000}},
		{"wav, two formats", "RIFF\x00\x00\x00\x00WAVE" + format(1, 1, 8000, 8) + mulaw[12:], Length{1005, 0}},
		{"wav, no channels", wav(1, 0, 8000, 8, 16000, zeros(16000)), Length{1003, 0}},
		{"wav, no rate", wav(1, 1, 0, 8, 16000, zeros(16000)), Length{1003, 0}},
		{"wav, adpcm", wav(0x11, 1, 4000, 8, 8000, zeros(8000)), Length{2000, 0}},
		{"wav, data before the format", "RIFF\x00\x00\x00\x00WAVEdata" + le32(16000) + zeros(16000), Length{1002, 0}},
		{"wav, a chunk without end", "RIFF\x00\x00\x00\x00WAVEJUNK\xff\xff\xff\xff" + zeros(15980), Length{1000, 0}},

		{"mp3", strings.Repeat(mp3Silence, 7), Length{504, 504}},
		{"mp3, the frames counted", mp3Info + zeros(1305-len(mp3Info)), Length{1080, 1260}},
		{"mp3, the frames counted short", strings.Replace(mp3Info, "\x00\x00\x00\x1e", "\x00\x00\x00\x01", 1) + zeros(560000-len(mp3Info)), Length{9999, 559955}},
		{"mp3, the frames counted long", strings.Replace(mp3Info, "\x00\x00\x00\x1e", "\xff\xff\xff\xff", 1) + zeros(1305-len(mp3Info)), Length{1260, 1260}},
		{"mp3, vbri", "\xff\xfb\x90\x00" + zeros(32) + "VBRI" + zeros(10) + be32(77) + zeros(16000), Length{2012, 16054}},
		{"mp3, 128 kbit/s", "\xff\xfb\x90\x00" + zeros(15996), Length{1000, 16000}},
		{"mp3, layer I", "\xff\xff\x10\x00" + zeros(3996), Length{1000, 4000}},
		{"mp3, free format", "\xff\xfb\x00\x00" + zeros(15996), Length{1000, 0}},
		{"mp3, no frame", "\xff\xfb\xf0\x00" + zeros(15996), Length{1000, 0}},
		{"adts", "\xff\xf1\x50\x80" + zeros(15996), Length{1000, 0}},
		{"flac behind a tag", "ID3\x04\x00\x00\x00\x00\x00\x05abcde" + flacThree, Length{3000, 0}},
		{"mp3 behind a tag with a footer", "ID3\x04\x00\x10\x00\x00\x00\x05abcde3DI\x04\x00\x10\x00\x00\x00\x05\xff\xfb\x90\x00" + zeros(15996), Length{1000, 16000}},
		{"a tag beyond the end", "ID3\x04\x00\x00\x7f\x7f\x7f\x7f" + zeros(15990), Length{1000, 0}},

		{"flac", flacThree + zeros(9000), Length{3000, 0}},
		{"flac, no length", flacThree[:21] + zeros(15979), Length{1000, 0}},
		{"flac that says that it is short", flacThree[:22] + zeros(3) + "\x01" + zeros(3840000-26), Length{10000, 0}},
		{"opus", opusTwo, Length{2000, int64(len(opusTwo)) * 60}},
		{"opus, no end", opusTwo[:200], Length{13, 200 * 60}},
		{"vorbis", vorbisHead + "OggS\x00\x04" + "\x88\x58\x01\x00\x00\x00\x00\x00" + zeros(100), Length{2000, 0}},
		{"vorbis, a long last page", vorbisHead + "OggS\x00\x04" + "\x88\x58\x01\x00\x00\x00\x00\x00" + zeros(65000), Length{2000, 0}},
		{"vorbis, the end cut by a window", vorbisHead + "OggS\x00\x04" + "\x88\x58\x01\x00\x00\x00\x00\x00" + zeros(oggWindow-8), Length{2000, 0}},
		{"vorbis, a page without an end", vorbisHead + "OggS\x00\x04" + "\x88\x58\x01\x00\x00\x00\x00\x00" + zeros(9) + "OggS\x00\x04\xff\xff\xff\xff\xff\xff\xff\xff", Length{2000, 0}},
		{"vorbis, no rate", strings.Replace(vorbisHead, le32(44100), zeros(4), 1) + "OggS\x00\x04" + "\x88\x58\x01\x00\x00\x00\x00\x00" + zeros(16000-72), Length{1000, 0}},
		{"m4a", m4aHalf, Length{500, 0}},
		{"m4a, the second version", "\x00\x00\x00\x08ftyp\x00\x00\x00\x30moov\x00\x00\x00\x28mvhd\x01" + zeros(3+16) + be32(1000) + be32(0) + be32(4500), Length{4500, 0}},
		{"m4a, longer than time", "\x00\x00\x00\x08ftyp\x00\x00\x00\x30moov\x00\x00\x00\x28mvhd\x01" + zeros(3+16) + be32(1) + be32(1<<31) + be32(0), Length{maxMillis, 0}},
		{"m4a, no scale", "\x00\x00\x00\x08ftyp\x00\x00\x00\x30moov\x00\x00\x00\x28mvhd\x00" + zeros(15980), Length{1001, 0}},
		{"m4a, the data first", "\x00\x00\x00\x08ftyp\x00\x00\x3e\x78mdat" + zeros(15984), Length{1000, 0}},
		{"something else", strings.Repeat("noise...", 2000), Length{1000, 0}},
		{"nothing", "", Length{0, 0}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			bare := []byte(base64.StdEncoding.EncodeToString([]byte(tt.data)))
			for _, literal := range [][]byte{bare, uri(tt.data)} {
				if got := AudioLength(literal, "mp3"); got != tt.want {
					t.Errorf("%+v, want %+v", got, tt.want)
				}
			}
		})
	}
	if got := AudioLength([]byte(base64.StdEncoding.EncodeToString([]byte(zeros(48000)))), "pcm16"); got != (Length{1000, 1000}) {
		t.Errorf("pcm16: %+v", got)
	}
	if got := AudioLength([]byte("https://example.com/a.wav"), "wav"); got != (Length{}) {
		t.Errorf("a URL: %+v", got)
	}
}

func TestCountAudio(t *testing.T) {
	t.Parallel()
	second := base64.StdEncoding.EncodeToString([]byte(wav(1, 1, 16000, 16, 32000, zeros(32000))))
	tests := []struct {
		name, model, literal string
		want                 Count
	}{
		{"openai", "gpt-4o-audio-preview", second, Count{Tokens: 10, Bound: 26}},
		{"gemini", "gemini-2.5-flash", second, Count{Tokens: 32, Bound: 96}},
		{"qwen2", "qwen2.5-omni-7b", second, Count{Tokens: 25, Bound: 41}},
		{"qwen3", "qwen3-omni-30b-a3b", second, Count{Tokens: 13, Bound: 41}},
		{"unknown", "voxtral", second, Count{Tokens: 25, Bound: 1550}},
		{"URL", "gpt-4o-audio-preview", "https://example.com/a.wav", Count{Tokens: 600, Bound: 128000}},
		{"characters that are dropped", "gpt-4o-audio-preview", second[:8] + "!" + second[8:], Count{Tokens: 10, Bound: 128000}},
		{"nothing", "gpt-4o-audio-preview", "", Count{Tokens: 600, Bound: 128000}},
	}
	for _, tt := range tests {
		if got := ForModel(tt.model).CountAudio([]byte(tt.literal), "wav"); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestCountVideo(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, model string
		literal     []byte
		want        Count
	}{
		{"mp4", "gemini-2.5-flash", uri(m4aHalf), Count{Tokens: 145, Bound: context1M}},
		{"URL", "qwen2.5-vl-7b", []byte("https://example.com/a.mp4"), Count{Tokens: 12288, Bound: 131072}},
		{"not an mp4", "qwen2.5-vl-7b", uri("RIFF........AVI "), Count{Tokens: 12288, Bound: 131072}},
	} {
		if got := ForModel(tt.model).CountVideo(tt.literal); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}
