package extproc_test

import (
	"context"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	modev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_proc/v3"
	pb "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weirproxy/weir/extproc/pipeline"
	"github.com/weirproxy/weir/internal/ai"
)

// messages are one of each kind that Envoy can send.
func messages() []*pb.ProcessingRequest {
	return []*pb.ProcessingRequest{
		headersMessage(post("/v1/chat/completions", "sk-open"), false),
		bodyMessage(chatBody),
		{Request: &pb.ProcessingRequest_ResponseHeaders{ResponseHeaders: &pb.HttpHeaders{}}},
		{Request: &pb.ProcessingRequest_ResponseBody{ResponseBody: &pb.HttpBody{}}},
		{Request: &pb.ProcessingRequest_RequestTrailers{RequestTrailers: &pb.HttpTrailers{}}},
		{},
	}
}

func TestMessagesOutOfOrder(t *testing.T) {
	all := messages()
	for i, first := range all {
		for j, second := range all {
			if i == 0 && j == 1 {
				continue // that is the right order
			}
			g := start(t, testPlan())
			if _, err := g.exchange(t, first, second); status.Code(err) != codes.InvalidArgument {
				t.Errorf("%d, %d: %v, want InvalidArgument", i, j, err)
			}
		}
	}
}

// Any sequence of messages ends, with an answer or an error, and weir serves on.
func FuzzProcess(f *testing.F) {
	f.Add("/v1/chat/completions", "Bearer sk-open", "POST", chatBody, []byte{0, 1})
	f.Add("/v1/models", "Bearer sk-open", "GET", "", []byte{0})
	f.Add("/v1/embeddings", "", "POST", `{}`, []byte{1, 0, 2, 3, 4, 5})
	g := start(f, withLimit(testPlan()))
	f.Fuzz(func(t *testing.T, path, authorization, method, body string, order []byte) {
		all := messages()
		all[0] = headersMessage(hdr(":path", path, ":method", method, "authorization", authorization, "content-length", body), len(order)%2 == 0)
		all[1] = bodyMessage(body)
		var sequence []*pb.ProcessingRequest
		for _, o := range order[:min(len(order), 6)] {
			sequence = append(sequence, all[int(o)%len(all)])
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		stream, err := g.client.Process(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range sequence {
			if stream.Send(m) != nil {
				break
			}
		}
		stream.CloseSend()
		for err == nil {
			_, err = stream.Recv()
		}
		if code := status.Code(err); err != io.EOF && code != codes.InvalidArgument && code != codes.Internal {
			t.Fatalf("ended with %v", err)
		}
		g.journal.mu.Lock()
		g.journal.decisions = nil
		g.journal.mu.Unlock()
	})
}

func TestBodyThatIsNotBufferedIsRefused(t *testing.T) {
	g := start(t, testPlan())
	m := headersMessage(post("/v1/chat/completions", "sk-open"), false)
	m.ProtocolConfig.RequestBodyMode = modev3.ProcessingMode_STREAMED
	answers, err := g.exchange(t, m)
	if err != nil || len(answers) != 1 {
		t.Fatalf("%v, %v", answers, err)
	}
	g.refused(t, answers[0], ai.ReasonInternal, "")
}

func TestClientGoneBeforeTheBody(t *testing.T) {
	g := start(t, testPlan())
	stream, err := g.client.Process(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(headersMessage(post("/v1/chat/completions", "sk-open"), false)); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	stream.CloseSend()
	if _, err := stream.Recv(); err != io.EOF {
		t.Errorf("ended with %v, want a clean end", err)
	}
	if n := len(g.journal.decisions); n != 0 {
		t.Errorf("%d decisions about nothing", n)
	}
}

// gate is a stage that holds the request until its caller is gone.
type gate struct{ reached chan struct{} }

func (gate) Name() string { return "gate" }

func (s gate) Request(ctx context.Context, _ *pipeline.Exchange) (pipeline.Verdict, error) {
	close(s.reached)
	<-ctx.Done()
	return pipeline.Verdict{}, nil
}

func TestClientGoneWhileDeciding(t *testing.T) {
	g := start(t, withLimit(testPlan()))
	reached := make(chan struct{})
	g.servePipeline(t, gate{reached})
	ctx, cancel := context.WithCancel(t.Context())
	stream, err := g.client.Process(ctx)
	if err != nil {
		t.Fatal(err)
	}
	stream.Send(headersMessage(post("/v1/chat/completions", "sk-open"), false))
	stream.Recv()
	stream.Send(bodyMessage(chatBody))
	<-reached
	cancel()
	d := g.journal.wait(t, 1)[0]
	if d.Verdict != "refused" || d.Reason != string(ai.ReasonUnavailable) {
		t.Errorf("decision %v", d)
	}
	if n := g.ledger.Held(); n != 0 {
		t.Errorf("%d reservations held", n)
	}
}

func TestClientGoneAfterTheDecisionWithdrawsIt(t *testing.T) {
	g := start(t, withLimit(testPlan()))
	ctx, cancel := context.WithCancel(t.Context())
	g.journal.onDecided = func(streamDone <-chan struct{}) { cancel(); <-streamDone }
	g.servePipeline(t, tell{g.journal})
	stream, err := g.client.Process(ctx)
	if err != nil {
		t.Fatal(err)
	}
	stream.Send(headersMessage(post("/v1/chat/completions", "sk-open"), false))
	stream.Recv()
	stream.Send(bodyMessage(chatBody))
	all := g.journal.wait(t, 2)
	if all[0].Verdict != "allowed" || all[1].Verdict != "refused" || all[1].Id != all[0].Id || len(all[1].Limits) != 0 {
		t.Errorf("decisions %v", all)
	}
	if n := g.ledger.Held(); n != 0 {
		t.Errorf("%d reservations held", n)
	}
}

// tell tells the journal when the stream that it decides about has ended.
type tell struct{ j *journal }

func (tell) Name() string { return "tell" }

func (s tell) Request(ctx context.Context, _ *pipeline.Exchange) (pipeline.Verdict, error) {
	s.j.mu.Lock()
	defer s.j.mu.Unlock()
	s.j.streamDone = ctx.Done()
	return pipeline.Verdict{}, nil
}

// broken is a stage that panics.
type broken struct{}

func (broken) Name() string { return "broken" }

func (broken) Request(_ context.Context, ex *pipeline.Exchange) (pipeline.Verdict, error) {
	panic(string(ex.In.Body))
}

func TestPanicRefusesAndTellsNothing(t *testing.T) {
	g := start(t, withLimit(testPlan()))
	log := new(logBuffer)
	g.log = slog.New(slog.NewTextHandler(log, nil))
	g.servePipeline(t, broken{})
	g.refused(t, g.ask(t, post("/v1/chat/completions", "sk-open"), chatBody), ai.ReasonInternal, "broken")
	if n := g.ledger.Held(); n != 0 {
		t.Errorf("%d reservations held", n)
	}
	if text := log.String(); text == "" || strings.Contains(text, "hello there") || strings.Contains(text, "sk-open") {
		t.Errorf("log: %s", text)
	}
	g.journal.decisions = nil
	if a := g.ask(t, hdr(get("/v1/models", "sk-open")...), ""); a.GetImmediateResponse().GetStatus().GetCode() != 200 {
		t.Errorf("after a panic: %v", a)
	}
}
