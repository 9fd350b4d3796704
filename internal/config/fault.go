// Package config turns a configuration file into a plan: YAML to the protobuf
// schema of weir.config.v1, its rules, every check between objects, and the
// secrets that it refers to. It reports every fault at once, each with its
// place. It decides nothing about a request and never writes outside the data
// directory's secrets.
package config

//go:generate go run ./reference -proto ../../proto/weir/config/v1/config.proto -out ../../docs/reference/config.md -adapters ../../docs/reference/adapters.md

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Fault is one thing that is wrong with a configuration file. It never holds a
// secret.
type Fault struct {
	File string
	// Line and Col count from 1; both are 0 when the fault has no place in the
	// text (the file cannot be read, say).
	Line, Col int
	// Path names the field, as models[0].targets[1].pool; "" is the whole file.
	Path    string
	Message string
}

// String is the form file:line:col: path: message.
func (f Fault) String() string {
	var b strings.Builder
	b.WriteString(f.File)
	if f.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", f.Line, f.Col)
	}
	if f.Path != "" {
		b.WriteString(": " + f.Path)
	}
	b.WriteString(": " + f.Message)
	return b.String()
}

// Faults is everything that is wrong with a file, in the order of the text.
type Faults []Fault

// Error is one fault a line.
func (fs Faults) Error() string {
	lines := make([]string, len(fs))
	for i, f := range fs {
		lines[i] = f.String()
	}
	return strings.Join(lines, "\n")
}

// sorted puts the faults in the order of the text, each once.
func (fs Faults) sorted() Faults {
	slices.SortStableFunc(fs, func(a, b Fault) int {
		return cmp.Or(
			cmp.Compare(a.Line, b.Line), cmp.Compare(a.Col, b.Col),
			cmp.Compare(a.Path, b.Path), cmp.Compare(a.Message, b.Message))
	})
	return slices.Compact(fs)
}

// report collects the faults and warnings of one file.
type report struct {
	doc      *document
	faults   Faults
	warnings Faults
	faulty   map[string]bool // paths that have a fault
}

func newReport(doc *document) *report {
	return &report{doc: doc, faulty: map[string]bool{}}
}

// fault notes a fault of the field at path. A path that is absent from the text
// is reported at the nearest thing around it that is there.
func (r *report) fault(path, format string, args ...any) {
	line, col := r.doc.place(path)
	r.faultAt(line, col, path, fmt.Sprintf(format, args...))
}

func (r *report) faultAt(line, col int, path, message string) {
	r.faulty[path] = true
	r.faults = append(r.faults, Fault{File: r.doc.file, Line: line, Col: col, Path: path, Message: message})
}

// warn notes something that is allowed and probably not meant. Where there is a
// fault already, that comes first.
func (r *report) warn(path, format string, args ...any) {
	if r.under(path) {
		return
	}
	line, col := r.doc.place(path)
	r.warnings = append(r.warnings, Fault{File: r.doc.file, Line: line, Col: col, Path: path, Message: fmt.Sprintf(format, args...)})
}

// under tells whether the path or anything around it has a fault already: what
// else is wrong there is likely its consequence.
func (r *report) under(path string) bool {
	for ; path != ""; path = parent(path) {
		if r.faulty[path] {
			return true
		}
	}
	return false
}

// parent cuts the last step off a path: a[0].b, a[0], a, "".
func parent(path string) string {
	return path[:max(strings.LastIndexAny(path, ".["), 0)]
}
