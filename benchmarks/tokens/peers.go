package main

import (
	"fmt"

	"github.com/pkoukk/tiktoken-go"
	loader "github.com/pkoukk/tiktoken-go-loader"
	"github.com/tiktoken-go/tokenizer"

	"github.com/weirproxy/weir/tokens/vocab"
)

// The names of those who count.
const (
	weir       = "weir"
	tiktokenGo = "tiktoken-go"
	pkoukk     = "pkoukk"
	bpeOpenAI  = "bpe-openai"
)

// peers are what is measured, weir first.
var peers = []struct {
	name, about string
	module      string // whose version is told
}{
	{weir, "`tokens/vocab` of this tree, `Count`", ""},
	{tiktokenGo, "github.com/tiktoken-go/tokenizer (Go), `Count`", "github.com/tiktoken-go/tokenizer"},
	{pkoukk, "github.com/pkoukk/tiktoken-go (Go), `EncodeOrdinary`", "github.com/pkoukk/tiktoken-go"},
	{bpeOpenAI, "the crate bpe-openai (Rust, release, LTO), `count`", ""},
}

// counter gets ready to count a text; what it returns counts it once.
type counter func(text []byte) (pass func() (int, error), err error)

// counters make the counter of a peer in Go for a vocabulary, or of a turn of an
// agent for a model.
var counters = map[string]func(vocabulary string) (counter, error){
	weir:       newWeir,
	tiktokenGo: newTiktokenGo,
	pkoukk:     newPkoukk,
	coldTurn:   newColdTurn,
	nextTurn:   newNextTurn,
}

func newWeir(vocabulary string) (counter, error) {
	known, ok := vocab.ByName(vocabulary)
	if !ok {
		return nil, fmt.Errorf("weir has no vocabulary %q", vocabulary)
	}
	v := known.Vocabulary()
	return func(text []byte) (func() (int, error), error) {
		return func() (int, error) { return v.Count(text), nil }, nil
	}, nil
}

func newTiktokenGo(vocabulary string) (counter, error) {
	codec, err := tokenizer.Get(tokenizer.Encoding(vocabulary + "_base"))
	if err != nil {
		return nil, err
	}
	return func(text []byte) (func() (int, error), error) {
		s := string(text)
		return func() (int, error) { return codec.Count(s) }, nil
	}, nil
}

func newPkoukk(vocabulary string) (counter, error) {
	tiktoken.SetBpeLoader(loader.NewOfflineLoader())
	encoding, err := tiktoken.GetEncoding(vocabulary + "_base")
	if err != nil {
		return nil, err
	}
	return func(text []byte) (func() (int, error), error) {
		s := string(text)
		return func() (int, error) { return len(encoding.EncodeOrdinary(s)), nil }, nil
	}, nil
}
