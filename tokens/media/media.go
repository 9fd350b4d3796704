// Package media tells how many input tokens an image, a sound, a video or a
// document costs that stands in a request, from the header of the media itself.
// It decodes the few bytes that it needs and never the whole; the length of the
// base64 says nothing about an image's tokens.
//
// Everything here is pure: no network, no clock, no memory kept. A part is the
// work of a client and may be made to deceive: every count has a bound beside
// it that holds whatever the header says. Where a header proves nothing, the
// bound is what the model takes at the most.
//
// The bounds hold for backends with the limits that the rules state. A request
// to vLLM can lift them with mm_processor_kwargs or media_io_kwargs; who rests
// on a bound has to refuse these. Of a file that is made to be two formats at
// once, they hold as far as disguised says, and not for sound: whatever is
// missed there is seen when the request is settled.
package media

import "github.com/weirproxy/weir/dialect"

// Count is what one part costs, in tokens.
type Count struct {
	// Tokens is the best figure. It is never above Bound.
	Tokens int64
	// Bound is never below what the backend counts.
	Bound int64
	// Exact says that the backend counts neither more nor less than Tokens, by a
	// rule that is published and needs no figure that is not known.
	Exact bool
}

// Add is what two parts cost together.
func (c Count) Add(d Count) Count {
	return Count{c.Tokens + d.Tokens, c.Bound + d.Bound, c.Exact && d.Exact}
}

// upTo is a count whose figure is cut to its bound.
func upTo(tokens, bound int64) Count {
	bound = max(bound, 0)
	return Count{Tokens: min(max(tokens, 0), bound), Bound: bound}
}

// proven is a count that is exact when nothing lies between its figure and its
// bound.
func proven(tokens, bound int64) Count {
	c := upTo(tokens, bound)
	c.Exact = tokens == bound
	return c
}

// Detail is how closely a client asks to look at an image. Only OpenAI's rules look
// at it.
type Detail = dialect.Detail

// The details.
const (
	Auto     = dialect.DetailAuto
	Low      = dialect.DetailLow
	High     = dialect.DetailHigh
	Original = dialect.DetailOriginal
)

// ImageRule is how a family of models counts images.
type ImageRule interface {
	// Count is for an image of a known size, in pixels, both above zero. It does
	// not matter which of them is the width: headers give the size before the
	// camera's orientation is applied, and not every backend applies it.
	Count(width, height int64, d Detail) Count
	// Unknown is for an image of any size; its bound is the rule's largest.
	Unknown(d Detail) Count
}

// Rules is how one model counts media.
type Rules struct {
	Image ImageRule
	// Beside is what stands around each image, in tokens.
	Beside   int64
	Audio    AudioRule
	Video    VideoRule
	Document DocumentRule
	// Context is the longest input that the model is known to take, in tokens:
	// what is longer is refused by the backend and costs nothing, so that no bound
	// is above it. Zero is for no such limit. Who serves a model with another
	// context sets it.
	Context int64
}

// CountImage counts the image in a JSON string, without the string's quotes: a
// data URI. Anything else, a URL above all, is an image of unknown size.
func (r Rules) CountImage(literal []byte, d Detail) Count {
	c := r.Image.Unknown(d)
	if size := ImageSize(literal); size.Known {
		most := c
		c = r.Image.Count(size.Width, size.Height, d)
		if !size.Sure && !most.Exact {
			c = upTo(c.Tokens, max(c.Bound, most.Bound))
		}
	}
	return r.within(c.Add(Count{Tokens: r.Beside, Bound: r.Beside, Exact: true}))
}

// CountAudio counts the sound in a JSON string, without the string's quotes: a
// data URI or bare base64. format is OpenAI's input_audio.format; it matters
// for pcm16 alone, which has no header.
func (r Rules) CountAudio(literal []byte, format string) Count {
	return r.within(r.Audio.Count(AudioLength(literal, format)))
}

// CountVideo counts the video in a JSON string, without the string's quotes.
func (r Rules) CountVideo(literal []byte) Count {
	return r.within(r.Video.Count(videoLength(literal)))
}

// CountFile counts the document in a JSON string, without the string's quotes:
// a data URI or bare base64.
func (r Rules) CountFile(literal []byte) Count {
	return r.within(r.Document.Count(ReadDocument(literal)))
}

func (r Rules) within(c Count) Count {
	if r.Context > 0 && c.Bound > r.Context {
		return upTo(c.Tokens, r.Context)
	}
	return c
}

func ceilDiv(a, b int64) int64 { return (a + b - 1) / b }
