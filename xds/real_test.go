package xds_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	upstreamv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/weirproxy/weir/dialect/profile"
	"github.com/weirproxy/weir/envoy"
	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
	"github.com/weirproxy/weir/xds"
	"github.com/weirproxy/weir/xds/build"
)

// rig is a real Envoy with a real xDS server and a scripted ext_proc. The Wasm
// adapter is left out of the chains: it has tests of its own.
type rig struct {
	t      *testing.T
	dir    string
	opts   build.Options
	server *xds.Server
	grpc   *grpc.Server
	proc   *envoy.Process
	ext    *scripted
	extSrv *grpc.Server
	url    string
	log    string
}

// startRig publishes the plan and waits until Envoy serves it.
func startRig(t *testing.T, p *plan.Plan, sotw bool) *rig {
	t.Helper()
	dir, err := os.MkdirTemp("", "rig") // t.TempDir's names are too long for sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	r := &rig{t: t, dir: dir, ext: &scripted{}, log: filepath.Join(dir, "access.log")}
	r.opts = build.Options{
		ExtProc:       build.Service{Address: "unix:" + filepath.Join(dir, "ext.sock")},
		AccessLogFile: r.log,
		WasmFile:      filepath.Join(dir, "adapter.wasm"),
		SystemCAFile:  envoy.SystemCAFile(),
	}
	r.server = xds.NewServer(xds.Options{Grace: 2 * time.Second})
	r.grpc = grpc.NewServer()
	r.server.Register(t.Context(), r.grpc)
	serve(t, r.grpc, filepath.Join(dir, "xds.sock"))
	r.startExtProc()
	version := r.publish(p)

	binary, err := envoy.Locate(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	r.proc, err = envoy.Start(t.Context(), envoy.Options{
		Binary: binary, Dir: filepath.Join(dir, "envoy"), RuntimeDir: dir, Concurrency: 1,
		Bootstrap: envoy.BootstrapOptions{
			NodeID: "rig", XDS: build.Service{Address: "unix:" + filepath.Join(dir, "xds.sock")}, StateOfTheWorld: sotw,
		},
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.proc.Kill)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := r.proc.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	if err := r.server.WaitACK(ctx, version); err != nil {
		t.Fatal(err)
	}
	listeners, err := r.proc.Admin.Listeners(ctx)
	if err != nil {
		t.Fatal(err)
	}
	r.url = "http://" + listeners["public"]
	return r
}

func serve(t testing.TB, g *grpc.Server, path string) {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	go g.Serve(l)
	t.Cleanup(g.Stop)
}

func (r *rig) startExtProc() {
	r.t.Helper()
	r.extSrv = grpc.NewServer(grpc.MaxRecvMsgSize(64 << 20))
	extprocv3.RegisterExternalProcessorServer(r.extSrv, r.ext)
	serve(r.t, r.extSrv, filepath.Join(r.dir, "ext.sock"))
}

// resources builds the plan without the adapter.
func (r *rig) resources(p *plan.Plan) *build.Resources {
	r.t.Helper()
	res, err := build.Build(p, r.opts)
	if err != nil {
		r.t.Fatal(err)
	}
	withoutAdapter(r.t, res)
	return res
}

func (r *rig) publish(p *plan.Plan) string {
	r.t.Helper()
	version, err := r.server.Publish(r.resources(p))
	if err != nil {
		r.t.Fatal(err)
	}
	return version
}

const httpOptions = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

func withoutAdapter(t *testing.T, res *build.Resources) {
	t.Helper()
	for _, c := range res.Clusters {
		if !strings.HasPrefix(c.Name, "pool/") {
			continue
		}
		var o upstreamv3.HttpProtocolOptions
		if err := c.TypedExtensionProtocolOptions[httpOptions].UnmarshalTo(&o); err != nil {
			t.Fatal(err)
		}
		var keep []*hcmv3.HttpFilter
		for _, f := range o.HttpFilters {
			if f.Name != "weir.adapter" {
				keep = append(keep, f)
			}
		}
		o.HttpFilters = keep
		a, err := anypb.New(&o)
		if err != nil {
			t.Fatal(err)
		}
		c.TypedExtensionProtocolOptions[httpOptions] = a
	}
}

// post sends a chat request and returns the answer.
func (r *rig) post(body string, headers ...string) answer {
	r.t.Helper()
	return r.do("POST", "/v1/chat/completions", body, headers...)
}

type answer struct {
	status int
	body   string
	header http.Header
}

func (r *rig) do(method, path, body string, headers ...string) answer {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), method, r.url+path, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return answer{resp.StatusCode, string(b), resp.Header}
}

// logLine waits for the access log's entry that contains text.
func (r *rig) logLine(text string) string {
	r.t.Helper()
	deadline := time.Now().Add(5 * time.Second)
	for {
		b, _ := os.ReadFile(r.log)
		for line := range strings.Lines(string(b)) {
			if strings.Contains(line, text) {
				return line
			}
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("no access log entry with %q in:\n%s", text, b)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// scripted is an ext_proc server that answers as the test says.
type scripted struct {
	mu     sync.Mutex
	decide func(headers map[string]string, body []byte) decision
}

// decision is one answer.
type decision struct {
	id      string
	targets []string // pools, in order
	perTry  time.Duration
	retries int    // -1: one less than the targets
	refuse  int    // status of an immediate response
	reply   string // its body
	hang    bool   // never answer
}

func (s *scripted) set(f func(map[string]string, []byte) decision) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.decide = f
}

// to makes every request go to these pools.
func (s *scripted) to(pools ...string) {
	s.set(func(map[string]string, []byte) decision { return decision{id: "d1", targets: pools, retries: -1} })
}

func (s *scripted) Process(st extprocv3.ExternalProcessor_ProcessServer) error {
	s.mu.Lock()
	decide := s.decide
	s.mu.Unlock()
	headers := make(map[string]string)
	for {
		req, err := st.Recv()
		if err != nil {
			return err
		}
		switch m := req.Request.(type) {
		case *extprocv3.ProcessingRequest_RequestHeaders:
			for _, h := range m.RequestHeaders.Headers.Headers {
				headers[h.Key] = string(h.RawValue)
			}
			if headers[":path"] != "/v1/chat/completions" || headers[":method"] != "POST" {
				return st.Send(decision{id: "d404", refuse: 404, reply: `{"error":{"code":"unknown_url"}}`}.immediate())
			}
			if err := st.Send(&extprocv3.ProcessingResponse{Response: &extprocv3.ProcessingResponse_RequestHeaders{
				RequestHeaders: &extprocv3.HeadersResponse{},
			}}); err != nil {
				return err
			}
		case *extprocv3.ProcessingRequest_RequestBody:
			d := decide(headers, m.RequestBody.Body)
			if d.hang {
				<-st.Context().Done()
				return st.Context().Err()
			}
			if d.refuse != 0 {
				return st.Send(d.immediate())
			}
			return st.Send(d.proceed())
		}
	}
}

func (d decision) metadata() *structpb.Struct {
	groups := make([]any, len(d.targets))
	for i, pool := range d.targets {
		groups[i] = map[string]any{"name": pool, "clusters": []any{
			map[string]any{"cluster_name": ai.ClusterName(pool), "weight": 1},
		}}
	}
	s, err := structpb.NewStruct(map[string]any{
		ai.MetadataNamespace: map[string]any{ai.MetaID: d.id, ai.MetaRequest: "0 2 -"},
		ai.PriorityNamespace: map[string]any{"priority_groups": groups},
	})
	if err != nil {
		panic(err)
	}
	return s
}

func (d decision) immediate() *extprocv3.ProcessingResponse {
	return &extprocv3.ProcessingResponse{
		DynamicMetadata: d.metadata(),
		Response: &extprocv3.ProcessingResponse_ImmediateResponse{ImmediateResponse: &extprocv3.ImmediateResponse{
			Status:  &typev3.HttpStatus{Code: typev3.StatusCode(d.refuse)},
			Details: build.OwnReply,
			Body:    []byte(d.reply),
			Headers: &extprocv3.HeaderMutation{SetHeaders: []*corev3.HeaderValueOption{
				option("content-type", "application/json"), option(ai.DecisionHeader, d.id), option("retry-after", "7"),
			}},
		}},
	}
}

func (d decision) proceed() *extprocv3.ProcessingResponse {
	retries := d.retries
	if retries < 0 {
		retries = len(d.targets) - 1
	}
	set := []*corev3.HeaderValueOption{option("x-envoy-max-retries", strconv.Itoa(retries))}
	if d.perTry > 0 {
		set = append(set, option("x-envoy-upstream-rq-per-try-timeout-ms", strconv.FormatInt(d.perTry.Milliseconds(), 10)))
	}
	return &extprocv3.ProcessingResponse{
		DynamicMetadata: d.metadata(),
		Response: &extprocv3.ProcessingResponse_RequestBody{RequestBody: &extprocv3.BodyResponse{
			Response: &extprocv3.CommonResponse{
				ClearRouteCache: true,
				HeaderMutation:  &extprocv3.HeaderMutation{SetHeaders: set},
			},
		}},
	}
}

func option(name, value string) *corev3.HeaderValueOption {
	return &corev3.HeaderValueOption{
		Header:       &corev3.HeaderValue{Key: name, RawValue: []byte(value)},
		AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
	}
}

// backend is an upstream that answers as the test says and records requests.
type backend struct {
	*httptest.Server
	mu   sync.Mutex
	seen []http.Header
}

func startBackend(t *testing.T, h http.HandlerFunc) *backend {
	t.Helper()
	b := &backend{}
	b.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b.mu.Lock()
		header := r.Header.Clone()
		header.Set("Host", r.Host)
		b.seen = append(b.seen, header)
		b.mu.Unlock()
		h(w, r)
	}))
	t.Cleanup(func() {
		b.CloseClientConnections()
		b.Close()
	})
	return b
}

func (b *backend) requests() []http.Header {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.seen
}

func (b *backend) endpoint(t *testing.T) plan.Endpoint {
	t.Helper()
	host, port, err := net.SplitHostPort(b.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	return plan.Endpoint{Host: host, Port: uint32(n), Weight: 1}
}

// answering always answers the same.
func answering(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.Header().Set("content-type", "application/json")
		w.WriteHeader(status)
		fmt.Fprint(w, body)
	}
}

// pool is a private pool at one endpoint.
func pool(name string, e plan.Endpoint) *plan.Pool {
	kind, _ := profile.ByName("vllm")
	return &plan.Pool{
		Name: name, Adapter: kind, Placement: ai.Private, Endpoints: []plan.Endpoint{e}, Scheme: "http",
		BasePath: "/v1", Model: "real", ConnectTimeout: 500 * time.Millisecond,
	}
}

func planOf(pools ...*plan.Pool) *plan.Plan {
	return &plan.Plan{
		Listeners: []plan.Listener{{Name: "public", Address: "127.0.0.1:0"}},
		Pools:     pools,
		Bounds:    plan.Bounds{MaxBodyBytes: 32 << 20},
	}
}
