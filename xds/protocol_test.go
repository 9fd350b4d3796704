package xds_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/weirproxy/weir/internal/plan"
	"github.com/weirproxy/weir/xds"
	"github.com/weirproxy/weir/xds/build"
)

// These tests ask a real gRPC server as Envoy would, in both protocols.

// control is a server with a clock that the test moves.
type control struct {
	*xds.Server
	address string
	clock   *clock
	nacks   chan xds.Rejection
}

type clock struct {
	mu     sync.Mutex
	now    time.Time
	timers []func()
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// advance moves the time and runs every timer: each one looks at the clock.
func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	c.now = c.now.Add(d)
	due := slices.Clone(c.timers)
	c.mu.Unlock()
	for _, f := range due {
		f()
	}
}

func (c *clock) after(_ time.Duration, f func()) func() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.timers = append(c.timers, f)
	return func() bool { return false }
}

func startControl(t *testing.T) *control {
	t.Helper()
	c := &control{clock: &clock{now: time.Unix(1e9, 0)}, nacks: make(chan xds.Rejection, 100)}
	c.Server = xds.NewServer(xds.Options{
		Grace: 30 * time.Second, Now: c.clock.Now, After: c.clock.after,
		OnNACK: func(r xds.Rejection) { c.nacks <- r },
	})
	dir := t.TempDir()
	g := grpc.NewServer(xds.GRPCOptions()...)
	c.Register(t.Context(), g)
	c.address = filepath.Join(dir, "s")
	serve(t, g, c.address)
	return c
}

// some are resources with these pools, of one revision each.
func some(t *testing.T, pools ...string) *build.Resources {
	t.Helper()
	p := planOf()
	for _, name := range pools {
		one := pool(name, plan.Endpoint{Host: "10.0.0.1", Port: 80})
		one.Credential = &plan.Credential{Header: "authorization", Value: "secret of " + name}
		p.Pools = append(p.Pools, one)
	}
	r, err := build.Build(p, build.Options{ExtProc: build.Service{Address: "unix:/e"}, AccessLogFile: "/l", WasmFile: "/w"})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// clusters are the names of the clusters that some gives.
func clusters(pools ...string) []string {
	names := []string{"weir/extproc", "weir/none"}
	for _, p := range pools {
		names = append(names, "pool/"+p)
	}
	slices.Sort(names)
	return names
}

func (c *control) publish(t *testing.T, pools ...string) string {
	t.Helper()
	v, err := c.Publish(some(t, pools...))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// peer is an Envoy as the server sees it. It asks for what Envoy asks for:
// clusters and listeners as a whole, the rest by name.
type peer interface {
	// next is the next response, as names of what the peer now holds; "" when
	// none comes.
	next(t *testing.T) (typeURL string, names []string)
	quiet(t *testing.T)
	ask(t *testing.T, typeURL string, names ...string)
	ack(t *testing.T, typeURL string)
	nack(t *testing.T, typeURL, why string)
	hangUp()
}

var protocols = map[string]func(t *testing.T, address, node string) peer{
	"sotw":  func(t *testing.T, a, n string) peer { return dialSotw(t, a, n) },
	"delta": func(t *testing.T, a, n string) peer { return dialDelta(t, a, n, nil) },
}

func each(t *testing.T, f func(t *testing.T, dial func(t *testing.T, address, node string) peer)) {
	t.Helper()
	for name, dial := range protocols {
		t.Run(name, func(t *testing.T) { f(t, dial) })
	}
}

// follow takes everything of the first publication.
func follow(t *testing.T, p peer, pools ...string) {
	t.Helper()
	p.ask(t, resourcev3.ClusterType)
	expect(t, p, resourcev3.ClusterType, clusters(pools...))
	p.ack(t, resourcev3.ClusterType)
	p.ask(t, resourcev3.ListenerType)
	expect(t, p, resourcev3.ListenerType, []string{"public"})
	p.ack(t, resourcev3.ListenerType)
	p.ask(t, resourcev3.RouteType, build.RouteConfig)
	expect(t, p, resourcev3.RouteType, []string{build.RouteConfig})
	p.ack(t, resourcev3.RouteType)
	endpoints, secrets := dependents(t, pools)
	p.ask(t, resourcev3.EndpointType, endpoints...)
	expect(t, p, resourcev3.EndpointType, endpoints)
	p.ack(t, resourcev3.EndpointType)
	p.ask(t, resourcev3.SecretType, secrets...)
	expect(t, p, resourcev3.SecretType, secrets)
	p.ack(t, resourcev3.SecretType)
}

func dependents(t *testing.T, pools []string) (endpoints, secrets []string) {
	t.Helper()
	res := some(t, pools...)
	for _, e := range res.Endpoints {
		endpoints = append(endpoints, e.ClusterName)
	}
	for _, x := range res.Secrets {
		secrets = append(secrets, x.Name)
	}
	return endpoints, secrets
}

func expect(t *testing.T, p peer, typeURL string, names []string) {
	t.Helper()
	gotType, got := p.next(t)
	slices.Sort(got)
	if diff := cmp.Diff(append([]string{typeURL}, names...), append([]string{gotType}, got...)); diff != "" {
		t.Fatalf("-want +got:\n%s", diff)
	}
}

func waitACK(t *testing.T, c *control, version string, d time.Duration) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	return c.WaitACK(ctx, version)
}

func TestServesAndCounts(t *testing.T) {
	each(t, func(t *testing.T, dial func(*testing.T, string, string) peer) {
		c := startControl(t)
		p := dial(t, c.address, "envoy-1")
		p.ask(t, resourcev3.ClusterType)
		p.quiet(t) // nothing is published: it waits
		p.hangUp()

		version := c.publish(t, "a", "b")
		p = dial(t, c.address, "envoy-1")
		p.ask(t, resourcev3.ClusterType)
		expect(t, p, resourcev3.ClusterType, clusters("a", "b"))
		if err := waitACK(t, c, version, 50*time.Millisecond); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("accepted before it was: %v", err)
		}
		p.hangUp()
		p = dial(t, c.address, "envoy-1")
		follow(t, p, "a", "b")
		if err := waitACK(t, c, version, 5*time.Second); err != nil {
			t.Error(err)
		}
		st := c.Status()
		if st.Version != version || len(st.Nodes) != 1 || !st.Nodes[0].Current || st.Nodes[0].ID != "envoy-1" || len(st.Nodes[0].Acked) != 5 {
			t.Errorf("%+v", st)
		}
		for _, held := range st.Nodes[0].Types {
			if held.Type == "TypedExtensionConfig" { // there is none, so it is not asked for
				continue
			}
			if !held.Current || held.Held != held.Wanted || held.Wanted == "" || !held.Since.Equal(c.clock.Now()) {
				t.Errorf("%+v", held)
			}
		}
		if v := c.publish(t, "a", "b"); v != version {
			t.Errorf("the same content has version %s, then %s", version, v)
		}
		p.quiet(t)
		p.hangUp()
		wait(t, func() bool { return len(c.Status().Nodes) == 0 })
	})
}

// TestRemovalsWait: what is retired is served for the grace period.
func TestRemovalsWait(t *testing.T) {
	each(t, func(t *testing.T, dial func(*testing.T, string, string) peer) {
		c := startControl(t)
		c.publish(t, "a", "b")
		p := dial(t, c.address, "n")
		follow(t, p, "a", "b")
		wait(t, func() bool { return c.Status().Nodes[0].Current })
		version := c.publish(t, "a", "c")
		// State of the world sends a changed type even when nothing that was asked
		// for has changed.
		kind, names := p.next(t)
		for kind != resourcev3.ClusterType {
			p.ack(t, kind)
			kind, names = p.next(t)
		}
		p.ack(t, kind)
		slices.Sort(names)
		if diff := cmp.Diff(clusters("a", "b", "c"), names); diff != "" {
			t.Fatalf("-want +got:\n%s", diff)
		}
		if st := c.Status(); st.Retired != 3 {
			t.Errorf("%d retired, want a cluster, its endpoints and its secret", st.Retired)
		}
		c.clock.advance(29 * time.Second)
		if st := c.Status(); st.Retired != 3 || st.Version != version {
			t.Errorf("%+v", st)
		}
		c.clock.advance(2 * time.Second)
		if st := c.Status(); st.Retired != 0 || st.Version != version {
			t.Errorf("%+v", st)
		}
		for {
			kind, names := p.next(t)
			p.ack(t, kind)
			if kind == resourcev3.ClusterType {
				slices.Sort(names)
				if diff := cmp.Diff(clusters("a", "c"), names); diff != "" {
					t.Fatalf("-want +got:\n%s", diff)
				}
				break
			}
		}
	})
}

// TestRefusalPutsBack: the previous version is sent again, the refused one never.
func TestRefusalPutsBack(t *testing.T) {
	each(t, func(t *testing.T, dial func(*testing.T, string, string) peer) {
		c := startControl(t)
		good := c.publish(t, "a")
		p := dial(t, c.address, "n")
		follow(t, p, "a")
		wait(t, func() bool { return c.Status().Nodes[0].Current })
		bad := c.publish(t, "a", "bad")
		kind, _ := p.next(t)
		for kind != resourcev3.ClusterType {
			p.ack(t, kind)
			kind, _ = p.next(t)
		}
		p.nack(t, kind, "no such thing")
		r := <-c.nacks
		if r.Version != bad || r.Type != "Cluster" || r.Node != "n" || r.Detail != "no such thing" || !r.At.Equal(c.clock.Now()) {
			t.Errorf("%+v", r)
		}
		var rejected *xds.RejectedError
		if err := waitACK(t, c, bad, time.Second); !errors.As(err, &rejected) {
			t.Errorf("WaitACK: %v", err)
		}
		for {
			kind, names := p.next(t)
			p.ack(t, kind)
			if kind == resourcev3.ClusterType {
				slices.Sort(names)
				if diff := cmp.Diff(clusters("a"), names); diff != "" {
					t.Fatalf("-want +got:\n%s", diff)
				}
				break
			}
		}
		if st := c.Status(); st.Version != good || st.Last == nil {
			t.Errorf("%+v", st)
		}
		if _, err := c.Publish(some(t, "a", "bad")); !errors.As(err, &rejected) {
			t.Errorf("published again: %v", err)
		}
		// No storm: what was put back was sent once.
		drain(t, p)
		if n := len(c.nacks); n != 0 {
			t.Errorf("%d more refusals", n)
		}
		next := c.publish(t, "a", "fine")
		if st := c.Status(); st.Version != next {
			t.Errorf("%+v", st)
		}
	})
}

// TestFirstVersionRefused: there is nothing to put back, and no storm either.
func TestFirstVersionRefused(t *testing.T) {
	each(t, func(t *testing.T, dial func(*testing.T, string, string) peer) {
		c := startControl(t)
		c.publish(t, "bad")
		p := dial(t, c.address, "n")
		p.ask(t, resourcev3.ClusterType)
		kind, _ := p.next(t)
		p.nack(t, kind, "no")
		drain(t, p)
		if n := len(c.nacks); n != 1 {
			t.Errorf("%d refusals", n)
		}
		c.publish(t, "good")
		for kind, names := p.next(t); ; kind, names = p.next(t) {
			p.ack(t, kind)
			if slices.Sort(names); slices.Equal(names, clusters("good")) {
				break
			}
		}
	})
}

// TestOneEnvoyRefuses what another has accepted: it alone is held back.
func TestOneEnvoyRefuses(t *testing.T) {
	each(t, func(t *testing.T, dial func(*testing.T, string, string) peer) {
		c := startControl(t)
		version := c.publish(t, "a")
		first := dial(t, c.address, "new")
		follow(t, first, "a")
		wait(t, func() bool { return c.Status().Nodes[0].Current })
		second := dial(t, c.address, "old")
		second.ask(t, resourcev3.ClusterType)
		kind, _ := second.next(t)
		second.nack(t, kind, "too new for me")
		drain(t, second)
		first.quiet(t)
		st := c.Status()
		if st.Version != version || len(st.Nodes) != 2 || !st.Nodes[0].Current || st.Nodes[1].Held == nil || st.Nodes[1].Current {
			t.Errorf("%+v", st)
		}
		if lacks := st.Nodes[1].Types[0]; lacks.Type != "Cluster" || lacks.Current || lacks.Held == lacks.Wanted || lacks.Wanted == "" || !lacks.Since.Equal(c.clock.Now()) {
			t.Errorf("%+v", lacks)
		}
		if n := len(c.nacks); n != 1 {
			t.Errorf("%d refusals", n)
		}
	})
}

// TestReconnect: an Envoy that has everything is sent nothing new in delta, and
// counts as up to date at once.
func TestReconnect(t *testing.T) {
	c := startControl(t)
	version := c.publish(t, "a")
	p := dialDelta(t, c.address, "n", nil)
	follow(t, p, "a")
	held := maps.Clone(p.versions[resourcev3.ClusterType])
	p.hangUp()
	wait(t, func() bool { return len(c.Status().Nodes) == 0 })
	if err := waitACK(t, c, version, 50*time.Millisecond); err == nil {
		t.Error("accepted by nobody")
	}
	p = dialDelta(t, c.address, "n", map[string]map[string]string{resourcev3.ClusterType: held})
	p.ask(t, resourcev3.ClusterType)
	if kind, names := p.next(t); kind != resourcev3.ClusterType || len(names) != 0 {
		t.Errorf("sent %s %v", kind, names)
	}
}

func TestManyPublications(t *testing.T) {
	c := startControl(t)
	for i := range 100 {
		c.publish(t, fmt.Sprintf("p%d", i))
	}
	p := dialSotw(t, c.address, "n")
	p.ask(t, resourcev3.ClusterType)
	if _, names := p.next(t); !slices.Contains(names, "pool/p99") || slices.Contains(names, "pool/p98") {
		t.Errorf("%v", names) // nobody used p98: it is not kept
	}
	if err := waitACK(t, c, "another", time.Second); !errors.Is(err, xds.ErrSuperseded) {
		t.Errorf("%v", err)
	}
}

func wait(t *testing.T, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it does not come about")
		}
	}
}

// drain acknowledges what still comes, a few responses at most.
func drain(t *testing.T, p peer) {
	t.Helper()
	for range 10 {
		kind, _ := p.next(t)
		if kind == "" {
			return
		}
		p.ack(t, kind)
	}
	t.Error("responses do not end")
}

const silence = 150 * time.Millisecond

// inbox receives in the background.
type inbox[R any] struct {
	in     chan R
	cancel context.CancelFunc
}

func (b *inbox[R]) hangUp() { b.cancel() }

func (b *inbox[R]) receive() (R, bool) {
	select {
	case r, ok := <-b.in:
		return r, ok
	case <-time.After(silence):
		var none R
		return none, false
	}
}

func newInbox[R any](cancel context.CancelFunc, recv func() (R, error)) *inbox[R] {
	b := &inbox[R]{in: make(chan R, 100), cancel: cancel}
	go func() {
		defer close(b.in)
		for {
			r, err := recv()
			if err != nil {
				return
			}
			b.in <- r
		}
	}()
	return b
}

func dial(t *testing.T, address string) discoveryv3.AggregatedDiscoveryServiceClient {
	t.Helper()
	conn, err := grpc.NewClient("unix:"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return discoveryv3.NewAggregatedDiscoveryServiceClient(conn)
}

type sotwPeer struct {
	*inbox[*discoveryv3.DiscoveryResponse]
	stream  discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesClient
	node    *corev3.Node
	last    map[string]*discoveryv3.DiscoveryResponse
	good    map[string]string // accepted version by type
	subject map[string][]string
}

func dialSotw(t *testing.T, address, node string) *sotwPeer {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	st, err := dial(t, address).StreamAggregatedResources(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return &sotwPeer{
		inbox: newInbox(cancel, st.Recv), stream: st, node: &corev3.Node{Id: node},
		last: map[string]*discoveryv3.DiscoveryResponse{}, good: map[string]string{}, subject: map[string][]string{},
	}
}

func (p *sotwPeer) send(t *testing.T, r *discoveryv3.DiscoveryRequest) {
	t.Helper()
	r.Node, p.node = p.node, nil // on the first message only
	r.VersionInfo, r.ResourceNames = p.good[r.TypeUrl], p.subject[r.TypeUrl]
	if last := p.last[r.TypeUrl]; last != nil {
		r.ResponseNonce = last.Nonce
	}
	if err := p.stream.Send(r); err != nil {
		t.Fatal(err)
	}
}

func (p *sotwPeer) ask(t *testing.T, typeURL string, names ...string) {
	t.Helper()
	p.subject[typeURL] = names
	p.send(t, &discoveryv3.DiscoveryRequest{TypeUrl: typeURL})
}

func (p *sotwPeer) next(t *testing.T) (string, []string) {
	t.Helper()
	r, ok := p.receive()
	if !ok {
		return "", nil
	}
	p.last[r.TypeUrl] = r
	var names []string
	for _, a := range r.Resources {
		m, err := a.UnmarshalNew()
		if err != nil {
			t.Fatal(err)
		}
		if named, ok := m.(interface{ GetClusterName() string }); ok {
			names = append(names, named.GetClusterName())
		} else if named, ok := m.(interface{ GetName() string }); ok {
			names = append(names, named.GetName())
		}
	}
	return r.TypeUrl, names
}

func (p *sotwPeer) quiet(t *testing.T) {
	t.Helper()
	if r, ok := p.receive(); ok {
		t.Errorf("unasked: %s %s", r.TypeUrl, r.VersionInfo)
	}
}

func (p *sotwPeer) ack(t *testing.T, typeURL string) {
	t.Helper()
	p.good[typeURL] = p.last[typeURL].VersionInfo
	p.send(t, &discoveryv3.DiscoveryRequest{TypeUrl: typeURL})
}

func (p *sotwPeer) nack(t *testing.T, typeURL, why string) {
	t.Helper()
	p.send(t, &discoveryv3.DiscoveryRequest{TypeUrl: typeURL, ErrorDetail: &status.Status{Code: 13, Message: why}})
}

type deltaPeer struct {
	*inbox[*discoveryv3.DeltaDiscoveryResponse]
	stream   discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesClient
	node     *corev3.Node
	nonce    map[string]string
	versions map[string]map[string]string // what it holds, by type and name
	initial  map[string]map[string]string
}

func dialDelta(t *testing.T, address, node string, initial map[string]map[string]string) *deltaPeer {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	st, err := dial(t, address).DeltaAggregatedResources(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return &deltaPeer{
		inbox: newInbox(cancel, st.Recv), stream: st, node: &corev3.Node{Id: node},
		nonce: map[string]string{}, versions: map[string]map[string]string{}, initial: initial,
	}
}

func (p *deltaPeer) send(t *testing.T, r *discoveryv3.DeltaDiscoveryRequest) {
	t.Helper()
	r.Node, p.node = p.node, nil
	if err := p.stream.Send(r); err != nil {
		t.Fatal(err)
	}
}

func (p *deltaPeer) ask(t *testing.T, typeURL string, names ...string) {
	t.Helper()
	p.versions[typeURL] = map[string]string{}
	p.send(t, &discoveryv3.DeltaDiscoveryRequest{
		TypeUrl: typeURL, ResourceNamesSubscribe: names, InitialResourceVersions: p.initial[typeURL],
	})
}

func (p *deltaPeer) next(t *testing.T) (string, []string) {
	t.Helper()
	r, ok := p.receive()
	if !ok {
		return "", nil
	}
	p.nonce[r.TypeUrl] = r.Nonce
	for _, res := range r.Resources {
		p.versions[r.TypeUrl][res.Name] = res.Version
	}
	for _, name := range r.RemovedResources {
		delete(p.versions[r.TypeUrl], name)
	}
	return r.TypeUrl, slices.Collect(maps.Keys(p.versions[r.TypeUrl]))
}

func (p *deltaPeer) quiet(t *testing.T) {
	t.Helper()
	if r, ok := p.receive(); ok {
		t.Errorf("unasked: %s %s", r.TypeUrl, r.SystemVersionInfo)
	}
}

func (p *deltaPeer) ack(t *testing.T, typeURL string) {
	t.Helper()
	p.send(t, &discoveryv3.DeltaDiscoveryRequest{TypeUrl: typeURL, ResponseNonce: p.nonce[typeURL]})
}

func (p *deltaPeer) nack(t *testing.T, typeURL, why string) {
	t.Helper()
	p.send(t, &discoveryv3.DeltaDiscoveryRequest{
		TypeUrl: typeURL, ResponseNonce: p.nonce[typeURL], ErrorDetail: &status.Status{Code: 13, Message: why},
	})
}
