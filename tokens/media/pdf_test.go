package media

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
)

// pdfOf is a PDF with a page tree of n leaves, as most writers put it.
func pdfOf(n int, before string) string {
	var b strings.Builder
	b.WriteString("%PDF-1.4\n" + before)
	b.WriteString("1 0 obj\n<< /Type /Catalog /Pages 2 0 R /Outlines 9 0 R >>\nendobj\n")
	fmt.Fprintf(&b, "2 0 obj\n<< /Kids [ 3 0 R ] /Count %d /Type /Pages >>\nendobj\n", n)
	for i := range n {
		fmt.Fprintf(&b, "%d 0 obj\n<</Type/Page/Parent 2 0 R/Contents %d 0 R>>\nendobj\n", 3+i, 100+i)
	}
	b.WriteString("9 0 obj\n<< /Type /Outlines /Count 5000 >>\nendobj\ntrailer\n<< /Root 1 0 R >>\n%%EOF\n")
	return b.String()
}

func TestReadDocument(t *testing.T) {
	t.Parallel()
	noise := strings.Repeat("stream of pixels", 1<<14)
	tests := []struct {
		name, data string
		want       Document
	}{
		{"pages", pdfOf(3, ""), Document{Pages: 3}},
		{"pages across windows", pdfOf(150, ""), Document{Pages: 150}},
		{"the tree behind the pixels", pdfOf(12, noise), Document{Pages: 12}},
		{"the tree between the windows", strings.Replace(pdfOf(12, noise), "trailer", noise+"trailer", 1), Document{Pages: 11}},
		{"leaves without a tree", strings.Replace(pdfOf(3, ""), "/Type /Pages", "/Type /Other", 1), Document{Pages: 3}},
		{"linearized", "%PDF-1.5\n1 0 obj\n<</Linearized 1/L 9/O 8/E 7/N 42 /T 5>>\nendobj\n" + noise, Document{Pages: 42}},
		{"packed", "%PDF-1.5\n" + noise, Document{Pages: 6}},
		{"small and packed", "%PDF-1.5\n", Document{Pages: 1}},
		{"a number without end", "%PDF-1.4\n2 0 obj <</Type/Pages/Count 99999999999999999999>> endobj", Document{Pages: 999999}},
		{"a number below zero", "%PDF-1.4\n2 0 obj <</Type/Pages/Count -9>> endobj", Document{Pages: 1}},
		{"text", strings.Repeat("word ", 600), Document{Bytes: 3000}},
		{"nothing", "", Document{}},
	}
	for _, tt := range tests {
		for _, literal := range [][]byte{uri(tt.data), []byte(base64.StdEncoding.EncodeToString([]byte(tt.data)))} {
			if got := ReadDocument(literal); got != tt.want {
				t.Errorf("%s: %+v, want %+v", tt.name, got, tt.want)
			}
		}
	}
}

// A node of the tree is read wherever the edge of a window cuts it.
func TestReadDocumentAcrossWindows(t *testing.T) {
	t.Parallel()
	for n := pdfWindow - 300; n < pdfWindow; n++ {
		tree := pdfOf(7, strings.Repeat(" ", n))
		tree = strings.ReplaceAll(tree, "/Type/Page/", "/Type/Other/")
		if got := ReadDocument(uri(tree)); got != (Document{Pages: 7}) {
			t.Fatalf("behind %d bytes: %+v", n, got)
		}
	}
}

func TestCountFile(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, model string
		literal     []byte
		want        Count
	}{
		{"claude", "claude-opus-4-8", uri(pdfOf(3, "")), Count{Tokens: 3 * 2300, Bound: context1M}},
		{"gemini", "gemini-3-pro", uri(pdfOf(3, "")), Count{Tokens: 3 * 560, Bound: context1M}},
		{"unknown", "deepseek-v3", uri(pdfOf(3, "")), Count{Tokens: 3 * 1600, Bound: 131072}},
		{"more pages than fit", "gpt-4o", uri(pdfOf(150, "")), Count{Tokens: 128000, Bound: 128000}},
		{"text", "gpt-4o", uri(strings.Repeat("word ", 600)), Count{Tokens: 750, Bound: 128000}},
		{"URL", "gpt-4o", []byte("https://example.com/a.pdf"), Count{Tokens: 6400, Bound: 128000}},
	}
	for _, tt := range tests {
		if got := ForModel(tt.model).CountFile(tt.literal); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}
