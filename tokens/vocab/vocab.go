// Package vocab has the vocabularies that weir counts with. Those whose licence
// permits it are in the binary; others are read from files that the operator has.
package vocab

import (
	"embed"
	"fmt"
	"sync"

	"github.com/weirproxy/weir/tokens/bpe"
)

//go:generate go run ./gen

// Known is a vocabulary that is in the binary.
type Known struct {
	Name string
	// For says which models have it.
	For string
	// From is who publishes it, and Licence is under which terms.
	From, Licence string

	// NFC says that texts are brought into Unicode's normal form C first.
	NFC bool

	pattern bpe.Pattern
	load    func() *bpe.Vocabulary
}

//go:embed data/*.bpe
var data embed.FS

// The vocabularies in the binary.
var (
	O200k    = known("o200k", "gpt-4o and later, o1 and later, gpt-oss", "OpenAI, tiktoken", "MIT", bpe.O200k, false)
	Cl100k   = known("cl100k", "gpt-4, gpt-3.5, text-embedding-3", "OpenAI, tiktoken", "MIT", bpe.Cl100k, false)
	Qwen     = known("qwen", "Qwen 1.5 to 3", "Alibaba Cloud, Qwen", "Apache-2.0", bpe.Qwen2, true)
	Qwen36   = known("qwen3.6", "Qwen 3.5 and 3.6", "Alibaba Cloud, Qwen", "Apache-2.0", bpe.Qwen36, true)
	DeepSeek = known("deepseek", "DeepSeek V3 and R1 and later", "DeepSeek", "MIT", bpe.DeepSeek, false)
	Tekken   = known("tekken", "Mistral Nemo and later", "Mistral AI, mistral-common", "Apache-2.0", bpe.Tekken, false)
)

// All are the vocabularies in the binary.
var All = []*Known{O200k, Cl100k, Qwen, Qwen36, DeepSeek, Tekken}

func known(name, models, from, licence string, p bpe.Pattern, nfc bool) *Known {
	k := &Known{Name: name, For: models, From: from, Licence: licence, pattern: p, NFC: nfc}
	k.load = sync.OnceValue(k.read)
	return k
}

// Vocabulary is the vocabulary, whose tables (10 to 25 MB) are built at the first
// call, within a fifth of a second.
func (k *Known) Vocabulary() *bpe.Vocabulary { return k.load() }

// Pattern is what cuts texts into pieces.
func (k *Known) Pattern() bpe.Pattern { return k.pattern }

// read builds the vocabulary. What is in the binary was read when it was made, and
// is read in a test: it cannot be damaged here.
func (k *Known) read() *bpe.Vocabulary {
	packed, err := data.ReadFile("data/" + k.Name + ".bpe")
	if err != nil {
		panic(fmt.Sprintf("vocabulary %s: %v", k.Name, err))
	}
	m, err := bpe.Decode(packed)
	if err != nil {
		panic(fmt.Sprintf("vocabulary %s: %v", k.Name, err))
	}
	v, err := bpe.New(&bpe.Source{Merges: m, Pattern: k.pattern, NFC: k.NFC})
	if err != nil {
		panic(fmt.Sprintf("vocabulary %s: %v", k.Name, err))
	}
	return v
}

// ByName finds a vocabulary in the binary.
func ByName(name string) (*Known, bool) {
	for _, k := range All {
		if k.Name == name {
			return k, true
		}
	}
	return nil, false
}
