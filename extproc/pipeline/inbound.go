package pipeline

import (
	"net/netip"
	"strings"
	"time"

	"github.com/weirproxy/weir/dialect/openai"
	"github.com/weirproxy/weir/internal/ai"
)

// Header is one header of the request. Envoy has brought the name to lower case.
type Header struct{ Name, Value string }

// Inbound is the request as it arrived. Its strings and bytes may alias buffers
// that are used again once the exchange has ended: clone what is to be kept.
type Inbound struct {
	ID      string // the decision's id, 32 hex digits
	Time    time.Time
	Headers []Header
	// Peer is who is connected to Envoy, and Client the client behind trusted
	// proxies, which may be the peer. Either is not valid when it is not known.
	Peer, Client netip.Addr
	// BodyFollows tells whether Envoy announced a body.
	BodyFollows bool
	// Kind is what the path asks for; empty for a path that weir does not serve.
	Kind ai.Kind
	// ModelPath is the model that GET /v1/models/{model} asks for.
	ModelPath string
	Body      []byte
	Request   openai.Request // what the strict scan found in Body
}

// Header finds a header by its lower-case name: its first value, and how many
// lines it has.
func (in *Inbound) Header(name string) (value string, lines int) {
	for i := range in.Headers {
		if in.Headers[i].Name != name {
			continue
		}
		if lines++; lines == 1 {
			value = in.Headers[i].Value
		}
	}
	return value, lines
}

// HeaderList is all values of a header, joined by commas (RFC 9110, 5.3).
func (in *Inbound) HeaderList(name string) (string, bool) {
	value, lines := in.Header(name)
	if lines < 2 {
		return strings.Clone(value), lines == 1
	}
	var all []string
	for _, h := range in.Headers {
		if h.Name == name {
			all = append(all, h.Value)
		}
	}
	return strings.Join(all, ","), true
}

// TraceID is the trace id of the W3C traceparent header, empty when there is no
// valid one (https://www.w3.org/TR/trace-context/, version 00).
func (in *Inbound) TraceID() string {
	value, lines := in.Header("traceparent")
	const length = len("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	if lines != 1 || len(value) < length || value[:3] == "ff-" || value[2] != '-' || value[35] != '-' {
		return ""
	}
	id, zero := value[3:35], true
	for _, c := range []byte(id) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return ""
		}
		zero = zero && c == '0'
	}
	if zero {
		return ""
	}
	return strings.Clone(id)
}

const modelsPath = "/v1/models"

// classify sets Kind from :method and :path, or refuses. Paths are matched as
// they stand, without unescaping, so that weir and Envoy's router cannot read
// one differently.
func (in *Inbound) classify() Verdict {
	path, paths := in.Header(":path")
	method, methods := in.Header(":method")
	if paths != 1 || methods != 1 {
		return Refuse(ai.ReasonUnknownPath, "The request has no single path and method.")
	}
	path, _, _ = strings.Cut(path, "?")
	want := "POST"
	switch path {
	case "/v1/chat/completions":
		in.Kind = ai.KindChat
	case "/v1/completions":
		in.Kind = ai.KindCompletion
	case "/v1/embeddings":
		in.Kind = ai.KindEmbedding
	case modelsPath:
		in.Kind, want = ai.KindModels, "GET"
	default:
		model, ok := strings.CutPrefix(path, modelsPath+"/")
		if !ok || model == "" {
			return Refuse(ai.ReasonUnknownPath, "Unknown request URL: check the path.")
		}
		in.Kind, in.ModelPath, want = ai.KindModels, model, "GET"
	}
	if method != want {
		return Refuse(ai.ReasonMethod, "This path takes "+want+" only.")
	}
	return Verdict{}
}
