package media

// Length is how long a sound or a film is, in milliseconds.
type Length struct {
	// Millis is the best figure: what the header says, but no less than the data's
	// size proves. Zero is for not known.
	Millis int64
	// Most is what the data's size proves to be the most; zero when it proves
	// nothing: some formats write hours of silence in a few bytes.
	Most int64
}

// AudioRule is how a family of models counts sound.
type AudioRule struct {
	PerSecond int64 // tokens
	// Most is tokens a second for the bound, when another figure is known of the
	// family; zero is for PerSecond.
	Most int64
	// Beside is what the bound has beside the duration, in tokens: markers, and the
	// rounding up to a model's windows.
	Beside int64
	Cap    int64 // the most for one sound, in tokens
}

// usualSound is of a sound that is not at hand, in seconds.
const usualSound = 60

// Count is the duration in tokens.
func (r AudioRule) Count(l Length) Count {
	millisOf := l.Millis
	if millisOf == 0 {
		millisOf = usualSound * 1000
	}
	bound := r.Cap
	if l.Most > 0 {
		bound = min(r.Cap, perSecond(l.Most, max(r.PerSecond, r.Most))+r.Beside)
	}
	return upTo(perSecond(millisOf, r.PerSecond), bound)
}

func perSecond(ms, tokens int64) int64 { return ceilDiv(min(ms, maxMillis)*tokens, 1000) }

// maxMillis is longer than anything: 35 years.
const maxMillis = 1 << 40

// millis is how long n units are, of which there are rate in a second.
func millis(n, rate int64) int64 {
	const most = 1 << 52 // so that a thousand of it fits in int64
	if n < 0 || n > most {
		return maxMillis
	}
	return min(ceilDiv(n*1000, max(rate, 1)), maxMillis)
}

// Densities that formats without a stated one have, in bytes a second.
const (
	// usualDensity is 128 kbit/s.
	usualDensity = 16000
	// densest is above what sound in a compressed format has: 48 kHz in stereo,
	// in 32 bits. A shorter duration than its is a lie.
	densest = 384000
	// pcm16 is OpenAI's raw format: 24 kHz, mono, 16 bits.
	pcm16 = 48000
)

// AudioLength reads how long the sound in a JSON string is, without the string's
// quotes: a data URI or bare base64 of a WAV, MP3, FLAC, Ogg or MP4. Nothing is
// known of a URL. format is OpenAI's input_audio.format.
func AudioLength(literal []byte, format string) Length {
	s, ok := open(literal, true)
	if !ok {
		return Length{}
	}
	if format == "pcm16" {
		n := millis(s.left(), pcm16)
		return Length{n, n}
	}
	size := s.left()
	l, ok := readLength(&s, size)
	if !ok {
		return Length{Millis: millis(size, usualDensity)}
	}
	if s.doubt {
		l.Most = 0
	}
	return l
}

// readLength tells the formats apart by how they begin. size is how many bytes
// there are, at the most.
func readLength(s *source, size int64) (l Length, ok bool) {
	if !skipTags(s) {
		return l, false
	}
	var b [12]byte
	if t := *s; !t.fill(b[:]) {
		return l, false
	}
	switch head := string(b[:]); {
	case (head[:4] == "RIFF" || head[:4] == "RF64" || head[:4] == "BW64") && head[8:] == "WAVE":
		return wavLength(s)
	case head[:4] == "fLaC":
		return flacLength(s, size)
	case head[:4] == "OggS":
		return oggLength(s, size)
	case head[4:8] == "ftyp":
		return stated(filmMillis(s), size)
	case b[0] == 0xFF && b[1]&0xE0 == 0xE0:
		return mp3Length(s)
	}
	return l, false
}

// stated is a length that a header states, corrected by the size of the data.
func stated(ms, size int64) (Length, bool) {
	return Length{Millis: max(min(ms, maxMillis), size*1000/densest)}, ms > 0
}
