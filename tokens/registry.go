package tokens

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"weak"

	"github.com/weirproxy/weir/tokens/bpe"
	"github.com/weirproxy/weir/tokens/media"
	"github.com/weirproxy/weir/tokens/template"
	"github.com/weirproxy/weir/tokens/vocab"
)

// Choice says how a pool's input is counted. What is left empty follows from the
// model's name.
type Choice struct {
	Model   string // the real model's name
	Adapter string // the adapter profile: backends render chats differently
	// Vocabulary is the name of one in the binary.
	Vocabulary string
	// File names a vocabulary of the operator's, of which Content is the content: a
	// tokenizer.json of Hugging Face's, a tekken.json, or a file in tiktoken's
	// format, cut by the pattern of Vocabulary.
	File     string
	Content  []byte
	Template string
}

// ChoiceError is a choice that cannot be.
type ChoiceError struct {
	Field string // template, vocabulary or file
	Err   error
}

func (e *ChoiceError) Error() string { return e.Field + ": " + e.Err.Error() }

// Unwrap is what is wrong with the field.
func (e *ChoiceError) Unwrap() error { return e.Err }

func wrong(field, format string, args ...any) error {
	return &ChoiceError{field, fmt.Errorf(format, args...)}
}

// openaiTemplate is the template of OpenAI's models, and of Azure's.
const openaiTemplate = "openai"

// Unknown counts for models of which nothing is known.
var Unknown = must(New(Choice{}))

func must(t *Tokenizer, err error) *Tokenizer {
	if err != nil {
		panic(err) // of what is in the binary
	}
	return t
}

// New makes a tokenizer. Errors are ChoiceErrors, joined when there are several.
func New(c Choice) (*Tokenizer, error) {
	t := &Tokenizer{template: templateFor(c.Model), media: media.ForModel(c.Model)}
	switch c.Adapter {
	case "vllm", "vllm-ascend":
		t.backend = template.VLLM
	case "sglang":
		t.backend = template.SGLang
	}
	var faults []error
	if c.Template != "" {
		chosen, ok := template.ByName(c.Template)
		if !ok {
			faults = append(faults, wrong("template", "%q is not known; there are %s", c.Template, strings.Join(Templates(), ", ")))
		} else {
			t.template = chosen
		}
	}
	t.begins = begins(t.template.Name())
	if err := t.setVocabulary(&c); err != nil {
		faults = append(faults, err)
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	return t, nil
}

// Templates are the names of the chat templates, sorted.
func Templates() []string {
	names := template.Names()
	slices.Sort(names)
	return names
}

// Vocabularies are the names of the vocabularies in the binary, sorted.
func Vocabularies() []string {
	var names []string
	for _, k := range vocab.All {
		names = append(names, k.Name)
	}
	slices.Sort(names)
	return names
}

// templateFor is the template of a model, the generic one for variants of a family
// that have another default system prompt than the family.
func templateFor(model string) *template.Template {
	model = strings.ToLower(model)
	if strings.Contains(model, "qwen2.5-math") || strings.Contains(model, "qwen2.5-omni") {
		return template.ForModel("")
	}
	return template.ForModel(model)
}

func (t *Tokenizer) setVocabulary(c *Choice) error {
	known, exact := nearest(c.Model, t.template.Name())
	if c.Vocabulary != "" {
		var ok bool
		if known, ok = vocab.ByName(c.Vocabulary); !ok {
			return wrong("vocabulary", "%q is not known; there are %s", c.Vocabulary, strings.Join(Vocabularies(), ", "))
		}
		exact = true
	}
	t.name, t.nfc, t.estimate = known.Name, known.NFC, !exact
	t.vocabulary = known.Vocabulary
	family, added := addedTo(t.template.Name())
	t.added = added
	t.bare = strings.Contains(strings.ToLower(c.Model), openaiEmbedding)
	vocabulary := known.Name
	if c.File != "" {
		var err error
		if vocabulary, err = t.readFile(c, known); err != nil {
			return err
		}
	}
	t.id = memoID(fmt.Sprintf("%s, %s, added %s, plain %t", vocabulary, known.Pattern().Name, family, t.template.PlainText()))
	return nil
}

// openaiEmbedding is what the names of OpenAI's embedding models begin with.
const openaiEmbedding = "text-embedding-"

// readFile takes the vocabulary from a file and returns a name for its content.
func (t *Tokenizer) readFile(c *Choice, known *vocab.Known) (name string, err error) {
	s := &bpe.Source{Pattern: known.Pattern(), NFC: known.NFC}
	format := formatOf(c.Content)
	switch {
	case format != tiktoken && c.Vocabulary != "":
		return "", wrong("vocabulary", "the file says itself how texts are cut: name one of the two")
	case format == tekken && !strings.HasPrefix(t.template.Name(), "mistral"):
		return "", wrong("file", "%s is a vocabulary of Mistral's, the template is %s", c.File, t.template.Name())
	case format != tiktoken || c.Vocabulary != "":
	case strings.HasPrefix(t.template.Name(), "llama"):
		s.Pattern, s.NFC = bpe.Cl100k, false // Llama 3 cuts texts as it does
	default:
		return "", wrong("file", "%s does not say how texts are cut: set vocabulary to one that cuts them alike", c.File)
	}
	f, err := readVocabulary(c, s)
	if err != nil {
		return "", wrong("file", "%s: %w", c.File, err)
	}
	t.name, t.nfc, t.estimate = c.File, f.source.NFC, false
	t.vocabulary = func() *bpe.Vocabulary { return f.vocabulary } // holds on to f
	if len(f.source.Added) > 0 {
		if mark := markOf(t.template.Name()); mark != "" && !slices.Contains(f.source.Added, mark) {
			return "", wrong("file", "%s has no token %s, which template %s begins with: is it another model's?", c.File, mark, t.template.Name())
		}
		t.added = newAdded(f.source.Added)
	}
	return fmt.Sprintf("file %x by %s, form C %t, added of its own %t", f.sum, f.source.Pattern.Name, f.source.NFC, len(f.source.Added) > 0), nil
}

// format is how a vocabulary file is written.
type format uint8

const (
	tiktoken format = iota
	huggingFace
	tekken
)

// formatOf tells formats apart by their content: a line a token, or JSON, of which
// Mistral's has tokens as bytes.
func formatOf(content []byte) format {
	switch content = bytes.TrimSpace(content); {
	case len(content) == 0 || content[0] != '{':
		return tiktoken
	case bytes.Contains(content[:min(len(content), 4<<10)], []byte(`"token_bytes"`)) || bytes.Contains(content, []byte(`"default_vocab_size"`)):
		return tekken
	}
	return huggingFace
}

// markOf is a special token that chats of a family have, which its vocabularies must
// know; empty when none is.
func markOf(templateName string) string {
	for prefix, mark := range map[string]string{"qwen": imStart, "llama": "<|begin_of_text|>", "deepseek": "<｜begin▁of▁sentence｜>", "harmony": "<|channel|>"} {
		if strings.HasPrefix(templateName, prefix) {
			return mark
		}
	}
	return ""
}

// file is a vocabulary that was read from a file.
type file struct {
	source     bpe.Source // without its merges
	vocabulary *bpe.Vocabulary
	sum        [sha256.Size]byte
}

type fileKey struct {
	sum     [sha256.Size]byte
	pattern string
	nfc     bool
}

// files are the vocabularies that were read and are in use: reading one takes up to
// two seconds, and a configuration is read anew at each change of it.
var files = struct {
	sync.Mutex
	of map[fileKey]weak.Pointer[file]
}{of: map[fileKey]weak.Pointer[file]{}}

// readVocabulary reads the file of a choice; s says what a file in tiktoken's format
// does not.
func readVocabulary(c *Choice, s *bpe.Source) (*file, error) {
	key := fileKey{sha256.Sum256(c.Content), s.Pattern.Name, s.NFC}
	files.Lock()
	defer files.Unlock()
	if f := files.of[key].Value(); f != nil {
		return f, nil
	}
	var err error
	switch formatOf(c.Content) {
	case tekken:
		s, err = bpe.ReadTekken(c.Content)
	case huggingFace:
		s, err = bpe.ReadHuggingFace(c.Content)
	default:
		var all []string
		if all, err = bpe.ReadTiktoken(c.Content); err == nil {
			s.Merges, err = bpe.FromRanks(all)
		}
	}
	if err != nil {
		return nil, err
	}
	v, err := bpe.New(s)
	if err != nil {
		return nil, err
	}
	f := &file{source: *s, vocabulary: v, sum: key.sum}
	f.source.Merges = nil
	files.of[key] = weak.Make(f)
	return f, nil
}

// nearest is the vocabulary of the model with that chat template; exact is false
// when it is only a near one.
func nearest(model, templateName string) (k *vocab.Known, exact bool) {
	model = strings.ToLower(model[strings.LastIndexByte(model, '/')+1:])
	switch {
	case strings.Contains(model, "deepseek") && strings.Contains(model, "qwen"), strings.HasPrefix(model, "deepseek-r1:"):
		return vocab.Qwen, false // R1 distilled into Qwen, for most of Ollama's tags too
	case strings.Contains(model, "deepseek") && strings.Contains(model, "llama"):
		return vocab.Cl100k, false
	case strings.HasPrefix(templateName, openaiTemplate):
		for _, prefix := range []string{"gpt-4-", "gpt-3.5", "gpt-35"} {
			if model == "gpt-4" || strings.HasPrefix(model, prefix) {
				return vocab.Cl100k, true
			}
		}
		return vocab.O200k, true
	case templateName == "harmony":
		return vocab.O200k, true
	case strings.HasPrefix(templateName, "qwen"):
		return vocab.Qwen, true
	case strings.HasPrefix(templateName, "deepseek"):
		return vocab.DeepSeek, true
	case strings.HasPrefix(templateName, "mistral"):
		return vocab.Tekken, hasTekken(model, templateName)
	case strings.HasPrefix(templateName, "llama"):
		return vocab.Cl100k, false // Llama 3's begins with its tokens
	}
	for _, near := range nearestByName {
		if strings.Contains(model, near.name) {
			return near.vocabulary, near.exact
		}
	}
	return vocab.O200k, false
}

// hasTekken tells whether a model of Mistral's has the vocabulary of that name: the
// newer ones do; the older ones have one of SentencePiece's.
func hasTekken(model, templateName string) bool {
	if templateName != "mistral-v3" && templateName != "mistral-v7" {
		return true
	}
	for _, name := range []string{"nemo", "ministral", "pixtral-12b", "mistral-small-24b", "mistral-small-2501"} {
		if strings.Contains(model, name) {
			return true
		}
	}
	return false
}

// nearestByName are vocabularies of models whose chat template is not known, by a
// part of the name.
var nearestByName = []struct {
	name       string
	vocabulary *vocab.Known
	exact      bool
}{
	{openaiEmbedding, vocab.Cl100k, true},
	{"qwen3.5", vocab.Qwen36, true}, {"qwen3.6", vocab.Qwen36, true},
	{"qwen3-max", vocab.Qwen, false}, {"qwen3-plus", vocab.Qwen, false}, {"qwen3-turbo", vocab.Qwen, false},
	{"qwen1.5", vocab.Qwen, true}, {"qwen2", vocab.Qwen, true}, {"qwen3", vocab.Qwen, true}, {"qwen", vocab.Qwen, false},
	{"qwq", vocab.Qwen, true}, {"qvq", vocab.Qwen, true},
	{"deepseek-v3", vocab.DeepSeek, true}, {"deepseek-v4", vocab.DeepSeek, true},
	{"deepseek", vocab.DeepSeek, false}, // V2 and the coders have others
	{"glm", vocab.Qwen, false},          // both began with cl100k and digits one by one
	{"mistral", vocab.Tekken, false}, {"ministral", vocab.Tekken, false}, {"magistral", vocab.Tekken, false},
	{"devstral", vocab.Tekken, false}, {"pixtral", vocab.Tekken, false},
	{"llama-3", vocab.Cl100k, false}, {"llama3", vocab.Cl100k, false},
}

// begins is how many tokens the backends put before a prompt that is no chat: the
// token that begins a text, in families that have one.
func begins(templateName string) int {
	for _, family := range []string{"llama", "mistral", "deepseek"} {
		if strings.HasPrefix(templateName, family) {
			return 1
		}
	}
	return 0
}

var qwenAdded = []string{"<|endoftext|>", imStart, imEnd, "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",
	"<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>",
	"<|video_pad|>", "<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>",
	"<|repo_name|>", "<|file_sep|>"}

const (
	imStart = "<|im_start|>"
	imEnd   = "<|im_end|>"
)

var deepSeekAdded = []string{"<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>", "<think>", "</think>",
	"<｜fim▁hole｜>", "<｜fim▁begin｜>", "<｜fim▁end｜>", "<｜User｜>", "<｜Assistant｜>", "<|EOT|>",
	"<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>",
	"<｜tool▁outputs▁begin｜>", "<｜tool▁outputs▁end｜>", "<｜tool▁output▁begin｜>", "<｜tool▁output▁end｜>", "<｜tool▁sep｜>"}

var llamaAdded = []string{"<|begin_of_text|>", "<|end_of_text|>", "<|finetune_right_pad_id|>", "<|step_id|>",
	"<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>", "<|eot_id|>", "<|python_tag|>"}

// addedTo are, with the name of the family, the tokens that backends find in any text of a family's models: as
// the models' tokenizer_config.json have them.
func addedTo(templateName string) (family string, a *added) {
	switch {
	case strings.HasPrefix(templateName, "qwen2"):
		return "qwen2", qwen2Tokens()
	case strings.HasPrefix(templateName, "qwen"):
		return "qwen3", qwen3Tokens()
	case strings.HasPrefix(templateName, "deepseek"):
		return "deepseek", deepSeekTokens()
	case strings.HasPrefix(templateName, "llama"):
		return "llama", llamaTokens()
	}
	return "", nil
}

var (
	qwen2Tokens = sync.OnceValue(func() *added { return newAdded(qwenAdded) })
	qwen3Tokens = sync.OnceValue(func() *added {
		return newAdded(append(slices.Clone(qwenAdded), "<tool_response>", "</tool_response>", "<think>", "</think>"))
	})
	deepSeekTokens = sync.OnceValue(func() *added {
		return newAdded(numbered(deepSeekAdded, "<｜place▁holder▁no▁%d｜>", 800))
	})
	llamaTokens = sync.OnceValue(func() *added {
		return newAdded(numbered(llamaAdded, "<|reserved_special_token_%d|>", 248))
	})
)

func numbered(tokens []string, format string, n int) []string {
	tokens = slices.Clone(tokens)
	for i := range n {
		tokens = append(tokens, fmt.Sprintf(format, i))
	}
	return tokens
}

// memoID numbers what the counts of a text depend on, for the memo.
func memoID(name string) uint64 {
	memoIDs.Lock()
	defer memoIDs.Unlock()
	id, ok := memoIDs.of[name]
	if !ok {
		id = uint64(len(memoIDs.of))
		memoIDs.of[name] = id
	}
	return id
}

var memoIDs = struct {
	sync.Mutex
	of map[string]uint64
}{of: map[string]uint64{}}
