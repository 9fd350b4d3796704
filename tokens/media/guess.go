package media

// Guess is for models of which nothing is known: squares of 28 pixels, the most
// usual way, up to a usual number of them.
type Guess struct{}

const (
	// unknownImage is above what the known families take: 16,386 of Qwen-VL, and
	// the 21,312 that six by six crops of 576 and one of the whole come to.
	unknownImage = 32768
	guessSide    = 28
	guessUsual   = 1024
	guessMost    = 1568
)

// Count has a bound that no size lowers: some families enlarge small images.
func (Guess) Count(width, height int64, d Detail) Count {
	if !sized(width, height).Known {
		return Guess{}.Unknown(d)
	}
	n := ceilDiv(width, guessSide) * ceilDiv(height, guessSide)
	return upTo(min(n, guessMost)+qwenMarkers, unknownImage)
}

// Unknown is what an image of a megapixel has.
func (Guess) Unknown(Detail) Count { return upTo(guessUsual, unknownImage) }

// Loose is a rule of which it is not known whether it is the model's: its figure
// stands, with a bound that does not rest on it.
type Loose struct {
	ImageRule
	Bound int64
}

// Count has the larger of both bounds.
func (r Loose) Count(width, height int64, d Detail) Count {
	c := r.ImageRule.Count(width, height, d)
	return upTo(c.Tokens, max(c.Bound, r.Bound))
}

// Unknown has the larger of both bounds.
func (r Loose) Unknown(d Detail) Count {
	c := r.ImageRule.Unknown(d)
	return upTo(c.Tokens, max(c.Bound, r.Bound))
}
