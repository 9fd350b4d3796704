package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Bounds on a file: a configuration of a thousand pools is far below them.
const (
	maxFileBytes = 4 << 20
	maxNodes     = 500_000 // after aliases are expanded
)

// document is the text of a configuration as a YAML tree in which aliases and
// merge keys are resolved, field names are the proto names, and unknown or
// repeated fields are gone (and reported). It remembers where each field stands.
type document struct {
	file   string
	lines  []string
	breaks int                   // as YAML counts lines: \r, NEL, LS and PS too
	root   *yaml.Node            // a mapping; nil when the text is not even that
	nodes  map[string]*yaml.Node // by path
	paths  map[spot]string       // of values and of field names
}

type spot struct{ line, col int }

// place finds where the field at path stands, or else the nearest thing around it.
func (d *document) place(path string) (line, col int) {
	for ; path != ""; path = parent(path) {
		if n, ok := d.nodes[path]; ok {
			return n.Line, n.Column
		}
	}
	if d.root != nil {
		return d.root.Line, d.root.Column
	}
	return 1, 1
}

// expressionPlace finds the character at line and column (from 1) of a scalar's
// value in the text. It is not exact for folded and escaped scalars: ok is false.
func (d *document) expressionPlace(path string, line, col int) (l, c int, ok bool) {
	n := d.nodes[path]
	if n == nil || n.Kind != yaml.ScalarNode || line < 1 {
		return 0, 0, false
	}
	want := strings.Split(n.Value, "\n")
	at, indent := n.Line+line-1, n.Column-1
	switch n.Style {
	case yaml.DoubleQuotedStyle, yaml.SingleQuotedStyle:
		indent++
	case yaml.LiteralStyle:
		at, indent = at+1, -1
	}
	if line > len(want) || at > len(d.lines) || (len(want) > 1 && n.Style != yaml.LiteralStyle) {
		return 0, 0, false
	}
	source := []rune(d.lines[at-1])
	if indent < 0 {
		indent = len(source) - len([]rune(strings.TrimLeft(d.lines[at-1], " ")))
	}
	if indent > len(source) || !strings.HasPrefix(string(source[indent:]), want[line-1]) {
		return 0, 0, false
	}
	return at, indent + col, true
}

// parseDocument reads the text. What cannot be read at all is the one fault
// that is returned.
func parseDocument(file string, text []byte, schema protoreflect.MessageDescriptor) (*document, *report) {
	doc := &document{file: file, nodes: map[string]*yaml.Node{}, paths: map[spot]string{}}
	r := newReport(doc)
	if len(text) > maxFileBytes {
		r.faultAt(1, 1, "", fmt.Sprintf("the file is larger than %d MiB", maxFileBytes>>20))
		return doc, r
	}
	text = bytes.TrimPrefix(text, []byte("\ufeff"))
	doc.lines = strings.Split(string(text), "\n")
	for _, r := range string(text) {
		if strings.ContainsRune("\n\r\u0085\u2028\u2029", r) {
			doc.breaks++
		}
	}
	if line, col, ok := badByte(text); !ok {
		r.faultAt(line, col, "", "the file is not UTF-8 text")
		return doc, r
	}
	root, fault := parseYAML(text)
	if fault != nil {
		fault.locate(doc.lines)
		r.faultAt(fault.line, fault.col, "", fault.message)
		return doc, r
	}
	if root.Kind != yaml.MappingNode {
		r.faultAt(root.Line, root.Column, "", "the file must be a mapping of fields, as `listeners: ...`")
		return doc, r
	}
	p := &preparation{report: r, open: map[*yaml.Node]bool{}}
	doc.root = p.message(root, schema, "")
	return doc, r
}

// badByte finds the first byte that is no UTF-8 text, NUL included.
func badByte(text []byte) (line, col int, ok bool) {
	line, col = 1, 1
	for len(text) > 0 {
		r, size := utf8.DecodeRune(text)
		if r == 0 || (r == utf8.RuneError && size <= 1) {
			return line, col, false
		}
		if col++; r == '\n' {
			line, col = line+1, 1
		}
		text = text[size:]
	}
	return 0, 0, true
}

// syntaxFault is a text that is not YAML.
type syntaxFault struct {
	line, col int
	message   string
}

// parseYAML parses the one document of the text.
func parseYAML(text []byte) (root *yaml.Node, fault *syntaxFault) {
	defer func() {
		// The YAML library panics on some malformed texts; input never ends weir.
		if recover() != nil {
			root, fault = nil, &syntaxFault{line: 1, message: "the file is not YAML that can be read"}
		}
	}()
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	var first, second yaml.Node
	if err := decoder.Decode(&first); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, &syntaxFault{line: 1, message: "the file is empty"}
		}
		return nil, yamlFault(err)
	}
	switch err := decoder.Decode(&second); {
	case err == nil:
		return nil, &syntaxFault{line: second.Line, col: second.Column, message: "a second document: a configuration is one"}
	case !errors.Is(err, io.EOF):
		return nil, yamlFault(err)
	}
	root = first.Content[0]
	if root.Kind == yaml.ScalarNode && root.Tag == "!!null" {
		return nil, &syntaxFault{line: 1, message: "the file is empty"}
	}
	return root, nil
}

var yamlErrorText = regexp.MustCompile(`(?s)^yaml: (?:line (\d+): )?(.*)$`)

// yamlFault takes the line out of the YAML library's error.
func yamlFault(err error) *syntaxFault {
	m := yamlErrorText.FindStringSubmatch(err.Error())
	if m == nil {
		return &syntaxFault{line: 1, message: err.Error()}
	}
	line, _ := strconv.Atoi(m[1])
	f := &syntaxFault{line: max(line, 1), message: m[2]}
	if strings.HasPrefix(f.message, "did not find expected") {
		// The library counts these lines from 0, and means the block around.
		f.line++
		f.message += ", here or in the block that begins here"
	}
	return f
}

var unknownAnchor = regexp.MustCompile(`^unknown anchor '(.*)' referenced$`)

// locate finds a place for a fault that has only a line: where the line's text
// begins, or the tab in its indentation. An unknown anchor has not even a line.
func (f *syntaxFault) locate(lines []string) {
	f.line = min(f.line, len(lines))
	if f.col > 0 {
		return
	}
	if m := unknownAnchor.FindStringSubmatch(f.message); m != nil {
		for i, line := range lines {
			if at := strings.Index(line, "*"+m[1]); at >= 0 {
				f.line, f.col = i+1, at+1
				return
			}
		}
	}
	line := lines[f.line-1]
	text := strings.TrimLeft(line, " ")
	f.col = len(line) - len(text) + 1
	if strings.HasPrefix(text, "\t") {
		f.message = "a tab in the indentation; YAML wants spaces"
	}
}
