package media

// Gemini is how Google counts images up to Gemini 2.5: 258 tokens for one tile;
// an image with a side above 384 pixels is cut into tiles, of which the shorter
// side has one and a half.
//
// Source: Google, "Image understanding", token calculation, which calls its own
// formula rough: the bound is what no family is known to exceed. Not verified.
type Gemini struct{}

const (
	geminiTile  = 258
	geminiWhole = 384
	geminiUsual = 6 * geminiTile
)

// Count is by the guide's crop unit.
func (r Gemini) Count(width, height int64, d Detail) Count {
	if !sized(width, height).Known {
		return r.Unknown(d)
	}
	if max(width, height) <= geminiWhole {
		return upTo(geminiTile, unknownImage)
	}
	unit := max(min(width, height)*2/3, 1)
	return upTo(geminiTile*ceilDiv(width, unit)*ceilDiv(height, unit), unknownImage)
}

// Unknown is for any number of tiles.
func (r Gemini) Unknown(Detail) Count { return upTo(geminiUsual, unknownImage) }

// geminiBudget is how Google counts images from Gemini 3 on: a number of tokens
// that the request's media resolution sets and no size changes. 1,120 is what
// "high" allots, the default, as "Media resolution" is quoted; twice that for
// "ultra high". Not verified.
type geminiBudget struct{}

const (
	geminiHigh  = 1120
	geminiUltra = 2240
)

func (geminiBudget) Count(_, _ int64, d Detail) Count { return geminiBudget{}.Unknown(d) }

func (geminiBudget) Unknown(Detail) Count { return upTo(geminiHigh, geminiUltra+16) }
