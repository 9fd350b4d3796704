package simulate

import (
	"cmp"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"strconv"

	"github.com/tidwall/gjson"

	"github.com/weirproxy/weir/internal/ai"
)

const (
	vllmVersion         = "0.33.0"
	embeddingDimensions = 64
	maxDimensions       = 8192
	vocabulary          = 150_000 // token ids are below
)

func (x *exchange) replyJSON(v any) {
	text, err := json.Marshal(v)
	if err != nil {
		x.fail(&failure{status: http.StatusInternalServerError, message: err.Error()})
		return
	}
	x.reply(http.StatusOK, "application/json", text)
}

func (x *exchange) health() { x.reply(http.StatusOK, "text/plain", nil) }

func (x *exchange) version() { x.replyJSON(map[string]string{"version": vllmVersion}) }

func (x *exchange) load() {
	x.replyJSON(map[string]int64{"server_load": x.s.metrics.inFlight.Load()})
}

func (x *exchange) scrape() { x.s.metrics.handler.ServeHTTP(x.w, x.r) }

func (x *exchange) models() {
	type model struct {
		ID          string `json:"id"`
		Object      string `json:"object"`
		Created     int64  `json:"created"`
		OwnedBy     string `json:"owned_by"`
		Root        string `json:"root,omitempty"`
		MaxModelLen int    `json:"max_model_len,omitempty"`
	}
	o := &x.s.opts
	list := []model{}
	for _, name := range append([]string{o.Model}, o.Aliases...) {
		m := model{ID: name, Object: "model", Created: o.Now().Unix(), OwnedBy: o.Profile}
		if x.s.vllm() {
			m.Root, m.MaxModelLen = o.Model, o.MaxModelLen
		}
		if name != "" {
			list = append(list, m)
		}
	}
	x.replyJSON(map[string]any{"object": "list", "data": list})
}

// tokenize counts a prompt or messages by this package's rule.
func (x *exchange) tokenize() {
	if !x.jsonBody() {
		return
	}
	root, fail := parseObject(x.body)
	var g *generation
	if fail == nil {
		g, fail = readGeneration(x.body, root.Get("messages").Exists())
	}
	if fail != nil {
		x.fail(fail)
		return
	}
	if !x.serves(g.model) {
		return
	}
	ids := make([]uint64, g.promptTokens())
	for i := range ids {
		ids[i] = mix(g.prompts[0].hash+uint64(i)) % vocabulary
	}
	x.replyJSON(map[string]any{"count": len(ids), "max_model_len": x.s.opts.MaxModelLen, "tokens": ids, "token_strs": nil})
}

// embedding is a request for embeddings.
type embedding struct {
	generation // for its model and prompts
	dimensions int
	base64     bool
}

func readEmbedding(body string) (*embedding, *failure) {
	root, fail := parseObject(body)
	if fail != nil {
		return nil, fail
	}
	e := &embedding{dimensions: embeddingDimensions}
	var input gjson.Result
	root.ForEach(func(key, v gjson.Result) bool {
		switch key.String() {
		case "model":
			e.model = v.String()
		case "input":
			input = v
		case "dimensions":
			fail = wantInt(&e.dimensions, "dimensions", v, 1)
		case "encoding_format":
			e.base64 = v.String() == "base64"
			fail = want(e.base64 || v.Type == gjson.Null || v.Str == "float", "encoding_format", "'float' or 'base64'")
		}
		return fail == nil
	})
	if fail == nil {
		fail = want(e.dimensions <= maxDimensions, "dimensions", fmt.Sprintf("at most %d", maxDimensions))
	}
	if fail == nil {
		fail = e.readPrompts(input, gjson.Result{})
	}
	return e, fail
}

func (x *exchange) embeddings() {
	if !x.jsonBody() {
		return
	}
	e, fail := readEmbedding(x.body)
	if fail != nil {
		x.fail(fail)
		return
	}
	if !x.serves(e.model) || !x.wait(x.s.opts.FirstToken) || !x.wait(milliseconds(x.fault.StallBeforeHeadersMS)) {
		return
	}
	e.exact = x.s.exactTokens(ai.KindEmbedding, x.body, cmp.Or(e.model, x.s.opts.Model))
	tokens := e.promptTokens()
	x.s.log.update(x.rec, func(r *Request) { r.PromptTokens = tokens })
	body := e.appendAnswer(nil, x)
	if x.fault.Garbage != "" {
		body = []byte(x.fault.Garbage)
	}
	if x.reply(http.StatusOK, "application/json", body); x.outcome == Completed {
		x.s.served.Add(1)
		x.s.metrics.promptTokens.Add(float64(tokens))
	}
}

func (e *embedding) appendAnswer(b []byte, x *exchange) []byte {
	b = append(b, `{"id":"embd-`...)
	b = strconv.AppendInt(b, x.s.metrics.ids.Add(1), 10)
	b = append(b, `","object":"list","created":`...)
	b = strconv.AppendInt(b, x.s.opts.Now().Unix(), 10)
	b = gjson.AppendJSONString(append(b, `,"model":`...), e.model)
	b = append(b, `,"data":[`...)
	for i, p := range e.prompts {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"index":`...)
		b = strconv.AppendInt(b, int64(i), 10)
		b = append(b, `,"object":"embedding","embedding":`...)
		b = e.appendVector(b, vector(p.hash, e.dimensions))
		b = append(b, '}')
	}
	b = append(b, ']')
	if x.fault.Usage != "missing" {
		j := job{exchange: x, generation: &e.generation}
		b = j.appendUsage(append(b, `,"usage":`...), 0)
	}
	return append(b, '}')
}

// appendVector appends a list of numbers, or the base64 of little-endian float32.
func (e *embedding) appendVector(b []byte, v []float32) []byte {
	if e.base64 {
		raw := make([]byte, 0, 4*len(v))
		for _, f := range v {
			raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(f))
		}
		b = append(b, '"')
		b = base64.StdEncoding.AppendEncode(b, raw)
		return append(b, '"')
	}
	b = append(b, '[')
	for i, f := range v {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendFloat(b, float64(f), 'g', -1, 32)
	}
	return append(b, ']')
}

// vector is a unit vector that follows from hash.
func vector(hash uint64, dimensions int) []float32 {
	v := make([]float32, dimensions)
	sum := 0.0
	for i := range v {
		f := float64(mix(hash+uint64(i)))/math.MaxUint64 - 0.5
		v[i] = float32(f)
		sum += f * f
	}
	scale := float32(1 / math.Sqrt(sum))
	for i := range v {
		v[i] *= scale
	}
	return v
}
