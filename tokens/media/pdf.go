package media

import "bytes"

// Document is what its beginning and its end tell of a document. Nothing is
// proven by it.
type Document struct {
	Pages int64 // of a PDF
	Bytes int64 // of what is no PDF
}

// DocumentRule is how a provider counts documents: the pages of a PDF as text and
// as images, anything else as text.
type DocumentRule struct {
	PerPage int64 // tokens
	Cap     int64 // the most for one document, in tokens
}

const (
	// usualPages is of a document that is not at hand.
	usualPages = 4
	// textBytes is how many bytes of text make a token.
	textBytes = 4
)

// Count has no bound but the rule's: pages can be packed a thousand to one.
func (r DocumentRule) Count(d Document) Count {
	switch {
	case d.Pages > 0:
		return upTo(min(d.Pages, maxPages)*r.PerPage, r.Cap)
	case d.Bytes > 0:
		return upTo(ceilDiv(d.Bytes, textBytes), r.Cap)
	}
	return upTo(usualPages*r.PerPage, r.Cap)
}

const (
	// pdfLook is how many bytes are searched, at the beginning and at the end, where
	// encoders write the tree of pages.
	pdfLook = 48 << 10
	// pdfPage is how many bytes make a page of a document that does not say.
	pdfPage = 50 << 10
	// maxPages is more than any provider takes.
	maxPages = 1 << 20
)

// ReadDocument reads how many pages the PDF in a JSON string has, without the
// string's quotes: a data URI or bare base64. When the tree of pages is packed
// or lies elsewhere, they are guessed by the size.
func ReadDocument(literal []byte) Document {
	s, ok := open(literal, true)
	if !ok {
		return Document{}
	}
	size := s.left()
	var window [pdfWindow]byte
	if t := s; !t.fill(window[:5]) || string(window[:5]) != "%PDF-" {
		return Document{Bytes: size}
	}
	var found pdfPages
	end := s.end()
	found.search(&s, &window)
	end.pos = max(end.pos, s.pos)
	found.search(&end, &window)
	if n := found.pages(); n > 0 {
		return Document{Pages: n}
	}
	return Document{Pages: ceilDiv(size, pdfPage)}
}

// end is the last pdfLook bytes of base64 without escapes and white space.
func (s *source) end() source {
	t := *s
	t.lit = s.all
	if skip := (len(s.all)-s.pos)/4 - pdfLook/3; skip > 0 && !s.percent {
		t.pos += skip * 4
	}
	return t
}

// pdfPages is what the search has found.
type pdfPages struct {
	leaves int64 // pages
	nodes  int   // nodes of the tree
	count  int64 // the largest number that a node states
	linear int64 // what the head of a linearized file states
}

func (p *pdfPages) pages() int64 {
	if p.linear > 0 {
		return p.linear
	}
	return max(p.count, p.leaves)
}

const (
	pdfWindow = 4 << 10
	// pdfOverlap is how much of a window is searched with the next one, so that no
	// object of the tree is cut where it matters.
	pdfOverlap = 512
)

// search reads pdfLook bytes through a window.
func (p *pdfPages) search(s *source, window *[pdfWindow]byte) {
	n := 0 // bytes in the window
	for seen := 0; seen < pdfLook; {
		k := s.some(window[n:])
		seen += k
		n += k
		last := k == 0 || seen >= pdfLook
		done := n - pdfOverlap
		if last {
			done = n
		}
		p.look(window[:n], max(done, 0))
		if last {
			return
		}
		n = copy(window[:], window[max(done, 0):n])
	}
}

// some reads as much of p as there is.
func (s *source) some(p []byte) (n int) {
	for n < len(p) {
		k := copy(p[n:], s.held[s.at:s.n])
		s.at += k
		k += s.direct(p[n+k:])
		if n += k; k == 0 && !s.group() {
			break
		}
	}
	return n
}

// look searches what begins before done in b.
func (p *pdfPages) look(b []byte, done int) {
	for i := 0; ; i++ {
		k := bytes.IndexByte(b[i:], '/')
		if k < 0 || i+k >= done {
			return
		}
		i += k
		switch rest := b[i:]; {
		case bytes.HasPrefix(rest, []byte("/Linearized")):
			if at := bytes.Index(rest[:min(len(rest), 256)], []byte("/N ")); at > 0 {
				p.linear = number(rest[at+3:])
			}
		case bytes.HasPrefix(rest, []byte("/Type")):
			name := bytes.TrimLeft(rest[len("/Type"):], " \r\n\t")
			switch {
			case bytes.HasPrefix(name, []byte("/Pages")):
				p.node(b, i)
			case bytes.HasPrefix(name, []byte("/Page")):
				p.leaves++
			}
		}
	}
}

// node reads the number of pages below a node of the tree, which stands within
// the same object as its type.
func (p *pdfPages) node(b []byte, at int) {
	const maxNodes, before = 256, 512
	if p.nodes++; p.nodes > maxNodes {
		return
	}
	from := max(at-before, 0)
	from += max(bytes.LastIndex(b[from:at], []byte("obj")), 0)
	object := b[from:]
	if to := bytes.Index(object, []byte("endobj")); to > 0 {
		object = object[:to]
	}
	if i := bytes.Index(object, []byte("/Count")); i >= 0 {
		p.count = max(p.count, number(object[i+len("/Count"):]))
	}
}

// number reads up to six digits.
func number(b []byte) (n int64) {
	b = bytes.TrimLeft(b, " \r\n\t")
	for i := 0; i < len(b) && i < 6 && b[i] >= '0' && b[i] <= '9'; i++ {
		n = n*10 + int64(b[i]-'0')
	}
	return n
}
