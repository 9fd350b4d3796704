package reference

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// HeadBytes is how much of each file Head takes: with the 78 files of the corpus
// that are some 5 MB, of every class and script.
const HeadBytes = 64 << 10

// File is a file of the corpus: UTF-8, 2 MB at most.
type File struct {
	Class string // the folder: english, chinese, code, random, ...
	Name  string // the file in it, without its ending: go-01
	path  string
}

// Corpus is the text that `make setup` fetches, some 100 MB, always in the same
// order. Without it the test fails.
func Corpus(tb testing.TB) []File {
	tb.Helper()
	folder := filepath.Join(tree(), ".tools", "corpora")
	if _, err := os.Stat(filepath.Join(folder, ".done")); err != nil {
		tb.Fatalf("no corpora at %s: run make setup", folder)
	}
	paths, err := filepath.Glob(filepath.Join(folder, "*", "*.txt"))
	if err != nil {
		tb.Fatal(err)
	}
	files := make([]File, 0, len(paths))
	for _, path := range paths {
		files = append(files, File{
			Class: filepath.Base(filepath.Dir(path)),
			Name:  strings.TrimSuffix(filepath.Base(path), ".txt"),
			path:  path,
		})
	}
	return files
}

// Text is all of the file.
func (f File) Text(tb testing.TB) []byte {
	tb.Helper()
	text, err := os.ReadFile(f.path)
	if err != nil {
		tb.Fatal(err)
	}
	return text
}

// Head is the file's first HeadBytes, cut after a line where there is one.
func (f File) Head(tb testing.TB) []byte {
	tb.Helper()
	text := f.Text(tb)
	if len(text) <= HeadBytes {
		return text
	}
	if line := bytes.LastIndexByte(text[:HeadBytes], '\n'); line >= 0 {
		return text[:line+1]
	}
	return bytes.ToValidUTF8(text[:HeadBytes], nil)
}
