package extproc_test

import (
	"context"
	"io"
	"strings"
	"testing"

	pb "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/weirproxy/weir/extproc"
)

// envoyHeaders are the headers of a request as Envoy passes them on.
func envoyHeaders() *pb.ProcessingRequest {
	return headersMessage(post("/v1/chat/completions", "sk-open",
		":scheme", "http", "user-agent", "OpenAI/Python 1.68.2", "accept", "application/json", "accept-encoding", "gzip, deflate",
		"content-type", "application/json", "content-length", "2048", "x-stainless-lang", "python", "x-stainless-package-version", "1.68.2",
		"x-stainless-os", "Linux", "x-stainless-arch", "x64", "x-stainless-runtime", "CPython", "x-stainless-runtime-version", "3.12.3",
		"x-forwarded-for", "127.0.0.1", "x-forwarded-proto", "http", "x-request-id", "2b3c7a0e-3f6a-4d4b-9c55-6f2a2a0f6d11",
		"traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"), false)
}

// chat2K is a chat of two kilobytes, streamed.
func chat2K() string {
	text := strings.Repeat("The quick brown fox jumps over the lazy dog. ", 42)
	return `{"model":"gpt-4o","stream":true,"temperature":0.2,"messages":[{"role":"system","content":"You are brief."},{"role":"user","content":"` + text + `"}]}`
}

// wireStream feeds a server's stream from bytes, as gRPC does, without a network:
// what is left is what weir itself costs, decoding and encoding included.
type wireStream struct {
	ctx   context.Context
	codec interface {
		Decode(data []byte, v any) error
		Encode(v any) error
	}
	in [][]byte
	at int
}

func (s *wireStream) Context() context.Context   { return s.ctx }
func (*wireStream) SetHeader(metadata.MD) error  { return nil }
func (*wireStream) SendHeader(metadata.MD) error { return nil }
func (*wireStream) SetTrailer(metadata.MD)       {}
func (s *wireStream) SendMsg(m any) error        { return s.codec.Encode(m) }
func (s *wireStream) RecvMsg(m any) error {
	if s.at == len(s.in) {
		return io.EOF
	}
	s.at++
	return s.codec.Decode(s.in[s.at-1], m)
}

func BenchmarkProcess(b *testing.B) {
	for name, limited := range map[string]bool{"unlimited": false, "limited": true} {
		b.Run(name, func(b *testing.B) {
			p := testPlan()
			if limited {
				withLimit(p)
				for _, l := range p.Limits {
					l.Amount = 1 << 50
				}
			}
			g := &gateway{plan: p, journal: &journal{discard: true}, ledger: newLedger(), log: discardLog}
			process := extproc.ProcessForTest(g.server(g.pipeline()))
			stream := &wireStream{ctx: b.Context(), codec: extproc.NewTestCodec()}
			for _, m := range []*pb.ProcessingRequest{envoyHeaders(), bodyMessage(chat2K())} {
				data, err := proto.Marshal(m)
				if err != nil {
					b.Fatal(err)
				}
				stream.in = append(stream.in, data)
			}
			b.ReportAllocs()
			for b.Loop() {
				stream.at = 0
				if err := process(stream); err != nil {
					b.Fatal(err)
				}
				g.ledger.Release(g.journal.last)
			}
		})
	}
}

// BenchmarkStream is a whole call over gRPC in memory, client included.
func BenchmarkStream(b *testing.B) {
	g := start(b, testPlan())
	g.journal.discard = true
	head, body := envoyHeaders(), bodyMessage(chat2K())
	b.ReportAllocs()
	for b.Loop() {
		if _, err := g.exchange(b, head, body); err != nil {
			b.Fatal(err)
		}
	}
}

var _ grpc.ServerStream = (*wireStream)(nil)

// BenchmarkDecode compares the decoder by hand with the generated one.
func BenchmarkDecode(b *testing.B) {
	data, err := proto.Marshal(envoyHeaders())
	if err != nil {
		b.Fatal(err)
	}
	b.Run("by hand", func(b *testing.B) {
		decode := extproc.DecodeForTest()
		b.ReportAllocs()
		for b.Loop() {
			if err := decode(data); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("generated", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			var m pb.ProcessingRequest
			if err := proto.Unmarshal(data, &m); err != nil {
				b.Fatal(err)
			}
		}
	})
}
