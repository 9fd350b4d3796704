package openai

import (
	"bytes"

	"github.com/weirproxy/weir/dialect"
	"github.com/weirproxy/weir/dialect/jsonscan"
)

// media reads an image, a video, a sound or a file: a string that holds or names
// it, or an object with such a string. Null is none.
func (p *parser) media(kind dialect.MediaKind) {
	m := dialect.Media{Kind: kind, Message: p.message, Before: len(p.r.Segments)}
	switch p.s.Peek() {
	case jsonscan.Null:
		p.s.Value()
		return
	case jsonscan.Object:
		p.mediaObject(&m)
	default:
		p.source(&m, p.s.Value(), dialect.URL)
	}
	p.r.Media = append(p.r.Media, m)
}

// mediaObject reads {"url", "detail"} of OpenAI's images, {"data", "format"} of
// its audio, {"file_data", "filename"} of its files, and what resembles them.
func (p *parser) mediaObject(m *dialect.Media) {
	p.s.EnterObject()
	for key, ok := p.s.NextKey(); ok; key, ok = p.s.NextKey() {
		switch string(p.s.Text(key)) {
		case "url", "image_url", "video_url", "audio_url", "file_url":
			p.source(m, p.s.Value(), dialect.URL)
		case "data", "file_data":
			p.source(m, p.s.Value(), dialect.Base64)
		case "detail":
			m.Detail = p.detail()
		case "format":
			if v := p.s.Value(); v.Kind == jsonscan.String {
				m.Format = p.r.Body[v.Off : v.Off+v.Len]
			}
		case "filename":
			p.text(dialect.FileName, p.s.Value())
		default:
			p.s.Value()
		}
	}
}

// source notes where a medium is. Of several, the longest counts: a backend takes
// one of them, and the longest can be the most tokens.
func (p *parser) source(m *dialect.Media, v jsonscan.Value, otherwise dialect.Source) {
	if v.Kind != jsonscan.String || v.Len <= m.Len {
		return
	}
	m.Source, m.Off, m.Len = otherwise, v.Off, v.Len
	if isDataURI(p.r.Body[v.Off:v.Off+v.Len], v.Escaped) {
		m.Source = dialect.DataURI
	}
}

// isDataURI tells whether a string is a data URI (RFC 2397).
func isDataURI(literal []byte, escaped bool) bool {
	const scheme = "data:"
	if escaped { // each byte may be an escape of six
		literal = jsonscan.AppendText(nil, literal[:min(len(literal), 2+6*len(scheme))])
	} else {
		literal = literal[1:]
	}
	return len(literal) >= len(scheme) && bytes.EqualFold(literal[:len(scheme)], []byte(scheme))
}

func (p *parser) detail() dialect.Detail {
	v := p.s.Value()
	if v.Kind != jsonscan.String {
		return dialect.DetailAuto
	}
	switch string(p.s.Text(v)) {
	case "low":
		return dialect.DetailLow
	case "high":
		return dialect.DetailHigh
	case "original":
		return dialect.DetailOriginal
	}
	return dialect.DetailAuto
}
