package media

import "math"

// Claude is how Anthropic counts: one token for each square of 28 pixels, after
// an image is resized to the largest size that keeps to both limits.
//
// Source: Anthropic, "Coordinates and bounding boxes", how Claude resizes and
// pads images, with its reference implementation.
type Claude struct {
	Edge   int64 // the longer side, padded, in pixels
	Tokens int64 // the most for one image
}

const (
	claudeSide = 28
	// claudeOld is how many pixels made a token by the rule that the guide gave
	// before. It comes to up to a twentieth more.
	claudeOld = 750
	// claudeSlack is above what count_tokens was seen to give beside the squares.
	claudeSlack = 4
)

// Count is by the reference implementation.
func (r Claude) Count(width, height int64, d Detail) Count {
	if !sized(width, height).Known {
		return r.Unknown(d)
	}
	w, h := r.resized(max(width, height), min(width, height))
	n := claudeSquares(w, h)
	return upTo(n, max(n, ceilDiv(w*h, claudeOld))+claudeSlack)
}

// Unknown is for an image that fills the limits.
func (r Claude) Unknown(Detail) Count {
	return upTo(r.Tokens, ceilDiv(r.Tokens*claudeSide*claudeSide, claudeOld)+claudeSlack)
}

// resized searches along the longer side.
func (r Claude) resized(long, short int64) (w, h int64) {
	if r.fits(long, short) {
		return long, short
	}
	aspect := float64(long) / float64(short)
	beside := func(long int64) int64 {
		return max(int64(math.RoundToEven(float64(long)/aspect)), 1)
	}
	fits, not := int64(1), long
	for fits+1 < not {
		if middle := (fits + not) / 2; r.fits(middle, beside(middle)) {
			fits = middle
		} else {
			not = middle
		}
	}
	return fits, beside(fits)
}

func (r Claude) fits(w, h int64) bool {
	return ceilDiv(w, claudeSide)*claudeSide <= r.Edge &&
		ceilDiv(h, claudeSide)*claudeSide <= r.Edge &&
		claudeSquares(w, h) <= r.Tokens
}

func claudeSquares(w, h int64) int64 { return ceilDiv(w, claudeSide) * ceilDiv(h, claudeSide) }
