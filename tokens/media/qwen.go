package media

import "math"

// Qwen is how the Qwen-VL family counts: an image is resized so that its sides
// are multiples of Factor and its pixels within limits, and has one token for
// each square of Factor, with a marker before and behind.
//
// Source: smart_resize of transformers 5.24 (models/qwen2_vl), which vLLM calls;
// the limits are those of the models' preprocessor_config.json. A server may have
// others, and Alibaba's own service has lower ones: exact is what vLLM and SGLang
// count that serve a model as it is published.
type Qwen struct {
	Factor               int64 // the side of a patch times the side of a merge, in pixels
	MinPixels, MaxPixels int64
}

const (
	qwenMarkers = 2
	// qwenAspect is above which an image is refused.
	qwenAspect = 200
	qwenUsual  = 1024
)

// Count is by vLLM's way; the bound is also by SGLang's.
func (r Qwen) Count(width, height int64, d Detail) Count {
	if !sized(width, height).Known {
		return r.Unknown(d)
	}
	limit := r.most()
	n := min(r.squares(smartResize(height, width, r.Factor, r.MinPixels, r.MaxPixels)), limit)
	if max(width, height) > qwenAspect*min(width, height) {
		// Refused; of a backend that would not, nothing is known.
		return upTo(n+qwenMarkers, limit+qwenMarkers)
	}
	most := max(n, min(r.squares(r.sglang(height, width)), limit))
	return proven(n+qwenMarkers, most+qwenMarkers)
}

// Unknown is for an image of the most pixels.
func (r Qwen) Unknown(Detail) Count {
	return upTo(min(qwenUsual, r.most())+qwenMarkers, r.most()+qwenMarkers)
}

func (r Qwen) most() int64 { return r.MaxPixels / (r.Factor * r.Factor) }

func (r Qwen) squares(height, width int64) int64 {
	return (height / r.Factor) * (width / r.Factor)
}

// What SGLang resizes every Qwen's images to before it asks transformers
// (multimodal/processors/qwen_vl.py, its constants).
const (
	sglangFactor = 28
	sglangMin    = 4 * 28 * 28
	sglangMax    = 16384 * 28 * 28
)

// sglang is the size after SGLang's own resizing, which never rounds a side to
// nothing, and transformers'.
func (r Qwen) sglang(height, width int64) (h, w int64) {
	h, w = resize(height, width, sglangFactor, sglangFactor, sglangMin, sglangMax)
	return smartResize(h, w, r.Factor, r.MinPixels, r.MaxPixels)
}

// smartResize is transformers' function without its refusal.
func smartResize(height, width, factor, minPixels, maxPixels int64) (h, w int64) {
	return resize(height, width, factor, 0, minPixels, maxPixels)
}

// resize rounds the sides to multiples of factor, half to even, as Python does,
// but to no less than least; then scales them into the limits.
func resize(height, width, factor, least, minPixels, maxPixels int64) (h, w int64) {
	f := float64(factor)
	h = max(int64(math.RoundToEven(float64(height)/f))*factor, least)
	w = max(int64(math.RoundToEven(float64(width)/f))*factor, least)
	area := float64(height * width)
	switch {
	case h*w > maxPixels:
		beta := math.Sqrt(area / float64(maxPixels))
		h = max(factor, int64(math.Floor(float64(height)/beta/f))*factor)
		w = max(factor, int64(math.Floor(float64(width)/beta/f))*factor)
	case h*w < minPixels:
		beta := math.Sqrt(float64(minPixels) / area)
		h = int64(math.Ceil(float64(height)*beta/f)) * factor
		w = int64(math.Ceil(float64(width)*beta/f)) * factor
	}
	return h, w
}
