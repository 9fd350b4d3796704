package simulate

import (
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/shared"
)

// client is the official client, talking to s.
func client(t *testing.T, s *Server, key string) openai.Client {
	return openai.NewClient(option.WithBaseURL("http://"+start(t, s)+"/v1"), option.WithAPIKey(key), option.WithMaxRetries(0))
}

func ask(text string) openai.ChatCompletionNewParams {
	return openai.ChatCompletionNewParams{Model: "m", Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage(text)}}
}

func TestClientChat(t *testing.T) {
	for _, profile := range []string{VLLM, OpenAI} {
		t.Run(profile, func(t *testing.T) {
			c := client(t, New(Options{Profile: profile, Model: "m"}), "k")
			p := ask("twelve bytes")
			whole, err := c.Chat.Completions.New(t.Context(), p)
			if err != nil {
				t.Fatal(err)
			}
			p.StreamOptions.IncludeUsage = openai.Bool(true)
			stream := c.Chat.Completions.NewStreaming(t.Context(), p)
			var acc openai.ChatCompletionAccumulator
			content := 0
			for stream.Next() {
				chunk := stream.Current()
				if !acc.AddChunk(chunk) {
					t.Fatalf("the accumulator refuses %s", chunk.RawJSON())
				}
				if len(chunk.Choices) > 0 && chunk.Choices[0].Delta.Content != "" {
					content++
				}
			}
			if err := stream.Err(); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(whole.Choices[0].Message.Content, acc.Choices[0].Message.Content); diff != "" {
				t.Errorf("content, whole and streamed: %s", diff)
			}
			for _, u := range []openai.CompletionUsage{whole.Usage, acc.Usage} {
				if u.PromptTokens != 4+3 || u.CompletionTokens != int64(content) || u.TotalTokens != 7+int64(content) {
					t.Errorf("usage %s with %d content events", u.RawJSON(), content)
				}
			}
			if content < shortestAnswer || content > longestAnswer || acc.Choices[0].FinishReason != "stop" {
				t.Errorf("%d content events, finish reason %q", content, acc.Choices[0].FinishReason)
			}
		})
	}
}

func TestClientChoicesAndCeiling(t *testing.T) {
	c := client(t, New(Options{}), "k")
	p := ask("hello")
	p.N, p.MaxCompletionTokens = openai.Int(3), openai.Int(5)
	res, err := c.Chat.Completions.New(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	if len(res.Choices) != 3 || res.Usage.CompletionTokens != 15 || res.Choices[2].FinishReason != "length" {
		t.Errorf("%s", res.RawJSON())
	}
	if res.Choices[0].Message.Content == res.Choices[1].Message.Content {
		t.Errorf("two choices say the same: %q", res.Choices[0].Message.Content)
	}
}

func TestClientTools(t *testing.T) {
	c := client(t, New(Options{}), "k")
	p := ask("what is the level?")
	tool := func(name string, properties map[string]any) openai.ChatCompletionToolUnionParam {
		return openai.ChatCompletionFunctionTool(shared.FunctionDefinitionParam{
			Name: name, Parameters: shared.FunctionParameters{"type": "object", "properties": properties},
		})
	}
	p.Tools = []openai.ChatCompletionToolUnionParam{
		tool("read", nil),
		tool("level", map[string]any{
			"unit": map[string]any{"enum": []string{"größe \"m\"", "ft"}}, "hours": map[string]any{"type": "integer"},
			"place": map[string]any{"type": "object", "properties": map[string]any{"name": map[string]any{"type": "string"}}},
		}),
	}
	named := openai.ToolChoiceOptionFunctionToolChoice(openai.ChatCompletionNamedToolChoiceFunctionParam{Name: "level"})
	required := openai.ChatCompletionToolChoiceOptionUnionParam{OfAuto: openai.String("required")}
	for _, tc := range []struct {
		choice       openai.ChatCompletionToolChoiceOptionUnionParam
		name, finish string
		arguments    int
	}{{named, "level", "stop", 3}, {required, "read", "tool_calls", 0}} {
		p.ToolChoice = tc.choice
		whole, err := c.Chat.Completions.New(t.Context(), p)
		if err != nil {
			t.Fatal(err)
		}
		stream := c.Chat.Completions.NewStreaming(t.Context(), p)
		var acc openai.ChatCompletionAccumulator
		for stream.Next() {
			acc.AddChunk(stream.Current())
		}
		if err := stream.Err(); err != nil {
			t.Fatal(err)
		}
		a, b := whole.Choices[0].Message.ToolCalls[0].Function, acc.Choices[0].Message.ToolCalls[0].Function
		if a.Name != tc.name || a.Name != b.Name || a.Arguments != b.Arguments {
			t.Errorf("whole %s(%s), streamed %s(%s), want %s", a.Name, a.Arguments, b.Name, b.Arguments, tc.name)
		}
		var arguments map[string]any
		if err := json.Unmarshal([]byte(a.Arguments), &arguments); err != nil || len(arguments) != tc.arguments {
			t.Errorf("arguments %s: %v", a.Arguments, err)
		}
		if got := acc.Choices[0].FinishReason; got != tc.finish || whole.Choices[0].FinishReason != tc.finish {
			t.Errorf("%s: finish reason %q, want %q", tc.name, got, tc.finish)
		}
	}
	p.ToolChoice = openai.ChatCompletionToolChoiceOptionUnionParam{OfAuto: openai.String("auto")}
	if res, err := c.Chat.Completions.New(t.Context(), p); err != nil || res.Choices[0].Message.Content == "" {
		t.Errorf("auto: %v, %v", res, err)
	}
}

func TestClientVision(t *testing.T) {
	c := client(t, New(Options{}), "k")
	p := ask("")
	p.Messages[0] = openai.UserMessage([]openai.ChatCompletionContentPartUnionParam{
		openai.TextContentPart("see"),
		openai.ImageContentPart(openai.ChatCompletionContentPartImageImageURLParam{URL: "data:image/png;base64,AAAA"}),
	})
	res, err := c.Chat.Completions.New(t.Context(), p)
	if err != nil || res.Usage.PromptTokens != 4+1+256 {
		t.Errorf("%v, %v", res, err)
	}
}

func TestClientCompletions(t *testing.T) {
	c := client(t, New(Options{}), "k")
	p := openai.CompletionNewParams{Model: "m", Prompt: openai.CompletionNewParamsPromptUnion{OfArrayOfStrings: []string{"one", "eight ch"}}}
	whole, err := c.Completions.New(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	if len(whole.Choices) != 2 || whole.Usage.PromptTokens != 1+2 {
		t.Fatalf("%s", whole.RawJSON())
	}
	stream := c.Completions.NewStreaming(t.Context(), p)
	texts := make([]strings.Builder, 2)
	for stream.Next() {
		for _, ch := range stream.Current().Choices {
			texts[ch.Index].WriteString(ch.Text)
		}
	}
	if err := stream.Err(); err != nil || texts[0].String() != whole.Choices[0].Text || texts[1].String() != whole.Choices[1].Text {
		t.Errorf("streamed %q and %q: %v; whole %s", texts[0].String(), texts[1].String(), err, whole.RawJSON())
	}
}

func TestClientEmbeddings(t *testing.T) {
	c := client(t, New(Options{}), "k")
	p := openai.EmbeddingNewParams{
		Model: "m", Dimensions: openai.Int(8), EncodingFormat: openai.EmbeddingNewParamsEncodingFormatFloat,
		Input: openai.EmbeddingNewParamsInputUnion{OfArrayOfStrings: []string{"one", "two"}},
	}
	res, err := c.Embeddings.New(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	if len(res.Data) != 2 || len(res.Data[1].Embedding) != 8 || res.Usage.PromptTokens != 2 || res.Usage.TotalTokens != 2 {
		t.Errorf("%s", res.RawJSON())
	}
	sum := 0.0
	for _, f := range res.Data[1].Embedding {
		sum += f * f
	}
	if math.Abs(sum-1) > 1e-4 {
		t.Errorf("length %v", sum)
	}
}

func TestClientErrors(t *testing.T) {
	for _, tc := range []struct {
		name, profile, key string
		change             func(*openai.ChatCompletionNewParams)
		status             int
		kind, code         string
	}{
		{"model", VLLM, "k", func(p *openai.ChatCompletionNewParams) { p.Model = "other" }, 404, "NotFoundError", "404"},
		{"model", OpenAI, "k", func(p *openai.ChatCompletionNewParams) { p.Model = "other" }, 404, "invalid_request_error", "model_not_found"},
		{"ceiling", VLLM, "k", func(p *openai.ChatCompletionNewParams) { p.MaxTokens = openai.Int(0) }, 400, "BadRequestError", "400"},
		{"context", VLLM, "k", func(p *openai.ChatCompletionNewParams) { p.MaxTokens = openai.Int(1 << 20) }, 400, "BadRequestError", "400"},
		{"context", OpenAI, "k", func(p *openai.ChatCompletionNewParams) { p.MaxTokens = openai.Int(1 << 20) }, 400, "invalid_request_error", "context_length_exceeded"},
		{"stream options", VLLM, "k", func(p *openai.ChatCompletionNewParams) { p.StreamOptions.IncludeUsage = openai.Bool(true) }, 400, "BadRequestError", "400"},
		{"no messages", VLLM, "k", func(p *openai.ChatCompletionNewParams) {
			p.Messages = []openai.ChatCompletionMessageParamUnion{}
		}, 400, "BadRequestError", "400"},
		{"key", OpenAI, "wrong", func(*openai.ChatCompletionNewParams) {}, 401, "invalid_request_error", "invalid_api_key"},
	} {
		t.Run(tc.profile+" "+tc.name, func(t *testing.T) {
			c := client(t, New(Options{Profile: tc.profile, Model: "m", APIKey: "k"}), tc.key)
			p := ask("hello")
			tc.change(&p)
			_, err := c.Chat.Completions.New(t.Context(), p)
			var e *openai.Error
			if !errors.As(err, &e) {
				t.Fatalf("%v is not an API error", err)
			}
			if e.StatusCode != tc.status || e.Type != tc.kind || e.Code != tc.code {
				t.Errorf("%d %q %q, want %d %q %q", e.StatusCode, e.Type, e.Code, tc.status, tc.kind, tc.code)
			}
		})
	}
}
