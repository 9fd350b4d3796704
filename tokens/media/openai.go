package media

import "math"

// Tiles is OpenAI's older rule: squares of 512 pixels over an image that fits in
// 2048 by 2048 and whose shorter side has at most 768.
//
// Source: OpenAI, "Images and vision", tile-based image tokenization. How the
// sides are rounded is said there for the second step only. The first rounds to
// the nearest: on gpt-4.1, 2049 x 513 was billed as eight tiles and 2050 x 513
// as four (community.openai.com, topic 1281361).
type Tiles struct {
	Base, Tile int64 // tokens
}

const (
	tileSide  = 512
	tileFit   = 2048
	tileShort = 768
	// tilesMost is four by two: 2048 and 768 in squares of 512.
	tilesMost = 8
	// tilesUsual is of an image as cameras and screens make them, 4:3 to 16:9.
	tilesUsual = 6
)

// Count is Base for a low detail, and the tiles beside it for every other.
func (r Tiles) Count(width, height int64, d Detail) Count {
	if !sized(width, height).Known || d == Low {
		return r.Unknown(d)
	}
	short, long := min(width, height), max(width, height)
	n, most := tiles(short, long)
	return proven(r.Base+n*r.Tile, r.Base+most*r.Tile)
}

// Unknown is Base for a low detail, which no size changes.
func (r Tiles) Unknown(d Detail) Count {
	if d == Low {
		return proven(r.Base, r.Base)
	}
	return upTo(r.Base+tilesUsual*r.Tile, r.Base+tilesMost*r.Tile)
}

// tiles is how many tiles an image has, and how many it has at the most however
// its sides are rounded. A shorter side that is rounded up can make the longer
// one shorter, so that both are tried.
func tiles(short, long int64) (n, most int64) {
	near, below := short, short
	if long > tileFit {
		below = short * tileFit / long
		near = (2*short*tileFit + long) / (2 * long)
		most = cover(ceilDiv(short*tileFit, long), tileFit, ceilDiv)
		long = tileFit
	}
	n = cover(near, long, func(a, b int64) int64 { return a / b })
	return n, max(n, most, cover(below, long, ceilDiv))
}

// cover is how many tiles cover an image after its shorter side is scaled down.
func cover(short, long int64, div func(a, b int64) int64) int64 {
	if short > tileShort {
		short, long = tileShort, div(long*tileShort, short)
	}
	return ceilDiv(max(short, 1), tileSide) * ceilDiv(max(long, 1), tileSide)
}

// Sizing is how large an image may be for a detail.
type Sizing struct {
	Edge   int64 // the longer side, in pixels
	Budget int64 // patches; zero is for no limit
}

// Patches is OpenAI's newer rule: patches of 32 by 32 pixels, times a factor.
//
// Source: OpenAI, "Images and vision", patch-based image tokenization, in its
// copies of early and of late 2026, which contradict each other on several
// models. Where they do, the figure is by the later one and the bound by the
// larger.
type Patches struct {
	Auto, Low, High, Original Sizing
	// Factor is tokens per hundred patches.
	Factor int64
	// Bound is the sizing and the factor that another source gives, when they come
	// to more; a zero adds nothing.
	BoundSizing Sizing
	BoundFactor int64
}

const patchSide = 32

// Count follows the steps of the guide. Floating point can make the bill one
// token higher, it says.
func (r Patches) Count(width, height int64, d Detail) Count {
	if !sized(width, height).Known {
		return r.Unknown(d)
	}
	z := r.sizing(d)
	most := mostPatches(width, height, z)
	if r.BoundSizing.Edge > 0 {
		most = max(most, mostPatches(width, height, r.BoundSizing))
	}
	return upTo(r.tokens(patches(width, height, z)), r.bound(most))
}

// Unknown is for an image that fills what the sizing allows.
func (r Patches) Unknown(d Detail) Count {
	z := r.sizing(d)
	most := max(z.most(), r.BoundSizing.most())
	const usual = 1024 // of an image of a megapixel
	return upTo(r.tokens(min(usual, z.most())), r.bound(most))
}

func (r Patches) sizing(d Detail) Sizing {
	switch d {
	case Low:
		return r.Low
	case High:
		return r.High
	case Original:
		return r.Original
	}
	return r.Auto
}

func (r Patches) tokens(patches int64) int64 { return ceilDiv(patches*r.Factor, 100) }

func (r Patches) bound(patches int64) int64 {
	return ceilDiv(patches*max(r.Factor, r.BoundFactor), 100) + 1
}

// most is how many patches an image has at the most.
func (z Sizing) most() int64 {
	n := ceilDiv(z.Edge, patchSide)
	if n *= n; z.Budget > 0 {
		return min(n, z.Budget)
	}
	return n
}

// patches is the guide's count: the longer side is fitted and the sides rounded;
// then, if the budget asks for it, both shrink so that they end at whole patches.
func patches(width, height int64, z Sizing) int64 {
	if long := max(width, height); long > z.Edge {
		width = max((2*width*z.Edge+long)/(2*long), 1)
		height = max((2*height*z.Edge+long)/(2*long), 1)
	}
	n := covered(width, height)
	if z.Budget == 0 || n <= z.Budget {
		return n
	}
	w, h := float64(width), float64(height)
	shrink := math.Sqrt(float64(patchSide*patchSide*z.Budget) / (w * h))
	across, down := w*shrink/patchSide, h*shrink/patchSide
	shrink *= min(max(math.Floor(across), 1)/across, max(math.Floor(down), 1)/down)
	n = covered(max(int64(w*shrink), 1), max(int64(h*shrink), 1))
	return min(n, z.Budget)
}

// mostPatches is the count however the sides are rounded and shrunk.
func mostPatches(width, height int64, z Sizing) int64 {
	if long := max(width, height); long > z.Edge {
		width, height = ceilDiv(width*z.Edge, long), ceilDiv(height*z.Edge, long)
	}
	n := covered(width, height)
	if z.Budget > 0 {
		n = min(n, z.Budget)
	}
	return n
}

func covered(width, height int64) int64 {
	return ceilDiv(width, patchSide) * ceilDiv(height, patchSide)
}
