package extproc_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	modev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_proc/v3"
	pb "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/weirproxy/weir/extproc"
	"github.com/weirproxy/weir/extproc/pipeline"
	"github.com/weirproxy/weir/extproc/stage/access"
	"github.com/weirproxy/weir/extproc/stage/auth"
	"github.com/weirproxy/weir/extproc/stage/decode"
	"github.com/weirproxy/weir/extproc/stage/models"
	"github.com/weirproxy/weir/extproc/stage/network"
	"github.com/weirproxy/weir/extproc/stage/quota"
	"github.com/weirproxy/weir/extproc/stage/route"
	"github.com/weirproxy/weir/extproc/stage/tokens"
	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
	"github.com/weirproxy/weir/limit"
	usagev1 "github.com/weirproxy/weir/proto/weir/usage/v1"
	counting "github.com/weirproxy/weir/tokens"
)

// priced is a price that holds from ever.
func priced(input, cached, output ai.NanoUSD) []plan.PricePeriod {
	return []plan.PricePeriod{{Price: ai.Price{
		Input: input, CachedInput: cached, CacheWrite: input, AudioInput: input, ImageInput: input,
		Output: output, Reasoning: output, AudioOutput: output, ImageOutput: output,
	}}}
}

// testPlan is a plan with two teams: "private" may call model chat at private
// pools only, "open" may call every model everywhere.
func testPlan() *plan.Plan {
	counts, err := counting.New(counting.Choice{Model: "gpt-4o"})
	if err != nil {
		panic(err)
	}
	near := &plan.Pool{Tokenizer: counts, Name: "near", Placement: ai.Private, Model: "deepseek-v3", ContextWindow: 8192, Prices: priced(1, 1, 2)}
	far := &plan.Pool{Tokenizer: counts, Name: "far", Placement: ai.Public, Model: "qwen-max", Prices: priced(3, 4, 5), BillsAbandoned: true}
	chat := &plan.Model{
		Name: "chat", Aliases: []string{"gpt-4o"}, DefaultMaxTokens: 256, Pools: []*plan.Pool{near, far},
		Targets:           []plan.Step{{Choices: []plan.Choice{{Pool: near, Weight: 1}}}, {Choices: []plan.Choice{{Pool: far, Weight: 1}}}},
		FirstTokenTimeout: 30 * time.Second, AttemptTimeout: 600 * time.Second,
	}
	away := &plan.Model{
		Name: "away", DefaultMaxTokens: 256, Pools: []*plan.Pool{far}, Targets: []plan.Step{{Choices: []plan.Choice{{Pool: far, Weight: 1}}}},
		FirstTokenTimeout: time.Second, AttemptTimeout: 2 * time.Second,
	}
	p := &plan.Plan{
		Pools:     []*plan.Pool{far, near},
		Models:    map[string]*plan.Model{"chat": chat, "gpt-4o": chat, "away": away},
		ModelList: []*plan.Model{away, chat},
		Keys:      map[plan.KeyHash]*plan.Key{},
		Bounds:    plan.Bounds{MaxBodyBytes: 64 << 10, MaxDepth: 64},
	}
	secret := []byte("test secret")
	p.SetHashSecret(secret)
	for token, key := range map[string]*plan.Key{
		"sk-private": {Roles: []*plan.Role{{Name: "private", Models: map[string]bool{"chat": true}}}},
		"sk-open":    {Roles: []*plan.Role{{Name: "open", AllModels: true, AllEgress: true}}},
		"sk-gone":    {Roles: []*plan.Role{{Name: "open", AllModels: true, AllEgress: true}}, Disabled: true},
	} {
		key.Name = strings.TrimPrefix(token, "sk-")
		key.Principal = ai.Principal{Key: key.Name, Application: key.Name + "-app", Team: key.Name}
		p.Keys[plan.HashKey(secret, token)] = key
		p.KeyList = append(p.KeyList, key)
	}
	return p
}

// journal is a Journal in memory.
type journal struct {
	mu        sync.Mutex
	decisions []*usagev1.Decision
	fails     bool
	discard   bool   // keep only
	last      string // the last one's id
	// onDecided is called for the first decision, with the end of its stream.
	onDecided  func(streamDone <-chan struct{})
	streamDone <-chan struct{}
}

func (j *journal) Decided(d *usagev1.Decision) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.fails {
		return errors.New("disk full")
	}
	if j.discard {
		j.last = d.Id
		return nil
	}
	j.decisions = append(j.decisions, d)
	if j.onDecided != nil && len(j.decisions) == 1 {
		j.onDecided(j.streamDone)
	}
	return nil
}

// wait returns the decisions when there are n.
func (j *journal) wait(t *testing.T, n int) []*usagev1.Decision {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		j.mu.Lock()
		all := j.decisions
		j.mu.Unlock()
		if len(all) >= n {
			return all
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d decisions, want %d", len(all), n)
		}
	}
}

func (j *journal) only(t *testing.T) *usagev1.Decision {
	t.Helper()
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.decisions) != 1 {
		t.Fatalf("%d decisions journalled, want 1: %v", len(j.decisions), j.decisions)
	}
	return j.decisions[0]
}

// gateway is a server as the app makes it, and a client as Envoy is one.
type gateway struct {
	plan     *plan.Plan
	journal  *journal
	ledger   *limit.Ledger
	log      *slog.Logger
	registry *prometheus.Registry
	client   pb.ExternalProcessorClient
}

var discardLog = slog.New(slog.DiscardHandler)

func newLedger() *limit.Ledger { return limit.New(time.Now) }

func start(t testing.TB, p *plan.Plan) *gateway {
	t.Helper()
	g := &gateway{plan: p, journal: new(journal), ledger: newLedger(), log: discardLog}
	g.servePipeline(t)
	return g
}

// pipeline is that of the product, with more stages behind it.
func (g *gateway) pipeline(more ...pipeline.Stage) *pipeline.Pipeline {
	stages := []pipeline.Stage{auth.Stage{}, network.Stage{}, access.Stage{}, models.Stage{}, decode.Stage{}, tokens.New(nil, counting.NewLearned()), quota.NewGate(g.ledger), route.New(route.NewRests()), quota.New(g.ledger, limit.NewOutputs())}
	run := pipeline.New(append(stages, more...)...)
	run.Log = g.log
	return run
}

func (g *gateway) server(run *pipeline.Pipeline) *extproc.Server {
	g.registry = prometheus.NewRegistry()
	return extproc.NewServer(extproc.Options{
		Plan: func() *plan.Plan { return g.plan }, Pipeline: run, Journal: g.journal, Log: g.log,
		Metrics: extproc.NewMetrics(g.registry, run.Stages()),
	})
}

func (g *gateway) servePipeline(t testing.TB, more ...pipeline.Stage) {
	t.Helper()
	listener := bufconn.Listen(1 << 20)
	server := grpc.NewServer(extproc.ServerOptions()...)
	g.server(g.pipeline(more...)).Register(server)
	go server.Serve(listener)
	t.Cleanup(server.Stop)
	conn, err := grpc.NewClient("passthrough:///weir", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20), grpc.MaxCallSendMsgSize(64<<20)),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	g.client = pb.NewExternalProcessorClient(conn)
}

// logBuffer is a log that a test reads.
type logBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// hdr makes headers of "name", "value", ….
func hdr(pairs ...string) []*corev3.HeaderValue {
	var h []*corev3.HeaderValue
	for i := 0; i+1 < len(pairs); i += 2 {
		h = append(h, &corev3.HeaderValue{Key: pairs[i], RawValue: []byte(pairs[i+1])})
	}
	return h
}

// post makes the headers of a POST with a key.
func post(path, token string, more ...string) []*corev3.HeaderValue {
	return hdr(append([]string{":method", "POST", ":path", path, ":authority", "weir", "authorization", "Bearer " + token}, more...)...)
}

func headersMessage(h []*corev3.HeaderValue, end bool) *pb.ProcessingRequest {
	return &pb.ProcessingRequest{
		Request:        &pb.ProcessingRequest_RequestHeaders{RequestHeaders: &pb.HttpHeaders{Headers: &corev3.HeaderMap{Headers: h}, EndOfStream: end}},
		ProtocolConfig: &pb.ProtocolConfiguration{RequestBodyMode: modev3.ProcessingMode_BUFFERED},
	}
}

func bodyMessage(body string) *pb.ProcessingRequest {
	return &pb.ProcessingRequest{Request: &pb.ProcessingRequest_RequestBody{RequestBody: &pb.HttpBody{Body: []byte(body), EndOfStream: true}}}
}

// exchange sends messages as Envoy does, each after the answer to the one before,
// and returns the answers until weir ends the stream.
func (g *gateway) exchange(t testing.TB, messages ...*pb.ProcessingRequest) ([]*pb.ProcessingResponse, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	stream, err := g.client.Process(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var answers []*pb.ProcessingResponse
	for _, m := range messages {
		if err := stream.Send(m); err != nil {
			break // the status comes with Recv
		}
		a, err := stream.Recv()
		if err != nil {
			return answers, err
		}
		answers = append(answers, a)
		if a.GetImmediateResponse() != nil {
			break
		}
	}
	if len(answers) < len(messages) || answers[len(answers)-1].GetRequestHeaders() == nil {
		// The last answer is out: weir has to end the stream by itself.
		if _, err := stream.Recv(); err != io.EOF {
			return answers, err
		}
	}
	return answers, nil
}

// ask sends a whole request and returns weir's last answer.
func (g *gateway) ask(t testing.TB, h []*corev3.HeaderValue, body string) *pb.ProcessingResponse {
	t.Helper()
	messages := []*pb.ProcessingRequest{headersMessage(h, body == "")}
	if body != "" {
		messages = append(messages, bodyMessage(body))
	}
	answers, err := g.exchange(t, messages...)
	if err != nil || len(answers) == 0 {
		t.Fatalf("no answer: %v", err)
	}
	return answers[len(answers)-1]
}

// setHeaders are the headers that a mutation sets.
func setHeaders(m *pb.HeaderMutation) map[string]string {
	set := map[string]string{}
	for _, o := range m.GetSetHeaders() {
		set[o.GetHeader().GetKey()] = string(o.GetHeader().GetRawValue())
	}
	return set
}
