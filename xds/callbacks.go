package xds

import (
	"context"
	"slices"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	serverv3 "github.com/envoyproxy/go-control-plane/pkg/server/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	grpcstatus "google.golang.org/grpc/status"

	"github.com/weirproxy/weir/xds/build"
)

// Register adds the aggregated discovery service to a gRPC server. Streams end
// with ctx.
func (s *Server) Register(ctx context.Context, g *grpc.Server) {
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(g, serverv3.NewServer(ctx, s.cache, s.callbacks()))
}

// GRPCOptions are what a gRPC server needs that Envoys reach over TCP: they ping
// every 30 s, and grpc-go would hang up on that.
func GRPCOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
	}
}

func (s *Server) callbacks() serverv3.CallbackFuncs {
	return serverv3.CallbackFuncs{
		StreamClosedFunc:      func(id int64, _ *corev3.Node) { s.closed(streamKey{false, id}) },
		DeltaStreamClosedFunc: func(id int64, _ *corev3.Node) { s.closed(streamKey{true, id}) },
		StreamRequestFunc: func(id int64, r *discoveryv3.DiscoveryRequest) error {
			return s.request(streamKey{false, id}, request{
				node: r.GetNode(), typeURL: r.GetTypeUrl(), nonce: r.GetResponseNonce(), fault: r.GetErrorDetail(),
			})
		},
		StreamDeltaRequestFunc: func(id int64, r *discoveryv3.DeltaDiscoveryRequest) error {
			return s.request(streamKey{true, id}, request{
				node: r.GetNode(), typeURL: r.GetTypeUrl(), nonce: r.GetResponseNonce(), fault: r.GetErrorDetail(),
				has: r.GetInitialResourceVersions(), without: r.GetResourceNamesUnsubscribe(),
			})
		},
		StreamResponseFunc: func(_ context.Context, id int64, q *discoveryv3.DiscoveryRequest, r *discoveryv3.DiscoveryResponse) {
			s.response(streamKey{false, id}, r.GetTypeUrl(), r.GetNonce(), sotwUpdate(nil, q, r.GetVersionInfo()))
		},
		StreamDeltaResponseFunc: func(id int64, _ *discoveryv3.DeltaDiscoveryRequest, r *discoveryv3.DeltaDiscoveryResponse) {
			s.response(streamKey{true, id}, r.GetTypeUrl(), r.GetNonce(), deltaUpdate(nil, r))
		},
	}
}

// request is what matters of a request in either protocol.
type request struct {
	node    *corev3.Node // nil after the first of a stream
	typeURL string
	nonce   string
	fault   *status.Status
	has     map[string]string // delta: what Envoy has from before
	without []string          // delta: what it no longer asks for
}

// request runs before the library looks for something to answer: a snapshot that
// is put back here is what the library then finds.
func (s *Server) request(key streamKey, r request) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	st, err := s.streamOf(key, r.node)
	if err != nil {
		return err
	}
	i, ok := kindOf(r.typeURL)
	if !ok {
		return nil // a type that weir does not serve stays unanswered
	}
	sub := &st.types[i]
	if !sub.asked {
		sub.asked, sub.resources = true, r.has
	}
	for _, name := range r.without {
		delete(sub.resources, name)
	}
	u, ok := sub.answered(r.nonce)
	if !ok {
		return nil
	}
	if r.fault != nil {
		s.refuse(st.node, i, u, r.fault.GetMessage())
	} else {
		sub.accept(u, key.delta, s.opts.Now())
		s.accepted(st.node, i, u)
	}
	s.notify()
	return nil
}

func (s *Server) streamOf(key streamKey, from *corev3.Node) (*stream, error) {
	if st, ok := s.streams[key]; ok {
		return st, nil
	}
	id := from.GetId()
	if id == "" {
		return nil, grpcstatus.Error(codes.InvalidArgument, "the first request has no node id")
	}
	n, ok := s.nodes[id]
	if !ok {
		n = &node{id: id, streams: make(map[streamKey]*stream)}
		s.nodes[id] = n
		if s.current != nil {
			if err := s.give(n, s.current); err != nil {
				delete(s.nodes, id)
				return nil, err
			}
		}
	}
	n.own = from.GetMetadata().GetFields()[build.OwnListeners].GetBoolValue()
	st := &stream{node: n}
	s.streams[key], n.streams[key] = st, st
	return st, nil
}

func (s *Server) closed(key streamKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st, ok := s.streams[key]
	if !ok {
		return
	}
	delete(s.streams, key)
	delete(st.node.streams, key)
	if len(st.node.streams) == 0 {
		delete(s.nodes, st.node.id)
		s.cache.ClearSnapshot(st.node.id)
	}
	s.notify()
}

func (s *Server) response(key streamKey, typeURL, nonce string, u update) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st, ok := s.streams[key]
	i, known := kindOf(typeURL)
	if !ok || !known {
		return
	}
	u.of = s.sent[typeVersion(i, u.version)]
	st.types[i].sent(nonce, u)
}

// accepted notes that a node took one type.
func (s *Server) accepted(n *node, i int, u update) {
	if u.of == nil {
		return // so old that history has dropped it
	}
	u.of.set.acked[i] = true
	if n.serving == u.of && s.has(n, u.of) {
		n.good = u.of
	}
}

// refuse takes back what an Envoy refused: from all when no other Envoy had
// accepted it, else only from this one, which then keeps what it had.
func (s *Server) refuse(n *node, i int, u update, detail string) {
	if u.of == nil {
		return
	}
	bad := u.of.set
	rejection := Rejection{
		At: s.opts.Now(), Node: n.id, Type: shortType(kinds[i].url), Version: bad.version,
		Detail: strings.ToValidUTF8(detail[:min(len(detail), maxDetail)], "?"),
	}
	s.last = &rejection
	s.opts.Log.Error("xds: an Envoy refused its configuration", "node", n.id, "type", rejection.Type,
		"version", rejection.Version, "detail", rejection.Detail)
	if s.opts.OnNACK != nil {
		s.opts.OnNACK(rejection)
	}
	s.again[i]++
	if bad.acked[i] && s.othersHave(n, i, u.of) {
		s.hold(n, &rejection)
		return
	}
	bad.rejected = &rejection
	s.refused[typeVersion(i, bad.versions[i])] = rejection
	s.kept = slices.DeleteFunc(s.kept, func(r retired) bool { return r.from == bad && r.kind == i })
	if s.current.set == bad {
		s.putBack()
	}
}

// othersHave tells that another node has accepted the type as it was sent.
func (s *Server) othersHave(n *node, i int, c *composed) bool {
	for key, st := range s.streams {
		if st.node != n && st.has(i, c, key.delta) && st.types[i].asked {
			return true
		}
	}
	return false
}

// putBack serves the latest set that nobody has refused.
func (s *Server) putBack() {
	for _, c := range slices.Clone(s.history) {
		if c.rejected != nil {
			s.forget(c)
		}
	}
	previous := emptySet()
	if len(s.history) > 0 {
		previous = s.history[len(s.history)-1]
	} else {
		s.remember(previous)
	}
	s.opts.Log.Warn("xds: the previous configuration is put back", "version", previous.version)
	if err := s.serve(previous); err != nil {
		s.opts.Log.Error("xds: cannot put the previous configuration back", "err", err)
	}
}

// hold gives one node back what it had accepted, until the next publication.
func (s *Server) hold(n *node, why *Rejection) {
	n.held = why
	set, kept := emptySet(), []retired(nil)
	if n.good != nil {
		set, kept = n.good.set, s.kept
	}
	c, err := compose(set, kept, s.again)
	if err == nil {
		err = s.give(n, c)
	}
	if err != nil {
		s.opts.Log.Error("xds: cannot hold a node at its configuration", "node", n.id, "err", err)
	}
}
