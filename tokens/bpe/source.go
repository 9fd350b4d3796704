package bpe

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Source is a vocabulary as its makers publish it.
type Source struct {
	Merges  *Merges
	Pattern Pattern
	// NFC says that texts are brought into Unicode's normal form C first.
	NFC bool
	// Added are tokens that are found in any text before it is cut: special ones, and
	// others that came later. Counting does not look for them.
	Added []string
}

// ReadTiktoken reads a vocabulary in tiktoken's format: a line a token, its bytes in
// base64 and its rank. It returns the tokens in the order of their ranks. The format
// does not say which pattern cuts the texts.
func ReadTiktoken(data []byte) (tokens []string, err error) {
	for n, line := range bytes.Split(data, []byte("\n")) {
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		text, rank, ok := strings.Cut(string(bytes.TrimSpace(line)), " ")
		token, err := base64.StdEncoding.DecodeString(text)
		if r, e := strconv.Atoi(rank); !ok || err != nil || e != nil || r != len(tokens) {
			return nil, fmt.Errorf("line %d: a token in base64 and the rank %d were expected", n+1, len(tokens))
		}
		tokens = append(tokens, string(token))
	}
	if len(tokens) == 0 {
		return nil, errors.New("no tokens")
	}
	return tokens, nil
}

// tekken is Mistral's tokenizer file, as far as it matters here.
type tekken struct {
	Config struct {
		Pattern  string `json:"pattern"`
		Size     int    `json:"default_vocab_size"`
		Specials int    `json:"default_num_special_tokens"`
	} `json:"config"`
	Vocab []struct {
		Rank  int    `json:"rank"`
		Bytes []byte `json:"token_bytes"`
	} `json:"vocab"`
}

// ReadTekken reads Mistral's tekken.json. Of the tokens that it lists, as many are
// used as its configuration says.
func ReadTekken(data []byte) (*Source, error) {
	var t tekken
	if err := json.Unmarshal(data, &t); err != nil {
		return nil, err
	}
	p, err := patternOf(t.Config.Pattern)
	if err != nil {
		return nil, err
	}
	n := t.Config.Size - t.Config.Specials
	if n <= 0 || n > len(t.Vocab) {
		return nil, fmt.Errorf("%d tokens are listed, %d are to be used", len(t.Vocab), n)
	}
	tokens := make([]string, n)
	for i := range tokens {
		if t.Vocab[i].Rank != i {
			return nil, fmt.Errorf("vocab[%d] has rank %d", i, t.Vocab[i].Rank)
		}
		tokens[i] = string(t.Vocab[i].Bytes)
	}
	m, err := FromRanks(tokens)
	return &Source{Merges: m, Pattern: p}, err
}

// huggingFace is a tokenizer.json of Hugging Face's tokenizers, as far as it matters
// here.
type huggingFace struct {
	AddedTokens []struct {
		Content    string `json:"content"`
		SingleWord bool   `json:"single_word"`
		LStrip     bool   `json:"lstrip"`
		RStrip     bool   `json:"rstrip"`
	} `json:"added_tokens"`
	Normalizer   *component `json:"normalizer"`
	PreTokenizer *component `json:"pre_tokenizer"`
	Model        struct {
		Type         string            `json:"type"`
		Dropout      *float64          `json:"dropout"`
		Prefix       string            `json:"continuing_subword_prefix"`
		Suffix       string            `json:"end_of_word_suffix"`
		ByteFallback bool              `json:"byte_fallback"`
		IgnoreMerges bool              `json:"ignore_merges"`
		Vocab        map[string]int    `json:"vocab"`
		Merges       []json.RawMessage `json:"merges"`
	} `json:"model"`
}

type component struct {
	Type           string      `json:"type"`
	Normalizers    []component `json:"normalizers"`
	PreTokenizers  []component `json:"pretokenizers"`
	Pattern        struct{ Regex string }
	Behavior       string `json:"behavior"`
	Invert         bool   `json:"invert"`
	AddPrefixSpace bool   `json:"add_prefix_space"`
	UseRegex       *bool  `json:"use_regex"`
}

// ReadHuggingFace reads a tokenizer.json: byte-level BPE whose pattern is one of
// those that are known here. Anything else is an error, since it would be counted
// wrongly.
func ReadHuggingFace(data []byte) (*Source, error) {
	var h huggingFace
	if err := json.Unmarshal(data, &h); err != nil {
		return nil, err
	}
	m := &h.Model
	if m.Type != "BPE" || m.Dropout != nil || m.Prefix != "" || m.Suffix != "" || m.ByteFallback {
		return nil, errors.New("model: no plain byte-level BPE")
	}
	s := &Source{}
	for i, t := range h.AddedTokens {
		if t.Content == "" || t.SingleWord || t.LStrip || t.RStrip {
			return nil, fmt.Errorf("added_tokens[%d]: tokens that take white space with them are not known", i)
		}
		s.Added = append(s.Added, t.Content)
	}
	var err error
	if s.NFC, err = h.Normalizer.nfc(); err != nil {
		return nil, err
	}
	if s.Pattern, err = h.PreTokenizer.pattern(); err != nil {
		return nil, err
	}
	pairs := make([][2]string, len(m.Merges))
	for i, raw := range m.Merges {
		if pairs[i], err = mergePair(raw); err != nil {
			return nil, fmt.Errorf("model.merges[%d]: %w", i, err)
		}
	}
	var whole []string
	if m.IgnoreMerges {
		for spelt := range m.Vocab {
			if text, ok := unspell(spelt); ok && len(text) > 1 {
				whole = append(whole, text)
			}
		}
		slices.Sort(whole)
	}
	s.Merges, err = FromPairs(pairs, whole)
	return s, err
}

func (c *component) nfc() (bool, error) {
	switch {
	case c == nil, c.Type == "Sequence" && len(c.Normalizers) == 0:
		return false, nil
	case c.Type == "NFC":
		return true, nil
	case c.Type == "Sequence" && len(c.Normalizers) == 1:
		return c.Normalizers[0].nfc()
	}
	return false, fmt.Errorf("normalizer: %s is not known", c.Type)
}

// pattern is what the Split steps of a Sequence that ends with ByteLevel amount to.
func (c *component) pattern() (Pattern, error) {
	if c == nil || c.Type != "Sequence" || len(c.PreTokenizers) < 2 {
		return Pattern{}, errors.New("pre_tokenizer: a Sequence of Split and ByteLevel was expected")
	}
	steps := c.PreTokenizers
	last := steps[len(steps)-1]
	if last.Type != "ByteLevel" || last.AddPrefixSpace || last.UseRegex == nil || *last.UseRegex {
		return Pattern{}, errors.New("pre_tokenizer: ByteLevel without a regular expression was expected at the end")
	}
	var all []string
	for _, s := range steps[:len(steps)-1] {
		if s.Type != "Split" || s.Behavior != "Isolated" || s.Invert {
			return Pattern{}, fmt.Errorf("pre_tokenizer: %s %s is not known", s.Type, s.Behavior)
		}
		all = append(all, s.Pattern.Regex)
	}
	return patternOf(strings.Join(all, "\n"))
}

// patternOf finds the pattern that a regular expression is. Line breaks may stand in
// it as they are or as escapes.
func patternOf(source string) (Pattern, error) {
	source = strings.NewReplacer("\r", `\r`, "[\r\n", `[\r\n`, "\n]", `\n]`, "^\r\n", `^\r\n`, "\n\\p", `\n\p`).Replace(source)
	for _, p := range []Pattern{Cl100k, Qwen2, Qwen36, O200k, Tekken, DeepSeek} {
		if p.source == source {
			return p, nil
		}
	}
	return Pattern{}, fmt.Errorf("the pattern %.200q is not known", source)
}

// mergePair reads "left right" or ["left", "right"].
func mergePair(raw json.RawMessage) (pair [2]string, err error) {
	var spelt [2]string
	if len(raw) > 0 && raw[0] == '[' {
		err = json.Unmarshal(raw, &spelt)
	} else {
		var text string
		err = json.Unmarshal(raw, &text)
		spelt[0], spelt[1], _ = strings.Cut(text, " ")
	}
	for i := range spelt {
		text, ok := unspell(spelt[i])
		if err == nil && (!ok || text == "") {
			err = errors.New("no pair of byte-level tokens")
		}
		pair[i] = text
	}
	return pair, err
}

// letterBytes are the bytes for which byte-level tokens have letters, as GPT-2 began
// it: printable bytes of Latin-1 stand for themselves, the others for the letters
// from U+0100 on.
var letterBytes = func() map[rune]byte {
	m := map[rune]byte{}
	next := rune(0x100)
	for b := range 256 {
		if b > ' ' && b < 0x7F || b > 0xA0 && b != 0xAD {
			m[rune(b)] = byte(b)
		} else {
			m[next] = byte(b)
			next++
		}
	}
	return m
}()

func unspell(spelt string) (string, bool) {
	text := make([]byte, 0, len(spelt))
	for _, r := range spelt {
		b, ok := letterBytes[r]
		if !ok {
			return "", false
		}
		text = append(text, b)
	}
	return string(text), true
}
