package media

// VideoRule is how a family of models counts films: by a rule alone. Which
// frames of one a backend takes, and at what size, its header does not say.
type VideoRule struct {
	PerSecond int64 // tokens
	Usual     int64 // of a film whose length is not known, in tokens
	Cap       int64 // the most for one film, in tokens
}

// Count has no bound but the rule's.
func (r VideoRule) Count(l Length) Count {
	if l.Millis == 0 {
		return upTo(r.Usual, r.Cap)
	}
	return upTo(perSecond(l.Millis, r.PerSecond), r.Cap)
}

// videoLength reads how long the film in a JSON string is, if it is an MP4 that
// says so near its beginning.
func videoLength(literal []byte) Length {
	s, ok := open(literal, false)
	if !ok {
		return Length{}
	}
	var b [8]byte
	if t := s; !t.fill(b[:]) || string(b[4:]) != "ftyp" {
		return Length{}
	}
	return Length{Millis: filmMillis(&s)}
}
