package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"unicode/utf8"
)

// text is what is counted.
type text struct {
	name  string
	bytes []byte
}

const (
	// headBytes is how much of each file of the corpora is taken: the same as in
	// weir's own benchmarks.
	headBytes = 64 << 10
	// hostileBytes is the size of the hostile texts.
	hostileBytes = 1 << 20
	chatBytes    = 2 << 10
)

// classes are the folders of the corpora that are measured.
var classes = []string{"english", "chinese", "japanese", "code", "json", "base64", "emoji", "random"}

// loadTexts makes all texts but the agent's context; they are the same each time.
func loadTexts(root string) ([]text, error) {
	var list []text
	for _, class := range classes {
		b, err := corpus(root, class)
		if err != nil {
			return nil, err
		}
		list = append(list, text{class, b})
	}
	chat := whole(list[0].bytes[:min(chatBytes, len(list[0].bytes))])
	return append(append(list, text{"chat of 2 KB", chat}), hostile()...), nil
}

// hostile are texts that someone would send to keep a counter busy.
func hostile() []text {
	repeat := func(s string) []byte { return bytes.Repeat([]byte(s), hostileBytes/len(s)) }
	rng := rand.New(rand.NewPCG(1, 2))
	var noise []byte
	for len(noise) < hostileBytes {
		if r := rune(rng.IntN(utf8.MaxRune + 1)); utf8.ValidRune(r) {
			noise = utf8.AppendRune(noise, r)
		}
	}
	return []text{
		{"one letter", repeat("a")},
		{"spaces", repeat(" ")},
		{"combining marks", repeat("\u0301")},
		{"space, newline", repeat(" \n")},
		{"aB", repeat("aB")},
		{"random UTF-8", noise},
	}
}

// corpus is the first headBytes of each file of a class, cut after a line where
// there is one.
func corpus(root, class string) ([]byte, error) {
	folder := filepath.Join(root, ".tools", "corpora")
	if _, err := os.Stat(filepath.Join(folder, ".done")); err != nil {
		return nil, fmt.Errorf("no corpora at %s: run make setup", folder)
	}
	paths, err := filepath.Glob(filepath.Join(folder, class, "*.txt")) // sorted
	if err != nil {
		return nil, err
	}
	var all []byte
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		all = append(all, head(b)...)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("no text at %s: run make setup", filepath.Join(folder, class))
	}
	return all, nil
}

func head(b []byte) []byte {
	if len(b) <= headBytes {
		return b
	}
	if line := bytes.LastIndexByte(b[:headBytes], '\n'); line >= 0 {
		return b[:line+1]
	}
	return whole(b[:headBytes])
}

// whole takes off the part of a character at the end.
func whole(b []byte) []byte {
	for i := 1; i <= min(utf8.UTFMax, len(b)); i++ {
		if tail := b[len(b)-i:]; utf8.RuneStart(tail[0]) {
			if !utf8.FullRune(tail) {
				return b[:len(b)-i]
			}
			break
		}
	}
	return b
}
