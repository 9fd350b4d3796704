package simulate

import (
	"github.com/weirproxy/weir/dialect/openai"
	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/tokens"
)

// exactTokens is what the real backend of the model counts for a body, 0 when that is
// not known: by weir's own tokenizer, which is held against the real ones elsewhere.
// Other models count a token for every few bytes.
func (s *Server) exactTokens(kind ai.Kind, body, model string) int {
	t, ok := s.tokenizers.Load(model)
	if !ok {
		made, err := tokens.New(tokens.Choice{Model: model, Adapter: s.kind.Name})
		if err != nil {
			return 0
		}
		t, _ = s.tokenizers.LoadOrStore(model, made)
	}
	tokenizer := t.(*tokens.Tokenizer)
	if tokenizer.Estimates() {
		return 0
	}
	var r openai.Request
	if openai.Parse(kind, []byte(body), maxDepth, &r) != nil {
		return 0
	}
	n := tokenizer.Count(&r, tokens.Session{Now: s.opts.Now()})
	if !n.Exact {
		return 0
	}
	return int(n.Tokens)
}
